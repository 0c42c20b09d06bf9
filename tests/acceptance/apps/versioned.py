"""An app whose code a test changes while it runs: the file VERSION has its version."""

from __future__ import annotations

from rq_lite import Queue, current_job
from tests.acceptance.apps.evidence import FOLDER, note, wait_for_gate

version = (FOLDER / "VERSION").read_text()
if version == "broken":
    raise ValueError("this version is broken")
if version == "hanging":
    note("begun", "import")
    wait_for_gate()

work = Queue("work")


@work.task
def do(what: object) -> None:
    note("done", f"{what}:{version}")


if version == "wider":
    wider = Queue("wider")

    @wider.task(retries=1, backoff=0.01)
    def retry_once(what: object) -> None:
        job = current_job()
        assert job is not None
        if job.attempt == 1:
            raise ValueError(what)
        note("done", what)

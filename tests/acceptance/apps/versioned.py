"""An app whose code a test changes while it runs: what stands in the file VERSION is its version."""

from __future__ import annotations

from rq_lite import Queue
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

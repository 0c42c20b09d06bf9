"""An app whose code a test changes while it runs: what stands in the file VERSION is its version."""

from __future__ import annotations

from rq_lite import Queue
from tests.acceptance.apps.evidence import FOLDER, note

version = (FOLDER / "VERSION").read_text()
if version == "broken":
    raise ValueError("this version is broken")

work = Queue("work")


@work.task
def do(what: object) -> None:
    note("done", f"{what}:{version}")

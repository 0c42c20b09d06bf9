"""An app whose import ends when the test opens the gate."""

from __future__ import annotations

from rq_lite import Queue
from tests.acceptance.apps.evidence import note, wait_for_gate

work = Queue("work")


@work.task
def do(what: object) -> None:
    note("done", what)


note("begun", "import")
wait_for_gate()

"""Another app for the same queue."""

from __future__ import annotations

from rq_lite import Queue
from tests.acceptance.apps.evidence import note

work = Queue("work")


@work.task
def do(what: object) -> None:
    note("done", what)

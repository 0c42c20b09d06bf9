"""The app of a run under faults."""

from __future__ import annotations

import time

from rq_lite import Queue

queue = Queue("chaos", maxsize=10_000)


@queue.task
def nap(_number: int, seconds: float) -> None:
    """Sleep for `seconds`; the number makes each job of a run unique."""
    if seconds:
        time.sleep(seconds)

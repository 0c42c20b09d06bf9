"""Tasks that run in batches, for test_batches.py."""

from __future__ import annotations

import os
import time

from rq_lite import Queue
from tests.acceptance.apps.evidence import GATE, note

work = Queue("work")


@work.task(batch=10, batch_wait=0.2)
def hold(those: list[int]) -> None:
    """The first call runs until it is killed."""
    note("begun", len(those))
    while not GATE.exists():
        time.sleep(0.02)
    for one in those:
        note("done", one)


@work.task(batch=10, batch_wait=0.2)
def fragile(those: list[int]) -> None:
    """Dies of element 7."""
    note("calls", len(those))
    if 7 in those:
        os._exit(3)
    for one in those:
        note("done", one)


@work.task(batch=10, batch_wait=0.2, timeout=0.3)
def stuck(those: list[int]) -> None:
    """Holds the loop."""
    note("calls", len(those))
    while True:
        try:
            while True:
                pass
        except BaseException:
            note("swallowed", 1)

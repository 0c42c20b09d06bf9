"""Tasks for the chaos tests."""

from __future__ import annotations

import ctypes
import random
import re
import time

from rq_lite import Queue
from tests.acceptance.apps.evidence import note

work = Queue("work")
chain = Queue("chain", maxsize=2)


@work.task
def nap(what: object) -> None:
    """A short job."""
    note("begun", what)
    time.sleep(random.uniform(0.0, 0.03))
    note("done", what)


@work.task
def nothing(_what: object) -> None:
    """Do nothing, so that only the queue takes time."""


@work.task(timeout=None)
def hog(how: str, seconds: float) -> None:
    """Holds the loop for `seconds`, in one of several ways."""
    note("begun", how)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if how == "c":
            re.match(r"(a+)+$", "a" * 22 + "b")  # the interpreter is held
        elif how == "asleep":
            ctypes.CDLL(None).usleep(200_000)  # the interpreter is free, the loop is not
    note("done", how)


@work.task(timeout=1.0)
def hog_soon(how: str, seconds: float) -> None:
    hog.function(how, seconds)


@work.task(run_in="process")
def compute(what: object) -> None:
    """A short job in an engine."""
    nap.function(what)


@chain.task
def link(n: int) -> None:
    """Puts the next of n links into its own queue, which is full."""
    if n:
        link.put(n - 1)
    note("done", n)


@work.task(unique="{key}")
def once(key: object) -> None:
    """A short job of a key."""
    time.sleep(random.uniform(0.0, 0.03))


@work.task(unique="{key}", on_conflict="replace")
def newest(key: object, number: int) -> None:
    """A short job that newer ones of its key replace."""
    note("begun", f"{key} {number}")
    time.sleep(random.uniform(0.0, 0.03))
    note("done", f"{key} {number}")

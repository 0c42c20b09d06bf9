"""Tasks for the acceptance tests; what they do is read from their evidence."""

from __future__ import annotations

import contextvars
import os
import signal
import subprocess
import sys
import time

import gevent

from rq_lite import Queue
from tests.acceptance.apps.evidence import FOLDER, note, wait_for_gate

work = Queue("work")
high = Queue("high")
low = Queue("low")
tiny = Queue("tiny", maxsize=2)

color = contextvars.ContextVar("color", default="none")


@work.task
def do(what: object) -> None:
    note("done", what)


@work.task
def number(n: int) -> None:
    note("done", n + 0)


@work.task
def row(name: str, size: int) -> None:
    note("done", f"{name}{size + 0}")


@high.task
def do_high(what: object) -> None:
    note("done", f"high-{what}")


@low.task
def do_low(what: object) -> None:
    note("done", f"low-{what}")


@work.task
def hold(what: object) -> None:
    """Runs until the gate opens."""
    note("begun", what)
    wait_for_gate()
    note("done", what)


@work.task
def last(what: object) -> None:
    """Runs for longer than any test."""
    note("begun", what)
    time.sleep(600)
    note("done", what)


@work.task
def stubborn(what: object) -> None:
    """Swallows the first thing that is raised in it."""
    try:
        time.sleep(600)
    except BaseException:
        note("begun", what)
    time.sleep(600)


@work.task
def fail(what: object) -> None:
    note("begun", what)
    raise ValueError(f"cannot do {what}")


@work.task
def end_badly(how: str) -> None:
    note("begun", how)
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "greenlet":
        raise gevent.GreenletExit
    if how == "surrogate":
        raise FileNotFoundError("\udc80")
    if how == "text":
        raise Unspeakable
    end_badly(how)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@work.task
def paint(what: str) -> None:
    note("done", f"{what}:{color.get()}")
    color.set(what)


@work.task
def crash_once(_what: object) -> None:
    """The first run kills its consumer, the second raises."""
    marker = FOLDER / "crashed"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("second run")


@work.task
def crash(what: object) -> None:
    """Every run kills its consumer."""
    note("begun", what)
    os.kill(os.getpid(), signal.SIGKILL)


@work.task
def start_process(_what: object) -> None:
    """Leaves a process running, and goes on."""
    process = subprocess.Popen(["sleep", "600"])
    note("started", process.pid)
    time.sleep(600)


@work.task
def leave_orphan(what: object) -> None:
    """Leaves an ended process behind whose parent has ended before."""
    subprocess.run(["/bin/sh", "-c", "sleep 0.1 & echo"], check=True, capture_output=True)
    note("done", what)


@tiny.task
def spread(n: int) -> None:
    """Puts into its own queue, n at once, whether there is room or not."""
    for _ in range(n):
        spread.put(0)
    note("done", n)

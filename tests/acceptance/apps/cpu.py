"""Tasks that run in threads and in processes, for the acceptance tests, which read their evidence."""

from __future__ import annotations

import contextvars
import ctypes
import datetime
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from rq_lite import Bury, Queue, Retry, current_job
from tests.acceptance.apps.evidence import FOLDER, note, wait_for_gate

if (FOLDER / "broken").exists() and "rq_lite.consumer.offload.engine" in " ".join(sys.orig_argv):
    raise RuntimeError("it cannot be imported now")

work = Queue("work")
color = contextvars.ContextVar("color", default="none")
KINDS = ("process", "thread")


def both(**options: Any) -> Callable[[Callable[..., object]], None]:
    """Register the function as two tasks: `NAME_process` and `NAME_thread`."""

    def register(function: Callable[..., object]) -> None:
        for kind in KINDS:
            decorate: Any = work.task(run_in=kind, name=f"{__name__}:{function.__name__}_{kind}", **options)
            decorate(function)

    return register


@work.task
def do(what: object) -> None:
    note("done", what)


@work.task
def hold_here(what: object) -> None:
    note("begun", what)
    wait_for_gate()
    note("done", what)


@work.task(timeout=0.3)
def late_here(what: object) -> None:
    time.sleep(600)


@both()
def away(what: object) -> None:
    note("done", what)


@both()
def typed(when: datetime.datetime) -> None:
    note("done", (when + datetime.timedelta(days=1)).isoformat())


@both()
def long(text: str) -> str:
    note("done", len(text))
    return text[::-1]


@both(retries=2)
def result(kind: str) -> object:
    note("begun", kind)
    return {"plain": [1, 2.5, None, "ä"], "no number": float("nan"), "object": object()}[kind]


@both()
def tomorrow(day: datetime.date) -> datetime.date:
    return day + datetime.timedelta(days=1)


@both()
def hold(what: object) -> None:
    note("begun", what)
    wait_for_gate()
    note("done", what)


@both(timeout=0.3)
def brief(what: object) -> None:
    note("done", what)


@both()
def paint(what: str) -> None:
    note("done", f"{what}:{color.get()}")
    color.set(what)


@both()
def fail(what: object) -> None:
    note("begun", what)
    raise ValueError(f"cannot do {what}")


@both()
def end_badly(how: str) -> None:
    note("begun", how)
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "text":
        raise Unspeakable
    endless(how)


def endless(how: str) -> None:
    endless(how)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@both(retries=5, retry_on=(ConnectionError,), no_retry_on=(ConnectionRefusedError,), backoff=0)
def picky(what: str) -> None:
    note("begun", what)
    kinds = {"reset": ConnectionResetError, "refused": ConnectionRefusedError, "value": ValueError}
    raise kinds[what](what)


@both(retries=2)
def again(what: str) -> None:
    note("begun", what)
    raise Retry("not yet", delay=0)


@both(retries=5)
def hopeless(what: str) -> None:
    note("begun", what)
    raise Bury(f"{what} cannot be helped")


@both(timeout=0.3)
def compute(what: object) -> None:
    """Runs until it is interrupted."""
    note("begun", what)
    try:
        while True:
            pass
    finally:
        note("ended", what)


@both(timeout=0.3)
def swallow(what: object) -> None:
    swallow_all(what)


@both(timeout=600)
def swallow_long(what: object) -> None:
    swallow_all(what)


def swallow_all(what: object) -> None:
    """Goes on, whatever is raised in it."""
    note("begun", what)
    while True:
        try:
            while True:
                pass
        except BaseException:
            note("swallowed", what)


@both(timeout=600)
def compute_long(what: object) -> None:
    note("begun", what)
    while True:
        pass


@both()
def poison(how: str) -> None:
    note("begun", how)
    if how == "exit":
        os._exit(0)
    if how == "abort":
        os.abort()
    if how == "forked":
        if not os.fork():
            time.sleep(600)
        os._exit(0)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


@both(timeout=600)
def introduce(what: object) -> None:
    """Notes its own `current_job`; then reports progress very often."""
    job = current_job()
    assert job is not None
    left = job.remaining() or 0
    note("job", f"{job.id} {job.queue} {job.task.rpartition(':')[2]} {job.attempt} {500 < left <= 600}")
    for n in range(1000):
        job.progress(n + 1, 2000, f"half of {what}")
    note("begun", what)
    wait_for_gate()
    job.progress(2000, 2000)


@both()
def babble(what: object) -> None:
    """Writes garbage to every stream that might be its engine's channel to the consumer."""
    for number in range(3):
        try:
            os.write(number, bytes(range(256)) * 100)
        except OSError:
            note("refused", number)
    print("\x00\x00\x00\x01{}" * 100)
    note("done", sys.stdin.read() if sys.stdin else "")


@both()
def leak(_what: object) -> None:
    LEAKED.append(os.urandom(1000) * 120_000)
    note("done", "leak")


LEAKED: list[bytes] = []


@both()
def spread(n: int) -> None:
    """Puts into its own queue."""
    for i in range(n):
        do.put(i)


@both()
def thread_in_it(what: object) -> None:
    """Leaves a thread behind that never ends."""
    threading.Thread(target=threading.Event().wait).start()
    note("done", what)


@work.task(run_in="process")
def fork_and_return(n: int) -> tuple[int, int]:
    """Both processes reach the end of the job."""
    return n, os.fork()


@work.task(run_in="process")
def same(n: int) -> int:
    return n

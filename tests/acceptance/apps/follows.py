"""Tasks whose runs say what follows them."""

from __future__ import annotations

import os
import signal

from rq_lite import Queue, current_job
from rq_lite.client.current import CurrentJob
from tests.acceptance.apps.evidence import note

work = Queue("work", maxsize=20)
other = Queue("follows", maxsize=3)  # that no program has declared before


def here() -> CurrentJob:
    job = current_job()
    assert job is not None
    return job


@other.task
def leaf(what: str) -> None:
    note("leaves", what)


@work.task
def branch(depth: int, name: str = "") -> None:
    note("branches", f"/{name}")
    for side in "lr" if depth else "":
        here().then(branch.s(depth - 1, name=name + side))


@work.task(run_in="thread")
def in_thread(_: int) -> None:
    here().then(leaf.s("of a thread"))


@work.task(run_in="process", result_ttl=60)
def in_process(_: int) -> int:
    here().then(leaf.si("of a process"))
    return 5


@work.task(retries=1, backoff=0)
def fails_once(_: int) -> None:
    attempt = here().attempt
    here().then(leaf.s(f"of attempt {attempt}"))
    if attempt == 1:
        raise ValueError("not yet")


@work.task
def fails(_: int) -> None:
    here().then(leaf.s("of a failure"))
    raise ValueError("never")


@work.task
def dies_once(_: int) -> None:
    attempt = here().attempt
    here().then(leaf.s(f"of life {attempt}"))
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@work.task
def many(count: int) -> None:
    for n in range(count):
        here().then(leaf.s(f"leaf {n}"))


@work.task
def large(_: int) -> None:
    here().then(leaf.s("x" * 600_000))
    here().then(leaf.s("x" * 600_000))

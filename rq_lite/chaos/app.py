"""The app of a run under faults."""

from __future__ import annotations

import time

from rq_lite import Queue, current_job, events
from rq_lite.client.current import CurrentJob

queue = Queue("chaos", maxsize=10_000)


@queue.task
def nap(_number: int, seconds: float) -> None:
    """Sleep for `seconds`; the number makes each job of a run unique."""
    if seconds:
        time.sleep(seconds)


@queue.task(unique="{key}")
def once(key: int, seconds: float) -> None:
    """One of a key, until its end."""
    nap.function(key, seconds)


@queue.task(unique="{key}", until="start")
def once_waiting(key: int, seconds: float) -> None:
    """One of a key, until its start."""
    nap.function(key, seconds)


@queue.task
def lead(number: int, seconds: float) -> None:
    """One job follows each accepted run; its arguments say which run that was."""
    job = here()
    following = job.then(follow.s(job.id, job.attempt))
    events.emit("then", None, queue=job.queue, job=job.id, attempt=job.attempt, following=following.id)
    nap.function(number, seconds)


@queue.task
def follow(of: str, attempt: int) -> None:
    events.emit("followed", None, job=here().id, of=of, attempt=attempt)


def here() -> CurrentJob:
    job = current_job()
    assert job is not None
    return job

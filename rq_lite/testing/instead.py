"""Instead of going to Redis, jobs are run at once, or kept."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import Any

import msgspec

from rq_lite.broker.codec import decode
from rq_lite.errors import UsageError
from rq_lite.outcome import Bury, Retry
from rq_lite.process import this
from rq_lite.queue import Queue
from rq_lite.task import Options, Task, registry
from rq_lite.testing.puts import PutJob, arguments_of, job_of

# What a job may raise that is the job's own; Ctrl-C, and what a test framework raises to end a test, is not.
FAILURES = (Exception, SystemExit)


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was run inline: what it returned, or what it raised in its last attempt."""

    job: PutJob
    value: Any = None
    error: BaseException | None = None
    attempts: int = 1


@contextmanager
def inline(*, raises: bool = True) -> Iterator[list[Ran]]:
    """Puts run their job at once, in this process, and need no Redis; also as a decorator. Yields what was run.

    The arguments go through JSON, are checked and restored as on their way through Redis. A job that raises is tried
    again as its task says, without the pauses; what would be buried is raised by the put, after the other jobs of the
    same put; with `raises=False` it is only kept in what this yields. What a job puts is run after it. Not looked at:
    bounds, delays, timeouts, priorities.
    """
    runs = Inline(raises)
    with put_to(runs):
        yield runs.ran


@contextmanager
def recorded() -> Iterator[list[PutJob]]:
    """Puts are kept, and go nowhere: they need no Redis; also as a decorator. Yields what was put."""
    record = Record()
    with put_to(record):
        yield record.puts


@contextmanager
def put_to(instead: Record) -> Iterator[None]:
    before, this.instead = this.instead, instead
    try:
        yield
    finally:
        this.instead = before


class Record:
    """Takes the entries that would go to Redis."""

    def __init__(self) -> None:
        self.puts: list[PutJob] = []

    def __call__(self, queue: Queue, entries: Sequence[bytes], options: Options) -> int:
        self.note(queue, entries, options)
        return len(entries)

    def note(self, queue: Queue, entries: Sequence[bytes], options: Options) -> list[PutJob]:
        jobs = [job_of(queue, entry, delay=options.delay) for entry in entries]
        self.puts += jobs
        return jobs


class Inline(Record):
    """Runs them, in the thread that puts."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.ran: list[Ran] = []
        self._raises = raises
        self._here = threading.local()

    def __call__(self, queue: Queue, entries: Sequence[bytes], options: Options) -> int:
        noted = self.note(queue, entries, options)
        jobs = [(job, queue, entry) for job, entry in zip(noted, entries, strict=True)]
        waiting: deque[tuple[PutJob, Queue, bytes]] | None = getattr(self._here, "waiting", None)
        if waiting is not None:  # this is a job that puts
            waiting.extend(jobs)
            return len(entries)
        self._here.waiting = waiting = deque(jobs)
        failures = []
        try:
            while waiting:
                ran = run(*waiting.popleft())
                self.ran.append(ran)
                failures += [ran.error] if ran.error is not None else []
        finally:
            self._here.waiting = None
        if failures and self._raises:
            raise failures[0]
        return len(entries)


def run(job: PutJob, queue: Queue, entry: bytes) -> Ran:
    """All attempts of one job."""
    task = registry.tasks.get(job.task)
    if task is None:
        raise UsageError(f"inline: no task {job.task!r} is known here; import the module that defines it")
    error: BaseException | None = None
    most = 1 + job.options.get("retries", task.policy.retries)
    for attempt in range(1, most + 1):
        # Decoded anew each time: what an attempt did to its arguments, the next does not see.
        message = decode(queue.broker.opened(queue.name, entry))[0]
        try:
            args, kwargs = arguments_of(message)
            value = Context().run(task.function, *args, **kwargs)
        except FAILURES as raised:
            error = raised
            if attempt == most or not is_retried(task, raised):
                return Ran(job=job, error=raised, attempts=attempt)
        else:
            return Ran(job=job, value=value, attempts=attempt)
    raise AssertionError(error)


def is_retried(task: Task[Any, Any], error: BaseException) -> bool:
    return not isinstance(error, Bury) and (isinstance(error, Retry) or task.policy.is_retried(error))

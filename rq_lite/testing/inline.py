"""Instead of going to Redis, jobs are run at once, or kept."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from rq_lite.client.current import CurrentJob, Progress
from rq_lite.client.defaults import defaults
from rq_lite.client.job import Job
from rq_lite.client.queue import Queue
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.consumer.run import call
from rq_lite.errors import UsageError
from rq_lite.model import completion
from rq_lite.model.failure import is_final
from rq_lite.model.message import Message, decode, is_tracked
from rq_lite.model.outcome import Buried, Finished
from rq_lite.model.policy import Options
from rq_lite.model.retry import Failure
from rq_lite.testing.puts import PutJob, arguments_of, job_of

# What a job may raise that is the job's own; Ctrl-C, and what a test framework raises to end a test, is not.
FAILURES = (Exception, SystemExit)


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was run inline: what it returned, or what it raised in its last attempt."""

    job: PutJob
    value: Any = None
    error: BaseException | None = None
    attempts: int = 1
    progress: Progress | None = None  # what it said last


@contextmanager
def inline(*, raises: bool = True) -> Iterator[list[Ran]]:
    """Puts run their job at once, in this process, and need no Redis; also as a decorator. Yields what was run.

    The arguments go through JSON, are checked and restored as on their way through Redis, and so do results; callbacks
    are run, too. A job that raises is tried again as its task says, without the pauses; what would be buried is raised
    by the put, after the other jobs of the same put; with `raises=False` it is only kept in what this yields. What a
    job puts is run after it. Plain items are only kept. Not looked at: bounds, delays, timeouts, priorities.
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
    before, defaults.instead = defaults.instead, instead
    try:
        yield
    finally:
        defaults.instead = before


class Record:
    """Takes the entries that would go to Redis."""

    def __init__(self) -> None:
        self.puts: list[PutJob] = []

    def __call__(self, queue: Queue, entries: Sequence[bytes], options: Options) -> int:
        self.note(queue, entries, options)
        return len(entries)

    def note(self, queue: Queue, entries: Sequence[bytes], options: Options) -> list[PutJob]:
        jobs = [job_of(queue, entry, delay=options.delay, at=options.at) for entry in entries]
        self.puts += jobs
        return jobs

    def watch(self, jobs: Sequence[Job]) -> None:
        raise UsageError(f"recorded: job {jobs[0].id} of {jobs[0].task} is kept, and not run: it has no result")


class Waiting(NamedTuple):
    """A job that is to be run."""

    job: PutJob
    queue: Queue
    entry: bytes


class Turn(threading.local):
    """What a thread has under way."""

    waiting: deque[Waiting] | None = None
    failures: list[BaseException]  # of this turn


class Inline(Record):
    """Runs them, in the thread that puts."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.ran: list[Ran] = []
        self._raises = raises
        self._turn = Turn()
        self._results: dict[str, bytes] = {}  # by id, as JSON

    def __call__(self, queue: Queue, entries: Sequence[bytes], options: Options) -> int:
        noted = zip(self.note(queue, entries, options), entries, strict=True)
        jobs = [Waiting(job, queue, entry) for job, entry in noted if job.task]
        turn = self._turn
        if turn.waiting is not None:  # this is a job that puts
            turn.waiting.extend(jobs)
            return len(entries)
        turn.waiting = waiting = deque(jobs)
        failures: list[BaseException] = []
        turn.failures = failures
        try:
            while waiting:
                self._run(waiting.popleft())
        finally:
            turn.waiting = None
        if failures and self._raises:
            raise failures[0]
        return len(entries)

    def _run(self, one: Waiting) -> None:
        ran, message = run(*one)
        self.ran.append(ran)
        if ran.error is not None:
            self._turn.failures.append(ran.error)
        if not is_tracked(message):
            return
        finished = ended(ran, message, one.queue)
        self._results[message.id] = b'{"state":"%s",%s}' % (finished.state.encode(), finished.detail or b'"value":null')
        for name, entry in finished.puts:
            queue = registry.queues.get(name) or Queue(name, broker=one.queue.sender.chosen_broker)
            self(queue, [entry], Options())

    def watch(self, jobs: Sequence[Job]) -> None:
        """Somebody asks for their results: those that wait behind the job that asks are run now."""
        for job in jobs:
            waiting = [one for one in self._turn.waiting or () if one.job.id == job.id]
            for one in waiting:
                assert self._turn.waiting is not None
                self._turn.waiting.remove(one)
                self._run(one)
            if job.id not in self._results:
                raise UsageError(f"inline: job {job.id} of {job.task} was not put within this block: it has no result")
            job.hear(self._results[job.id])


def run(job: PutJob, queue: Queue, entry: bytes) -> tuple[Ran, Message]:
    """All attempts of one job."""
    task = registry.tasks.get(job.task)
    if task is None:
        raise UsageError(f"inline: no task {job.task!r} is known here; import the module that defines it")
    attempt = 0
    said: list[Progress] = []
    while True:
        attempt += 1
        # Decoded anew each time: what an attempt did to its arguments, the next does not see.
        message = decode(queue.broker.core.opened(queue.name, entry))[0]
        try:
            args, kwargs = arguments_of(message)
            value = call(task, args, kwargs, current(message, task, attempt, said))
            completion.encoded(message, value, task.arguments, queue.sender.settings.max_result)
        except FAILURES as error:
            retries = task.policy.retries if message.retries is None else message.retries
            if attempt > retries or is_final(task.policy, error):
                return Ran(job=job, error=error, attempts=attempt, progress=said[-1] if said else None), message
        else:
            return Ran(job=job, value=value, attempts=attempt, progress=said[-1] if said else None), message


def current(message: Message, task: Task[Any, Any], attempt: int, said: list[Progress]) -> CurrentJob:
    """What `current_job` gives it."""
    timeout = task.policy.timeout if message.timeout is None else message.timeout
    deadline = None if timeout is None else time.time() + timeout
    return CurrentJob(
        id=message.id, queue=task.queue.name, task=task.name, attempt=attempt, deadline=deadline, tell=said.append
    )


def ended(ran: Ran, message: Message, queue: Queue) -> Finished:
    """What a worker would tell Redis of it."""
    task = registry.tasks[message.task]
    puts = completion.Puts(
        lambda name: registry.tasks[name].says if name in registry.tasks else {}, queue.broker.core.seal
    )
    if ran.error is None:
        text = completion.encoded(message, ran.value, task.arguments, queue.sender.settings.max_result)
        return completion.done(message, queue.name, ran.attempts, text, puts)
    said = f"{type(ran.error).__name__}: {ran.error}".removesuffix(": ")
    failure = Failure(said, "".join(traceback.format_exception(ran.error)))
    return completion.given_up(message, queue.name, ran.attempts, failure, Buried(b""), puts)

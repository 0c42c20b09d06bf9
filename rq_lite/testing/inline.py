"""Jobs that are run at once, or recorded, instead of being put into Redis."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from rq_lite.client.current import CurrentJob, Progress
from rq_lite.client.defaults import defaults
from rq_lite.client.job import Job
from rq_lite.client.put import Sender, Verdicts
from rq_lite.client.queue import Queue
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.consumer.run import Attempt, Outcomes, chances, failed, run_batch, runner
from rq_lite.errors import UsageError
from rq_lite.model.batch import BatchArguments
from rq_lite.model.message import FOR_A_TIME, FOR_EVER, REPLACES, bare, decode, id_in, parse
from rq_lite.model.outcome import Finished, Outcome, Retried
from rq_lite.model.policy import FOREVER
from rq_lite.model.put_options import Options
from rq_lite.testing.puts import PutJob, job_of

# What counts as a job's failure; Ctrl-C, and what a test framework raises to end a test, do not.
FAILURES = (Exception, SystemExit)


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was run inline: what it returned, or what it raised in its last attempt."""

    job: PutJob
    value: Any = None
    error: BaseException | None = None
    attempts: int = 1
    progress: Progress | None = None  # the last progress that it reported


@contextmanager
def inline(*, raises: bool = True) -> Iterator[list[Ran]]:
    """Run each job at once when it is put, in this process, without Redis; also as a decorator. Yields what was run.

    Arguments and results are converted to JSON and back, and checked, as on their way through Redis; callbacks
    are run, too. A job that raises is tried again as its task says, without the pauses. The put raises the error of
    a job that would be buried, after the other jobs of the same put; with `raises=False` the error is only in the list.
    Jobs that a job puts are run after it; a job of a task with `batch` is a batch of one. Plain items are only
    recorded. Ignored: bounds, delays, timeouts, priorities.
    """
    runs = Inline(raises)
    with put_to(runs):
        yield runs.ran


@contextmanager
def recorded() -> Iterator[list[PutJob]]:
    """Record puts instead of storing them, without Redis; also as a decorator. Yields what was put."""
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
    """Records the entries that would go to Redis."""

    def __init__(self) -> None:
        self.puts: list[PutJob] = []
        self._locks: dict[tuple[str, bytes], str] = {}  # by queue and name: the id of the unique job that holds it

    def __call__(
        self, queue: Sender, entries: Sequence[bytes], options: Options, verdicts: Verdicts | None = None
    ) -> int:
        self.note(queue, self.admitted(queue, entries, verdicts), options)
        return len(entries)

    def admitted(self, queue: Sender, texts: Sequence[bytes], verdicts: Verdicts | None) -> list[bytes]:
        """The entries of those that no lock keeps out."""
        entries: list[bytes] = []
        for number, text in enumerate(texts):
            name, entry = lock_in(text), bare(text)
            holder = None if name is None else self._locks.get((queue.name, name))
            if holder is None or text[:1] == REPLACES:
                if holder is not None:
                    self.replace(holder, entries)
                entries.append(entry)
                if name is not None:
                    self._locks[queue.name, name] = str(id_in(entry))
            elif verdicts is not None:
                verdicts.keep_out(verdicts.seen + number, "" if text[:1] == FOR_EVER else holder)
        if verdicts is not None:
            verdicts.seen += len(texts)
        return entries

    def replace(self, holder: str, batch: list[bytes]) -> None:
        """Let the job with this id, which may be one of the same batch, give way to a newer one."""
        batch[:] = [entry for entry in batch if id_in(entry) != holder]
        self.puts[:] = [job for job in self.puts if job.id != holder]

    def note(self, queue: Sender, entries: Sequence[bytes], options: Options) -> list[PutJob]:
        jobs = [job_of(queue, entry, delay=options.delay, at=options.at) for entry in entries]
        self.puts += jobs
        return jobs

    def watch(self, jobs: Sequence[Job]) -> None:
        raise UsageError(f"recorded: job {jobs[0].id} of {jobs[0].task} is recorded, not run: it has no result")


class Waiting(NamedTuple):
    """A job that waits to be run."""

    job: PutJob
    queue: Sender
    entry: bytes


class Turn(threading.local):
    """The jobs that a thread has to run, while it runs some."""

    waiting: deque[Waiting] | None = None
    failures: list[BaseException]  # of this turn


class Inline(Record):
    """Runs the jobs, in the thread that puts them."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.ran: list[Ran] = []
        self._raises = raises
        self._turn = Turn()
        self._results: dict[str, bytes] = {}  # by id, as JSON

    def __call__(
        self, queue: Sender, entries: Sequence[bytes], options: Options, verdicts: Verdicts | None = None
    ) -> int:
        fresh = self.admitted(queue, entries, verdicts)
        noted = zip(self.note(queue, fresh, options), fresh, strict=True)
        jobs = [Waiting(job, queue, entry) for job, entry in noted if job.task]
        turn = self._turn
        if turn.waiting is not None:  # a running job puts these
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
        lock = lock_in(one.entry)
        if lock is not None and lock[:1] == b"s":
            self._unlock(one, lock)
        ran, outcome = run(*one)
        self.ran.append(ran)
        if lock is not None and lock[:1] == b"e":
            self._unlock(one, lock)
        if ran.error is not None:
            self._turn.failures.append(ran.error)
        if not isinstance(outcome, Finished):
            return
        self._results[ran.job.id] = b'{"state":"%s",%s}' % (outcome.state.encode(), outcome.detail or b'"value":null')
        for name, entry in outcome.puts:
            queue = registry.queues.get(name) or Queue(name, broker=one.queue.chosen_broker)
            self(queue.sender, [entry], Options())

    def _unlock(self, one: Waiting, lock: bytes) -> None:
        if self._locks.get((one.queue.name, lock)) == one.job.id:
            del self._locks[one.queue.name, lock]

    def replace(self, holder: str, batch: list[bytes]) -> None:
        """A job that waits gives way; one that runs goes on, and the newer one comes after it."""
        waiting = [one for one in self._turn.waiting or () if one.job.id == holder]
        for one in waiting:
            assert self._turn.waiting is not None
            self._turn.waiting.remove(one)
        if waiting or any(id_in(entry) == holder for entry in batch):
            super().replace(holder, batch)
            self._results[holder] = b'{"state":"replaced"}'

    def watch(self, jobs: Sequence[Job]) -> None:
        """Give these jobs their results; those that wait behind the job that asks are run now. Raises UsageError."""
        for job in jobs:
            waiting = [one for one in self._turn.waiting or () if one.job.id == job.id]
            for one in waiting:
                assert self._turn.waiting is not None
                self._turn.waiting.remove(one)
                self._run(one)
            if job.id not in self._results:
                raise UsageError(f"inline: job {job.id} of {job.task} was not put within this block: it has no result")
            job.hear(self._results[job.id])


def lock_in(text: bytes) -> bytes | None:
    """The lock that a put of this text asks for, with its mode; None: none."""
    if text[:1] == FOR_EVER:
        return text[:17]
    if text[:1] == FOR_A_TIME:
        return b"t:" + text.split(b" ", 3)[2]
    head = parse(bare(text))
    return None if head is None else head.unique


def run(job: PutJob, queue: Sender, entry: bytes) -> tuple[Ran, Outcome]:
    """Run all attempts of one job; returns also the outcome that a worker would settle after the last."""
    task = registry.tasks.get(job.task)
    if task is None:
        raise UsageError(f"inline: no task {job.task!r} is known here; import the module that defines it")
    outcomes = Outcomes(registry.tasks, "inline", queue.broker.core.seal, queue.settings.max_result)
    said: list[Progress] = []
    for before in itertools.count():
        # Decoded for each attempt, so that none sees what an earlier one did to the arguments.
        message = decode(queue.broker.core.opened(queue.name, entry))[0]
        attempt = Attempt(message, queue.name, before, 0)
        timeout = task.policy.timeout if message.timeout is None else message.timeout
        error, value, began = None, None, time.monotonic()
        try:
            here = current(attempt, timeout, said)
            value = run_once(task, attempt, here)
            outcome: Outcome = outcomes.returned(attempt, task, value, follow_ups=here.take_follow_ups())
        except FAILURES as raised:
            error = raised
            failure = failed(error, timeout or FOREVER, time.monotonic() - began)
            outcome, _ = outcomes.raised(attempt, chances(task.policy, error), failure)
        if not isinstance(outcome, Retried):
            progress = said[-1] if said else None
            return Ran(job=job, value=value, error=error, attempts=attempt.number, progress=progress), outcome
    raise AssertionError("attempts never end")


def run_once(task: Task[Any, Any], attempt: Attempt, current: CurrentJob) -> Any:
    """One attempt; of a task with `batch` a batch of this job."""
    message, arguments = attempt.message, task.arguments
    if not isinstance(arguments, BatchArguments):
        return runner()(task, message, current)
    (ran,) = run_batch(task, [attempt], [arguments.element(message.args, message.kwargs)])
    return ran.result()


def current(attempt: Attempt, timeout: float | None, said: list[Progress]) -> CurrentJob:
    """What `current_job` returns in this attempt."""
    return CurrentJob(
        id=attempt.message.id,
        queue=attempt.queue,
        task=attempt.message.task,
        attempt=attempt.number,
        deadline=None if timeout is None else time.time() + timeout,
        tell=said.append,
        tags=attempt.message.tags,
    )

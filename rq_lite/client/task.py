"""Tasks: functions that jobs name, and how their jobs are put."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Required, TypedDict, TypeVar, Unpack

import msgspec

from rq_lite.client.batches import each_of
from rq_lite.client.defaults import defaults
from rq_lite.client.job import Job
from rq_lite.client.put import Verdicts
from rq_lite.client.registry import registry
from rq_lite.client.signature import Signature
from rq_lite.client.unique import Claims, claims_of
from rq_lite.errors import Duplicate, PayloadTooLarge, UsageError, counted
from rq_lite.logs import logger
from rq_lite.model.arguments import IMPORT, Arguments, innermost
from rq_lite.model.batch import arguments_of
from rq_lite.model.definition import Again, check_plain
from rq_lite.model.message import VERSION, Message, entry_of, new_id, version_of
from rq_lite.model.option import documented
from rq_lite.model.policy import AnyTask, Policy, Types, nanoseconds
from rq_lite.model.put_options import OF_PUT, Extras, Options, extras_of, options_of_put
from rq_lite.model.schedule import Recurrence, Schedule, defined, job_id
from rq_lite.model.unique import digest, name_of_key

if TYPE_CHECKING:
    from rq_lite.client.queue import Queue

log = logger("rq_lite")

P = ParamSpec("P")
R = TypeVar("R")


class EitherOptions(TypedDict, total=False):
    """What both `task` and `using` take; the modules of `model/` say what each option means."""

    retries: int
    result_ttl: float | None
    unique: str | None
    until: str | float | timedelta
    on_conflict: str
    max_wait: float | timedelta | None
    on_success: Task[Any, Any] | None
    on_failure: Task[Any, Any] | None
    on_done: Task[Any, Any] | None
    tags: Sequence[str]


class TaskOptions(EitherOptions, total=False):
    """What `@queue.task(…)` takes."""

    name: str | None
    max_crashes: int | None
    timeout: float | None
    backoff: float
    backoff_max: float
    retry_on: Types | None
    no_retry_on: Types | None
    run_in: str
    cron: str | None
    every: float | timedelta | None
    tz: str
    missed: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class BatchTaskOptions(TaskOptions, total=False):
    """What `@queue.task(batch=…)` takes."""

    batch: Required[int]
    batch_wait: float


class PutOptions(EitherOptions, total=False):
    """What `using(…)` takes."""

    timeout: float
    delay: float | timedelta
    at: datetime | None
    wait: float | None
    priority: float
    id: str | None
    expires: float | timedelta | datetime | None


class Task(AnyTask, Generic[P, R]):
    """A function and the queue its jobs go to. Calling it calls the function, here and now."""

    def __init__(
        self, function: Callable[P, R], queue: Queue, name: str, policy: Policy, again: Again | None = None
    ) -> None:
        check_plain(name, function)
        if policy.batch is not None:
            arguments_of(name, function, policy.batch)  # refused here, not with the first put
        functools.update_wrapper(self, function)
        self.function: Callable[P, R] = function
        self.queue: Queue = queue
        self.name = name
        self.policy = policy
        self.again = again
        self.timeout_ns = nanoseconds(policy.timeout)
        self.elsewhere = policy.run_in != "greenlet" or policy.batch is not None
        self._read: list[Arguments] = []  # filled on first use, shared with the tasks that `using` makes of this one
        self._options = Options()
        self._extras = extras_of(policy, self._options)
        self._claims = claims_of(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name} on queue {self.queue.name!r}>"

    @property
    def says(self) -> dict[str, Any]:
        """The fields that its puts add to the message, beside name and arguments."""
        return self._extras.fields

    def __reduce__(self) -> tuple[Any, ...]:
        """By name, as functions are pickled, with the options that `using` gave it."""
        path = getattr(self.function, "__qualname__", "")
        return _unpickled, (innermost(self.function).__module__, path, self.name, self._options)

    @functools.cached_property
    def arguments(self) -> Arguments:
        if not self._read:
            self._read.append(arguments_of(self.name, self.function, self.policy.batch))
            for parameter, why in self._read[0].unread.items():
                log.warning(
                    "task %s: parameter %r: %s, so its values are not restored from JSON; %s",
                    self.name,
                    parameter,
                    why,
                    IMPORT,
                )
        return self._read[0]

    @property
    def schedule(self) -> Schedule | None:
        """The schedule that a worker writes to Redis; None without `cron=` or `every=`. Raises as `put` does."""
        return None if self.again is None else self.scheduled(*self.again)

    def scheduled(self, when: Recurrence, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Schedule:
        """A schedule that puts this task with these arguments; raises as `put` does."""
        self.arguments.check(args, kwargs)
        self.encoded(tuple(args), dict(kwargs), job_id(self.name, 0))  # refused here, not each time it is due
        job = self._extras.fields
        if self._claims is not None:
            job = {**job, **self._claims.of_schedule(tuple(args), dict(kwargs))}
        return defined(when, self.queue.name, self.name, args, kwargs, job=job)

    # -- producing

    @documented(OF_PUT)
    def using(self, **options: Unpack[PutOptions]) -> Task[P, R]:
        """The same task with options for its puts."""
        if "priority" in options and self.queue.order != "priority":
            raise UsageError(f"task {self.name}: priority= needs a PriorityQueue; {self.queue!r} is not one")
        return self._with(options_of_put(options))

    def _with(self, options: Options) -> Task[P, R]:
        task: Task[P, R] = object.__new__(type(self))  # copy.copy would look it up by name, as pickle does
        task.__dict__.update(self.__dict__)
        task._options = options
        task._extras = extras_of(self.policy, options)
        task._claims = claims_of(task)
        return task

    def onto(self, queue: Queue, result_ttl: float | None) -> Task[P, R]:
        """The same task with its jobs on another queue, and with this `result_ttl` if it has none of its own."""
        options = self._options
        if "result_ttl" not in self.says:
            options = msgspec.structs.replace(options, policy={**options.policy, "result_ttl": result_ttl})
        task = self._with(options)
        task.queue = queue
        return task

    def put(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Put a job; waits while the queue is full.

        Raises QueueFull after the wait, BadArgument and PayloadTooLarge for what can never be put, and
        BrokerError when Redis does not answer.
        """
        return self._put_one(args, kwargs, self._options.wait)

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """The task with arguments, to be put later: `current_job().then(task.s(…))`."""
        return Signature(self, args, kwargs, takes_input=True)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """Like `s`, for a job that takes nothing from the step before it."""
        return Signature(self, args, kwargs, takes_input=False)

    @property
    def put_options(self) -> Options:
        """The options of its puts."""
        return self._options

    def put_nowait(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Put a job, or raise QueueFull at once."""
        return self._put_one(args, kwargs, 0.0)

    def put_many(self, items: Iterable[Any]) -> int:
        """Put a job for each item, lazily, in batches, waiting for room; how many were put.

        An item is the task's one argument, even if it is a list or a dict; a tuple holds several. The lines of a text
        file come without their line ends. Raises as `put` does (the error's `put` is how many were put before), and
        UsageError for a str or bytes.
        """
        verdicts = Verdicts()
        count = self.queue.sender.put_all(self._entries(each_of(items)), self._options, verdicts)
        if verdicts.kept_out and self._claims is not None and self._claims.on_conflict == "raise":
            holder = next(iter(verdicts.kept_out.values()))
            error = Duplicate(
                f"{counted(len(verdicts.kept_out), 'job')} of task {self.name} were there already; the others were put",
                job=self.job(holder) if holder else None,
            )
            error.put = count
            raise error
        return count - len(verdicts.kept_out)

    def forget(self, key: str) -> bool:
        """Let a job with this key be put again, though `until` is "forever" or seconds; False if none was remembered.

        A key is what the template of `unique` makes of the arguments.
        """
        name = name_of_key(self.name, key)
        return self.queue.broker.puts.forget(self.queue.name, name, digest(name))

    def put_jobs(self, items: Iterable[tuple[Any, ...]]) -> list[Job]:
        """Put a job for each tuple of arguments, in batches, waiting for room. Raises as `put` does."""
        jobs, entries, verdicts = [], [], Verdicts()
        for args in items:
            job_id = new_id()
            self.arguments.check(args, {})
            entries.append(self.encoded(args, {}, job_id))
            jobs.append(self.job(job_id, args))
        self.queue.sender.put_all(entries, self._options, verdicts)
        return [self._judged(job, number, verdicts) for number, job in enumerate(jobs)]

    def _put_one(self, args: tuple[Any, ...], kwargs: dict[str, Any], wait: Any) -> Job:
        job_id = self._options.id or new_id()
        self.arguments.check(args, kwargs)
        entry = self.encoded(args, kwargs, job_id)
        verdicts = Verdicts()
        self.queue.sender.put_entries([entry], self._options, wait=wait, verdicts=verdicts)
        job = self.job(job_id, args, kwargs)
        return job if verdicts.all_went_in else self._judged(job, 0, verdicts)

    def _judged(self, job: Job, number: int, verdicts: Verdicts) -> Job:
        """The job that was put, or the one that kept it out. Raises Duplicate, if that was asked for."""
        if number in verdicts.dropped:
            job.was_dropped = True
        holder = verdicts.kept_out.get(number)
        if holder is None:
            return job
        assert self._claims is not None
        there = self.job(holder) if holder else None
        if self._claims.on_conflict == "raise":
            raise Duplicate(f"{self._claims.said()} is there already", job=there)
        found = there or job
        found.duplicate = True
        return found

    def job(self, job_id: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Job:
        """A handle for a job of this task, also for one that another process has put."""
        fields = self._extras.fields
        job = Job(
            id=job_id,
            queue=self.queue.name,
            task=self.name,
            args=args,
            kwargs=kwargs,
            broker=self.queue.sender.chosen_broker,
            result_ttl=fields.get("result_ttl"),
            returns=self.arguments.returns,
        )
        if "tags" in fields:
            job.tags = fields["tags"]
        return job

    def _entries(self, items: Iterable[Any]) -> Iterator[bytes]:
        check, encoded = self.arguments.check, self.encoded
        for item in items:
            args = item if type(item) is tuple else (item,)
            check(args, {})
            yield encoded(args, {}, new_id())

    def encoded(self, args: tuple[Any, ...], kwargs: dict[str, Any], job_id: str) -> bytes:
        """The job as bytes; arguments must have been checked. Raises BadArgument, PayloadTooLarge."""
        if self._claims is not None:
            return self._claimed(self._claims, args, kwargs, job_id)
        fields, priority, tracked = self._extras
        sender = self.queue.sender
        seal, most = sender.seal, sender.settings.max_payload  # outside the `try`: no fault of the arguments
        if fields:
            message = Message(version_of(fields), job_id, self.name, list(args), kwargs, **fields)
        else:  # an empty **fields would cost a plain put a tenth of its encoding
            message = Message(VERSION, job_id, self.name, list(args), kwargs)
        try:
            entry = entry_of(message, sender.name, seal, priority, most, not fields)
        except PayloadTooLarge:
            raise
        except Exception as error:
            raise self.arguments.blame(args, kwargs, error) from None
        if tracked and defaults.instead is None:
            sender.broker.puts.expect_tracked(sender.name)
        return entry

    def _claimed(self, claims: Claims, args: tuple[Any, ...], kwargs: dict[str, Any], job_id: str) -> bytes:
        """The job as bytes, with what it claims in its message, or in front of its entry."""
        more, guard = claims.of(args, kwargs, job_id)
        fields, priority, tracked = self._extras
        task: Task[P, R] = object.__new__(type(self))
        task.__dict__.update(self.__dict__)
        task._claims, task._extras = None, Extras({**fields, **more}, priority, tracked or bool(more))
        return guard + task.encoded(args, kwargs, job_id)


def _unpickled(module: str, path: str, name: str, options: Options) -> Task[Any, Any]:
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    task = found if isinstance(found, Task) else registry.tasks.get(name)
    if task is None:
        raise UsageError(f"task {name} is not at {module}:{path}; only tasks that can be imported can be pickled")
    return task if options == task._options else task._with(options)

"""Tasks: functions that jobs name, and the registry that finds them again in a consumer."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeAlias, TypedDict, TypeVar

import msgspec

from rq_lite import checks
from rq_lite.arguments import IMPORT, Arguments, signature_of
from rq_lite.batches import each_of
from rq_lite.broker.codec import VERSION, Message, encode, marked, new_id
from rq_lite.checks import INFINITE, LONGEST, in_seconds, real, whole
from rq_lite.errors import PayloadTooLarge, UsageError
from rq_lite.job import Job
from rq_lite.process import this
from rq_lite.schedules import Recurrence, Schedule, defined, job_id, recurring

if TYPE_CHECKING:
    from rq_lite.queue import Queue

log = logging.getLogger("rq_lite")

P = ParamSpec("P")
R = TypeVar("R")

UNSET: Any = msgspec.UNSET
FOREVER = 2e9  # seconds: more than any run can last
TTL = "above 0 seconds, up to 100 years (or None for no result)"

CALLBACKS = {"on_success": "success", "on_failure": "failure", "on_done": "done"}  # what they are in a job's `then`
RUN_IN = ("greenlet", "thread", "process")
# Functions whose call runs nothing of them yet, and what there is to do.
NOT_PLAIN = (
    ("a coroutine function", inspect.iscoroutinefunction, 'run_in="process" and asyncio.run(…) in it'),
    ("an async generator function", inspect.isasyncgenfunction, 'run_in="process" and asyncio.run(…) in it'),
    ("a generator function", inspect.isgeneratorfunction, "a loop instead of `yield`"),
)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How the jobs of a task are run, and what becomes of their results. Times in seconds."""

    retries: int = 0  # attempts after the first; then the job is buried
    timeout: float | None = 600.0  # a run is ended after this long; None: never
    backoff: float = 1.0  # before attempt n + 1: by chance between 0 and backoff * 2**(n - 1),
    backoff_max: float = 600.0  # at most this
    retry_on: tuple[type[BaseException], ...] = (BaseException,)  # these are tried again
    no_retry_on: tuple[type[BaseException], ...] = ()  # except these: buried at once
    result_ttl: float | None = None  # how long a result is kept; None: there is none
    on_success: Any = None  # a Task: put with the result
    on_failure: Any = None  # likewise, with how it ended, once it is given up
    on_done: Any = None  # likewise, in either case
    run_in: str = "greenlet"  # or "thread", "process": off the consumer's loop

    def __post_init__(self) -> None:
        if self.run_in not in RUN_IN:
            raise UsageError(f"run_in must be one of {', '.join(RUN_IN)}, not {self.run_in!r}")
        if self.result_ttl is not None:
            real("result_ttl", self.result_ttl, TTL, most=LONGEST, above=True)
        for name in CALLBACKS:
            check_callback(name, getattr(self, name))
        whole("retries", self.retries)
        if self.timeout is not None:
            real("timeout", self.timeout, "above 0 seconds (or None for none)", above=True)
        for name in ("backoff", "backoff_max"):
            real(name, getattr(self, name), "0 or more seconds, up to 100 years", most=LONGEST)

    def is_retried(self, error: BaseException) -> bool:
        """Whether an error of this type is worth another attempt."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.no_retry_on)


def check_callback(name: str, task: Any) -> None:
    """Raises UsageError for what is no task of one argument."""
    if task is None:
        return
    if not isinstance(task, Task):
        raise UsageError(f"{name} takes a task (a function with @queue.task), not {task!r}")
    try:
        signature_of(task.function).bind(None)
    except TypeError as error:
        gets = "the result" if name == "on_success" else "an Ended"
        raise UsageError(f"{name}: {task.name} gets one argument, {gets}: {error}") from None


def check_plain(name: str, function: Callable[..., Any]) -> None:
    """Raises UsageError for a function that would not run when it is called."""
    for kind, is_one, instead in NOT_PLAIN:
        if is_one(function):
            raise UsageError(f"task {name}: {kind}; jobs are plain functions: write `def`, with {instead}")


def nanoseconds(timeout: float | None) -> int:
    """What a consumer counts with: a whole number, also for what anybody may have written into a job."""
    return int(max(0.0, min(FOREVER if timeout is None else timeout, FOREVER)) * 10**9)


Types: TypeAlias = type[BaseException] | Iterable[type[BaseException]]


def types(name: str, given: Types | None, default: tuple[type[BaseException], ...]) -> tuple[type[BaseException], ...]:
    """Exception types as `except` takes them; raises UsageError for what is none."""
    if given is None:
        return default
    found = (given,) if isinstance(given, (type, str)) else tuple(given)
    for one in found:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise UsageError(f"{name} takes exception types, such as ConnectionError, not {one!r}")
    return found


LIKE_POLICY = ("timeout", "retries", "result_ttl", *CALLBACKS)


class TaskOptions(TypedDict, total=False):
    """What `@queue.task(…)` takes; Queue.task says what each means."""

    name: str | None
    retries: int
    timeout: float | None
    backoff: float
    backoff_max: float
    retry_on: Types | None
    no_retry_on: Types | None
    result_ttl: float | None
    on_success: Task[Any, Any] | None
    on_failure: Task[Any, Any] | None
    on_done: Task[Any, Any] | None
    run_in: str
    cron: str | None
    every: float | timedelta | None
    tz: str
    missed: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What one put says otherwise than its task. Times in seconds."""

    delay: float = 0.0  # 0 or less: now
    at: datetime | None = None
    wait: Any = UNSET  # float | None; not given: the settings' `wait`
    timeout: Any = UNSET
    retries: Any = UNSET
    priority: Any = UNSET
    result_ttl: Any = UNSET
    on_success: Any = UNSET
    on_failure: Any = UNSET
    on_done: Any = UNSET

    def __post_init__(self) -> None:
        if self.wait is not UNSET and self.wait is not None:
            real("wait", self.wait, "0 or more seconds (or None: for ever)")
        real("delay", self.delay, "a number of seconds, up to 100 years (or a timedelta)", least=-LONGEST, most=LONGEST)
        if self.at is not None:
            self._check_at(self.at)
        given = {n: v for n in LIKE_POLICY if (v := getattr(self, n)) is not UNSET}
        if given.get("timeout", 1.0) in (None, INFINITE):
            raise UsageError(
                f"timeout={given['timeout']} is for the task's definition; a put can only name a number of seconds"
            )
        Policy(**given)
        if self.priority is not UNSET:
            checks.priority(self.priority)

    def _check_at(self, at: datetime) -> None:
        if not isinstance(at, datetime):
            raise UsageError(f"at must be a datetime, not {at!r}")
        if at.utcoffset() is None:
            raise UsageError(
                f"at={at} is a different moment in each time zone: say the zone, as in "
                'datetime(…, tzinfo=ZoneInfo("Europe/Berlin")), or at.astimezone() for this machine\'s'
            )
        if self.delay:
            raise UsageError("a put has either delay= or at=, not both")

    @property
    def due(self) -> int | None:
        """The moment in `at`, ms since 1970, never too early; None where there is none."""
        return None if self.at is None else max(0, -((EPOCH - self.at) // MILLISECOND))


class Extras(NamedTuple):
    """What the jobs of a task say beside its name and their arguments; nothing, for most."""

    fields: dict[str, Any]  # of the message
    priority: float | None
    tracked: bool  # somebody wants to hear how they end


class Again(NamedTuple):
    """A task that runs again and again: when, and with which arguments."""

    when: Recurrence
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def again(cron: Any = None, every: Any = None, tz: Any = None, missed: Any = None, **with_: Any) -> Again | None:
    """From what `@queue.task(…)` says of it; None where it says nothing. Raises UsageError."""
    when = recurring(cron, every, tz, missed)
    if when is None:
        if with_:
            raise UsageError(f"{'= and '.join(with_)}= belong to a schedule: say cron= or every=, too")
        return None
    args = with_.get("args", ())
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise UsageError(f"args must be a list or tuple, not {args!r}")
    return Again(when, args, with_.get("kwargs", {}))


class Task(Generic[P, R]):
    """A function and the queue its jobs go to. Calling it calls the function, here and now."""

    def __init__(
        self, function: Callable[P, R], queue: Queue, name: str, policy: Policy, again: Again | None = None
    ) -> None:
        check_plain(name, function)
        functools.update_wrapper(self, function)
        self.function = function
        self.queue = queue
        self.name = name
        self.policy = policy
        self.again = again
        self.timeout_ns = nanoseconds(policy.timeout)
        self.elsewhere = policy.run_in != "greenlet"
        self._read: list[Arguments] = []  # once for all that `using` makes of it, when the first is used
        self._options = Options()
        self._extras = self._extras_of(self._options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name} on queue {self.queue.name!r}>"

    @property
    def says(self) -> dict[str, Any]:
        """What its puts say beside name and arguments, as fields of the message."""
        return self._extras.fields

    def __reduce__(self) -> tuple[Any, ...]:
        """By its name, as functions are pickled; with the options that `using` gave it."""
        return _unpickled, (self.__module__, self.function.__qualname__, self.name, self._options)

    @functools.cached_property
    def arguments(self) -> Arguments:
        if not self._read:
            self._read.append(Arguments(self.name, self.function))
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
        """What its worker writes to Redis; None for a task that does not run by itself. Raises as `put` does."""
        return None if self.again is None else self.scheduled(*self.again)

    def scheduled(self, when: Recurrence, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Schedule:
        """A schedule that puts this task with these arguments; raises as `put` does."""
        self.arguments.check(args, kwargs)
        self.encoded(tuple(args), dict(kwargs), job_id(self.name, 0))  # refused here, not each time it is due
        return defined(when, self.queue.name, self.name, args, kwargs, job=self._extras.fields)

    # -- producing

    def using(
        self,
        *,
        delay: float | timedelta = 0.0,
        at: datetime | None = None,
        wait: float | None = UNSET,
        timeout: float = UNSET,
        retries: int = UNSET,
        priority: float = UNSET,
        result_ttl: float | None = UNSET,
        on_success: Task[Any, Any] | None = UNSET,
        on_failure: Task[Any, Any] | None = UNSET,
        on_done: Task[Any, Any] | None = UNSET,
    ) -> Task[P, R]:
        """The same task with options for its puts.

        They are due in `delay` s (or a timedelta), or `at` a moment (a datetime with its zone; one that is over: now),
        wait for room at most `wait` s (None: for ever), and have another `timeout`, number of `retries`, `result_ttl`
        or callbacks than the task. `priority` counts on a PriorityQueue: the lowest goes first.
        """
        if priority is not UNSET and self.queue.order != "priority":
            raise UsageError(
                f"task {self.name}: priority counts on a PriorityQueue, and {self.queue!r} is none: make it one"
            )
        options = Options(
            delay=in_seconds(delay), at=at, wait=wait, timeout=timeout, retries=retries, priority=priority,
            result_ttl=result_ttl, on_success=on_success, on_failure=on_failure, on_done=on_done,
        )  # fmt: skip
        return self._with(options)

    def _with(self, options: Options) -> Task[P, R]:
        task: Task[P, R] = object.__new__(type(self))  # copy.copy would go by the name, as pickle does
        task.__dict__.update(self.__dict__)
        task._options = options
        task._extras = task._extras_of(options)
        return task

    def onto(self, queue: Queue, result_ttl: float | None) -> Task[P, R]:
        """The same task with its jobs on another queue, and with results where it keeps none itself."""
        options = self._options
        if "result_ttl" not in self.says:
            options = msgspec.structs.replace(options, result_ttl=result_ttl)
        task = self._with(options)
        task.queue = queue
        return task

    def _extras_of(self, options: Options) -> Extras:
        """What its puts say beside name and arguments: of the options, or else the policy where it must be said."""

        def said(name: str) -> Any:
            value = getattr(options, name)
            return getattr(self.policy, name) if value is UNSET else value

        then = {word: [task.queue.name, task.name] for name, word in CALLBACKS.items() if (task := said(name))}
        fields = {name: v for name in ("timeout", "retries") if (v := getattr(options, name)) is not UNSET}
        fields |= {"result_ttl": said("result_ttl"), "then": then}
        return Extras(
            {name: value for name, value in fields.items() if value not in (None, {})},
            None if options.priority is UNSET else checks.priority(options.priority),
            bool(then) or said("result_ttl") is not None,
        )

    def put(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Put a job; waits while the queue is full.

        Raises QueueFull after the wait, BadArgument and PayloadTooLarge for what can never be put, and
        BrokerError when Redis does not answer.
        """
        return self._put_one(args, kwargs, self._options.wait)

    def put_nowait(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Put a job, or raise QueueFull at once."""
        return self._put_one(args, kwargs, 0.0)

    def put_many(self, items: Iterable[Any]) -> int:
        """Put a job for each item, lazily, in batches, waiting for room; how many were put.

        An item is the task's one argument, also a list or a dict; a tuple is several. The lines of a text file come
        without their line ends. Raises as `put` does, the error's `put` then says how many were put before; UsageError
        for a str or bytes.
        """
        return self.queue.put_all(self._entries(each_of(items)), self._options)

    def put_jobs(self, items: Iterable[tuple[Any, ...]]) -> list[Job]:
        """Put a job for each tuple of arguments, in batches, waiting for room. Raises as `put` does."""
        jobs, entries = [], []
        for args in items:
            job_id = new_id()
            self.arguments.check(args, {})
            entries.append(self.encoded(args, {}, job_id))
            jobs.append(self.job(job_id, args))
        self.queue.put_all(entries, self._options)
        return jobs

    def _put_one(self, args: tuple[Any, ...], kwargs: dict[str, Any], wait: Any) -> Job:
        job_id = new_id()
        self.arguments.check(args, kwargs)
        entry = self.encoded(args, kwargs, job_id)
        self.queue.put_entries([entry], self._options, wait=wait)
        return self.job(job_id, args, kwargs)

    def job(self, job_id: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Job:
        """A handle for a job of this task, also for one that another process has put."""
        return Job(
            id=job_id,
            queue=self.queue.name,
            task=self.name,
            args=args,
            kwargs=kwargs,
            broker=self.queue.chosen_broker,
            result_ttl=self._extras.fields.get("result_ttl"),
            returns=self.arguments.returns,
        )

    def _entries(self, items: Iterable[Any]) -> Iterator[bytes]:
        check, encoded = self.arguments.check, self.encoded
        for item in items:
            args = item if type(item) is tuple else (item,)
            check(args, {})
            yield encoded(args, {}, new_id())

    def encoded(self, args: tuple[Any, ...], kwargs: dict[str, Any], job_id: str) -> bytes:
        """The job as bytes; arguments must have been checked. Raises BadArgument, PayloadTooLarge."""
        fields, priority, tracked = self._extras
        try:
            entry = encode(Message(VERSION, job_id, self.name, list(args), kwargs, **fields))
        except Exception as error:
            raise self.arguments.blame(args, kwargs, error) from None
        seal = self.queue.seal
        if seal is not None:
            entry = seal(entry)
        if tracked and this.instead is None:
            self.queue.broker.expect_tracked(self.queue.name)
        if priority is not None or tracked:
            entry = marked(entry, job_id, priority=priority, tracked=tracked)
        if len(entry) > self.queue.settings.max_payload:
            raise PayloadTooLarge(
                f"task {self.name}: the encoded job has {len(entry):,} bytes, max_payload is "
                f"{self.queue.settings.max_payload:,}; put large data elsewhere and its name into the job"
            )
        return entry


class Registry:
    """The tasks and queues of the programs that were imported; only what stands here is ever run."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task[Any, Any]] = {}
        self.queues: dict[str, Queue] = {}

    def add(self, task: Task[Any, Any]) -> None:
        known = self.tasks.get(task.name)
        if known is not None and where(known.function) != where(task.function):
            raise UsageError(
                f"two tasks are called {task.name!r}: {where(known.function)} and {where(task.function)}; "
                "give one of them another name="
            )
        self.tasks[task.name] = task

    def working_queues(self) -> list[str]:
        """The queues that tasks belong to, in the order of their definition."""
        return list(dict.fromkeys(task.queue.name for task in self.tasks.values()))


registry = Registry()


def _unpickled(module: str, path: str, name: str, options: Options) -> Task[Any, Any]:
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    task = found if isinstance(found, Task) else registry.tasks.get(name)
    if task is None:
        raise UsageError(f"task {name} is not at {module}:{path}; only tasks that can be imported can be pickled")
    return task if options == task._options else task._with(options)


def where(function: Callable[..., object]) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_qualname}" if code else repr(function)


def name_of(function: Callable[..., object]) -> str:
    """`module:function`; a program started as a script has the name that others import it by."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name.removesuffix(".__main__") if spec else Path(file).stem if file else module
    return f"{module}:{function.__qualname__}"

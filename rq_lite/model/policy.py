"""How the jobs of a task are run, what one put may say otherwise, and when a task runs by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import msgspec

from rq_lite import checks
from rq_lite.checks import INFINITE, LONGEST, integer, number
from rq_lite.errors import UsageError
from rq_lite.model.arguments import signature_of
from rq_lite.model.schedule import Recurrence, recurring

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


class AnyTask:
    """A task, as values know it: see client/task.py."""

    function: Callable[..., Any]
    queue: Any
    name: str


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
            number("result_ttl", self.result_ttl, TTL, most=LONGEST, above=True)
        for name in CALLBACKS:
            check_callback(name, getattr(self, name))
        integer("retries", self.retries)
        if self.timeout is not None:
            number("timeout", self.timeout, "above 0 seconds (or None for none)", above=True)
        for name in ("backoff", "backoff_max"):
            number(name, getattr(self, name), "0 or more seconds, up to 100 years", most=LONGEST)

    def is_retried(self, error: BaseException) -> bool:
        """Whether an error of this type is worth another attempt."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.no_retry_on)


def check_callback(name: str, task: Any) -> None:
    """Raises UsageError for what is no task of one argument."""
    if task is None:
        return
    if not isinstance(task, AnyTask):
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
            number("wait", self.wait, "0 or more seconds (or None: for ever)")
        number(
            "delay", self.delay, "a number of seconds, up to 100 years (or a timedelta)", least=-LONGEST, most=LONGEST
        )
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

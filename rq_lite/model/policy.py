"""The options of tasks and of their puts: how jobs are run, what one put changes, when a task runs by itself.

An option is declared once, as a field of Policy, Definition or Options whose type is `Annotated` with an Option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec

from rq_lite import checks
from rq_lite.checks import INFINITE, LONGEST, MOST_CRASHES, in_seconds, integer, number
from rq_lite.errors import UsageError
from rq_lite.model.option import Check, Declared, Option, declared, use_checked
from rq_lite.model.schedule import Recurrence, recurring
from rq_lite.model.signature import signature_of
from rq_lite.model.tags import check_tags
from rq_lite.model.unique import check_id, check_max_wait, check_on_conflict, check_unique, check_until

UNSET: Any = msgspec.UNSET


FOREVER = 2e9  # seconds: more than any run can last


TTL = "above 0 seconds, up to 100 years (or None for no result)"


RUN_IN = ("greenlet", "thread", "process")


BATCH_WAIT = 0.5  # seconds


# Kinds of functions whose body does not run when they are called, and what to write instead.
NOT_PLAIN = (
    ("a coroutine function", inspect.iscoroutinefunction, 'run_in="process" and asyncio.run(…) in it'),
    ("an async generator function", inspect.isasyncgenfunction, 'run_in="process" and asyncio.run(…) in it'),
    ("a generator function", inspect.isgeneratorfunction, "a loop instead of `yield`"),
)


class AnyTask:
    """A task, as far as this layer needs it: see client/task.py."""

    function: Callable[..., Any]
    queue: Any
    name: str


def check_run_in(name: str, value: Any) -> Any:
    if value not in RUN_IN:
        raise UsageError(f"{name} must be one of {', '.join(RUN_IN)}, not {value!r}")
    return value


def check_max_crashes(name: str, value: Any) -> Any:
    return None if value is None else integer(name, value, least=1, most=MOST_CRASHES)


def check_result_ttl(name: str, value: Any) -> Any:
    return None if value is None else number(name, value, TTL, most=LONGEST, above=True)


def check_timeout(name: str, value: Any) -> Any:
    return None if value is None else number(name, value, "above 0 seconds (or None for none)", above=True)


def check_timeout_of_put(name: str, value: Any) -> Any:
    if value in (None, INFINITE):
        raise UsageError(f"{name}={value} is for the task's definition; a put can only name a number of seconds")
    return check_timeout(name, value)


def check_batch(name: str, value: Any) -> Any:
    return None if value is None else integer(name, value, least=1)


def check_batch_wait(name: str, value: Any) -> Any:
    return None if value is None else number(name, value, "0 or more seconds, up to 100 years", most=LONGEST)


def check_backoff(name: str, value: Any) -> Any:
    return number(name, value, "0 or more seconds, up to 100 years", most=LONGEST)


def check_callback(name: str, task: Any) -> Any:
    """Raises UsageError for anything but a task of one argument."""
    if task is None:
        return None
    if not isinstance(task, AnyTask):
        raise UsageError(f"{name} takes a task (a function with @queue.task), not {task!r}")
    try:
        signature_of(task.function).bind(None)
    except TypeError as error:
        gets = "the result" if name == "on_success" else "an Ended"
        raise UsageError(f"{name}: {task.name} gets one argument, {gets}: {error}") from None
    return task


Types: TypeAlias = type[BaseException] | Iterable[type[BaseException]]


def types(name: str, given: Types | None, default: tuple[type[BaseException], ...]) -> tuple[type[BaseException], ...]:
    """Exception types as `except` takes them; raises UsageError for anything else."""
    if given is None:
        return default
    found = (given,) if isinstance(given, (type, str)) else tuple(given)
    for one in found:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise UsageError(f"{name} takes exception types, such as ConnectionError, not {one!r}")
    return found


def check_wait(name: str, value: Any) -> Any:
    return None if value is None else number(name, value, "0 or more seconds (or None: for ever)")


def check_delay(name: str, value: Any) -> Any:
    wanted = "a number of seconds, up to 100 years (or a timedelta)"
    return number(name, in_seconds(value), wanted, least=-LONGEST, most=LONGEST)


def check_at(name: str, value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise UsageError(f"{name} must be a datetime, not {value!r}")
    if value.utcoffset() is None:
        raise UsageError(
            f"{name}={value} is a different moment in each time zone: say the zone, as in "
            'datetime(…, tzinfo=ZoneInfo("Europe/Berlin")), or at.astimezone() for this machine\'s'
        )
    return value


def check_expires(name: str, value: Any) -> Any:
    if value is None or isinstance(value, datetime):
        return check_at(name, value)
    return number(name, in_seconds(value), "above 0 seconds, up to 100 years", most=LONGEST, above=True)


def check_priority(_name: str, value: Any) -> Any:
    return checks.priority(value)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How the jobs of a task are run, and what becomes of their results. Times in seconds."""

    retries: Annotated[
        int,
        Option("how many more runs a job gets after its first has failed; then it is buried", integer, puts=integer),
    ] = 0
    max_crashes: Annotated[
        int | None,
        Option(
            "with this many crashes a job is buried as poison: [lifecycle.md](lifecycle.md); 1: a job that may have "
            "caused a crash is not run again",
            check_max_crashes,
            default="the setting `max_crashes`, 3",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        Option("a run is ended after this time; None (not for a put): never", check_timeout, puts=check_timeout_of_put),
    ] = 600.0
    backoff: Annotated[
        float,
        Option("before run n + 1 a job waits a random time, up to `backoff` · 2^(n-1) seconds", check_backoff),
    ] = 1.0
    backoff_max: Annotated[float, Option("the longest such wait", check_backoff)] = 600.0
    retry_on: Annotated[
        tuple[type[BaseException], ...],
        Option(
            "only errors of these types (one, or several) are tried again, others bury the job at once",
            partial(types, default=(BaseException,)),
            default="all",
        ),
    ] = (BaseException,)
    no_retry_on: Annotated[
        tuple[type[BaseException], ...],
        Option("errors of these types are never tried again", partial(types, default=()), default="none"),
    ] = ()
    result_ttl: Annotated[
        float | None,
        Option(
            "how many seconds a result is kept: [futures.md](futures.md)",
            check_result_ttl,
            puts=check_result_ttl,
            always=True,
            default="None: no result",
        ),
    ] = None
    on_success: Annotated[
        Any,  # a Task
        Option(
            "a task that is put with the result of a job that is done: [callbacks.md](callbacks.md)",
            check_callback,
            puts=check_callback,
            always=True,
            then="success",
        ),
    ] = None
    on_failure: Annotated[
        Any,
        Option(
            "a task that is put with an `Ended` when the job is given up",
            check_callback,
            puts=check_callback,
            always=True,
            then="failure",
        ),
    ] = None
    on_done: Annotated[
        Any,
        Option(
            "a task that is put with an `Ended` in either case",
            check_callback,
            puts=check_callback,
            always=True,
            then="done",
        ),
    ] = None
    unique: Annotated[
        str | None,
        Option(
            'a put is kept out while a job with the same key is there, such as `"{user_id}"`: [unique.md](unique.md)',
            check_unique,
            puts=check_unique,
            of_put_alone=True,
            default="None: any number",
        ),
    ] = None
    until: Annotated[
        Any,
        Option(
            'how long it keeps others out: `"end"`, `"start"` (until it is first taken), `"forever"`, or seconds',
            check_until,
            puts=check_until,
            of_put_alone=True,
            default='`"end"`',
        ),
    ] = "end"
    on_conflict: Annotated[
        str,
        Option(
            'what a put does whose key is there: `"skip"` returns the job that is there, `"replace"` takes its place, '
            '`"raise"` raises `Duplicate`',
            check_on_conflict,
            puts=check_on_conflict,
            of_put_alone=True,
            default='`"skip"`',
        ),
    ] = "skip"
    max_wait: Annotated[
        float | None,
        Option(
            'with `on_conflict="replace"` and `delay=`: for how many seconds (or a timedelta) newer jobs may put off '
            "the first one's turn",
            check_max_wait,
            puts=check_max_wait,
            of_put_alone=True,
            default="None: any time",
        ),
    ] = None
    tags: Annotated[
        tuple[str, ...],
        Option(
            "words by which `rq-lite jobs list --tag` finds its jobs; those of `using` replace the task's: "
            "[jobs.md](jobs.md#tags)",
            check_tags,
            puts=check_tags,
            always=True,
            default="none",
        ),
    ] = ()
    run_in: Annotated[
        str,
        Option(
            'where its jobs run; `"thread"` or `"process"` for work that computes: [cpu.md](cpu.md)',
            check_run_in,
            default='`"greenlet"`',
        ),
    ] = "greenlet"
    batch: Annotated[
        int | None,
        Option(
            "one call of the function is for up to this number of jobs: [batches.md](batches.md)",
            check_batch,
            default="none: a call is for one job",
        ),
    ] = None
    batch_wait: Annotated[
        float | None,
        Option("how many seconds the first job of a batch waits for others", check_batch_wait, default="0.5 s"),
    ] = None

    def __post_init__(self) -> None:
        use_checked(self, POLICY)
        if self.batch is None:
            if self.batch_wait is not None:
                raise UsageError("batch_wait= belongs to a batch: say batch=, too")
            return
        if self.run_in == "process":
            raise UsageError(
                'a task with batch= cannot have run_in="process": an engine runs one job at a time; use run_in="thread"'
            )
        if self.batch_wait is None:
            msgspec.structs.force_setattr(self, "batch_wait", BATCH_WAIT)

    def is_retried(self, error: BaseException) -> bool:
        """Whether an error of this type is worth another attempt."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.no_retry_on)


class Again(NamedTuple):
    """A task that runs again and again: when, and with which arguments."""

    when: Recurrence
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What `@queue.task(…)` says beside the policy: the task's name, and when it runs by itself."""

    name: Annotated[str | None, Option("what jobs call it, in every program", default="`module:function`")] = None
    cron: Annotated[Any, Option("it runs by itself, at these times: [schedules.md](schedules.md)")] = None
    every: Annotated[
        Any, Option("it runs by itself, at this interval: seconds, or a timedelta, counted from 1970-01-01 UTC")
    ] = None
    tz: Annotated[Any, Option("time zone of `cron`", default="UTC")] = None
    missed: Annotated[
        str | None,
        Option(
            'what is made up for when no worker ran: `"once"`: one run for all missed times, `"all"` (at most the last '
            '100), or `"skip"`',
            default='`"once"`',
        ),
    ] = None
    args: Annotated[Any, Option("arguments of the runs by `cron` or `every`", default="none")] = UNSET
    kwargs: Annotated[Any, Option("their arguments by name", default="none")] = UNSET

    @property
    def again(self) -> Again | None:
        """None without `cron` and `every`. Raises UsageError."""
        when = recurring(self.cron, self.every, self.tz, self.missed)
        given = {name: value for name in ("args", "kwargs") if (value := getattr(self, name)) is not UNSET}
        if when is None:
            if given:
                raise UsageError(f"{'= and '.join(given)}= belong to a schedule: say cron= or every=, too")
            return None
        args = given.get("args", ())
        if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
            raise UsageError(f"args must be a list or tuple, not {args!r}")
        return Again(when, args, given.get("kwargs", {}))


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


MILLISECOND = timedelta(milliseconds=1)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What one put says: when and how it puts, and where its jobs differ from their task. Times in seconds."""

    delay: Annotated[float, Option("due this many seconds (or a timedelta) after the put", check_delay)] = 0.0
    at: Annotated[datetime | None, Option("due at a datetime with its zone; past: now", check_at)] = None
    wait: Annotated[
        Any,  # float | None
        Option("how long the put waits for room; None: for ever", check_wait, default="the setting `wait`, 600 s"),
    ] = UNSET
    priority: Annotated[Any, Option("the lowest goes first, on a `PriorityQueue`", check_priority, default="0")] = UNSET
    id: Annotated[
        str | None,
        Option("the job's id; a put is kept out while a job with it is there: [unique.md](unique.md)", check_id),
    ] = None
    expires: Annotated[
        Any,
        Option(
            "a job that has not begun by then ends as expired: seconds (or a timedelta) after the put, or a datetime "
            "with its zone: [unique.md](unique.md)",
            check_expires,
            default="never",
        ),
    ] = None
    policy: dict[str, Any] = {}  # by the names of Policy's fields

    def __post_init__(self) -> None:
        use_checked(self, PUT)
        self._check_expires()
        if self.at is not None and self.delay:
            raise UsageError("a put has either delay= or at=, not both")
        if self.policy:
            meant = {name: PUTS[name](name, value) for name, value in self.policy.items()}
            msgspec.structs.force_setattr(self, "policy", meant)

    def _check_expires(self) -> None:
        """Raises UsageError if the job would expire before it is due."""
        if self.expires is None:
            return
        now = datetime.now(UTC)
        due = self.at or now + timedelta(seconds=self.delay)
        if isinstance(self.expires, datetime):
            if self.expires <= now:
                raise UsageError(f"expires={self.expires} is in the past: its jobs would never be run")
            late = self.expires <= due
        else:
            late = self.expires <= (due - now).total_seconds()
        if late:
            raise UsageError(f"expires={self.expires}: its jobs would expire before they are due")

    def expires_at(self, now: Callable[[], int]) -> int | None:
        """When a job that is put now expires, ms since 1970; `now`: Redis' clock."""
        if self.expires is None:
            return None
        if isinstance(self.expires, datetime):
            return in_ms(self.expires)
        return now() + max(1, round(float(self.expires) * 1000))

    @property
    def due(self) -> int | None:
        """The time in `at`, ms since 1970, rounded up so as not to be early; None without `at`."""
        return None if self.at is None else in_ms(self.at)


def in_ms(moment: datetime) -> int:
    """A time in ms since 1970, rounded up; of one before that: 0."""
    return max(0, -((EPOCH - moment) // MILLISECOND))


POLICY, DEFINITION, PUT = declared(Policy), declared(Definition), declared(Options)
PUTS: dict[str, Check] = {name: option.puts for name, (option, _) in POLICY.items() if option.puts is not None}
OF_TASK = {"name": DEFINITION["name"], **POLICY, **DEFINITION}  # what `@queue.task(…)` takes
# What `using(…)` takes.
OF_PUT = {**{name: Declared(POLICY[name].option._replace(default="the task's"), UNSET) for name in PUTS}, **PUT}


def options_of_task(given: Mapping[str, Any]) -> tuple[Definition, Policy]:
    """From what `@queue.task(…)` is given; raises UsageError."""
    unknown = sorted(given.keys() - OF_TASK.keys())
    if unknown:
        raise UsageError(f"@queue.task: no option is called {', '.join(unknown)}")
    policy = Policy(**{name: value for name, value in given.items() if name in POLICY})
    return Definition(**{name: value for name, value in given.items() if name in DEFINITION}), policy


def options_of_put(given: Mapping[str, Any]) -> Options:
    """From what `using(…)` is given; raises UsageError."""
    policy, own = {}, {}
    for name, value in given.items():
        if name in PUTS:
            policy[name] = value
        elif name in PUT:
            own[name] = value
        else:
            where = f"; it is one of @queue.task({name}=…)" if name in OF_TASK else ""
            raise UsageError(f"using(): no option is called {name}{where}")
    return Options(**own, policy=policy)


class Extras(NamedTuple):
    """What the jobs of a task hold beside its name and their arguments; nothing, for most."""

    fields: dict[str, Any]  # of the message
    priority: float | None
    tracked: bool  # the jobs have a result_ttl, or callbacks


def extras_of(policy: Policy, options: Options) -> Extras:
    """The options that the put gives; else those of the policy that every job must have."""
    fields: dict[str, Any] = {}
    then: dict[str, list[str]] = {}
    for name in PUTS:
        option = POLICY[name].option
        if option.of_put_alone:
            continue
        value = options.policy.get(name, getattr(policy, name) if option.always else None)
        if value is None or value == ():
            continue
        if option.then:
            then[option.then] = [value.queue.name, value.name]
        else:
            fields[name] = value
    if then:
        fields["then"] = then
    priority = None if options.priority is UNSET else options.priority
    return Extras(fields, priority, bool(then) or "result_ttl" in fields)


def check_plain(name: str, function: Callable[..., Any]) -> None:
    """Raises UsageError for a function that would not run when it is called."""
    for kind, is_one, instead in NOT_PLAIN:
        if is_one(function) or is_one(getattr(function, "__call__", None)):  # noqa: B004
            raise UsageError(f"task {name}: {kind}; jobs are plain functions: write `def`, with {instead}")


def nanoseconds(timeout: float | None) -> int:
    """A timeout as a consumer counts it: a whole number, whatever a producer has written into the job."""
    return int(max(0.0, min(FOREVER if timeout is None else timeout, FOREVER)) * 10**9)

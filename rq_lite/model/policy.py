"""The options that say how the jobs of a task are run, and what becomes of their results. A put may change some."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, TypeAlias

import msgspec

from rq_lite.checks import INFINITE, LONGEST, MOST_CRASHES, integer, number, one_of
from rq_lite.errors import UsageError
from rq_lite.model.option import Check, Option, declared, or_none, use_checked
from rq_lite.model.signature import signature_of
from rq_lite.model.tags import check_tags
from rq_lite.model.unique import check_max_wait, check_on_conflict, check_unique, check_until

FOREVER = 2e9  # seconds: more than any run can last
BATCH_WAIT = 0.5  # seconds

check_run_in = partial(one_of, words=("greenlet", "thread", "process"))
check_max_crashes = or_none(partial(integer, least=1, most=MOST_CRASHES))
check_timeout = or_none(partial(number, wanted="above 0 seconds (or None for none)", above=True))
check_result_ttl = or_none(
    partial(number, wanted="above 0 seconds, up to 100 years (or None for no result)", most=LONGEST, above=True)
)
check_batch = or_none(partial(integer, least=1))
check_backoff = partial(number, wanted="0 or more seconds, up to 100 years", most=LONGEST)
check_batch_wait = or_none(check_backoff)


class AnyTask:
    """A task, as far as this layer needs it: see client/task.py."""

    function: Callable[..., Any]
    queue: Any
    name: str


def check_timeout_of_put(name: str, value: Any) -> Any:
    if value in (None, INFINITE):
        raise UsageError(f"{name}={value} is for the task's definition; a put can only name a number of seconds")
    return check_timeout(name, value)


@or_none
def check_callback(name: str, task: Any) -> Any:
    """Raises UsageError for anything but a task of one argument."""
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


POLICY = declared(Policy)
PUTS: dict[str, Check] = {name: option.puts for name, (option, _) in POLICY.items() if option.puts is not None}


def nanoseconds(timeout: float | None) -> int:
    """A timeout as a consumer counts it: a whole number, whatever a producer has written into the job."""
    return int(max(0.0, min(FOREVER if timeout is None else timeout, FOREVER)) * 10**9)

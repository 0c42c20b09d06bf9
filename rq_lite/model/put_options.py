"""What `using(…)` takes: when and how a put puts, and where its jobs differ from their task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec

from rq_lite import checks
from rq_lite.checks import LONGEST, duration, in_seconds, number
from rq_lite.errors import UsageError
from rq_lite.model.definition import OF_TASK
from rq_lite.model.option import UNSET, Declared, Option, declared, or_none, use_checked
from rq_lite.model.policy import POLICY, PUTS, Policy
from rq_lite.model.unique import check_id

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

check_wait = or_none(partial(number, wanted="0 or more seconds (or None: for ever)"))


def check_delay(name: str, value: Any) -> Any:
    wanted = "a number of seconds, up to 100 years (or a timedelta)"
    return number(name, in_seconds(value), wanted, least=-LONGEST, most=LONGEST)


@or_none
def check_at(name: str, value: Any) -> Any:
    if not isinstance(value, datetime):
        raise UsageError(f"{name} must be a datetime, not {value!r}")
    if value.utcoffset() is None:
        raise UsageError(
            f"{name}={value} is a different moment in each time zone: say the zone, as in "
            'datetime(…, tzinfo=ZoneInfo("Europe/Berlin")), or at.astimezone() for this machine\'s'
        )
    return value


@or_none
def check_expires(name: str, value: Any) -> Any:
    return check_at(name, value) if isinstance(value, datetime) else duration(name, value)


def check_priority(_name: str, value: Any) -> Any:
    return checks.priority(value)


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


PUT = declared(Options)
OF_PUT = {**{name: Declared(POLICY[name].option._replace(default="the task's"), UNSET) for name in PUTS}, **PUT}


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

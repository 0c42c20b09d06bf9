"""When something runs again and again: by a cron line in a time zone, or at an interval. No input or output.

A slot is a time, in ms since 1970, at which a schedule is due. Slots follow from the definition alone, never from when
a process computes them: every process finds the same ones.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from rq_lite.checks import in_seconds, one_of
from rq_lite.errors import UsageError, counted
from rq_lite.model.message import Message, Seal, entry_of, unsigned, version_of
from rq_lite.model.unreadable import UNREADABLE

MISSED = ("skip", "once", "all")
LATE = 60_000  # ms: a slot that is fired within this time was not missed
MOST = 100  # the latest slots, which `all` makes up for
SHORTEST, LONGEST = 1000, 3_660 * 86_400_000  # ms between two slots of `every`
NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]{1,200}")
# As CronSim calls them.
FIELD_NAMES = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
NEVER = " never fires: there is no such day"
LAYOUT = 'minute hour day month weekday, as in "*/5 * * * *" (a sixth in front: seconds)'
DAY = 86_400  # seconds
FIRST = 1_704_067_200_000  # 2024-01-01: where the search for a first slot begins


class Recurrence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a schedule is due: by a cron line, or at each multiple of `every` ms; and what becomes of missed slots."""

    cron: str | None = None
    every: int | None = None
    tz: str = "UTC"
    missed: str = "once"

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.every is None):
            raise UsageError("a schedule has either cron= or every=")
        one_of("missed", self.missed, MISSED)
        zone(self.tz)
        if self.every is not None and not SHORTEST <= self.every <= LONGEST:
            raise UsageError(f"every must be 1 second to 10 years, not {self.every / 1000:g} s")
        if self.cron is not None and self.after(FIRST) is None:
            raise UsageError(f"cron {self.cron!r}{NEVER}")

    def after(self, moment: int) -> int | None:
        """The first slot after this time; None if decades have no slot."""
        return next(self.slots(moment), None)

    def slots(self, moment: int) -> Iterator[int]:
        """The slots after this time, in their order."""
        if self.every is not None:
            yield from count((moment // self.every + 1) * self.every, self.every)
        assert self.cron is not None
        last = moment
        for at in ticks(self.cron, moment // 1000, zone(self.tz)):
            # A time that comes twice, or several that the clock jumps over.
            if at * 1000 > last:
                last = at * 1000
                yield last

    def to_fire(self, slot: int, now: int) -> list[int]:
        """The slots to fire, of those from the one that was due until now, as `missed` says."""
        if self.missed == "all":
            return self._latest(slot, now, MOST)
        latest = self._latest(slot, now, 1)
        return latest if self.missed == "once" or now - latest[-1] <= LATE else []

    def _latest(self, slot: int, now: int, most: int) -> list[int]:
        """The latest slots from this one until now, at most `most`, found without counting through years of them."""
        if self.every is not None:
            last = slot + (now - slot) // self.every * self.every
            first = max(slot, last - (most - 1) * self.every)
            return list(range(first, last + 1, self.every))
        back = 3_600_000
        while True:
            start = max(slot, now - back)
            found: deque[int] = deque([slot] if start == slot else [], maxlen=most)
            for one in self.slots(start):
                if one > now:
                    break
                found.append(one)
            if start == slot or len(found) == most:
                return list(found)
            back *= 4

    @property
    def shown(self) -> str:
        """For people: `*/5 * * * * Europe/Berlin`, `every 30 s`."""
        return f"every {(self.every or 0) / 1000:g} s" if self.cron is None else f"{self.cron} {self.tz}"


class Schedule(Recurrence, frozen=True, kw_only=True, omit_defaults=True):
    """A definition in Redis: when it is due, and what is put then."""

    queue: str
    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    job: dict[str, Any] = {}  # other fields of the message: result_ttl, then, tags
    origin: str = "app"  # or "operator"

    def entry(self, job_id: str, seal: Seal) -> bytes:
        """A job of this schedule, encoded."""
        message = Message(version_of(self.job), job_id, self.task, self.args, self.kwargs, **self.job)
        return entry_of(message, self.queue, seal)

    def same_times(self, other: Recurrence) -> bool:
        return (self.cron, self.every, self.tz) == (other.cron, other.every, other.tz)


_schedule = msgspec.json.Decoder(Schedule)


def to_json(name: str, schedule: Schedule, seal: Seal) -> bytes:
    """The definition as stored in Redis: signed, if there is a secret, for a schedule of this name only."""
    return seal(f"schedule {name}", msgspec.json.encode(schedule))


def from_json(name: str, definition: bytes, opened: Seal) -> Schedule | None:
    """The schedule; None if this version does not understand the definition, or the signature does not fit."""
    try:
        return _schedule.decode(unsigned(opened(f"schedule {name}", definition)))
    except UNREADABLE:
        return None


def ticks(cron: str, second: int, where: tzinfo) -> Iterator[int]:
    """Seconds since 1970 at which the line is due, those after this one and perhaps a few before; they rise.

    Raises UsageError if it is no cron line.
    """
    back = goes_back(second, DAY, where)
    if back:  # times that come again count only from a moment on that is as close to the change
        back = goes_back(second, back, where)
    try:
        found = simulated(cron, shows(second, where) - timedelta(seconds=back))
    except Exception as error:  # for some odd lines CronSim raises AssertionError or TypeError
        raise UsageError(f"cron {cron!r}{trouble(cron, str(error))}") from None
    if where is UTC:
        return (seconds_of(wall, UTC) for wall in found)
    return once(found, where) if names_times(cron) else each(found, where)


def names_times(cron: str) -> bool:
    """Whether the line names its minute and its hour. As in Debian's cron such a line is due once for each time."""
    fields = cron.split()
    return len(fields) == 5 and not any(field.startswith("*") for field in fields[:2])


def once(walls: Iterator[datetime], where: tzinfo) -> Iterator[int]:
    """For each time on the wall the first at which a clock shows it; if none does, that to which the clock jumps."""
    for wall in walls:
        second = seconds_of(wall, where)
        yield second if shows(second, where) == wall else jump(wall, where)


def each(walls: Iterator[datetime], where: tzinfo) -> Iterator[int]:
    """Every time at which a clock shows one of these times on the wall."""
    again: deque[int] = deque()  # those that come twice, the second time
    for wall in walls:
        second = seconds_of(wall, where)
        if shows(second, where) != wall:
            continue
        while again and again[0] <= second:
            yield again.popleft()
        yield second
        if (second_time := seconds_of(wall.replace(fold=1), where)) > second:
            again.append(second_time)
    yield from again


def seconds_of(wall: datetime, where: tzinfo) -> int:
    return int(wall.replace(tzinfo=where).timestamp())


def shows(second: int, where: tzinfo) -> datetime:
    """What a clock shows."""
    return datetime.fromtimestamp(second, where).replace(tzinfo=None, fold=0)


def goes_back(second: int, within: int, where: tzinfo) -> int:
    """By how many seconds the clock is set back within this time: times that it has shown come again then."""
    passed = shows(second + within, where) - shows(second, where)
    return max(0, within - int(passed.total_seconds()))


def jump(wall: datetime, where: tzinfo) -> int:
    """When the clock jumps over this time."""
    before, after = seconds_of(wall.replace(fold=1), where), seconds_of(wall, where)
    offset = datetime.fromtimestamp(before, where).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, where).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def simulated(cron: str, begin: datetime) -> Iterator[datetime]:
    """The times of a cron line on a clock that never changes.

    CronSim's own way through a zone skips slots where the clock changes by another time than an hour. The library is
    loaded with the first line: most processes never need it.
    """
    moments: Iterator[datetime] = importlib.import_module("cronsim").CronSim(cron, begin)
    return moments


def trouble(cron: str, said: str) -> str:
    """What is wrong with a line, from CronSim's message about it."""
    fields = cron.split()
    if len(fields) not in (5, 6):
        return f" has {counted(len(fields), 'field')} instead of five: {LAYOUT}"
    name = said.removeprefix("Bad ")
    if name not in FIELD_NAMES:
        return f" cannot be read; write five fields: {LAYOUT}"
    if name == "day-of-month" and readable([*fields[:-2], "*", fields[-1]]):
        return NEVER  # not in any of the named months: the only trouble that takes two fields
    return f": bad {name} {fields[FIELD_NAMES.index(name) - len(FIELD_NAMES)]!r}"


def readable(fields: list[str]) -> bool:
    try:
        return bool(simulated(" ".join(fields), datetime(1970, 1, 1)))
    except Exception:
        return False


@lru_cache(maxsize=256)
def zone(name: str) -> tzinfo:
    """The time zone of this name; raises UsageError."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError, TypeError):
        raise UsageError(
            f"tz {name!r}: no such time zone; say one like Europe/Berlin (where a machine has none: pip install tzdata)"
        ) from None


def recurring(
    cron: Any, every: float | timedelta | None, tz: Any = None, missed: str | None = None
) -> Recurrence | None:
    """The recurrence that a program gives; None if it gives neither `cron` nor `every`. Raises UsageError."""
    if cron is None and every is None:
        for name, value in (("tz", tz), ("missed", missed)):
            if value is not None:
                raise UsageError(f"{name}= belongs to a schedule: say cron= or every=, too")
        return None
    if cron is not None and every is not None:
        raise UsageError("a schedule has either cron= or every=, not both")
    if cron is not None and not isinstance(cron, str):
        raise UsageError(f'cron must be text, as in "*/5 * * * *", not {cron!r}')
    if tz is not None and not isinstance(tz, str):
        key = getattr(tz, "key", None)
        which = f", as 'Europe/Berlin', not {tz!r}" if key is None else f": say {key!r}"
        raise UsageError(f"tz must be the name of a time zone{which}")
    if every is not None and tz is not None:
        raise UsageError("tz= is for cron=; every= counts from 1970-01-01 UTC, in any zone")
    said = {name: value for name, value in (("tz", tz), ("missed", missed)) if value is not None}
    return Recurrence(cron=cron, every=None if every is None else in_ms(every), **said)


def in_ms(every: float | timedelta) -> int:
    seconds = in_seconds(every)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not abs(seconds) < LONGEST:
        raise UsageError(f"every must be seconds or a timedelta, from 1 second to 10 years, not {every!r}")
    return round(seconds * 1000)


def job_id(name: str, slot: int) -> str:
    """The id of the job that a schedule puts for a slot: the same in every process, of the same form as all ids."""
    return f"{slot:011x}-{hashlib.sha256(f'{name} {slot}'.encode()).hexdigest()[:16]}"


def checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise UsageError(
            f"schedule {name!r}: a name has 1 to 200 characters, none of them a space or a control character"
        )
    return name


def defined(
    when: Recurrence, queue: str, task: str, args: Sequence[Any], kwargs: Mapping[str, Any], **more: Any
) -> Schedule:
    return Schedule(
        cron=when.cron, every=when.every, tz=when.tz, missed=when.missed,
        queue=queue, task=task, args=list(args), kwargs=dict(kwargs), **more,
    )  # fmt: skip

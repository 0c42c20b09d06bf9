"""When schedules are due, through clock changes and long absences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rq_lite.errors import UsageError
from rq_lite.model.message import as_is, decode, made_at
from rq_lite.model.schedule import (
    LATE,
    LONGEST,
    MOST,
    Recurrence,
    Schedule,
    checked_name,
    from_json,
    job_id,
    recurring,
    to_json,
    zone,
)

BERLIN = "Europe/Berlin"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def shown(when: Recurrence, start: str, number: int) -> list[str]:
    """The first slots after a moment, in their zone, without the year and the seconds."""
    found = islice(when.slots(ms(start)), number)
    return [datetime.fromtimestamp(slot / 1000, zone(when.tz)).strftime("%m-%d %H:%M %Z") for slot in found]


# -- slots


def test_a_cron_line_is_read_in_its_zone() -> None:
    for name in ("UTC", BERLIN, "America/New_York", "Asia/Kolkata"):
        when = Recurrence(cron="30 4 * * *", tz=name)
        slot = when.after(ms("2026-06-01T12:00+00:00"))
        assert slot is not None
        local = datetime.fromtimestamp(slot / 1000, ZoneInfo(name))
        assert (local.hour, local.minute) == (4, 30)


def test_a_slot_is_strictly_after_the_moment() -> None:
    when = Recurrence(cron="*/5 * * * *")
    slot = ms("2026-06-01T12:05+00:00")
    assert when.after(slot - 1) == slot
    assert when.after(slot) == slot + 5 * MINUTE
    assert when.after(slot + 1) == slot + 5 * MINUTE


def test_a_time_that_does_not_exist_is_the_next_that_does() -> None:
    when = Recurrence(cron="30 2 * * *", tz=BERLIN)
    assert shown(when, "2026-03-28T12:00+01:00", 2) == ["03-29 03:00 CEST", "03-30 02:30 CEST"]


def test_several_times_that_do_not_exist_are_one_slot() -> None:
    when = Recurrence(cron="10,30 2 * * *", tz=BERLIN)
    assert shown(when, "2026-03-28T12:00+01:00", 2) == ["03-29 03:00 CEST", "03-30 02:10 CEST"]


def test_a_time_that_comes_twice_is_due_once() -> None:
    when = Recurrence(cron="30 2 * * *", tz=BERLIN)
    assert shown(when, "2026-10-24T12:00+02:00", 2) == ["10-25 02:30 CEST", "10-26 02:30 CET"]
    # Also where somebody looks between the two.
    assert shown(when, "2026-10-25T02:40+02:00", 1) == ["10-26 02:30 CET"]
    assert shown(when, "2026-10-25T02:10+01:00", 1) == ["10-26 02:30 CET"]


def test_what_is_due_each_hour_goes_by_real_hours() -> None:
    when = Recurrence(cron="0 * * * *", tz=BERLIN)
    assert shown(when, "2026-10-25T01:30+02:00", 3) == ["10-25 02:00 CEST", "10-25 02:00 CET", "10-25 03:00 CET"]
    assert shown(when, "2026-03-29T00:30+01:00", 2) == ["03-29 01:00 CET", "03-29 03:00 CEST"]


LINES = ["*/7 * * * *", "30 2 * * *", "0 * * * *", "0 0 * * SUN", "15,45 1-3 * * *", "0 3 29 2 *", "0 0 L * *"]


@given(
    cron=st.sampled_from(LINES),
    tz=st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]),
    start=st.integers(ms("2025-01-01T00:00+00:00"), ms("2027-01-01T00:00+00:00")),
)
def test_slots_rise_and_do_not_depend_on_where_one_began(cron: str, tz: str, start: int) -> None:
    when = Recurrence(cron=cron, tz=tz)
    slots = list(islice(when.slots(start), 6))
    assert start < slots[0]
    assert slots == sorted(set(slots))
    for one, following in pairwise(slots):
        assert when.after(one) == following


# -- compared with every minute of the days around each odd change of a clock


class Change(NamedTuple):
    """A clock's change: when (s since 1970), and what it shows beside UTC before and after (s)."""

    at: int
    before: int
    after: int


def offset(second: int, where: ZoneInfo) -> int:
    return round(datetime.fromtimestamp(second, where).utcoffset().total_seconds())  # type: ignore[union-attr]


def changes(where: ZoneInfo, first: int, last: int) -> Iterator[Change]:
    step = 7 * DAY // 1000
    for second in range(first, last, step):
        low, high = second, second + step
        if offset(low, where) != offset(high, where):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle, where) == offset(low, where) else (low, middle)
            yield Change(high, offset(low, where), offset(high, where))


def is_odd(change: Change) -> bool:
    """Not by one hour, or at or over midnight."""
    walls = (change.at + change.before, change.at + change.after)
    over = len({wall // (DAY // 1000) for wall in walls}) > 1 or any(wall % (DAY // 1000) == 0 for wall in walls)
    return abs(change.after - change.before) != HOUR // 1000 or over


# Minutes, hours, whether both are named.
PATTERNS = [
    ("* * * * *", range(60), range(24), False),
    ("*/20 2 * * *", range(0, 60, 20), [2], False),
    ("*/20 1 * * *", range(0, 60, 20), [1], False),
    ("*/7 0 * * *", range(0, 60, 7), [0], False),
    ("15,45 * * * *", [15, 45], range(24), False),
    ("0 */3 * * *", [0], range(0, 24, 3), False),
    ("0 2 * * *", [0], [2], True),
    ("45 1 * * *", [45], [1], True),
    ("0,10,40 1-2 * * *", [0, 10, 40], [1, 2], True),
    ("0 0 * * *", [0], [0], True),
    ("30 0,23 * * *", [30], [0, 23], True),
    ("0 12 * * *", [0], [12], True),
]


AROUND = 100_800  # s before and after a change


def due(change: Change, clocks: Mapping[int, datetime], minutes: Any, hours: Any, named: bool) -> list[int]:
    """All slots around the change, found by looking at a clock each minute."""
    found, shown = [], set()
    for second, clock in clocks.items():
        fits = clock.minute in minutes and clock.hour in hours
        if named and second == change.at and change.after > change.before:  # what the clock jumps over
            jumped = range(second + change.before, second + change.after, 60)
            fits |= any(one % 3600 // 60 in minutes and one % 86_400 // 3600 in hours for one in jumped)
        if fits and not (named and clock in shown):
            found.append(second * 1000)
            shown.add(clock)
    return found


def odd_changes(names: Iterable[str], first: str, last: str) -> dict[Change, str]:
    """With one zone for each."""
    return {
        change: name
        for name in sorted(names)
        for change in changes(ZoneInfo(name), ms(first) // 1000, ms(last) // 1000)
        if is_odd(change) and change.at % 60 == 0
    }


def compare(odd: Mapping[Change, str]) -> None:
    for change, name in odd.items():
        begin, end = change.at - AROUND, change.at + AROUND
        clocks = {
            second: datetime.fromtimestamp(second, ZoneInfo(name)).replace(tzinfo=None, fold=0)
            for second in range(begin + 60, end, 60)
        }
        for cron, minutes, hours, named in PATTERNS:
            expected = due(change, clocks, minutes, hours, named)
            when = Recurrence(cron=cron, tz=name)
            found = [*islice(when.slots(begin * 1000), len(expected) + 1)]
            assert found[:-1] == expected, (name, cron, clocks[change.at])
            assert found[-1] >= end * 1000
            for one in (change.at - 1800, change.at - 60, change.at, change.at + 900, change.at + 4000):
                assert when.after(one * 1000) == next(slot for slot in found if slot > one * 1000)


# Half an hour, at midnight, over it; a country that crosses the date line; others that choose another zone.
ODD = ["Africa/Cairo", "America/Caracas", "America/Nuuk", "Antarctica/Troll", "Asia/Gaza", "Asia/Pyongyang",
       "Atlantic/Azores", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Norfolk"]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_no_slot_is_missed_where_a_clock_changes_in_an_odd_way(name: str) -> None:
    odd = odd_changes([name], "2010-01-01T00:00+00:00", "2030-01-01T00:00+00:00")
    assert odd
    compare(dict([*odd.items()][:: max(1, len(odd) // 2)]))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nor_in_any_zone_within_twenty_years() -> None:
    compare(odd_changes(available_timezones(), "2010-01-01T00:00+00:00", "2030-01-01T00:00+00:00"))


def test_every_counts_from_1970() -> None:
    when = Recurrence(every=30_000)
    assert list(islice(when.slots(90_000), 3)) == [120_000, 150_000, 180_000]
    assert when.after(89_999) == 90_000


@pytest.mark.parametrize("every", [30, 30.0, timedelta(seconds=30)])
def test_every_is_seconds_or_a_timedelta(every: Any) -> None:
    assert recurring(None, every) == Recurrence(every=30_000)


# -- what was missed


def test_the_one_that_is_due_is_fired_whatever_the_policy() -> None:
    for missed in ("skip", "once", "all"):
        assert Recurrence(every=MINUTE, missed=missed).to_fire(600_000, 600_003) == [600_000]


def test_of_missed_slots_once_fires_the_latest() -> None:
    assert Recurrence(every=MINUTE).to_fire(0, HOUR + 5) == [HOUR]
    assert Recurrence(cron="0 0 * * *").to_fire(0, 9 * DAY + HOUR) == [9 * DAY]


def test_of_missed_slots_skip_fires_what_is_due_now_and_nothing_else() -> None:
    assert Recurrence(every=DAY, missed="skip").to_fire(0, 5 * DAY + LATE) == [5 * DAY]
    assert Recurrence(every=DAY, missed="skip").to_fire(0, 5 * DAY + LATE + 1) == []


@pytest.mark.parametrize("when", [{"every": MINUTE}, {"cron": "* * * * *"}])
def test_of_missed_slots_all_fires_each_up_to_a_cap(when: dict[str, Any]) -> None:
    recurrence = Recurrence(missed="all", **when)
    assert recurrence.to_fire(0, 5 * MINUTE) == [n * MINUTE for n in range(6)]
    year = recurrence.to_fire(0, 365 * DAY)
    assert year == [365 * DAY - n * MINUTE for n in reversed(range(MOST))]


@pytest.mark.parametrize("cron", LINES)
def test_the_latest_slots_are_those_that_counting_finds(cron: str) -> None:
    when = Recurrence(cron=cron, tz=BERLIN, missed="all")
    first = when.after(ms("2024-01-15T00:00+00:00"))
    assert first is not None
    now = first + 40 * DAY + 1234
    counted = [first]
    for slot in when.slots(first):
        if slot > now:
            break
        counted.append(slot)
    assert when.to_fire(first, now) == counted[-MOST:]


# -- what is refused


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"cron": "0 0 31 2 *"}, "^cron '0 0 31 2 .' never fires: there is no such day$"),
        ({"cron": "0 0 31 2,4 *"}, "no such day$"),
        ({"cron": "0 0 0 * * MON#6"}, "^cron '0 0 0 . . MON#6': bad day-of-week 'MON#6'$"),
        ({"cron": "0 0 32 1 *"}, "^cron '0 0 32 1 .': bad day-of-month '32'$"),
        ({"cron": "61 * * * *"}, "^cron '61 . . . .': bad minute '61'$"),
        ({"cron": "61 * * * * *"}, ": bad second '61'$"),
        ({"cron": "* * *"}, "^cron '. . .' has 3 fields instead of five: minute hour day month weekday, as in "),
        ({"cron": ""}, "^cron '' has 0 fields instead of five"),
        ({"cron": 5}, "^cron must be text, as in .*, not 5$"),
        ({"cron": b"* * * * *"}, "^cron must be text"),
        ({"cron": "* * * * *", "tz": ZoneInfo(BERLIN)}, "^tz must be the name of a time zone: say 'Europe/Berlin'$"),
        ({"cron": "* * * * *", "tz": UTC}, "^tz must be the name of a time zone, as 'Europe/Berlin', not "),
        ({"cron": "* * * * *", "every": 5}, "not both"),
        ({"cron": "* * * * *", "tz": "Europe/Atlantis"}, "no such time zone"),
        ({"cron": "* * * * *", "tz": "../etc/passwd"}, "no such time zone"),
        ({"cron": "* * * * *", "missed": "some"}, "missed must be one of skip, once, all"),
        ({"every": 0.5}, "1 second to 10 years, not 0.5 s"),
        ({"every": 0}, "1 second to 10 years"),
        ({"every": -3}, "1 second to 10 years"),
        ({"every": True}, "seconds or a timedelta"),
        ({"every": "5"}, "seconds or a timedelta"),
        ({"every": float("nan")}, "seconds or a timedelta"),
        ({"every": LONGEST}, "seconds or a timedelta"),
        ({"every": 60, "tz": BERLIN}, "tz= is for cron="),
        ({"missed": "all"}, "belongs to a schedule"),
        ({"tz": BERLIN}, "belongs to a schedule"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        recurring(options.pop("cron", None), options.pop("every", None), **options)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "x" * 201, "\x1b[2J"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError, match="a name has 1 to 200 characters"):
        checked_name(name)


# -- definitions and ids


def test_a_definition_comes_back_from_json() -> None:
    schedule = Schedule(cron="0 0 * * *", tz=BERLIN, queue="q", task="m:f", args=[1], job={"result_ttl": 5.0})
    assert from_json("s", to_json("s", schedule, as_is), as_is) == schedule
    assert b"missed" not in to_json("s", schedule, as_is)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"no", b'{"queue":"q","task":"t"}', b'{"queue":"q","task":"t","cron":"no"}']
)
def test_what_is_no_definition_is_told_apart(text: bytes) -> None:
    assert from_json("s", text, as_is) is None


def test_a_job_of_a_slot_has_the_same_id_everywhere() -> None:
    slot = ms("2026-06-01T12:05+00:00")
    assert job_id("nightly", slot) == job_id("nightly", slot) != job_id("hourly", slot)
    assert made_at(job_id("nightly", slot)) == slot / 1000
    assert job_id("nightly", slot) == "19e8312ade0-595f15ed8b49ecfe"


def test_a_job_says_what_is_asked_for() -> None:
    plain = Schedule(every=1000, queue="q", task="m:f", args=[1], kwargs={"x": 2}).entry("id-1", as_is)
    message, attempts, *_ = decode(plain)
    assert (message.id, message.task, message.args, message.kwargs, attempts) == ("id-1", "m:f", [1], {"x": 2}, 0)
    assert plain.startswith(b"{")
    tracked = Schedule(every=1000, queue="q", task="m:f", job={"then": {"done": ["q", "m:g"]}}).entry("id-2", as_is)
    assert tracked.startswith(b"0.0#id-2{")
    assert decode(tracked)[0].then == {"done": ["q", "m:g"]}

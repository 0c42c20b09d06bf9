"""Arguments are refused at put, or the same on the other side; never changed."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import typing
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rq_lite.arguments import Arguments
from rq_lite.broker.codec import VERSION, Message, decode, encode
from rq_lite.errors import BadArgument


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: int
    label: str
    when: dt.datetime | None = None


class Text(str):
    pass


class Whole(int):
    pass


class Table(dict[str, Any]):
    pass


def taking(kind: Any) -> Arguments:
    """The arguments of `f(x: kind)`."""

    def f(x: Any) -> None: ...

    f.__annotations__ = {} if kind is None else {"x": kind}
    return Arguments("mod:f", f)


def carried(arguments: Arguments, *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """What arrives on the other side. Raises BadArgument if it is refused at put."""
    arguments.check(args, kwargs)
    try:
        raw = encode(Message(VERSION, "id", "mod:f", list(args), kwargs))
    except Exception as error:
        raise arguments.blame(args, kwargs, error) from None
    message = decode(raw)[0]
    return arguments.restore(message.args, message.kwargs)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    return bool(one == other and repr(one) == repr(other)) or isinstance(one, (set, frozenset))


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MINUTES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
# ISO 8601 has no word for the second run of an hour that a clock repeats.
MOMENTS = st.datetimes(timezones=st.none() | MINUTES).map(lambda moment: moment.replace(fold=0))
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
POINTS = st.builds(Point, st.integers(), WORDS, st.none() | MOMENTS)

RESTORED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bytes, st.binary()),
    (bytes | None, st.none() | st.binary()),
    (bytearray, st.binary().map(bytearray)),
    (dt.datetime, MOMENTS),
    (dt.date, st.dates()),
    (dt.time, st.times().map(lambda time: time.replace(fold=0))),
    (dt.timedelta, st.integers(-(10**9), 10**9).map(lambda seconds: dt.timedelta(seconds=seconds))),
    (decimal.Decimal, DECIMALS),
    (uuid.UUID, st.uuids()),
    (set[int], st.sets(st.integers())),
    (set[int | str], st.sets(st.integers() | WORDS)),
    (frozenset[str], st.frozensets(WORDS)),
    (tuple[int, str], st.tuples(st.integers(), WORDS)),
    (tuple[bytes, ...], st.lists(st.binary()).map(tuple)),
    (Point, POINTS),
    (list[Point], st.lists(POINTS, max_size=3)),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (dict[str, decimal.Decimal], st.dictionaries(WORDS, DECIMALS, max_size=3)),
    (list[tuple[int, int]], st.lists(st.tuples(st.integers(), st.integers()), max_size=3)),
    (typing.Literal["a", "b"], st.sampled_from(["a", "b"])),
]


@pytest.mark.parametrize(("kind", "values"), RESTORED, ids=lambda value: str(value)[:40])
def test_an_annotation_restores_what_json_has_no_word_for(kind: Any, values: st.SearchStrategy[Any]) -> None:
    arguments = taking(kind)

    @settings(max_examples=40)
    @given(values)
    def check(value: Any) -> None:
        args, _ = carried(arguments, value)
        assert same(args[0], value)
        _, kwargs = carried(arguments, x=value)
        assert same(kwargs["x"], value)

    check()


SURE = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
ODD = st.one_of(
    SURE,
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2),
    st.binary(max_size=4),
    st.sampled_from(
        [Text("t"), Whole(1), Table(a=1), Color.RED, Level.LOW, object(), print, 1j, collections.OrderedDict()]
    ),
    MOMENTS,
    DECIMALS,
    st.uuids(),
    st.sets(st.integers(), max_size=2),
)
ANYTHING = st.recursive(
    ODD,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(WORDS | st.integers() | st.booleans() | st.none(), inner, max_size=3),
    ),
    max_leaves=8,
)
KINDS = [None, Any, int, float, str, list, dict, list[int], dict[str, Any], int | None, *(kind for kind, _ in RESTORED)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_whatever_is_put_is_refused_or_arrives_unchanged(kind: Any) -> None:
    arguments = taking(kind)

    @settings(max_examples=40)
    @given(ANYTHING)
    def check(value: Any) -> None:
        with contextlib.suppress(BadArgument):
            args, _ = carried(arguments, value)
            assert same(args[0], value)

    check()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_what_json_has_a_word_for_needs_no_annotation(value: Any) -> None:
    args, _ = carried(taking(None), value)
    assert same(args[0], value)


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        (1, 2),
        {1},
        frozenset(),
        dt.datetime(2020, 1, 1),
        decimal.Decimal(1),
        uuid.UUID(int=0),
        Point(1, "a"),
        Color.RED,
        Level.LOW,
        Text("a"),
        Whole(1),
        Table(),
        print,
        float("nan"),
        float("inf"),
        "\ud800",
        {1: 2},
        {None: 2},
        {True: 2},
        {Text("a"): 2},
        [[(1,)]],
        {"a": {"b": [float("-inf")]}},
        {"a": "\udfff"},
    ],
    ids=repr,
)
def test_what_json_has_no_word_for_is_refused_by_name(value: Any) -> None:
    with pytest.raises(BadArgument, match="task mod:f: argument 'x'"):
        carried(taking(None), value)


@pytest.mark.parametrize("number", [0, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, -(2**64), 10**1000])
def test_integers_of_any_length_arrive(number: int) -> None:
    assert carried(taking(None), number)[0] == [number]
    assert carried(taking(int), x=number)[1] == {"x": number}


def test_a_number_too_long_for_json_is_refused() -> None:
    with pytest.raises(BadArgument, match="argument 'x'"):
        carried(taking(None), 10**5000)


@pytest.mark.parametrize("kind", [None, list[Any], list[bytes]])
def test_what_is_nested_too_deeply_is_refused(kind: Any) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BadArgument, match="argument 'x'"):
        carried(taking(kind), deep)
    while deep:  # taken apart by hand: its end is deep too
        deep = deep[0]


def test_what_contains_itself_is_refused() -> None:
    round_and_round: list[Any] = []
    round_and_round.append(round_and_round)
    with pytest.raises(BadArgument, match="argument 'x'"):
        carried(taking(None), round_and_round)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (bytes, "abcd"),
        (bytes, None),
        (dt.datetime, "2020-01-01T00:00:00"),
        (uuid.UUID, "00000000-0000-0000-0000-000000000000"),
        (decimal.Decimal, "1"),
        (decimal.Decimal, 1),
        (Color, "red"),
        (Level, 1),
        (tuple[int, ...], [1]),
        (set[int], [1]),
        (tuple[float, ...], (1,)),
        (Point, {"x": 1, "label": "a"}),
        (typing.Literal["a"], "b"),
    ],
    ids=repr,
)
def test_what_would_arrive_as_something_else_is_refused(kind: Any, value: Any) -> None:
    with pytest.raises(BadArgument, match="argument 'x'"):
        carried(taking(kind), value)


# -- what a function takes


def function(a: int, b: str = "", /, *rest: bytes, key: int = 0, **others: dt.date) -> None: ...


def keyword_only(a: int, *, key: int) -> None: ...


@pytest.mark.parametrize(
    ("target", "args", "kwargs", "why"),
    [
        (function, (), {}, "missing a required"),
        (keyword_only, (1,), {}, "missing a required"),
        (keyword_only, (1, 2), {"key": 1}, "too many positional arguments"),
        (keyword_only, (1,), {"key": 1, "other": 2}, "unexpected keyword argument 'other'"),
        (keyword_only, (1,), {"key": 1, "a": 2}, "multiple values for argument 'a'"),
    ],
)
def test_wrong_arguments_are_refused(
    target: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadArgument, match=why) as caught:
        Arguments("mod:f", target).check(args, kwargs)
    assert "task mod:f" in str(caught.value)
    assert "it takes (a: " in str(caught.value)


def test_arguments_without_a_name_of_their_own_are_restored_too() -> None:
    arguments = Arguments("mod:f", function)
    args = [1, "x", b"one", b"two"]
    kwargs = {"key": 3, "day": dt.date(2020, 2, 29)}
    assert carried(arguments, *args, **kwargs) == (args, kwargs)
    with pytest.raises(BadArgument, match="argument 'rest'"):
        carried(arguments, 1, "x", object())
    with pytest.raises(BadArgument, match="argument 'others'"):
        carried(arguments, 1, "x", day=object())


def test_only_functions_that_need_it_are_restored() -> None:
    assert taking(int).plain
    assert taking(None).plain
    assert not taking(bytes).plain


def test_an_annotation_that_cannot_be_read_counts_as_none() -> None:
    def f(x: NoSuchName) -> None: ...  # type: ignore[name-defined] # noqa: F821

    arguments = Arguments("mod:f", f)
    assert carried(arguments, 1)[0] == [1]
    with pytest.raises(BadArgument):
        carried(arguments, b"1")


def test_what_was_put_wrongly_by_others_is_named_at_restore() -> None:
    with pytest.raises(Exception, match="argument 'x': Expected `datetime`"):
        taking(dt.datetime).restore([5.5j], {})


# -- text


def test_text_becomes_what_the_annotations_say() -> None:
    def f(n: int, ratio: float, on: bool, day: dt.date, name: str, rest: Any, free: Any = None) -> None: ...

    row = {"n": "4", "ratio": "1.5", "on": "true", "day": "2020-02-29", "name": "5", "rest": "6", "free": "7"}
    assert Arguments("mod:f", f).from_text(row) == {
        "n": 4,
        "ratio": 1.5,
        "on": True,
        "day": dt.date(2020, 2, 29),
        "name": "5",
        "rest": "6",
        "free": "7",
    }


@pytest.mark.parametrize(("kind", "text"), [(int, "four"), (int, "1.5"), (dt.date, "tomorrow"), (bool, "perhaps")])
def test_text_that_does_not_fit_is_refused_by_name(kind: Any, text: str) -> None:
    with pytest.raises(BadArgument, match="task mod:f: argument 'x'"):
        taking(kind).from_text({"x": text})


def test_text_for_a_name_that_the_task_does_not_know_is_left_to_check() -> None:
    assert taking(int).from_text({"other": "1"}) == {"other": "1"}

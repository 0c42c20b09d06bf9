"""Arguments are refused at put, or the same on the other side; never changed."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import re
import sys
import typing
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rq_lite.client.queue import Queue
from rq_lite.errors import BadArgument
from rq_lite.model.arguments import Arguments
from rq_lite.model.message import VERSION, Message, decode, encode

if typing.TYPE_CHECKING:
    from tests.nowhere import Session  # type: ignore[import-not-found]


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


# -- annotations that cannot be used


class Sized(typing.Protocol):
    def size(self) -> int: ...


@dataclasses.dataclass
class Order:
    number: int
    session: Session  # for type checkers only, as below


@dataclasses.dataclass
class Sample:
    number: int


class Plain:
    """Nothing that JSON could carry."""


def half(session: Session, n: int, day: dt.date, other: Session | None = None) -> Session:
    return session


def nested(session: list[Session] | None, n: int, day: dt.date, other: Session | None = None) -> list[Session]:
    return []


def broken(session: "this is no Python", n: int, day: dt.date, other: 1 / 0 = None) -> 5: ...  # type: ignore # noqa


def of_orders(session: Order, n: int, day: dt.date, other: list[Order] | None = None) -> Order:
    return session


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


class Methods:
    def method(self, session: Session, n: int, day: dt.date, other: Session = None) -> None: ...

    __call__ = method


def lazy(session, n, day, other=None):  # type: ignore[no-untyped-def]
    """As Python 3.14 gives annotations that it cannot evaluate."""


lazy.__annotations__ = {
    "session": typing.ForwardRef("Session"),
    "n": int,
    "day": dt.date,
    "other": list[typing.ForwardRef("Session")],  # type: ignore[misc]
}
HALF = [
    half,
    nested,
    broken,
    of_orders,
    lazy,
    wrapped(half),
    wrapped(wrapped(half)),
    functools.partial(half),
    functools.partial(wrapped(half)),
    Methods().method,
    Methods(),
]


@pytest.mark.parametrize("function", HALF, ids=lambda one: getattr(one, "__qualname__", type(one).__name__))
def test_an_annotation_that_cannot_be_resolved_leaves_the_others_as_they_are(function: Callable[..., Any]) -> None:
    arguments = Arguments("mod:f", function)
    assert sorted(arguments.unread) == ["other", "session"]
    day = dt.date(2026, 11, 30)
    assert carried(arguments, "s", 1, day) == (["s", 1, day], {})
    assert carried(arguments, session=None, n=1, day=day) == ([], {"session": None, "n": 1, "day": day})
    row = {"session": "s", "n": "150", "day": "2026-11-30", "other": "5"}
    assert arguments.from_text(row) == {"session": "s", "n": 150, "day": day, "other": "5"}
    for wrong in ({"n": "many"}, {"day": "never"}):
        with pytest.raises(BadArgument, match=f"argument '{next(iter(wrong))}'"):
            arguments.from_text({**row, **wrong})
    with pytest.raises(BadArgument, match=r"it takes .*n: "):
        arguments.check((), {})


def test_a_value_for_an_annotation_that_cannot_be_resolved_is_refused_with_that_reason() -> None:
    for function in (half, of_orders):
        with pytest.raises(BadArgument) as caught:
            carried(Arguments("mod:f", function), dt.datetime(2026, 1, 1), 1, dt.date(2026, 1, 1))
        assert str(caught.value) == (
            "task mod:f: argument 'session': JSON has no word for datetime; its annotation cannot be resolved "
            "(NameError: name 'Session' is not defined): import the types it names outside `if TYPE_CHECKING:`"
        )
    arguments = Arguments("mod:f", half)
    assert arguments.returns is None
    assert arguments.result_trouble({"any": 1}) is None
    assert "its annotation cannot be resolved (NameError" in str(arguments.result_trouble({1}))


UNFIT = [
    (dt.datetime | str, "datetime.datetime | str"),
    (str | uuid.UUID | None, "str | uuid.UUID | None"),
    (Point | Sample, "Point | "),
    (tuple[int, ...] | list[int], "tuple[int, ...] | list[int]"),
    (set[int] | frozenset[int], "set[int] | frozenset[int]"),
    (list[dt.date | dt.datetime], "list[datetime.date | datetime.datetime]"),
    (Plain | int, "Plain | int"),
    (Sized, "Sized"),
    (list[Sized], "list["),
    (Sized | None, "Sized | None"),
    (typing.Literal[1.5], "Literal[1.5]"),
    (7, "7"),
]


@pytest.mark.parametrize(("kind", "named"), UNFIT, ids=str)
def test_an_annotation_that_does_not_say_what_to_restore_is_named_as_that(kind: Any, named: str) -> None:
    def f(x: Any, n: Any, day: Any) -> None: ...

    f.__annotations__ = {"x": kind, "n": int, "day": dt.date, "return": kind}
    arguments = Arguments("mod:f", f)
    day = dt.date(2026, 11, 30)
    assert not arguments.unread
    value: Any
    for value in ("text", 1, None, {"a": [1]}):
        assert carried(arguments, value, 1, day)[0] == [value, 1, day]
    for value in (dt.datetime(2026, 1, 1), {1}, Plain()):
        with pytest.raises(BadArgument) as caught:
            carried(arguments, value, 1, day)
        said = str(caught.value)
        assert said.startswith(f"task mod:f: argument 'x': JSON has no word for {type(value).__name__}; its ")
        assert re.search(rf"annotation [\w.]*{re.escape(named)}", said)
        assert "does not say what to restore: " in said
        assert said.endswith("; name one type")
        assert "annotate" not in said
    assert arguments.from_text({"n": "150", "day": "2026-11-30"}) == {"n": 150, "day": day}
    with pytest.raises(BadArgument, match=r"argument 'x': its annotation .* does not say what to restore"):
        arguments.from_text({"x": "2026-01-01"})
    assert "does not say what to restore" in str(arguments.result_trouble({1}))


@pytest.mark.parametrize("kind", [Plain, Plain | None, Callable[[int], str], type[int]], ids=str)
def test_a_class_that_json_cannot_carry_is_named_as_that(kind: Any) -> None:
    for value in (Plain(), "text", {1}):
        with pytest.raises(BadArgument, match=r"'x': .* does not go through JSON as .*; put what JSON can carry"):
            carried(taking(kind), value)


def test_a_restored_value_of_another_type_names_the_annotation() -> None:
    with pytest.raises(BadArgument, match=r"\[1\] comes back from JSON as \(1,\): the annotation is tuple\[int, "):
        carried(taking(tuple[int, ...]), [1])
    with pytest.raises(BadArgument, match=r"comes back from JSON as '2026-01-01T00:00:00': the annotation is ~T"):
        carried(taking(typing.TypeVar("T")), dt.datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("kind", "now"),
    [
        (None, ""),
        *((kind, f" (now it is {said})") for kind, said in ((int, "int"), (list[Any], "list[Any]"), (Any, "Any"))),
    ],
)
def test_what_an_annotation_could_mend_says_what_there_is_now(kind: Any, now: str) -> None:
    with pytest.raises(BadArgument) as caught:
        carried(taking(kind), {1})
    said = "JSON has no word for set; annotate the parameter with the type to have it restored"
    assert str(caught.value) == f"task mod:f: argument 'x': {said}{now}"


def test_what_cannot_be_resolved_is_told_when_the_task_is_first_used(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    task = queue.task(half)
    later = task.using(delay=5)
    assert not caplog.messages  # what is named may be defined further down
    for one in (later, task, task.using(delay=7)):
        one.put("s", 1, dt.date(2026, 11, 30))
    told = [
        f"task {task.name}: parameter '{name}': its annotation cannot be resolved (NameError: name 'Session' is not "
        "defined), so its values are not restored from JSON; import the types it names outside `if TYPE_CHECKING:`"
        for name in ("session", "other")
    ]
    assert caplog.messages == told


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at the definition")
def test_annotations_that_are_evaluated_when_asked_for() -> None:
    names: dict[str, Any] = {"dt": dt, "Any": Any}
    exec("def f(session: Session, n: int, day: dt.date, other: Session | None = None) -> Session: ...", names)
    test_an_annotation_that_cannot_be_resolved_leaves_the_others_as_they_are(names["f"])


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


def test_text_for_a_name_of_its_own_becomes_what_the_others_are() -> None:
    def f(rest: int, /, *args: bytes, key: str, **others: int) -> None: ...

    arguments = Arguments("mod:f", f)
    row = {"rest": "1", "args": "2", "key": "3", "n": "4", "others": "5"}
    assert arguments.from_text(row) == {"rest": 1, "args": 2, "key": "3", "n": 4, "others": 5}
    with pytest.raises(BadArgument, match="argument 'n'"):
        arguments.from_text({"n": "many"})

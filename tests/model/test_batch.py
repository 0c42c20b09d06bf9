"""What one job of a batch takes, by the annotation of the list; and which functions take no list."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from rq_lite import BadArgument, UsageError
from rq_lite.model.batch import BatchArguments

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Page:
    url: str


PAGE = Page("a")
DAY = date(2026, 12, 31)


def pages(those: list[Page]) -> list[Page]:
    return those


def sequence(those: Sequence[Page]) -> None: ...


def iterable(those: Iterable[Page], *, option: int = 0) -> list[Page] | None: ...


def optional(those: list[Page | None]) -> None: ...


def pairs(those: list[tuple[date, int]]) -> None: ...


def many(those: list[tuple[date, ...]]) -> None: ...


def tuples(those: list[tuple]) -> None: ...  # type: ignore[type-arg]


def lists(those: list[list[int]]) -> None: ...


def bare(those: list) -> None: ...  # type: ignore[type-arg]


def anything(those: Any) -> None: ...


def unannotated(those):  # type: ignore[no-untyped-def]
    ...


def unresolved(those: list[Decimal]) -> list[Decimal]:
    return those


def with_database(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("database", *args, **kwargs)

    return wrapper


@with_database
def decorated(database: str, those: list[Page]) -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "json", "element"),
    [
        (pages, [PAGE], [{"url": "a"}], PAGE),
        (sequence, [PAGE], [{"url": "a"}], PAGE),
        (iterable, [PAGE], [{"url": "a"}], PAGE),
        (decorated, [PAGE], [{"url": "a"}], PAGE),
        (optional, [None], [None], None),
        (pairs, [DAY, 1], ["2026-12-31", 1], (DAY, 1)),
        (many, [DAY, DAY], ["2026-12-31", "2026-12-31"], (DAY, DAY)),
        (many, [], [], ()),
        (tuples, ["a", [1]], ["a", [1]], ("a", [1])),
        (lists, [[1, 2]], [[1, 2]], [1, 2]),
        (bare, [{"a": 1}], [{"a": 1}], {"a": 1}),
        (anything, [[1]], [[1]], [1]),
        (unannotated, [None], [None], None),
        (unresolved, ["1.5"], ["1.5"], "1.5"),
        (list[Any].append.__get__([]), ["a"], ["a"], "a"),
    ],
)
def test_an_element_is_what_the_list_s_annotation_says(
    function: Any, args: list[Any], json: list[Any], element: Any
) -> None:
    arguments = BatchArguments("t", function)
    arguments.check(args, {})
    assert arguments.element(json, {}) == element


@pytest.mark.parametrize(
    ("function", "args", "said"),
    [
        (pages, [[PAGE]], "argument 'those': .* does not go through JSON as Page"),
        (pages, [{"url": "a"}], "argument 'those': .* comes back from JSON as Page"),
        (pages, [PAGE, PAGE], r"too many positional arguments; it takes \(those: .*Page, /\)"),
        (pages, [], "missing a required .*'those'; it takes"),
        (pairs, [DAY], "missing a required .*'those_2'; it takes"),
        (pairs, [(DAY, 1)], "missing a required .*'those_2'; it takes"),
        (pairs, [DAY, DAY], "argument 'those_2': JSON has no word for date"),
        (many, [DAY, "x"], "argument 'those': 'x' does not go through JSON as date"),
        (unresolved, [DAY], "argument 'those': JSON has no word for date; its annotation cannot be resolved"),
    ],
)
def test_a_put_that_is_no_element_is_refused(function: Any, args: list[Any], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        BatchArguments("t", function).check(args, {})


def test_arguments_by_name_are_refused_with_the_way_out() -> None:
    arguments = BatchArguments("t", pages)
    with pytest.raises(
        BadArgument, match=r"^task t: those=, x= is given by name; its jobs run in batches and take their"
    ):
        arguments.check((), {"those": PAGE, "x": 1})
    with pytest.raises(TypeError, match="a job of the batch takes"):
        arguments.element([], {"those": {"url": "a"}})


@pytest.mark.parametrize(
    ("function", "restored"),
    [(pages, Page), (iterable, Page), (sequence, None), (unannotated, None), (unresolved, None)],
)
def test_a_result_is_what_the_returned_list_s_annotation_says(function: Any, restored: Any) -> None:
    assert BatchArguments("t", function).returns is restored


def of_none() -> None: ...


def of_two(those: list[int], that: int) -> None: ...


def with_default(those: list[int], that: int = 0) -> None: ...


def of_many(*those: int) -> None: ...


def by_name(those: list[int], *, that: int) -> None: ...


def named_only(*, those: list[int]) -> None: ...


@pytest.mark.parametrize("function", [of_none, of_two, with_default, of_many, by_name, named_only, print])
def test_a_function_that_takes_something_else_than_one_argument_is_refused(function: Any) -> None:
    said = r"^task t: with batch= its function takes one argument, a list .*; this one takes \("
    with pytest.raises(UsageError, match=said):
        BatchArguments("t", function)


def of_page(those: Page) -> None: ...


def of_text(those: str) -> None: ...


def of_dict(those: dict[str, int]) -> None: ...


def of_set(those: set[int]) -> None: ...


def of_either(those: list[int] | list[str]) -> None: ...


@pytest.mark.parametrize("function", [of_page, of_text, of_dict, of_set, of_either])
def test_a_function_whose_argument_is_annotated_as_no_list_is_refused(function: Any) -> None:
    with pytest.raises(UsageError, match=r"^task t: with batch= .*; annotate 'those' as list\[…\], not "):
        BatchArguments("t", function)

"""Batches: full ones while items come fast, small ones while they come slowly, nothing lost."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rq_lite import Queue, Settings, UsageError
from rq_lite.broker import Broker
from rq_lite.client.batches import SLOW, ahead, batches, each_of


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def cut(items: Iterable[int], most: int = 3, heaviest: int = 10**9, clock: Clock | None = None) -> Iterator[list[int]]:
    return batches(items, lambda item: item, most=most, heaviest=heaviest, clock=clock or Clock())


@given(st.lists(st.integers(0, 50)), st.integers(1, 8), st.integers(1, 100))
def test_every_item_is_in_one_batch_in_order(items: list[int], most: int, heaviest: int) -> None:
    found = list(cut(items, most, heaviest))
    assert [item for batch in found for item in batch] == items
    for batch in found:
        assert 0 < len(batch) <= most
        assert sum(batch[:-1]) < heaviest  # its last item may go over
    for batch in found[:-1]:
        assert len(batch) == most or sum(batch) >= heaviest


def test_of_nothing_comes_nothing() -> None:
    assert list(cut([])) == []


def test_an_item_that_was_long_in_coming_goes_on_at_once_with_those_before_it() -> None:
    clock = Clock()

    def items() -> Iterator[int]:
        yield from (1, 2)
        clock.now += SLOW * 2
        yield 3
        yield from (4, 5)

    assert list(cut(items(), most=10, clock=clock)) == [[1, 2, 3], [4, 5]]


def test_time_spent_with_a_batch_is_not_the_source_s() -> None:
    clock = Clock()
    found = []
    for batch in cut(range(6), most=3, clock=clock):
        clock.now += 100
        found.append(batch)
    assert found == [[0, 1, 2], [3, 4, 5]]


def test_no_item_is_read_before_it_is_needed() -> None:
    read = []

    def items() -> Iterator[int]:
        for number in range(10):
            read.append(number)
            yield number

    found = cut(items())
    assert read == []
    next(found)
    assert read == [0, 1, 2]


def test_what_came_before_an_error_comes_out_before_it() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3, 4)
        raise ValueError("no more")

    found = cut(items())
    assert [next(found), next(found)] == [[1, 2, 3], [4]]
    with pytest.raises(ValueError, match="no more"):
        next(found)


def test_a_pause_hands_on_what_there_is() -> None:
    items = [1, None, None, 2, 3, None]
    assert list(batches(items, lambda item: item, most=10, heaviest=100)) == [[1], [2, 3]]


def test_ahead_yields_the_same_and_says_when_nothing_comes() -> None:
    silence, heard = threading.Event(), []

    def source() -> Iterator[int]:
        yield from (1, 2)
        silence.wait(30)
        yield 3

    for item in ahead(source()):
        heard.append(item)
        if item is None:
            silence.set()
    assert [item for item in heard if item is not None] == [1, 2, 3]
    assert heard.index(None) == 2


def test_ahead_raises_what_the_source_raises() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("bad")

    items = ahead(source())
    assert next(item for item in items if item is not None) == 1
    with pytest.raises(KeyError, match="bad"):
        list(items)


@pytest.mark.parametrize("text", ["https://example.org", b"abc", bytearray(b"abc"), ""])
def test_a_text_is_not_put_by_the_character(text: Any) -> None:
    queue = Queue("nowhere", broker=Broker(settings=Settings(url="redis://127.0.0.1:1")))
    for put_many in (queue.put_many, queue.task(name="t")(print).put_many):
        with pytest.raises(UsageError, match="put_many would put each character of this"):
            put_many(text)


def test_lines_of_a_text_file_are_items_without_their_ends() -> None:
    assert list(each_of(io.StringIO("one\r\n two \n\nlast"))) == ["one", " two ", "", "last"]
    assert list(each_of(io.BytesIO(b"one\n"))) == [b"one\n"]

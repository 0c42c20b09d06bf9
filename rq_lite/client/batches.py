"""Items by the batch: full ones while items come fast, small ones while they come slowly."""

from __future__ import annotations

import io
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rq_lite.errors import UsageError

T = TypeVar("T")

# An item that took longer than this (seconds) to come is passed on at once, with those before it.
SLOW = 0.01
# Items that are read before they are asked for.
AHEAD = 1000


def each_of(items: Iterable[Any]) -> Iterable[Any]:
    """The items to put; of a text file its lines, without their line ends.

    Raises UsageError for a str or bytes, whose characters are not meant as items.
    """
    if isinstance(items, (str, bytes, bytearray)):
        kind = type(items).__name__
        raise UsageError(
            f"put_many would put each character of this {kind}: put it alone with put, as [it], or as open(it)"
        )
    if isinstance(items, io.TextIOBase):
        return (line.rstrip("\r\n") for line in items)
    return items


def batches(
    items: Iterable[T | None],
    weight: Callable[[T], int],
    *,
    most: int,
    heaviest: int,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[T]]:
    """Lists of at most `most` items; one that has reached the weight `heaviest` is full too.

    None among the items means that there are no more just now. Items that came before an error are passed on before
    the error is raised.
    """
    batch: list[T] = []
    total, asked = 0, clock()
    try:
        for item in items:
            if item is not None:
                batch.append(item)
                total += weight(item)
            if item is None or len(batch) >= most or total >= heaviest or clock() - asked > SLOW:
                if batch:
                    yield batch
                batch, total = [], 0
            asked = clock()
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def ahead(items: Iterable[T]) -> Iterator[T | None]:
    """The same items, read in a thread of their own: None whenever the next one is not there soon.

    For a source that may be silent for long, as a pipe: items that came before need not wait until it speaks again.
    """
    read: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(AHEAD)

    def fill() -> None:
        try:
            for item in items:
                read.put((item, None))
        except BaseException as error:
            read.put((None, error))
        else:
            read.put((None, StopIteration()))

    threading.Thread(target=fill, name="ahead", daemon=True).start()
    while True:
        try:
            item, error = read.get(timeout=SLOW)
        except queue.Empty:
            yield None
            item, error = read.get()
        if isinstance(error, StopIteration):
            return
        if error is not None:
            raise error
        yield item

"""Items by the batch: full ones while items come fast, small ones while they come slowly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# An item that took this long (seconds) to come goes on at once, with those before it.
SLOW = 0.01


def batches(
    items: Iterable[T],
    weight: Callable[[T], int],
    *,
    most: int,
    heaviest: int,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[T]]:
    """Lists of at most `most` items; one that has reached the weight `heaviest` is full too.

    What came before an error is handed on before the error is raised.
    """
    batch: list[T] = []
    total, asked = 0, clock()
    try:
        for item in items:
            batch.append(item)
            total += weight(item)
            if len(batch) >= most or total >= heaviest or clock() - asked > SLOW:
                yield batch
                batch, total = [], 0
            asked = clock()
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch

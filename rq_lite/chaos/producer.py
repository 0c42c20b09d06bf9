"""A producer of a run under faults: `python -m rq_lite.chaos.producer FIRST JOBS LONGEST`.

Puts JOBS jobs, numbered from FIRST on, that sleep up to LONGEST seconds. While Redis is away puts may fail: those that
failed, or perhaps did, are counted and replaced by others. The last line that it prints is these counts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import msgspec

from rq_lite.chaos.app import nap
from rq_lite.errors import BrokerUnavailable
from rq_lite.process.background import end_with_parent

STEPS = 7  # different lengths of a nap


class Known(msgspec.Struct):
    """How many jobs were certainly put, and how many puts failed or were never answered."""

    put: int = 0
    not_put: int = 0
    unknown: int = 0


def produce(first: int, jobs: int, longest: float) -> Known:
    known = Known()
    numbers = iter(range(first, sys.maxsize))
    sleepy = nap.using(wait=None)
    while known.put < jobs:
        try:
            known.put += sleepy.put_many(naps(numbers, jobs - known.put, longest))
        except BrokerUnavailable as error:
            known.put += error.put
            if error.outcome == "unknown":
                known.unknown += 1
            else:
                known.not_put += 1
            print(error, flush=True)
    return known


def naps(numbers: Iterator[int], count: int, longest: float) -> Iterator[tuple[int, float]]:
    """The arguments of `count` jobs, which take turns in the lengths of their naps."""
    for _ in range(count):
        number = next(numbers)
        yield number, longest * (number % STEPS) / (STEPS - 1)


if __name__ == "__main__":
    end_with_parent()
    print(msgspec.json.encode(produce(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))).decode())

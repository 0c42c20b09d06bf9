"""A producer of a run under faults: `python -m rq_lite.chaos.producer FIRST JOBS LONGEST MIXED`.

Puts JOBS jobs, numbered from FIRST on, that sleep up to LONGEST seconds. With MIXED, 1, some of them are unique, and
some lead to another job, which counts among JOBS. While Redis is away puts may fail: those that failed, or perhaps did,
are counted and replaced by others. The last line that it prints is these counts.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from rq_lite.chaos.app import lead, nap, once, once_waiting
from rq_lite.client.task import Task
from rq_lite.errors import BrokerUnavailable
from rq_lite.process.background import end_with_parent

STEPS = 7  # different lengths of a nap
SHARES: dict[int, Task[Any, Any]] = {0: once, 1: once_waiting, 2: lead}  # of ten jobs; the others only nap
KEYS = 500  # of the jobs of each unique task: fewer than may wait at a time
BATCH = 1000

Jobs = dict[Task[Any, Any], list[tuple[int, float]]]


class Known(msgspec.Struct):
    """How many jobs were certainly put, and how many puts failed or were never answered."""

    put: int = 0
    not_put: int = 0
    unknown: int = 0


def produce(first: int, jobs: int, longest: float, *, mixed: bool) -> Known:
    known = Known()
    numbers = itertools.count(first)
    while known.put < jobs:
        for task, some in batch(numbers, min(BATCH, jobs - known.put), longest, mixed=mixed).items():
            known.put += (2 if task is lead else 1) * put(task, some, known)
    return known


def put(task: Task[Any, Any], some: list[tuple[int, float]], known: Known) -> int:
    """How many of these were certainly put."""
    try:
        return task.using(wait=None).put_many(some)
    except BrokerUnavailable as error:
        if error.outcome == "unknown":
            known.unknown += 1
        else:
            known.not_put += 1
        print(error, flush=True)
        return 0 if task in (once, once_waiting) else error.put  # that counts those that were kept out, too


def batch(numbers: Iterator[int], count: int, longest: float, *, mixed: bool) -> Jobs:
    """The arguments of jobs that make `count` together, by their tasks. Their naps take turns in length."""
    found: Jobs = defaultdict(list)
    while count > 0:
        number = next(numbers)
        task = SHARES.get(number % 10, nap) if mixed else nap
        if task is lead and count == 1:
            task = nap
        name = number // 10 % KEYS if task in (once, once_waiting) else number
        found[task].append((name, longest * (number % STEPS) / (STEPS - 1)))
        count -= 2 if task is lead else 1
    return found


if __name__ == "__main__":
    end_with_parent()
    first, jobs, longest, mixed = sys.argv[1:]
    print(msgspec.json.encode(produce(int(first), int(jobs), float(longest), mixed=mixed == "1")).decode())

"""The standard library's own tests of its queues, run on ours."""

from __future__ import annotations

import itertools
import queue as stdlib
import unittest
from typing import Any

import pytest

from rq_lite import LifoQueue, PriorityQueue, Queue

theirs = pytest.importorskip("test.test_queue", reason="this Python comes without its own tests")
numbers = itertools.count()


class Ours(theirs.BaseQueueTestMixin):  # type: ignore[misc,name-defined]
    kind: type[Queue]
    queue = stdlib  # Empty, Full, ShutDown: ours are subclasses

    def setUp(self) -> None:
        super().setUp()
        self.type2test = self.made

    def made(self, maxsize: int = 0) -> Queue:
        return self.kind(f"q{next(numbers)}", maxsize)


# What is not documented of the standard library's queues: some of its tests (since 3.13) look at it.
INSIDE = {"unfinished_tasks", "is_shutdown", "mutex"}


def looks_inside(name: str) -> bool:
    """Whether this method, or one that it calls, looks at what is not documented."""
    used = set(getattr(Ours, name).__code__.co_names)
    return bool(used & INSIDE) or any(looks_inside(one) for one in used if one.startswith("_shutdown"))


NAMES = [name for name in dir(Ours) if name.startswith("test_") and not looks_inside(name)]
MANY = "in_many_threads"  # they take 20 s, and put tuples, which only a PriorityQueue takes
CASES = [
    pytest.param(kind, name, marks=[pytest.mark.long] if MANY in name else [])
    for kind in (Queue, LifoQueue, PriorityQueue)
    for name in NAMES
    if kind is PriorityQueue or MANY not in name
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_their_test_passes(kind: type[Queue], name: str, queue: Queue) -> None:
    case: Any = type(kind.__name__, (Ours, unittest.TestCase), {"kind": kind})(name)
    case.debug()


def test_there_are_such_tests() -> None:
    assert len(NAMES) >= 5

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


NAMES = [name for name in dir(Ours) if name.startswith("test_")]
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

"""Tasks on queues that are not first in, first out, and one that plain items share with tasks."""

from __future__ import annotations

from rq_lite import LifoQueue, PriorityQueue, Queue
from tests.acceptance.apps.evidence import note

stack = LifoQueue("stack")
ranked = PriorityQueue("ranked")
mixed = Queue("mixed")


@stack.task
def newest(n: int) -> None:
    note("done", n)


@ranked.task
def lowest(n: int) -> None:
    note("done", n)


@mixed.task
def usual(n: int) -> None:
    note("done", n)

"""The producer side of the minimal loop, in the form that `drive` needs."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.minimal_loop import Producer

producer = Producer()


def put(task: str, argument: object) -> None:
    producer.put(task, [argument])


def put_many(task: str, arguments: Sequence[object]) -> None:
    producer.put(task, arguments)

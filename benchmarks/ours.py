"""The producer side of rq_lite, in the form that `drive` needs."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import tasks


def put(task: str, argument: object) -> None:
    getattr(tasks, task).put(argument)


def put_many(task: str, arguments: Sequence[object]) -> None:
    getattr(tasks, task).put_many(arguments)


def ask(argument: float) -> object:
    return tasks.echo.put(argument).result(30)

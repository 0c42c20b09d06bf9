"""The registry: the tasks and queues that imported programs have defined, and the names of tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rq_lite.errors import UsageError

if TYPE_CHECKING:
    from rq_lite.client.queue import Queue
    from rq_lite.client.task import Task


class Registry:
    """The tasks and queues of the programs that were imported; only these tasks are ever run."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task[Any, Any]] = {}
        self.queues: dict[str, Queue] = {}

    def add(self, task: Task[Any, Any]) -> None:
        known = self.tasks.get(task.name)
        if known is not None and where(known.function) != where(task.function):
            raise UsageError(
                f"two tasks are called {task.name!r}: {where(known.function)} and {where(task.function)}; "
                "give one of them another name="
            )
        self.tasks[task.name] = task

    def working_queues(self) -> list[str]:
        """The queues that tasks belong to, in the order of their definition."""
        return list(dict.fromkeys(task.queue.name for task in self.tasks.values()))


registry = Registry()


def says_of(tasks: Mapping[str, Task[Any, Any]]) -> Callable[[str], dict[str, Any]]:
    """A function from a task's name to the fields that its puts add to the message: none if it is unknown here."""

    def says(name: str) -> dict[str, Any]:
        task = tasks.get(name)
        return {} if task is None else task.says

    return says


def where(function: Callable[..., object]) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_qualname}" if code else repr(function)


def name_of(function: Callable[..., object]) -> str:
    """`module:function`; for a program started as a script with the module's name as others import it."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name.removesuffix(".__main__") if spec else Path(file).stem if file else module
    return f"{module}:{function.__qualname__}"

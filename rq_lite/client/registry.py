"""The registry: the tasks and queues that imported programs have defined, and the names of tasks."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from rq_lite.errors import UsageError
from rq_lite.model.arguments import innermost

if TYPE_CHECKING:
    from rq_lite.client.queue import Queue
    from rq_lite.client.task import Task


INSTEAD = "make it a @staticmethod, or a function outside of the class"


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


def near_miss(name: str, known: Iterable[str]) -> str | None:
    """A known task of the same function in a module of another name; best, one whose name ends as the other's does."""
    module, _, function = name.partition(":")
    near = [one for one in known if function and one.partition(":")[2] == function]

    def ends_alike(one: str) -> bool:
        other = f".{one.partition(':')[0]}"
        return other.endswith(f".{module}") or f".{module}".endswith(other)

    return min(near, key=lambda one: (not ends_alike(one), one), default=None)


def where(function: Any) -> str:
    """Where a function is defined: the same again after a second import of its module."""
    code = getattr(function, "__code__", None)
    if code:
        return f"{code.co_filename}:{code.co_qualname}"
    if isinstance(function, functools.partial):
        return f"{where(function.func)} with {function.args!r} and {function.keywords!r}"
    return repr(function) if hasattr(function, "__qualname__") else f"an object of {type(function).__qualname__}"


def runnable(function: Any) -> Callable[..., Any]:
    """What a task calls. Raises UsageError for what no job could call, and for what needs an object that it has not."""
    if isinstance(function, staticmethod):
        return runnable(function.__func__)
    if isinstance(function, classmethod):
        raise UsageError(f"task {name_of(function)}: a job has no class to call it on: {INSTEAD}")
    if not callable(function):
        raise UsageError(f"@queue.task needs a function, not {function!r}")
    called: Callable[..., Any] = function
    inner = innermost(function)
    within, _, _ = getattr(inner, "__qualname__", "").rpartition(".")
    if isinstance(inner, FunctionType) and not isinstance(function, MethodType):
        first = inner.__code__.co_varnames[: inner.__code__.co_argcount][:1]
        if within and not within.endswith("<locals>") and first in (("self",), ("cls",)):
            raise UsageError(f"task {name_of(inner)}: a job has no {first[0]!r} to call it on: {INSTEAD}")
    return called


def name_of(function: Any) -> str:
    """`module:function`; for a program started as a script with the module's name as others import it."""
    if not hasattr(function, "__qualname__"):
        raise UsageError(f'{function!r} has no name of its own: give it one, as in queue.task(name="…")(…)')
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name.removesuffix(".__main__") if spec else Path(file).stem if file else module
    return f"{module}:{function.__qualname__}"

"""The call of a job's function, and a look at what it gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from rq_lite.client.current import CurrentJob, given
from rq_lite.client.task import Task
from rq_lite.model.completion import BadResult

# What is returned by functions that were called and have not run.
UNRUN = {CoroutineType: "a coroutine", AsyncGeneratorType: "an async generator", GeneratorType: "a generator"}


def call(task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], current: CurrentJob | None) -> Any:
    """Run it in a fresh context, where it finds `current`. Raises what it raises, and BadResult."""
    context = Context()
    context.run(given.set, current)
    result = context.run(task.function, *args, **kwargs)
    check_ran(task, result)
    return result


def check_ran(task: Task[Any, Any], result: Any) -> None:
    """Raises BadResult for what a wrapped `async def` or generator returns: such a job has done nothing."""
    kind = UNRUN.get(type(result))
    if kind is None:
        return
    if isinstance(result, CoroutineType):
        result.close()  # or Python warns that nobody awaited it
    raise BadResult(f"{task.name} returned {kind}, which nothing runs; jobs are plain functions")

"""The call of a job's function off the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any

from rq_lite.current import CurrentJob, given
from rq_lite.task import Task


def call(task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], current: CurrentJob | None) -> Any:
    """Run it, in the thread or process that is its own meanwhile, in a fresh context, where it finds `current`."""
    context = Context()
    context.run(given.set, current)
    return context.run(task.function, *args, **kwargs)

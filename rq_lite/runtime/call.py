"""The call of a job's function off the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any

from rq_lite.current import Asked, given
from rq_lite.task import Task


def call(task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], asked: Asked) -> Any:
    """Run it, in the thread or process that is its own meanwhile, in a fresh context.

    Whom `current_job` asks there stands in that context.
    """
    context = Context()
    context.run(given.set, asked)
    return context.run(task.function, *args, **kwargs)

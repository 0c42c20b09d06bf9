"""The call of a job's function off the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any

from rq_lite.task import Task


def call(task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run it, in the thread or process that is its own meanwhile, in a fresh context.

    What a running job should find out about itself is put into that context here.
    """
    return Context().run(task.function, *args, **kwargs)

"""rq_lite: a work queue on Redis whose queues are bounded.

The names below are loaded when they are first used: a consumer must be able to patch before anything else
is imported, and `rq-lite --help` should not wait for Redis' client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rq_lite.broker import Broker
    from rq_lite.current import CurrentJob, current_job
    from rq_lite.errors import (
        BadArgument,
        BrokerError,
        BrokerOutOfMemory,
        BrokerUnavailable,
        Empty,
        Full,
        JobFailed,
        JobTimeout,
        PayloadTooLarge,
        QueueEmpty,
        QueueFull,
        RqLiteError,
        ShutDown,
        UsageError,
    )
    from rq_lite.job import Job
    from rq_lite.outcome import Bury, Ended, Retry
    from rq_lite.pool import Executor
    from rq_lite.queue import LifoQueue, PriorityQueue, Queue
    from rq_lite.settings import Settings, load_settings
    from rq_lite.task import Task
    from rq_lite.waiting import as_completed, gather, wait

__version__ = "0.1.0"

__all__ = [
    "BadArgument",
    "Broker",
    "BrokerError",
    "BrokerOutOfMemory",
    "BrokerUnavailable",
    "Bury",
    "CurrentJob",
    "Empty",
    "Ended",
    "Executor",
    "Full",
    "Job",
    "JobFailed",
    "JobTimeout",
    "LifoQueue",
    "PayloadTooLarge",
    "PriorityQueue",
    "Queue",
    "QueueEmpty",
    "QueueFull",
    "Retry",
    "RqLiteError",
    "Settings",
    "ShutDown",
    "Task",
    "UsageError",
    "__version__",
    "as_completed",
    "current_job",
    "gather",
    "load_settings",
    "wait",
]

# Where the names live; what is not listed is an error.
_HOMES = {
    "Broker": "broker",
    "Bury": "outcome",
    "CurrentJob": "current",
    "Ended": "outcome",
    "Executor": "pool",
    "Job": "job",
    "LifoQueue": "queue",
    "PriorityQueue": "queue",
    "Queue": "queue",
    "Retry": "outcome",
    "Settings": "settings",
    "Task": "task",
    "as_completed": "waiting",
    "current_job": "current",
    "gather": "waiting",
    "load_settings": "settings",
    "wait": "waiting",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

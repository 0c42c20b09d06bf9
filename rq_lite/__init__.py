"""rq_lite: a work queue on Redis whose queues are bounded.

The names below are loaded when they are first used: a consumer must be able to patch before anything else
is imported, and `rq-lite --help` should not wait for Redis' client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rq_lite.broker import Broker
    from rq_lite.client.current import CurrentJob, current_job
    from rq_lite.client.executor import Executor
    from rq_lite.client.job import Job
    from rq_lite.client.middleware import JobEvent, WorkerEvent, middleware
    from rq_lite.client.queue import LifoQueue, PriorityQueue, Queue
    from rq_lite.client.task import Task
    from rq_lite.client.wait import as_completed, gather, wait
    from rq_lite.errors import (
        BadArgument,
        BatchFailed,
        BrokerError,
        BrokerOutOfMemory,
        BrokerUnavailable,
        Duplicate,
        Empty,
        Full,
        JobDropped,
        JobExpired,
        JobFailed,
        JobReplaced,
        JobTimeout,
        PayloadTooLarge,
        QueueEmpty,
        QueueFull,
        RqLiteError,
        ShutDown,
        SourceError,
        UsageError,
    )
    from rq_lite.feeds.sources import read_lines
    from rq_lite.model.outcome import Bury, Ended, Retry
    from rq_lite.settings import Settings, load_settings

__version__ = "0.1.0"

__all__ = [
    "BadArgument",
    "BatchFailed",
    "Broker",
    "BrokerError",
    "BrokerOutOfMemory",
    "BrokerUnavailable",
    "Bury",
    "CurrentJob",
    "Duplicate",
    "Empty",
    "Ended",
    "Executor",
    "Full",
    "Job",
    "JobDropped",
    "JobEvent",
    "JobExpired",
    "JobFailed",
    "JobReplaced",
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
    "SourceError",
    "Task",
    "UsageError",
    "WorkerEvent",
    "__version__",
    "as_completed",
    "current_job",
    "gather",
    "load_settings",
    "middleware",
    "read_lines",
    "wait",
]

# The module of each name; a name that is not listed here is in `errors`.
_HOMES = {
    "Broker": "broker",
    "Bury": "model.outcome",
    "CurrentJob": "client.current",
    "Ended": "model.outcome",
    "Executor": "client.executor",
    "Job": "client.job",
    "JobEvent": "client.middleware",
    "LifoQueue": "client.queue",
    "PriorityQueue": "client.queue",
    "Queue": "client.queue",
    "Retry": "model.outcome",
    "Settings": "settings",
    "Task": "client.task",
    "WorkerEvent": "client.middleware",
    "as_completed": "client.wait",
    "current_job": "client.current",
    "gather": "client.wait",
    "load_settings": "settings",
    "middleware": "client.middleware",
    "read_lines": "feeds.sources",
    "wait": "client.wait",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""What operators see and do. The names below are public: docs/api.md; they are loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rq_lite.admin.dead import Buried, Filter, buried
    from rq_lite.admin.jobs import Found, Search, find, listed
    from rq_lite.admin.status import QueueState, WorkerState, queues, states, workers
    from rq_lite.model.states import State

__all__ = [
    "Buried",
    "Filter",
    "Found",
    "QueueState",
    "Search",
    "State",
    "WorkerState",
    "buried",
    "find",
    "listed",
    "queues",
    "states",
    "workers",
]

_HOMES = {
    **dict.fromkeys(("Buried", "Filter", "buried"), "admin.dead"),
    **dict.fromkeys(("Found", "Search", "find", "listed"), "admin.jobs"),
    "State": "model.states",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rq_lite.{_HOMES.get(name, 'admin.status')}"), name)
    globals()[name] = value
    return value

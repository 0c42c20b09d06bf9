"""A job and the states it goes through; no input or output."""

from __future__ import annotations

import enum
from typing import Any

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One message, as it was put."""

    id: str
    queue: str
    task: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}


class State(enum.Enum):
    """Where a job is; it is in exactly one place at any time."""

    PENDING = "pending"  # waits in the queue
    SCHEDULED = "scheduled"  # is due later: a delay, a retry, or parked
    INFLIGHT = "inflight"  # taken, owned by one consumer
    SUSPECT = "suspects"  # its consumers died twice: waits to run alone
    DEAD = "dead"  # buried, with its error
    GONE = "gone"  # acked, purged, forgotten or trimmed


# Every transition: verb, from (None: from nowhere), to. Each is one script of that name;
# `take` and `ack` share the script `exchange`. docs/lifecycle.md draws this table.
EDGES: tuple[tuple[str, State | None, State], ...] = (
    ("put", None, State.PENDING),
    ("put", None, State.SCHEDULED),
    ("fire", None, State.PENDING),
    ("promote", State.SCHEDULED, State.PENDING),
    ("promote", State.SCHEDULED, State.SUSPECT),
    ("take", State.PENDING, State.INFLIGHT),
    ("isolate", State.SUSPECT, State.INFLIGHT),
    ("ack", State.INFLIGHT, State.GONE),
    ("retry", State.INFLIGHT, State.SCHEDULED),
    ("park", State.INFLIGHT, State.SCHEDULED),
    ("bury", State.INFLIGHT, State.DEAD),
    ("give_back", State.INFLIGHT, State.PENDING),
    ("give_back", State.INFLIGHT, State.SUSPECT),
    ("reclaim", State.INFLIGHT, State.PENDING),
    ("reclaim", State.INFLIGHT, State.SUSPECT),
    ("reclaim", State.INFLIGHT, State.DEAD),
    ("requeue", State.DEAD, State.PENDING),
    ("forget", State.DEAD, State.GONE),
    ("trim", State.DEAD, State.GONE),
    ("purge", State.PENDING, State.GONE),
    ("purge", State.SCHEDULED, State.GONE),
    ("purge", State.SUSPECT, State.GONE),
)

"""The states that a job goes through, and the steps between them."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a job is; it is in exactly one place at any time."""

    PENDING = "pending"  # waits in the queue
    SCHEDULED = "scheduled"  # is due later: a delay, a retry, or parked
    REPLACING = "replacing"  # waits in place of another of its key, until that gives way
    INFLIGHT = "inflight"  # taken, owned by one consumer
    SUSPECT = "suspects"  # its consumers or workers died repeatedly: waits to run alone
    DEAD = "dead"  # buried, with its error
    GONE = "gone"  # acked, cancelled, expired, dropped, replaced, purged, forgotten or trimmed


# Every transition: verb, from (None: from nowhere), to. Each is one script of that name;
# `take` and `ack` share the script `exchange`. docs/lifecycle.md draws this table.
EDGES: tuple[tuple[str, State | None, State], ...] = (
    ("put", None, State.PENDING),
    ("put", None, State.SCHEDULED),
    ("put", None, State.REPLACING),
    ("put", State.PENDING, State.GONE),
    ("put", State.SCHEDULED, State.GONE),
    ("put", State.REPLACING, State.PENDING),
    ("put", State.REPLACING, State.GONE),
    ("fire", None, State.PENDING),
    ("promote", State.SCHEDULED, State.PENDING),
    ("promote", State.SCHEDULED, State.SUSPECT),
    ("take", State.PENDING, State.INFLIGHT),
    ("take", State.PENDING, State.GONE),
    ("take", State.REPLACING, State.INFLIGHT),
    ("isolate", State.SUSPECT, State.INFLIGHT),
    ("isolate", State.SUSPECT, State.GONE),
    ("isolate", State.REPLACING, State.INFLIGHT),
    ("ack", State.INFLIGHT, State.GONE),
    ("finish", State.INFLIGHT, State.GONE),
    ("finish", State.INFLIGHT, State.DEAD),
    ("finish", None, State.PENDING),
    ("finish", None, State.REPLACING),
    ("finish", State.REPLACING, State.PENDING),
    ("finish", State.REPLACING, State.GONE),
    ("finish", State.SCHEDULED, State.GONE),
    ("retry", State.INFLIGHT, State.SCHEDULED),
    ("retry", State.INFLIGHT, State.GONE),
    ("retry", State.REPLACING, State.PENDING),
    ("park", State.INFLIGHT, State.SCHEDULED),
    ("give_back", State.INFLIGHT, State.PENDING),
    ("give_back", State.INFLIGHT, State.SUSPECT),
    ("give_back", State.INFLIGHT, State.GONE),
    ("give_back", State.REPLACING, State.PENDING),
    ("crashed", State.INFLIGHT, State.PENDING),
    ("crashed", State.INFLIGHT, State.SUSPECT),
    ("crashed", State.INFLIGHT, State.DEAD),
    ("crashed", State.INFLIGHT, State.GONE),
    ("crashed", State.REPLACING, State.PENDING),
    ("reclaim", State.INFLIGHT, State.PENDING),
    ("reclaim", State.INFLIGHT, State.SUSPECT),
    ("reclaim", State.INFLIGHT, State.DEAD),
    ("reclaim", State.INFLIGHT, State.GONE),
    ("reclaim", State.REPLACING, State.PENDING),
    ("requeue", State.DEAD, State.PENDING),
    ("forget", State.DEAD, State.GONE),
    ("trim", State.DEAD, State.GONE),
    ("cancel", State.PENDING, State.GONE),
    ("cancel", State.SCHEDULED, State.GONE),
    ("cancel", State.SUSPECT, State.GONE),
    ("cancel", State.REPLACING, State.GONE),
    ("cancel", State.REPLACING, State.PENDING),
    ("purge", State.PENDING, State.GONE),
    ("purge", State.SCHEDULED, State.GONE),
    ("purge", State.SUSPECT, State.GONE),
    ("purge", State.REPLACING, State.GONE),
)

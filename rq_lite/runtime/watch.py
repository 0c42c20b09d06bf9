"""What a supervisor sees on a consumer's board: is it stuck, idle for no reason, over its limits, old?"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from rq_lite.runtime.board import ROOM, TAKEN, TOOK, TURNED, Board, Running

SHORTEST_GRACE = 1.0  # seconds between a job's soft and hard limit, at least
NOTHING: Mapping[Running, float] = MappingProxyType({})


class Limits(NamedTuple):
    """When to step in. Times in seconds, memory in bytes; 0: no such limit."""

    stall: float  # a loop that has not turned for so long is stuck
    idle: float  # a consumer that took nothing for so long, though jobs wait, is idle for no reason
    grace: float  # a job that goes on for so long after its timeout is ended with its consumer
    max_jobs: int
    max_rss: int

    def jittered(self) -> Limits:
        """For one consumer: those of a worker are not to be replaced all at once."""
        spread = random.uniform(0.85, 1.0)
        return self._replace(max_jobs=round(self.max_jobs * spread), max_rss=round(self.max_rss * spread))


def stuck_for(board: Board, now: float) -> float:
    """Seconds since the loop last turned."""
    turned = board.seconds(TURNED)
    return max(0.0, now - turned) if turned else 0.0


def past_hard_limit(
    board: Board, limits: Limits, now: float, cancelled: Mapping[Running, float] = NOTHING
) -> list[Running]:
    """Jobs that go on though their timeout and the grace time are over; `cancelled`: those that were to end then."""
    before = now - max(SHORTEST_GRACE, limits.grace)
    overdue = board.overdue(before)
    return overdue + [job for job, since in cancelled.items() if since < before and job not in overdue]


def idle_for(board: Board, waiting_since: float, now: float) -> float:
    """Seconds in which it took nothing, though jobs waited (since then, in time.monotonic()) and slots were free."""
    if board.words[ROOM] < 1:
        return 0.0
    return max(0.0, now - max(waiting_since, board.seconds(TOOK)))


def worn_out(board: Board, limits: Limits, rss: int) -> str:
    """Why it should be replaced; empty when it should not."""
    taken = board.words[TAKEN]
    if limits.max_jobs and taken >= limits.max_jobs:
        return f"has taken {taken:,} jobs"
    if limits.max_rss and rss >= limits.max_rss:
        return f"uses {rss / 1e6:,.0f} MB"
    return ""

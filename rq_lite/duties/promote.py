"""Promotes jobs that were scheduled for later, once they are due."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rq_lite.broker import Broker

LOOK = 1.0  # seconds between two checks for jobs that are due, if no alarm has rung
TOGETHER = 0.01  # what is due within this time is promoted together
TURN = 0.25  # seconds after which a queue with much to promote lets other duties have their turn
BATCH = 250  # jobs that are promoted per step: Redis is busy with one for 1 ms


class Promoter:
    """Promotes jobs of the queues in a list that its owner may extend."""

    def __init__(self, broker: Broker, queues: Sequence[str]) -> None:
        self._broker = broker
        self._queues = queues
        self._looked = 0.0  # when all queues were last checked
        self._next: dict[str, float] = {}  # queue to when the next of its scheduled jobs is due, in time.monotonic()

    def promote(self) -> float:
        """Promote what is due. Returns the seconds until the next is due, as far as Redis knows now."""
        now = time.monotonic()
        looked = self._looked + LOOK <= now
        if looked:
            self._looked = now
        for name in self._queues:
            if looked or self._next.get(name, now) <= now:
                self._next[name] = self._promote_of(name, now + TURN)
        return max(TOGETHER, min(self._next.values(), default=LOOK) - time.monotonic())

    def look_again(self, queue: str, now: float) -> None:
        """An alarm rang: something of this queue is due earlier than was known."""
        self._next[queue] = now

    def _promote_of(self, name: str, until: float) -> float:
        """Promote this queue's jobs; when its next scheduled one is due (now, if there was no time for all)."""
        while True:
            moved, left = self._broker.tends.promote(name, BATCH)
            now = time.monotonic()
            if moved < BATCH or now > until:
                return now + (LOOK if left is None else left)

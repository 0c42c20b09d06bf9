"""Tells Redis which jobs of a consumer wait in their slots for a thread or an engine, so that they count as waiting.

Their delivery tags stand together in one key for each queue, which is replaced when they change and expires by itself.
So a job costs no request of its own, and a consumer that was killed leaves nothing.
"""

from __future__ import annotations

import time
from typing import Any

import gevent

from rq_lite.broker import Broker, Link
from rq_lite.consumer.background import Background
from rq_lite.consumer.slots import Slot
from rq_lite.process.board import ELSEWHERE

LOOK = 0.1  # seconds between two looks: a job that begins sooner is never told
LIFETIME = 60.0  # seconds that Redis keeps what it was told
AGAIN = LIFETIME / 3  # seconds after which it is told again


class HeldJobs:
    """One for a consumer. `add` is called by each job that may have to wait."""

    def __init__(self, broker: Broker, consumer: str) -> None:
        self._broker = broker
        self._consumer = consumer
        self._slots: set[Slot[Any]] = set()
        self._told: dict[str, tuple[tuple[int, ...], float]] = {}  # queue -> tags, when, in time.monotonic()
        self._telling = Background(broker, self._tell)

    def add(self, slot: Slot[Any]) -> None:
        self._slots.add(slot)
        self._telling.begin()

    def _tell(self, link: Link) -> bool:
        """Tell what has changed; True while there is something to tell later."""
        gevent.sleep(LOOK)
        held = self._look()
        for queue in {*held, *self._told}:
            tags, now = tuple(sorted(held.get(queue, ()))), time.monotonic()
            before, when = self._told.get(queue, ((), 0.0))
            if tags == before and now - when < AGAIN:
                continue
            self._broker.takes.hold(queue, self._consumer, tags, round(LIFETIME * 1000), link)
            if tags:
                self._told[queue] = tags, now
            else:
                self._told.pop(queue, None)
        return bool(self._slots or self._told)

    def _look(self) -> dict[str, list[int]]:
        """The tags of the jobs that wait now, by queue."""
        self._slots = {slot for slot in self._slots if slot.lane is not None and slot.deadline == ELSEWHERE}
        held: dict[str, list[int]] = {}
        for slot in self._slots:
            if not slot.disowned:
                assert slot.lane is not None
                held.setdefault(slot.lane.queue, []).append(slot.tag)
        return held

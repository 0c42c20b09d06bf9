"""Waits in Redis for the alarms of some queues: one rings when a job or schedule is due earlier than was known."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from rq_lite.broker import REDIS_ERRORS, Broker, Link
from rq_lite.broker.link import end_waiting
from rq_lite.errors import RqLiteError

BLOCK = 2.0  # seconds that a wait lasts


class Alarm:
    """One blocked connection in a thread of its own; `rang` is called there with the name of the queue.

    A lost alarm costs a second: the duties check that often without one.
    """

    def __init__(self, broker: Broker, rang: Callable[[str], None]) -> None:
        self._broker = broker
        self._rang = rang
        self._over = threading.Event()
        self._link: Link | None = None
        self._thread: threading.Thread | None = None
        self._queues: tuple[str, ...] = ()

    def start(self, queues: Sequence[str]) -> None:
        self._queues = tuple(queues)
        self._thread = threading.Thread(target=self._listen, name="alarm", daemon=True)
        self._thread.start()

    def serve(self, queue: str) -> None:
        """Listen for this queue, too, from the next wait on."""
        self._queues += (queue,)

    def stop(self) -> None:
        """End it, without waiting for Redis."""
        self._over.set()
        if self._thread is not None:
            end_waiting(self._thread, lambda: self._link, within=1.0)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                if self._link is None:
                    self._link = self._broker.link()
                queue = self._broker.plans.wait_alarm(self._queues, BLOCK, self._link)
            except (*REDIS_ERRORS, RqLiteError):
                if self._link is not None:
                    self._link.close()
                self._over.wait(random.uniform(0.2, 1.0))
            else:
                if queue is not None:
                    self._rang(queue)
        if self._link is not None:
            self._link.close()

"""The wait of threads in `get`: one of them waits for Redis, the others for that thread."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from rq_lite.broker import REDIS_ERRORS, Broker

BLOCK = 1.5  # seconds that a wait for the bell lasts: the most that a lost wake-up costs


class Bell:
    """Waits for something to take: one thread waits for Redis, the others for that thread."""

    def __init__(self, broker: Broker, queue: str, guard: threading.RLock) -> None:
        self._broker = broker
        self._queue = queue
        self.guard = guard
        self.news = threading.Condition(guard)
        self._listening = False
        self._ear = broker.link()

    def wait(self, seconds: float, drained: bool, unless: Callable[[], bool]) -> None:
        """Wait up to `seconds` s for an item; with `drained` also until perhaps nothing is unfinished any more.

        Does not wait if `unless` (called with the guard held) says that there is an item already.
        """
        with self.guard:
            if unless():
                return
            if self._listening:
                self.news.wait(min(seconds, 4 * BLOCK))
                return
            self._listening = True
        try:
            self._broker.takes.wait_item(self._queue, min(seconds, BLOCK), self._ear, drained=drained)
        except REDIS_ERRORS:
            self._ear.close()
            time.sleep(random.uniform(0.02, min(seconds, 0.5)))
        except BaseException:
            self._ear.close()
            raise
        finally:
            with self.guard:
                self._listening = False
                self.news.notify()

    def arrived(self, count: int) -> None:
        """Wake threads for this number of new items on the shelf. The caller holds the guard."""
        self.news.notify(count)

    def wake(self) -> None:
        """End all waits. The caller holds the guard."""
        self.news.notify_all()
        if self._listening:
            self._ear.drop()

    def close(self) -> None:
        with self.guard:
            if not self._listening:
                self._ear.close()

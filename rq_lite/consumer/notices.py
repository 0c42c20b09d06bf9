"""Calls hooks for failed runs that a supervisor settled: it runs no code of an app, and leaves notices in Redis.

A notice is removed only after its hooks were called. So each is told at least once; if this consumer dies in between,
or another one reads the notices at the same time, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event

from rq_lite.broker import REDIS_ERRORS, Broker, Link

PAUSE = 1.0  # seconds before the next try after an error


class Notices:
    """One for a consumer. `tell` calls the hooks, for a notice of a queue."""

    def __init__(self, broker: Broker, queues: Sequence[str], tell: Callable[[str, bytes], None]) -> None:
        self._broker = broker
        self._queues = queues
        self._tell = tell
        self._news = Event()
        self._greenlet: gevent.Greenlet | None = None

    def look(self) -> None:
        """There may be notices. To be called in the hub, when the supervisor says so."""
        self._news.set()
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        link = self._broker.link()
        while True:
            self._news.wait()
            self._news.clear()
            try:
                for queue in self._queues:
                    self.tell_all(queue, link)
            except REDIS_ERRORS:  # not worth a log line
                link.close()
                gevent.sleep(PAUSE)
                self._news.set()

    def tell_all(self, queue: str, link: Link) -> None:
        while left := self._broker.tends.notices(queue, link):
            for notice in left:
                self._tell(queue, notice)
                self._broker.tends.told(queue, notice, link)

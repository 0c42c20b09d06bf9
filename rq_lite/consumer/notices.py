"""Calls hooks for failed runs that a supervisor settled: it runs no code of an app, and leaves notices in Redis.

A notice is removed only after its hooks were called. So each is told at least once; if this consumer dies in between,
or another one reads the notices at the same time, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rq_lite.broker import Broker, Link
from rq_lite.consumer.background import Background


class Notices:
    """One for a consumer. `tell` calls the hooks, for a notice of a queue."""

    def __init__(self, broker: Broker, queues: Sequence[str], tell: Callable[[str, bytes], None]) -> None:
        self._broker = broker
        self._queues = queues
        self._tell = tell
        self.look = Background(broker, self.tell_all).begin  # the supervisor says that there may be notices

    def tell_all(self, link: Link) -> bool:
        for queue in self._queues:
            while left := self._broker.tends.notices(queue, link):
                for notice in left:
                    self._tell(queue, notice)
                    self._broker.tends.told(queue, notice, link)
        return False

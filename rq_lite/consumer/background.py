"""Work of a consumer with Redis beside its jobs: none of them waits for it, and those without it pay nothing."""

from __future__ import annotations

from collections.abc import Callable

import gevent
from gevent.event import Event

from rq_lite.broker import REDIS_ERRORS, Broker, Link

PAUSE = 1.0  # seconds before the next try after an error


class Background:
    """A greenlet that does a piece of work whenever there may be some. `work` returns whether it is to go on at once.

    1. There is neither a greenlet nor a link until `begin` is called for the first time.
    2. `begin` wakes the greenlet, which calls `work` with a link of its own. It may sleep there, to set its pace.
    3. What `begin` says while the work is done is not lost: `work` is called once more.
    4. After an error of Redis the link is closed, and `work` called again after a pause. No log says so: the exchanges
       of the same consumer fail, too, and are logged.
    """

    def __init__(self, broker: Broker, work: Callable[[Link], bool]) -> None:
        self._broker = broker
        self._work = work
        self._wanted = Event()
        self._greenlet: gevent.Greenlet | None = None

    def begin(self) -> None:
        """There may be work. To be called in the consumer's own thread, also in the hub."""
        if not self._wanted.is_set():
            self._wanted.set()
            if self._greenlet is None:
                self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        link = self._broker.link()
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                again = self._work(link)
            except REDIS_ERRORS:
                link.close()
                gevent.sleep(PAUSE)
                again = True
            if again:
                self._wanted.set()

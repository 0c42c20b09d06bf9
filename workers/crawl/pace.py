"""A polite pause: how often one consumer asks one host.

Each fetch books the next free turn of its host and sleeps until then, in its own greenlet: fetches from other hosts go
on. Only a few fetches may wait for the same host, or the pages of one large site would soon occupy every slot of the
consumer. The others step back: their jobs come again after a while.
"""

from __future__ import annotations

import time
from collections import Counter

from rq_lite import Retry

WAITING = 10  # fetches that may wait for one host at a time
LONGEST = 30.0  # seconds that a fetch may wait
HOSTS = 10_000  # above this those whose next turn is past are forgotten


class Pace:
    def __init__(self, pause: float) -> None:
        self.pause = pause  # seconds from one fetch to the next
        self.next: dict[str, float] = {}  # by host: its next free turn
        self.waiting: Counter[str] = Counter()

    def wait(self, host: str, pause: float = 0.0) -> None:
        """Return when this host may be asked. `pause`: what the host itself wishes, if that is longer.

        Raises Retry, so that the job comes again later, if too many wait for this host.
        """
        pause = max(self.pause, pause)
        if not pause:
            return
        now = time.monotonic()
        turn = max(now, self.next.get(host, 0.0))
        if turn - now > LONGEST or self.waiting[host] >= WAITING:
            raise Retry(f"{host}: other pages of it wait for their turn, too")
        if len(self.next) > HOSTS:
            self.next = {name: at for name, at in self.next.items() if at > now}
        self.next[host] = turn + pause
        self.waiting[host] += 1
        try:
            time.sleep(turn - now)
        finally:
            self.waiting[host] -= 1
            if not self.waiting[host]:
                del self.waiting[host]

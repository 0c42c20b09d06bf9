"""What all processes share of a queue: its bound, its size, and its end."""

from __future__ import annotations

import time

from rq_lite.admin import operate, status
from rq_lite.broker import Broker, keys
from rq_lite.broker.link import LONGEST_BLOCK
from rq_lite.checks import integer
from rq_lite.client.items import Items, seconds
from rq_lite.client.put import Sender


class SharedQueue:
    """The part of a queue that is the same for every process; the bound is in Redis, and holds for every producer."""

    def __init__(self, sender: Sender, items: Items) -> None:
        self.name = sender.name
        self.sender = sender
        self.items = items

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def broker(self) -> Broker:
        return self.sender.broker

    def declare(self) -> tuple[int, int]:
        """Declare the queue in Redis; return the bounds in force, in jobs and in bytes."""
        return self.sender.declare()

    def shutdown(self, immediate: bool = False) -> None:
        """Refuse further puts from every process. `get` returns what is left, then raises ShutDown.

        `immediate` drops what is left. Workers go on until nothing is left. `reopen` undoes it.
        """
        self.sender.declare_as()
        operate.shutdown(self.broker, self.name, immediate=immediate)

    def reopen(self) -> None:
        """Undo a shutdown."""
        operate.reopen(self.broker, self.name)

    @property
    def maxsize(self) -> int:
        """The bound in force, in jobs (0: none). Setting it sets it for every process, as `rq-lite queue set` does."""
        found = self.broker.read(("HGET", keys.of(self.name).meta, "maxsize"))[0]
        return self.sender.declare_as()[0] if found is None else status.whole(found)

    @maxsize.setter
    def maxsize(self, number: int) -> None:
        bound = checked_bound(self.name, number)
        self.sender.declare_as()
        operate.configure(self.broker, self.name, bound)

    # -- the whole queue

    def qsize(self) -> int:
        """How many jobs wait (pending and scheduled)."""
        waiting = self.broker.puts.size(self.name)[0]
        getter = self.items.known_getter if self.items.ahead else None
        return waiting if getter is None else waiting + getter.ready

    def empty(self) -> bool:
        """Whether no job waits; some may still be running (`join` waits for these)."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        return self.broker.puts.size(self.name)[1]

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every job is finished: acked, or buried. False if that took longer than `timeout` s."""
        wait = seconds(True, timeout)
        until = None if wait is None else time.monotonic() + wait
        while self.broker.tends.unfinished(self.name)[0] > 0:
            left = LONGEST_BLOCK if until is None else until - time.monotonic()
            if left <= 0:
                return False
            self.broker.tends.wait_drained(self.name, left)
        return True

    def clear(self) -> int:
        """Drop every job that waits or is scheduled; how many. Running ones go on."""
        return operate.purge(self.broker, self.name)


def checked_bound(name: str, number: int) -> int:
    """A bound in jobs; a number below 0 means no bound, as in the standard library."""
    return integer(f"queue {name!r}: maxsize", max(0, number) if type(number) is int else number)

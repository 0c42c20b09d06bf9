"""Items that this process has taken from a queue and not settled: ready for a thread, or held by one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from rq_lite.broker import Taken
from rq_lite.broker.deliveries import Deliveries
from rq_lite.logs import RateLimitedLog, logger
from rq_lite.model.message import ITEM, Message, Newer, Undecodable, decode
from rq_lite.model.outcome import Parked
from rq_lite.model.retry import Report

if TYPE_CHECKING:
    from rq_lite.client.get import Getter


class _Me(threading.local):
    """Names the calling thread. Not by its ident, which may be another thread's once this one has ended."""

    def __init__(self) -> None:
        self.token = object()


_me = _Me()


class Delivery:
    """An item that this process has, on lease."""

    __slots__ = ("disowned", "getter", "lost", "message", "settled", "tag", "thread")

    def __init__(self, getter: Getter, tag: int, message: Message) -> None:
        self.getter = getter
        self.tag = tag
        self.message = message
        self.thread: object = None  # the one that got it
        self.settled = False
        self.lost = False  # its lease has ended: another consumer has it, or will have
        self.disowned = False  # and its tag may be another job's: it is not settled in Redis


class Shelf:
    """The items of a queue that are here: ready for a thread, or held by one. It is the Owner of a session.

    `guard` is held for each step: by the caller, or by the methods that take it themselves.
    """

    def __init__(self, getter: Getter, consumer: str, guard: threading.RLock, arrived: Callable[[int], None]) -> None:
        self._getter = getter
        self._consumer = consumer
        self.guard = guard
        self._arrived = arrived  # called with the number of items that have become ready
        self.ready: deque[Delivery] = deque()
        self._held: dict[object, dict[Delivery, None]] = {}  # by the thread that got them, the oldest first
        self._answer: Taken | None = None  # to the last take
        self._seldom = RateLimitedLog(logger("rq_lite.leasing"))

    def pick(self) -> Delivery:
        """The next one, for this thread."""
        found = self.ready.popleft()
        found.thread = thread = _me.token
        own = self._held.get(thread)
        if own is None:
            own = self._held[thread] = {}
        own[found] = None
        return found

    def drop(self, one: Delivery) -> bool:
        """Take it off the shelf as settled; False if it was settled already."""
        if one.settled:
            return False
        one.settled = True
        those = self._held.get(one.thread, {})
        those.pop(one, None)
        if not those:
            self._held.pop(one.thread, None)
        return True

    def put_back(self, one: Delivery) -> None:
        """Undo `pick`, if the caller did not get the item: it is the next one again."""
        if self.drop(one):
            one.settled = False
            self.ready.appendleft(one)

    def oldest(self) -> Delivery | None:
        """What this thread got first, or else what the process got first."""
        own = self._held.get(_me.token) or min(
            filter(None, self._held.values()), key=lambda those: next(iter(those)).tag, default=None
        )
        return next(iter(own)) if own else None

    def own(self) -> int:
        """How many this thread has and has not lost."""
        with self.guard:
            return sum(not one.lost for one in self._held.get(_me.token, ()))

    @property
    def empty(self) -> bool:
        return not self.ready and not any(self._held.values())

    def _all(self) -> list[Delivery]:
        return [one for those in self._held.values() for one in those] + [*self.ready]

    def clear(self) -> set[int]:
        """Take all off as settled; return the tags of those that are still this consumer's."""
        every = self._all()
        for one in every:
            one.settled = True
        self._held.clear()
        self.ready.clear()
        return {one.tag for one in every if not one.lost}

    def answered(self) -> Taken | None:
        """The answer to the last take; None if there was no lease."""
        answer, self._answer = self._answer, None
        return answer

    # -- what the session asks for

    def held(self, _: Deliveries) -> Collection[int]:
        with self.guard:
            return [one.tag for one in self._all() if not one.disowned]

    def took(self, of: Deliveries, taken: Taken) -> None:
        self._answer = taken
        if taken.jobs:
            self.adopt(of, enumerate(taken.jobs, taken.tag + 1))

    def adopt(self, of: Deliveries, found: Iterable[tuple[int, bytes]]) -> None:
        ready = [one for tag, entry in found if (one := self._read(of, tag, entry)) is not None]
        with self.guard:
            self.ready += ready
            self._arrived(len(ready))

    def _read(self, of: Deliveries, tag: int, entry: bytes) -> Delivery | None:
        """The delivery; None for an entry that is not a job (it is buried) or has a newer version (it is parked)."""
        try:
            message = decode(self._getter.broker.core.opened(of.queue, entry))[0]
            if not message.task and len(message.args) != 1 and ITEM not in message.kwargs:
                raise Undecodable("neither a task's name nor an item")
            return Delivery(self._getter, tag, message)
        except Newer as error:
            self._seldom.warn(error.what, f"queue {of.queue!r}: parked a job with {error}")
            of.outcomes.append((tag, Parked(f"({error.what})")))
            return None
        except Undecodable as error:
            report = Report(None, None, f"{error.said}: {error}", consumer=self._consumer)
            of.outcomes.append((tag, report.buried()))
            return None

    def look(self, _: Deliveries, owned: set[int]) -> None:
        with self.guard:
            for one in self._all():
                one.lost = one.disowned or one.tag not in owned
            self.ready = deque(one for one in self.ready if not one.lost)

    def disown(self, _: Deliveries, owned: set[int]) -> int:
        with self.guard:
            gone = [one for one in self._all() if one.tag not in owned and not one.disowned]
            for one in gone:
                one.lost = one.disowned = True
            self.ready = deque(one for one in self.ready if not one.lost)
            return len(gone)

"""A consumer's slots: long-lived greenlets that take jobs from a local deque, one after the other.

A greenlet per job would cost four times as much (design.md, section 9). What it would give for free is done by hand:
a deadline per job, a fresh slot after one was cut short, and a turn for the loop after 10 ms of work without one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import gevent
from gevent.lock import Semaphore

from rq_lite.outcome import Outcome

L = TypeVar("L")  # what stands for a queue

NEVER = float("inf")
HOG = 0.010  # seconds without a turn of the loop after which a slot yields
LOOK = 0.1  # seconds between two looks at the deadlines
AGAIN = 1.0  # a job that swallowed its Expired gets it again after so many seconds


class Expired(BaseException):
    """Raised in a job at its deadline. Private: a class that jobs or libraries catch would be retried away."""


class Stopped(BaseException):
    """Raised in a job that a stopping consumer gives back."""


class Slot(Generic[L]):
    """Room for one running job."""

    __slots__ = ("deadline", "greenlet", "lane", "spoiled", "tag")

    def __init__(self) -> None:
        self.lane: L | None = None  # None: free
        self.tag = 0
        self.deadline = NEVER  # time.monotonic()
        self.greenlet: gevent.Greenlet | None = None
        self.spoiled = False  # an exception was thrown into it: a fresh greenlet takes over


class Slots(Generic[L]):
    """`run` runs one job and says how it ended; `finished` hears of it."""

    def __init__(
        self,
        count: int,
        run: Callable[[Slot[L], bytes], Outcome],
        finished: Callable[[L, int, Outcome], None],
    ) -> None:
        self._run = run
        self._finished = finished
        self._waiting: deque[tuple[L, int, bytes]] = deque()
        self._ready = Semaphore(0)
        self._slots = [Slot[L]() for _ in range(count)]
        self.free = count
        self._turned = time.monotonic()
        self._turns = gevent.get_hub().loop.prepare(ref=False)

    def start(self) -> None:
        self._turns.start(self._turn)
        for slot in self._slots:
            slot.greenlet = gevent.spawn(self._work, slot)
        gevent.spawn(self._watch_deadlines)

    def _turn(self) -> None:
        self._turned = time.monotonic()

    @property
    def room(self) -> int:
        """How many jobs more there is a free slot for."""
        return self.free - len(self._waiting)

    @property
    def idle(self) -> bool:
        return self.free == len(self._slots) and not self._waiting

    def feed(self, lane: L, tag: int, jobs: list[bytes]) -> None:
        """Hand jobs in; the first has the delivery tag `tag + 1`."""
        for job in jobs:
            tag += 1
            self._waiting.append((lane, tag, job))
        for _ in jobs:
            self._ready.release()

    def not_started(self) -> list[tuple[L, int]]:
        """Take back what no slot has begun with."""
        waiting, self._waiting = list(self._waiting), deque()
        return [(lane, tag) for lane, tag, _ in waiting]

    def held(self) -> list[tuple[L, int]]:
        """Everything that was handed in and has not finished."""
        running = [(slot.lane, slot.tag) for slot in self._slots if slot.lane is not None]
        return running + [(lane, tag) for lane, tag, _ in self._waiting]

    def stop_running(self) -> list[gevent.Greenlet]:
        """Raise Stopped in every running job; the greenlets that this should end."""
        busy = [slot.greenlet for slot in self._slots if slot.lane is not None and slot.greenlet is not None]
        for greenlet in busy:
            gevent.kill(greenlet, Stopped())
        return busy

    def _work(self, slot: Slot[L]) -> None:
        ready, run, finished, now = self._ready, self._run, self._finished, time.monotonic
        try:
            while True:
                ready.acquire()
                if not self._waiting:  # taken back meanwhile
                    continue
                lane, tag, entry = self._waiting.popleft()
                slot.lane, slot.tag = lane, tag
                self.free -= 1
                outcome = run(slot, entry)
                slot.lane = None
                self.free += 1
                finished(lane, tag, outcome)
                if slot.spoiled:
                    slot.spoiled = False
                    slot.greenlet = gevent.spawn(self._work, slot)
                    return
                if now() - self._turned > HOG:
                    gevent.sleep(0)
        except Stopped:
            return  # a slot stays marked as busy: its job is given back

    def _watch_deadlines(self) -> None:
        """One look at all slots is cheaper than a heap with an entry per job: see docs/architecture.md."""
        loop = gevent.get_hub().loop
        while True:
            gevent.sleep(LOOK)
            now = time.monotonic()
            for slot in self._slots:
                if slot.deadline < now:
                    loop.run_callback(self._expire, slot, slot.tag)

    def _expire(self, slot: Slot[L], tag: int) -> None:
        # In the hub: nothing else runs between this look and the throw, so it cannot hit the slot's next job.
        if slot.tag == tag and slot.deadline < time.monotonic() and slot.greenlet is not None:
            slot.deadline = time.monotonic() + AGAIN
            slot.spoiled = True
            slot.greenlet.throw(Expired())

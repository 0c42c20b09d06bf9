"""A consumer's slots: long-lived greenlets that take jobs from a local deque, one after the other.

A greenlet per job would cost four times as much. What it would give for free is done by hand:
a deadline per job, a fresh slot after one was cut short, and a turn for the loop after 10 ms of work without one.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any, Generic, Protocol, TypeVar

import gevent
from gevent.lock import Semaphore

from rq_lite.consumer.exit import critical, hard_exit
from rq_lite.consumer.run import Expired
from rq_lite.model.message import id_in
from rq_lite.model.outcome import Outcome
from rq_lite.process.board import DEADLINE, ENTRANCE, JOB, NEVER, ROOM, SECOND, TURNED, Board

HOG = SECOND // 100  # ns without a turn of the loop after which a slot yields
LOOK = 0.1  # seconds between two looks at the deadlines
AGAIN = SECOND  # ns after which a job that swallowed its Expired gets it again


class Queued(Protocol):
    """What stands for a queue."""

    base: int  # what its delivery tags are added to on the board


L = TypeVar("L", bound=Queued)


class Interrupted(BaseException):
    """Raised in a job that was cancelled. Private, likewise."""


class Stopped(BaseException):
    """Raised in a job that a stopping consumer gives back."""


class Slot(Generic[L]):
    """Room for one running job; times in time.monotonic_ns()."""

    __slots__ = (
        "again", "began", "cancelled", "current", "deadline", "disowned", "due", "entry", "greenlet", "job", "lane",
        "number", "spoiled", "tag", "words",
    )  # fmt: skip

    def __init__(self, number: int, board: Board) -> None:
        self.number = number
        self.words = board.words
        self.job = board.place(number) + JOB
        self.due = board.place(number) + DEADLINE
        self.lane: L | None = None  # None: free
        self.tag = 0
        self.entry = b""
        self.deadline = NEVER
        self.began = 0  # of a job that runs elsewhere: when it really began
        self.again = 0  # not before this is Expired raised once more
        self.greenlet: gevent.Greenlet | None = None
        self.disowned = False  # Redis does not know of its delivery any more: how it ends counts for nothing
        self.current: Any = None  # what the job knows of itself, once it has asked: tag and CurrentJob
        self.cancelled = False  # its job is to end, whatever it makes of that
        self.spoiled = False  # an exception was thrown into it: a fresh greenlet takes over


class Slots(Generic[L]):
    """`run` runs one job and says how it ended; `finished` hears of it (without the lane: it counts for nothing)."""

    def __init__(
        self,
        board: Board,
        run: Callable[[Slot[L], bytes], Outcome],
        finished: Callable[[L | None, int, Outcome], None],
    ) -> None:
        self._run = run
        self._finished = finished
        self._words = board.words
        self._turn()  # who stands still from now on has a beginning to count from
        self._pid = os.getpid()
        self._waiting: deque[tuple[L, int, bytes]] = deque()
        self._ready = Semaphore(0)
        self._slots = [Slot[L](number, board) for number in range(board.slots)]
        self.free = board.slots
        self._loop = gevent.get_hub().loop
        self._turns = self._loop.prepare(ref=False)

    def start(self) -> None:
        self._turns.start(self._turn)
        for slot in self._slots:
            self._open(slot)
        critical(gevent.spawn(self._watch_deadlines))

    def _open(self, slot: Slot[L]) -> None:
        if os.getpid() != self._pid:
            hard_exit(0)  # a job has forked, and returned there, too
        slot.greenlet = critical(gevent.spawn(entrance(slot.number), self._work, slot))
        slot.greenlet.rq_lite_slot = slot  # for `current_job`

    def _turn(self) -> None:
        self._turned = self._words[TURNED] = time.monotonic_ns()

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
        running = [(slot.lane, slot.tag) for slot in self._slots if slot.lane is not None and not slot.disowned]
        return running + [(lane, tag) for lane, tag, _ in self._waiting]

    def withdraw(self, lane: L, owned: set[int]) -> int:
        """Let go of what was handed in for this lane, has not begun, and is not owned (any more): how many jobs."""
        kept = deque(one for one in self._waiting if one[0] is not lane or one[1] in owned)
        count = len(self._waiting) - len(kept)
        self._waiting = kept
        return count

    def disown(self, lane: L, owned: set[int]) -> int:
        """The same with what has begun: it goes on for nothing, and its tag may be given to another job."""
        count = self.withdraw(lane, owned)
        for slot in self._slots:
            if slot.lane is lane and slot.tag not in owned and not slot.disowned:
                slot.disowned = True
                slot.words[slot.job] = 0  # nor is whoever has that tag now to blame for what runs here
                count += 1
        return count

    def cancel(self, lane: L, ids: Collection[str]) -> list[tuple[int, str]]:
        """Interrupt these jobs where they run; those that no slot has begun with are taken back: tag and id."""
        dropped = [(one, job) for one in self._waiting if one[0] is lane and (job := id_in(one[2])) in ids and job]
        for one, _ in dropped:
            self._waiting.remove(one)
        for slot in self._slots:
            if slot.lane is lane and not slot.disowned and id_in(slot.entry) in ids:
                self._loop.run_callback(self._interrupt, slot, lane, slot.tag)
        return [(tag, job) for (_, tag, _), job in dropped]

    def forked(self) -> None:
        """In a process that a job has forked: how its copy of the job ends is nobody's, and it runs no other."""
        for slot in self._slots:
            slot.disowned = slot.spoiled = True

    def stop_running(self) -> list[gevent.Greenlet]:
        """Raise Stopped in every running job; the greenlets that this should end."""
        busy = [slot.greenlet for slot in self._slots if slot.lane is not None and slot.greenlet is not None]
        for greenlet in busy:
            gevent.kill(greenlet, Stopped())
        return busy

    def _work(self, slot: Slot[L]) -> None:
        ready, run, finished, now = self._ready, self._run, self._finished, time.monotonic_ns
        words, job, due = slot.words, slot.job, slot.due
        try:
            while True:
                ready.acquire()
                if not self._waiting:  # taken back meanwhile
                    words[due] = NEVER
                    continue
                lane, tag, entry = self._waiting.popleft()
                slot.lane, slot.tag, slot.entry = lane, tag, entry
                words[job] = lane.base + tag
                self.free -= 1
                outcome = run(slot, entry)
                slot.lane = None
                self.free += 1
                if slot.disowned:
                    slot.disowned = False
                    finished(None, tag, outcome)
                else:
                    finished(lane, tag, outcome)
                if slot.spoiled:
                    words[due] = NEVER
                    slot.spoiled, slot.cancelled, slot.again = False, False, 0
                    self._open(slot)
                    return
                if not ready.counter:  # else the next job overwrites it at once
                    words[due] = NEVER
                if now() - self._turned > HOG:
                    words[due] = NEVER  # others may take what is there meanwhile
                    gevent.sleep(0)
        except Stopped:
            return  # a slot stays marked as busy: its job is given back
        except BaseException:
            # Between two jobs: something that an earlier job has left behind for its greenlet (a gevent.Timeout, say).
            if slot.lane is not None:
                raise
            words[due] = NEVER
            ready.release()  # it may have had somebody's turn
            self._open(slot)

    def _watch_deadlines(self) -> None:
        """One look at all slots is cheaper than a heap with an entry per job: see docs/architecture.md."""
        while True:
            gevent.sleep(LOOK)
            self._words[ROOM] = self.room
            now = time.monotonic_ns()
            for slot in self._slots:
                if slot.deadline < now and slot.again < now:
                    self._loop.run_callback(self._expire, slot, slot.tag)

    def _expire(self, slot: Slot[L], tag: int) -> None:
        # In the hub: nothing else runs between this look and the throw, so it cannot hit the slot's next job.
        now = time.monotonic_ns()
        if slot.tag == tag and slot.deadline < now and slot.greenlet is not None:
            slot.again = now + AGAIN
            slot.spoiled = True
            slot.greenlet.throw(Interrupted() if slot.cancelled else Expired())

    def _interrupt(self, slot: Slot[L], lane: L, tag: int) -> None:
        """Also in the hub. From now on the job is like one whose time is up, and in the end is killed like one."""
        if slot.lane is not lane or slot.tag != tag or slot.cancelled:  # another queue has the same tags
            return
        if slot.deadline == NEVER:  # it has not begun yet, or is ending just now
            gevent.spawn_later(LOOK, self._loop.run_callback, self._interrupt, slot, lane, tag)
            return
        slot.cancelled = True
        slot.deadline = time.monotonic_ns() - 1
        slot.again = 0
        slot.words[slot.due] = min(slot.words[slot.due], slot.deadline)
        self._expire(slot, tag)


def entrance(number: int) -> Callable[..., None]:
    """The first function of a slot's greenlet, under a name of its own.

    A stack that is printed from outside, while C code holds the interpreter or as it crashes, so names the slot.
    """
    name = f"{ENTRANCE}{number}"
    return FunctionType(_enter.__code__.replace(co_name=name), globals(), name)


def _enter(work: Callable[[Slot[Any]], None], slot: Slot[Any]) -> None:
    work(slot)

"""A consumer's slots: long-lived greenlets that take jobs from a local deque, one after the other.

A greenlet per job would cost four times as much. What it would give for free is done by hand: a deadline per job,
a fresh greenlet after a job was cut short, and a turn of the loop after 10 ms without one.
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
from rq_lite.process.board import BATCHED, DEADLINE, ENTRANCE, JOB, NEVER, ROOM, SECOND, TURNED, Board

HOG = SECOND // 100  # ns without a turn of the loop after which a slot yields
LOOK = 0.1  # seconds between two scans of the deadlines
AGAIN = SECOND  # ns after which a job that swallowed its Expired gets it again


class Queued(Protocol):
    """A queue, as slots see it."""

    base: int  # `base` + delivery tag names the job on the board


L = TypeVar("L", bound=Queued)


class Interrupted(BaseException):
    """Raised in a job that was cancelled. Private, like Expired."""


class Stopped(BaseException):
    """Raised in a job that a stopping consumer gives back."""


class Slot(Generic[L]):
    """Room for one running job; times in time.monotonic_ns()."""

    __slots__ = (
        "again", "began", "cancelled", "current", "deadline", "disowned", "due", "entry", "greenlet", "job", "lane",
        "more", "number", "spoiled", "tag", "words",
    )  # fmt: skip

    def __init__(self, number: int, board: Board, more: Callable[[], bool] = lambda: False) -> None:
        self.number = number
        self.more = more  # whether another job may come while this one waits
        self.words = board.words
        self.job = board.place(number) + JOB
        self.due = board.place(number) + DEADLINE
        self.lane: L | None = None  # None: free
        self.tag = 0
        self.entry = b""
        self.deadline = NEVER
        self.began = 0  # of a job with `run_in`: when it left its pool's waiting line and began
        self.again = 0  # Expired is not raised again before this
        self.greenlet: gevent.Greenlet | None = None
        self.disowned = False  # Redis no longer has its delivery: the job goes on for nothing, its outcome is discarded
        self.current: Any = None  # (tag, CurrentJob), once the job has asked for it
        self.cancelled = False  # its job was cancelled: whatever the job raises now, it ends as cancelled
        self.spoiled = False  # an exception was thrown into its greenlet: a fresh one takes over after the job


class Slots(Generic[L]):
    """`run` runs one job and returns the outcome; `finished` gets it, with the lane None if it is to be ignored."""

    def __init__(
        self,
        board: Board,
        run: Callable[[Slot[L], bytes], Outcome],
        finished: Callable[[L | None, int, Outcome], None],
    ) -> None:
        self._run = run
        self._finished = finished
        self._words = board.words
        self._turn()  # a standstill is measured from here on
        self._pid = os.getpid()
        self._waiting: deque[tuple[L, int, bytes]] = deque()
        self._ready = Semaphore(0)
        self._slots = [Slot[L](number, board, self.more_may_come) for number in range(board.slots)]
        self.free = board.slots
        self._closed = False
        self._loop = gevent.get_hub().loop
        self._turns = self._loop.prepare(ref=False)

    def start(self) -> None:
        self._turns.start(self._turn)
        for slot in self._slots:
            self._open(slot)
        critical(gevent.spawn(self._watch_deadlines))

    def _open(self, slot: Slot[L]) -> None:
        if os.getpid() != self._pid:
            hard_exit(0)  # in a child that a job has forked: the job returned there, too
        slot.greenlet = critical(gevent.spawn(entrance(slot.number), self._work, slot))
        slot.greenlet.rq_lite_slot = slot  # for `current_job`

    def _turn(self) -> None:
        self._turned = self._words[TURNED] = time.monotonic_ns()

    @property
    def room(self) -> int:
        """How many more jobs have a free slot."""
        return self.free - len(self._waiting)

    def more_may_come(self) -> bool:
        """Whether a slot is free, and its consumer takes jobs."""
        return self.free > 0 and not self._closed

    def close(self) -> None:
        """No more jobs will come."""
        self._closed = True

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
        """Withdraw the jobs that no slot has begun; return their lanes and tags."""
        waiting, self._waiting = list(self._waiting), deque()
        return [(lane, tag) for lane, tag, _ in waiting]

    def held(self) -> list[tuple[L, int]]:
        """The lanes and tags of all jobs that were handed in and have not ended."""
        running = [(slot.lane, slot.tag) for slot in self._slots if slot.lane is not None and not slot.disowned]
        return running + [(lane, tag) for lane, tag, _ in self._waiting]

    def withdraw(self, lane: L, owned: set[int]) -> int:
        """Withdraw the jobs of this lane that have not begun and are not in `owned`; how many they were."""
        kept = deque(one for one in self._waiting if one[0] is not lane or one[1] in owned)
        count = len(self._waiting) - len(kept)
        self._waiting = kept
        return count

    def disown(self, lane: L, owned: set[int]) -> int:
        """`withdraw`, and disown those that run; how many both were. Their tags may name other jobs now."""
        count = self.withdraw(lane, owned)
        for slot in self._slots:
            if slot.lane is lane and slot.tag not in owned and not slot.disowned:
                slot.disowned = True
                slot.words[slot.job] = 0  # a job that has the same tag now must not be blamed for this one
                count += 1
        return count

    def cancel(self, lane: L, ids: Collection[str]) -> list[tuple[int, str]]:
        """Interrupt those of these jobs that run; withdraw those that have not begun, and return their tags and ids."""
        dropped = [(one, job) for one in self._waiting if one[0] is lane and (job := id_in(one[2])) in ids and job]
        for one, _ in dropped:
            self._waiting.remove(one)
        for slot in self._slots:
            if slot.lane is lane and not slot.disowned and id_in(slot.entry) in ids:
                self._loop.run_callback(self._interrupt, slot, lane, slot.tag)
        return [(tag, job) for (_, tag, _), job in dropped]

    def forked(self) -> None:
        """In a process that a job has forked: the outcome of its copy of the job is ignored, and it runs no other."""
        for slot in self._slots:
            slot.disowned = slot.spoiled = True

    def stop_running(self) -> list[gevent.Greenlet]:
        """Raise Stopped in every running job; return their greenlets, which should end."""
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
                if not self._waiting:  # withdrawn meanwhile
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
                if not ready.counter:  # else the next job overwrites the deadline at once
                    words[due] = NEVER
                if now() - self._turned > HOG:
                    words[due] = NEVER  # other slots may take the next job meanwhile
                    gevent.sleep(0)
        except Stopped:
            return  # the slot stays busy, so that its job is given back
        except BaseException:
            # Raised between two jobs: an earlier one has left something behind for its greenlet, say a gevent.Timeout.
            if slot.lane is not None:
                raise
            words[due] = NEVER
            ready.release()  # this slot may have acquired it and not taken the job
            self._open(slot)

    def _watch_deadlines(self) -> None:
        """Scanning all slots is cheaper than a heap with an entry per job: see docs/architecture.md."""
        while True:
            gevent.sleep(LOOK)
            self._words[ROOM] = self.room
            now = time.monotonic_ns()
            for slot in self._slots:
                if slot.deadline < now and slot.again < now:
                    self._loop.run_callback(self._expire, slot, slot.tag)

    def _expire(self, slot: Slot[L], tag: int) -> None:
        # In the hub: nothing else runs between this check and the throw, which so cannot hit the slot's next job.
        now = time.monotonic_ns()
        if slot.tag == tag and slot.deadline < now and slot.greenlet is not None:
            slot.again = now + AGAIN
            slot.spoiled = True
            slot.greenlet.throw(Interrupted() if slot.cancelled else Expired())

    def _interrupt(self, slot: Slot[L], lane: L, tag: int) -> None:
        """Also in the hub. From now on the job is treated as one past its deadline, and in the end killed like one."""
        if slot.lane is not lane or slot.tag != tag or slot.cancelled:  # queues use the same tags
            return
        if (
            slot.deadline == BATCHED
        ):  # its call is for other jobs, too, and goes on: only its outcome counts as cancelled
            slot.cancelled = slot.spoiled = True
            return
        if slot.deadline == NEVER:  # the job has not begun yet, or is just ending
            gevent.spawn_later(LOOK, self._loop.run_callback, self._interrupt, slot, lane, tag)
            return
        slot.cancelled = True
        slot.deadline = time.monotonic_ns() - 1
        slot.again = 0
        slot.words[slot.due] = min(slot.words[slot.due], slot.deadline)
        self._expire(slot, tag)


def entrance(number: int) -> Callable[..., None]:
    """The first function of a slot's greenlet, under a name of its own.

    So a stack names the slot, even if it is printed from outside: while C code holds the interpreter, or in a crash.
    """
    name = f"{ENTRANCE}{number}"
    return FunctionType(_enter.__code__.replace(co_name=name), globals(), name)


def _enter(work: Callable[[Slot[Any]], None], slot: Slot[Any]) -> None:
    work(slot)

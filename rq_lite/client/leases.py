"""What this process holds of all queues: towards each Redis it is one consumer, with a lease that a thread renews.

Each queue has a lane (lane.py). Brokers with the same settings share it; with others, such as another secret, none.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rq_lite.broker import Broker
from rq_lite.client.get import IDLE, Held, Lane
from rq_lite.duties.duties import Duties
from rq_lite.errors import ShutDown, UsageError
from rq_lite.process.identity import mine
from rq_lite.process.reentry import alone
from rq_lite.settings import Settings


class Lessee:
    """This process as a consumer of one Redis. Who asks for a lane holds the lock of all lessees."""

    def __init__(self, broker: Broker) -> None:
        self.consumer = str(mine())
        self._broker = broker
        self._lanes: dict[str, Lane] = {}
        facts: dict[str, str | int] = {"procs": 1, "slots": "get", "since": round(time.time())}
        self._duties = Duties(broker, self.consumer, facts, None, chores=[(IDLE, self._audit)])
        self._duties.born(self.consumer)

    def lane(self, queue: str) -> Lane:
        lane = self._lanes.get(queue)
        if lane is None:
            made = Lane(self._broker, self.consumer, queue, lambda: self._duties.suspects)
            if self._lanes:
                self._duties.serve(queue)
            else:
                self._duties.start([queue])
            lane = self._lanes[queue] = made
        return lane

    def _audit(self) -> None:
        for lane in list(self._lanes.values()):
            lane.audit()

    def leave(self) -> None:
        self._duties.stop()
        there = True
        for lane in self._lanes.values():
            there = lane.leave(tell=there)  # once Redis is away, it is for the others as well: they are reclaimed


class _Here:
    """The lessees of this very process: a fork begins with none, its parent's leases are not its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.lessees: dict[tuple[str, Settings], Lessee] = {}  # by URL and settings
        self.lanes: dict[tuple[int, str], tuple[Broker, Lane]] = {}  # by broker: found again without asking for its URL
        self.hooked = False
        self.ended = False  # all went back, because the process ends


_here = _Here()


def lane_of(broker: Broker, queue: str) -> Lane:
    """This process's lane of a queue. While the process ends there is none: a daemon thread waits for its end here."""
    lane = known(broker, queue)
    return _new_lane(broker, queue) if lane is None else lane


def known(broker: Broker, queue: str) -> Lane | None:
    """The lane, if anybody has asked for it before."""
    whose, lane = _here.lanes.get((id(broker), queue), (None, None))
    return lane if whose is broker else None


def _new_lane(broker: Broker, queue: str) -> Lane:
    with alone(_here.lock):
        if not _here.ended:
            one = broker.url, broker.settings
            lessee = _here.lessees.get(one)
            if lessee is None:
                _hook()
                lessee = _here.lessees[one] = Lessee(broker)
            try:
                lane = lessee.lane(queue)
                _here.lanes[id(broker), queue] = broker, lane
                return lane
            except RuntimeError as error:
                if "interpreter shutdown" not in str(error):  # Python starts no thread then
                    raise
                _here.ended = True
    if threading.current_thread().daemon:
        threading.Event().wait()
    raise UsageError(f"queue {queue!r}: this process is ending, and what it had is given back; it gets nothing more")


def leave() -> None:
    """Give everything back that this process holds; a later `get` begins anew."""
    with _here.lock:
        leaving = list(_here.lessees.values())
        _here.lessees.clear()
        _here.lanes.clear()
    for one in leaving:
        one.leave()


def end() -> None:
    """The same at the end of the process, which no `get` survives."""
    with _here.lock:
        _here.ended = True
    leave()


def _end_after_threads() -> None:
    """In a process of multiprocessing, which ends without atexit, and lets its threads finish only after this."""
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    end()


def _hook() -> None:
    if _here.hooked:
        return
    _here.hooked = True
    atexit.register(end)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _end_after_threads, exitpriority=-100)


def _begin_anew() -> None:
    for _, lane in _here.lanes.values():
        lane.begin_anew()
    _here.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def each(take: Callable[[Held | None], Held]) -> Iterator[Held]:
    """Items for a loop: each is settled when the loop asks for the next, and goes back when it is left before."""
    held: Held | None = None
    while True:
        try:
            held = take(held)
        except ShutDown:
            return
        finished = False
        try:
            yield held
            finished = True
        finally:
            if not finished:
                held.lane.give_back(held)

"""This process as a consumer of the queues that it gets from: one for each Redis, with a lease that a thread renews.

Each queue has a getter (get.py). Brokers with the same settings share it; a broker with other settings, such as another
secret, has its own.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rq_lite.broker import Broker
from rq_lite.client.get import IDLE, Getter
from rq_lite.client.shelf import Delivery
from rq_lite.duties.duties import Duties
from rq_lite.errors import RqLiteError, ShutDown, UsageError
from rq_lite.logs import logger
from rq_lite.process.identity import mine
from rq_lite.process.reentry import alone
from rq_lite.settings import Settings

log = logger("rq_lite.leasing")


class ProcessConsumer:
    """This process as a consumer of one Redis. Callers hold `_here.lock`."""

    def __init__(self, broker: Broker) -> None:
        self.consumer = str(mine())
        self._broker = broker
        self._getters: dict[str, Getter] = {}
        facts: dict[str, str | int] = {"procs": 1, "slots": "get", "since": round(time.time())}
        self._duties = Duties(broker, self.consumer, facts, None, chores=[(IDLE, self._audit)])
        self._duties.born(self.consumer)

    def getter(self, queue: str, declare: Callable[[], object]) -> Getter:
        getter = self._getters.get(queue)
        if getter is None:
            made = Getter(self._broker, self.consumer, queue, lambda: self._duties.suspects, again(declare))
            if self._getters:
                self._duties.serve(queue)
            else:
                self._duties.start([queue])
            getter = self._getters[queue] = made
        return getter

    def _audit(self) -> None:
        for getter in list(self._getters.values()):
            getter.audit()

    def leave(self) -> None:
        self._duties.stop()
        there = True
        for getter in self._getters.values():
            there = getter.leave(tell=there)  # once Redis is away the others do not ask it: their items are reclaimed


def again(declare: Callable[[], object]) -> Callable[[str], None]:
    """Declares a queue that Redis may have lost. An error is only logged: it must not stop a `get`."""

    def declared(queue: str) -> None:
        try:
            declare()
        except RqLiteError as error:
            log.warning("queue %r: %s", queue, error)

    return declared


class _Here:
    """The consumers that this process is. A forked child begins with none: its parent's leases are not its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.consumers: dict[tuple[str, Settings], ProcessConsumer] = {}  # by URL and settings
        # By broker and queue: found again without asking the broker for its URL.
        self.getters: dict[tuple[int, str], tuple[Broker, Getter]] = {}
        self.hooked = False
        self.ended = False  # everything was given back, because the process ends


_here = _Here()


def getter_of(broker: Broker, queue: str, declare: Callable[[], object]) -> Getter:
    """This process's getter of a queue; `declare` declares that again if Redis has lost it.

    Raises UsageError while the process ends; a daemon thread waits here for the end instead.
    """
    getter = known(broker, queue)
    return _new_getter(broker, queue, declare) if getter is None else getter


def known(broker: Broker, queue: str) -> Getter | None:
    """The getter, if a thread has asked for it before."""
    whose, getter = _here.getters.get((id(broker), queue), (None, None))
    return getter if whose is broker else None


def _new_getter(broker: Broker, queue: str, declare: Callable[[], object]) -> Getter:
    with alone(_here.lock):
        if not _here.ended:
            one = broker.url, broker.settings
            consumer = _here.consumers.get(one)
            if consumer is None:
                _hook()
                consumer = _here.consumers[one] = ProcessConsumer(broker)
            try:
                getter = consumer.getter(queue, declare)
                _here.getters[id(broker), queue] = broker, getter
                return getter
            except RuntimeError as error:
                if "interpreter shutdown" not in str(error):  # Python starts no thread then
                    raise
                _here.ended = True
    if threading.current_thread().daemon:
        threading.Event().wait()
    raise UsageError(f"queue {queue!r}: this process is ending and has given its items back; it gets nothing more")


def leave() -> None:
    """Give everything back that this process holds; a later `get` begins again."""
    with _here.lock:
        leaving = list(_here.consumers.values())
        _here.consumers.clear()
        _here.getters.clear()
    for one in leaving:
        one.leave()


def end() -> None:
    """Give everything back at the end of the process; a later `get` is refused."""
    with _here.lock:
        _here.ended = True
    leave()


def _end_after_threads() -> None:
    """`end` for a process of multiprocessing, which runs no atexit handlers, and joins its threads only after this."""
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


def _after_fork() -> None:
    for _, getter in _here.getters.values():
        getter.after_fork()
    _here.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def each(take: Callable[[Delivery | None], Delivery]) -> Iterator[Delivery]:
    """Items for a loop: each is settled when the loop asks for the next, or given back if the loop is left before."""
    one: Delivery | None = None
    while True:
        try:
            one = take(one)
        except ShutDown:
            return
        finished = False
        try:
            yield one
            finished = True
        finally:
            if not finished:
                one.getter.give_back(one)

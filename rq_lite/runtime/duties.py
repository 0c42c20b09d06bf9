"""What a supervisor does in Redis, in a plain thread: keeps the leases of its consumers, and a few chores.

Every chore is one script and safe to run on all supervisors at once; there is no leader.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable

import msgspec

from rq_lite.broker import Broker
from rq_lite.errors import RqLiteError
from rq_lite.runtime.identity import surely_dead
from rq_lite.runtime.seldom import Seldom

log = logging.getLogger("rq_lite.worker")

RENEW = 2.0  # seconds between two renewals of the leases, at most; status learns the throughput with them
PROMOTE = 1.0  # between two looks at what is due
RECLAIM = 10.0  # between two looks at leases that ended
TRIM = 60.0  # between two looks at the caps of the dead set
BURST = 0.2  # between two looks whether everything is drained
BATCH = 500


class Duties:
    """Starts with `start`, does everything in its own thread, ends with `stop`.

    `drained` is called (in that thread) once nothing is left to do, in burst mode only.
    """

    def __init__(self, broker: Broker, worker_id: str, facts: dict[str, str | int], drained: Callable[[], None] | None):
        patient = msgspec.structs.replace(broker.settings, patience=2.0)
        self._broker = Broker(broker.url, settings=patient)
        self._revive = broker.revive
        self._worker = worker_id
        self._facts = {**facts, "host": socket.gethostname(), "pid": os.getpid()}
        self._drained = drained
        self._every = min(RENEW, broker.settings.lease / 6)
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="duties", daemon=True)
        self._queues: list[str] = []
        self._living: set[str] = set()
        self._suspected: set[tuple[str, str]] = set()
        self._seldom = Seldom(log)

    def start(self, queues: list[str]) -> None:
        """Begin, once it is known which queues the worker serves."""
        self._queues = queues
        self._facts["queues"] = ",".join(queues)
        self._thread.start()

    def born(self, consumer: str) -> None:
        """Keep the lease of this consumer from now on."""
        self._inbox.put(lambda: self._living.add(consumer))

    def died(self, consumer: str) -> None:
        """It is dead for certain: its jobs go back to the queue now."""

        def reclaim() -> None:
            self._living.discard(consumer)
            for name in self._queues:
                self._reclaim(name, consumer, certain=True)

        self._inbox.put(reclaim)

    def stop(self) -> None:
        """Finish what was asked for, say goodbye, end. Waits a few seconds at most: Redis may be gone."""
        if self._thread.ident is not None:
            self._inbox.put(None)
            self._thread.join(timeout=5)

    # -- in the thread

    def _run(self) -> None:
        chores: list[tuple[float, Callable[[], None]]] = [
            (self._every, self._renew),
            (self._every, self._announce),
            (PROMOTE, self._promote),
            (RECLAIM, self._reclaim_the_dead),
            (TRIM, self._trim),
        ]
        if self._drained is not None:
            chores.append((BURST, self._look_whether_drained))
        due = [time.monotonic()] * len(chores)
        self._guarded(self._reclaim_my_dead)
        while True:
            try:
                errand = self._inbox.get(timeout=max(0.0, min(due) - time.monotonic()))
            except queue.Empty:
                errand = None
            else:
                if errand is None:
                    break
                self._guarded(errand)
            for i, (every, chore) in enumerate(chores):
                if due[i] <= time.monotonic():
                    self._guarded(chore)
                    due[i] = time.monotonic() + every
        self._guarded(lambda: self._broker.unannounce(self._worker))
        self._broker.close()

    def _guarded(self, chore: Callable[[], None]) -> None:
        try:
            chore()
        except RqLiteError as error:
            self._seldom.warn("duties", str(error))
            with contextlib.suppress(RqLiteError):
                self._revive()
        except Exception:
            log.exception("a duty failed; the others go on")

    def _renew(self) -> None:
        for name in self._queues:
            self._broker.renew(name, sorted(self._living))

    def _announce(self) -> None:
        self._broker.announce(
            self._worker, {**self._facts, "consumers": len(self._living)}, self._broker.settings.lease
        )

    def _promote(self) -> None:
        for name in self._queues:
            while self._broker.promote(name, BATCH)[0] == BATCH:
                pass

    def _reclaim(self, name: str, consumer: str, *, certain: bool) -> None:
        total = cursor = 0
        while step := self._broker.reclaim(name, consumer, certain=certain, most=BATCH, cursor=cursor):
            total, cursor = total + step.moved, step.cursor
            if not step.left:
                break
        if total:
            log.warning("queue %r: %d jobs of dead consumer %s are waiting again", name, total, consumer)

    def _reclaim_the_dead(self) -> None:
        """Whose lease has ended at two looks in a row is dead."""
        ended = {
            (name, consumer)
            for name in self._queues
            for consumer, left in self._broker.consumers(name).items()
            if left <= 0 and consumer not in self._living
        }
        for name, consumer in ended & self._suspected:
            self._reclaim(name, consumer, certain=False)
        self._suspected = ended

    def _reclaim_my_dead(self) -> None:
        """Consumers of this machine that are no more need not be waited for."""
        for name in self._queues:
            for consumer in self._broker.consumers(name):
                if surely_dead(consumer):
                    self._reclaim(name, consumer, certain=True)

    def _trim(self) -> None:
        for name in self._queues:
            while self._broker.trim(name):
                pass

    def _look_whether_drained(self) -> None:
        """Parked jobs don't count: this worker cannot run them, and would wait for ever."""
        assert self._drained is not None
        if all(left <= parked for left, parked in map(self._broker.unfinished, self._queues)):
            self._drained()

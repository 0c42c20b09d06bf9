"""Waiting for results: one reader for each process and broker, which needs one connection for any number of jobs.

A job that is waited for is entered here and `watch`ed, which returns its result if it has ended already. Else the
process that ends it pushes the result into this process's inbox, where the reader waits (BRPOP). A push that is lost
(with a connection, with a Redis) only costs time: every job is watched again after a while, and after an error at once.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from rq_lite.broker import REDIS_ERRORS, Broker, Link, keys
from rq_lite.broker.link import LONGEST_BLOCK, end_waiting
from rq_lite.broker.producing import INBOX
from rq_lite.client.defaults import defaults
from rq_lite.errors import BrokerOutOfMemory, BrokerUnavailable, RqLiteError
from rq_lite.logs import RateLimitedLog, logger
from rq_lite.model.names import encoded_id
from rq_lite.model.outcome import stated
from rq_lite.model.unreadable import UNREADABLE

log = logger("rq_lite.results")

AGAIN = 10.0  # seconds after which a job that has not ended is watched again
BATCH = 500  # jobs per watch
PACE = 0.2  # seconds between two watches that the reader makes itself
LINGER = 5.0  # seconds that the reader goes on listening when no job is waited for
QUICK = 0.001  # seconds: after a result that came faster, more are expected to be there
DRAIN = 50  # results that are then read at once, of 10,000 bytes at most

# How progress begins, and how every result begins, as our workers write them.
PASSING, LASTING = b'{"state":"progress"', b'{"state":"'

Key = tuple[str, str]  # queue, id


def is_passing(result: bytes) -> bool:
    """Whether it is a job's progress, not its end."""
    if result.startswith(LASTING):
        return result.startswith(PASSING)
    try:  # another program may write its JSON with white space, or with the state further back
        return stated(result).state == "progress"
    except UNREADABLE:
        return False


class Waiter(Protocol):
    """A job that is waited for."""

    @property
    def id(self) -> str: ...

    @property
    def queue(self) -> str: ...

    def hear(self, result: bytes) -> None:
        """Receive its end, or its progress, as JSON; must not raise."""


class Reader:
    """Starts its thread with the first job, and ends it a while after the last."""

    def __init__(self, broker: Broker) -> None:
        # No retry within a step: the next step comes soon enough.
        self._broker = Broker(broker.url, settings=msgspec.structs.replace(broker.settings, patience=0.0), quiet=True)
        self.client = os.urandom(8).hex()
        # A signal handler may call this while its thread holds the lock: what is done under it is right at each step.
        self._lock = threading.RLock()
        # Weak references: a handle that the program has dropped waits for nothing.
        self._waiters: dict[Key, list[weakref.ref[Waiter]]] = {}
        self._turns: deque[tuple[float, Key]] = deque()  # when each is watched again, the next one first
        self._queues: dict[str, None] = {}  # those whose inboxes the reader listens to
        self._thread: threading.Thread | None = None
        self._link: Link | None = None
        self._stopped = threading.Event()
        self._asked = 0.0
        self._seldom = RateLimitedLog(log)

    def watch(self, jobs: Iterable[Waiter]) -> None:
        """Have `hear` called when these jobs end; at once if they have ended. Jobs that are entered already stay so."""
        fresh: dict[str, list[str]] = {}
        for job in jobs:
            if self._enter(job):
                fresh.setdefault(job.queue, []).append(encoded_id(job.id))
        for queue, ids in fresh.items():
            for i in range(0, len(ids), BATCH):
                self._ask(queue, ids[i : i + BATCH])

    def _enter(self, job: Waiter) -> bool:
        key = (job.queue, encoded_id(job.id))
        with self._lock:
            known = self._waiters.get(key, ())
            if any(one() is job for one in known):
                return False
            wake = None
            if job.queue not in self._queues:
                # The reader may be waiting, without this queue's inbox.
                wake = next(iter(self._queues), None) if self._thread is not None else None
                self._queues[job.queue] = None
            if self._thread is None or not self._thread.is_alive():
                self._start()
            if not known:
                self._turns.append((time.monotonic() + AGAIN, key))
            self._waiters.setdefault(key, []).append(weakref.ref(job))
        if wake is not None:
            self._wake(wake)
        return True

    def _start(self) -> None:
        """Raises RuntimeError if the system has no thread left."""
        thread = self._thread = threading.Thread(target=self._run, name="rq-lite results", daemon=True)
        try:
            thread.start()
        except BaseException:
            if self._thread is thread:
                self._thread = None
            raise

    def _wake(self, queue: str) -> None:
        inbox = keys.of(queue).inbox(self.client)
        with contextlib.suppress(BrokerUnavailable, BrokerOutOfMemory):  # then the reader is awake, or wakes in a while
            self._broker.read(("LPUSH", inbox, b""), ("PEXPIRE", inbox, INBOX))

    def _ask(self, queue: str, ids: Sequence[str]) -> None:
        """Watch, and hand out results that are there. If Redis does not answer, the reader tries again."""
        try:
            results = self._broker.puts.watch(queue, self.client, ids)
            for job_id, result in zip(ids, results, strict=True):
                if result:
                    self._tell(queue, job_id, b"" if result == b"+" else result)
        except BrokerUnavailable:
            self._all_are_due()

    def _all_are_due(self) -> None:
        with self._lock, contextlib.suppress(IndexError):
            for _ in range(len(self._turns)):
                self._turns.append((0.0, self._turns.popleft()[1]))

    def _tell(self, queue: str, job_id: str, result: bytes) -> None:
        """Hand a result to its waiters; an empty one is too large for a push, and fetched. Ids are as in marks."""
        key = (queue, job_id)
        if not result and key in self._waiters:
            result = self._broker.puts.kept(queue, job_id) or b'{"state":"not kept"}'
        passing = is_passing(result)
        with self._lock:
            waiters = list(self._waiters.get(key, ())) if passing else self._waiters.pop(key, [])
        for one in waiters:
            waiter = one()
            try:
                if waiter is not None:
                    waiter.hear(result)
            except BaseException:  # of a callback: even SystemExit would end the thread that serves all waiters
                log.exception("job %s: handing out its result failed; other results are not affected", job_id)

    def stop(self) -> None:
        """Listen no more: jobs that are still waited for hear nothing. Not to be called from a job's callback."""
        self._stopped.set()
        thread = self._thread
        if thread is not None:
            end_waiting(thread, lambda: self._link)

    # -- in the thread

    def _run(self) -> None:
        link: Link | None = None
        idle_since = time.monotonic()
        # Until `stop`, or until a signal handler has started another thread.
        while not self._stopped.is_set() and self._thread is threading.current_thread():
            try:
                if link is None:  # Redis may be away at the beginning, too
                    link = self._link = self._broker.link()
                self._listen(link)
                self._watch_again()
            except REDIS_ERRORS as error:
                if link is not None:
                    link.close()
                if self._stopped.is_set():
                    break
                self._all_are_due()
                self._seldom.warn("redis", f"Redis: {self._broker.core.in_words(error)}; still waiting for results")
                time.sleep(random.uniform(0.05, 1.0))
            except RqLiteError as error:
                self._seldom.warn("results", f"still waiting for results, but: {error}")
                time.sleep(random.uniform(0.5, 1.5))
            except Exception:
                log.exception("a result could not be handed out; other results are not affected")
            now = time.monotonic()
            if self._waiters:
                idle_since = now
            elif now - idle_since > LINGER and self._ended():
                break
        if link is not None:
            link.close()

    def _ended(self) -> bool:
        """Whether the thread may end: no job is waited for, and the next one starts another thread."""
        with self._lock:
            if self._waiters:
                return False
            self._turns.clear()
            self._queues.clear()
            self._thread = None
            if not self._waiters:
                return True
            for key in list(self._waiters):  # entered by a `__del__`, in between
                self._queues[key[0]] = None
                self._turns.append((0.0, key))
            self._thread = self._thread or threading.current_thread()
            return self._thread is not threading.current_thread()

    def _listen(self, link: Link) -> None:
        """Wait for results, and hand out those that have come."""
        inboxes = {keys.of(queue).inbox(self.client).encode(): queue for queue in list(self._queues)}
        began = time.monotonic()
        with self._lock:
            hurry = bool(self._turns) and self._turns[0][0] <= began
        came = link.call("BRPOP", *inboxes, PACE if hurry else LONGEST_BLOCK)
        if came is None:
            return
        inbox, note = came
        self._read(inboxes[inbox], note)
        if time.monotonic() - began < QUICK:
            for note in link.call("RPOP", inbox, DRAIN) or ():
                self._read(inboxes[inbox], note)

    def _read(self, queue: str, note: bytes) -> None:
        job_id, _, result = note.rpartition(b"\n")
        if job_id:
            self._tell(queue, job_id.decode(errors="replace"), result)

    def _watch_again(self) -> None:
        now = time.monotonic()
        if now - self._asked < PACE:
            return
        for queue, ids in self._due(now).items():
            self._asked = now
            self._ask(queue, ids)

    def _due(self, now: float) -> dict[str, list[str]]:
        """Up to BATCH jobs that are to be watched again, by queue."""
        found: dict[str, list[str]] = {}
        with self._lock:
            for _ in range(BATCH):
                if not self._turns or self._turns[0][0] > now:
                    break
                key = self._turns.popleft()[1]
                those = self._waiters.get(key, [])
                for one in list(those):
                    if one() is None:
                        those.remove(one)
                if those:
                    found.setdefault(key[0], []).append(key[1])
                    self._turns.append((now + AGAIN, key))
                else:
                    self._waiters.pop(key, None)
        return found


class _Readers:
    """One for each broker; a child after a fork begins with none."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._readers: weakref.WeakKeyDictionary[Broker, Reader] = weakref.WeakKeyDictionary()
        self._all: weakref.WeakSet[Reader] = weakref.WeakSet()  # also those whose broker is gone

    def stop(self) -> None:
        """Stop all readers."""
        for reader in list(self._all):
            reader.stop()
        self.forget()

    def of(self, broker: Broker) -> Reader:
        reader = self._readers.get(broker)
        if reader is None:
            reader = self._readers.setdefault(broker, Reader(broker))
            self._all.add(reader)
        return reader


readers = _Readers()


def watch(broker: Broker, jobs: Sequence[Waiter]) -> None:
    """Have `hear` called when these jobs end; at once if they have ended."""
    (readers.of(broker) if defaults.instead is None else defaults.instead).watch(jobs)

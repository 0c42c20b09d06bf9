"""This process's part of one queue: what it has got with `Queue.get` and not settled yet.

    threads in `get` ──► Getter ──► Session ──► Redis
                           │  ▲        │ took, adopt, disown
                           ▼  └─ Shelf ◄
                          Bell (waits when there is nothing)

Threads that get at the same time ask Redis together: the first one takes for all that wait.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from rq_lite.broker import Broker, Code, Taken, newer_format
from rq_lite.broker.deliveries import Deliveries
from rq_lite.broker.session import Session
from rq_lite.client.bell import BLOCK, Bell
from rq_lite.client.registry import registry, says_of
from rq_lite.client.shelf import Delivery, Shelf
from rq_lite.errors import BrokerUnsuitable, RqLiteError, ShutDown
from rq_lite.errors import QueueEmpty as Empty
from rq_lite.logs import RateLimitedLog, logger
from rq_lite.model import completion
from rq_lite.model.message import is_tracked
from rq_lite.model.retry import Failure, Report
from rq_lite.process.reentry import alone, interrupts

log = logger("rq_lite.leasing")

PROMPT = 0.01  # seconds that the acks of a loop may gather for one exchange, while more items are here already
NAP = 0.0005  # seconds that a caller with `ahead` lets items gather, when they come one by one
IDLE = 1.0  # seconds after which items that were taken ahead go back if no thread gets any more
ISOLATE = 1.0  # seconds between two tries to take a suspect while other jobs wait
LAST = 1.0  # seconds for each of the last requests at the end of the process
T = TypeVar("T")


class Closed(Exception):
    """The getter has given everything back meanwhile; `leases.getter_of` has another one."""


class SuspectTurns:
    """Lets a suspect go first now and then: else no suspect would be got as long as other jobs wait."""

    def __init__(self, suspects: Callable[[], int]) -> None:
        self.waiting = suspects
        self._at = 0.0  # no suspect is taken before this while others wait; 0: none was seen yet

    def due(self) -> bool:
        if not self.waiting():
            return False
        now, due = time.monotonic(), self._at
        if not due or now > due:
            self._at = now + ISOLATE
        return bool(due) and now > due


class Getter:
    """This process's part of one queue. `_guard` protects what threads share; the session needs `_talk`.

    1. A thread in `get` that finds an item on the shelf has it, without asking Redis.
    2. Else it exchanges: it settles what is done, and takes an item for each thread that waits and `ahead` more; the
       other threads find theirs on the shelf.
    3. If nothing came, one thread waits for the bell, the others for that thread.
    4. `task_done`, `settle` and the next item of a loop settle an item; `give_back` and `bury` end it otherwise.
    5. The duties' thread calls `audit` periodically, also when no thread gets.
    6. `leave` gives everything back; a later call raises Closed, and `leases` makes another getter.
    """

    def __init__(
        self, broker: Broker, consumer: str, queue: str, suspects: Callable[[], int], declare: Callable[[str], None]
    ) -> None:
        self.queue = queue
        self.broker = broker
        self._suspects = SuspectTurns(suspects)
        self._guard = threading.RLock()
        self._talk = threading.RLock()
        self._bell = Bell(broker, queue, self._guard)
        self._shelf = Shelf(self, consumer, self._guard, self._bell.arrived)
        self._of = Deliveries(queue)
        self._session = Session(broker, consumer, [self._of], self._shelf, RateLimitedLog(log), declare)
        self._consumer = consumer
        self._puts = completion.Puts(says_of(registry.tasks), broker.core.seal)
        self._waiting = 0  # threads in `get`
        self._acked_at = 0.0  # when the first of the acks was noted
        self._left = False  # `leave` was called
        self._dry = False  # the last take came up short, and no bell has rung since
        self._got_at = 0.0  # when a thread last asked for an item

    # -- getting

    def get(
        self,
        timeout: float | None,
        check: Callable[[], None],
        *,
        done: Delivery | None = None,
        lingering: bool = False,
        ahead: int = 0,
    ) -> Delivery:
        """The next item, waiting up to `timeout` s (None: for ever); up to `ahead` more are taken for later calls.

        `done` is settled in the same step. `check` raises once the caller may get nothing any more: see `wake`.

        Raises Empty; ShutDown once the queue was shut down and nothing waits in it (`lingering`: and no other consumer
        holds an item that it might give back); Closed.
        """
        broker, ready = self.broker, self._shelf.ready
        if done is not None:
            with alone(self._guard):
                self._done(done)
        elif ready and not self._of.acks:  # brought along by an earlier call
            with alone(self._guard):
                if self._shelf.ready:
                    check()
                    return self._shelf.pick()
        until = None if timeout is None else time.monotonic() + timeout
        found: Delivery | None = None
        with alone(self._guard):
            self._waiting += 1
        try:
            if self._dry and not self._shelf.ready and timeout != 0 and done is None:
                if ahead:
                    time.sleep(NAP)  # their producer can put some more meanwhile
                else:
                    self._wait(BLOCK if timeout is None else timeout, False)
            while True:
                found, closed = self._fetch(check, ahead)
                if found is not None:
                    return found
                # Another consumer may hold an item and give it back.
                if closed == 0 and not (lingering and broker.tends.unfinished(self.queue)[0] > self._shelf.own()):
                    raise ShutDown(f"queue {self.queue!r} was shut down and is empty")
                left = BLOCK if until is None else until - time.monotonic()
                if left <= 0:
                    raise Empty(f"queue {self.queue!r} is empty")
                self._wait(left, lingering and closed >= 0)
        finally:
            with self._guard:
                self._waiting -= 1
                spare = self._spare(ahead)
                if self._waiting:
                    self._bell.news.notify()
            if spare > 0:  # another thread took for this one, which was interrupted, or a lost answer was found
                self._return_spare(ahead, found)

    @property
    def ready(self) -> int:
        """How many were taken ahead and not got yet."""
        return len(self._shelf.ready)

    def _fetch(self, check: Callable[[], None], ahead: int) -> tuple[Delivery | None, int]:
        """An item for this thread, if there is one, and how many wait in a queue that was shut down (else -1)."""
        closed = -1
        with alone(self._talk):
            check()
            self._got_at = now = time.monotonic()
            if not self._shelf.ready or (self._of.acks and now - self._acked_at > PROMPT):
                closed = self._take(ahead)
            with self._guard:
                if not self._shelf.ready:
                    return None, closed
                check()
                return self._shelf.pick(), closed

    def _spare(self, kept: int = 0) -> int:
        """How many items are here that no thread waits for, beyond the `kept`."""
        return len(self._shelf.ready) - self._waiting - kept

    def _take(self, ahead: int) -> int:
        shelf = self._shelf
        if self._suspects.due():
            self._isolate()
            if shelf.ready:
                return -1  # a suspect comes alone
        want = max(0, self._waiting + ahead - len(shelf.ready))
        reply = self._exchange(want)
        self._dry = len(reply.jobs) < want and reply.closed < 0 and reply.code is Code.OK
        if not reply.jobs and not shelf.ready and (reply.closed > 0 or self._suspects.waiting()):
            self._isolate()
        return reply.closed

    def _isolate(self) -> None:
        """Take a suspect, as this process's only item: if the suspect kills the process, no other item is charged."""
        with self._guard:
            if not self._shelf.empty:
                return
        self._surely(lambda: self._session.isolate(self._of))
        self._surely(self._session.settle)  # what could not be read

    def _wait(self, seconds: float, drained: bool) -> None:
        """Wait until there may be an item."""

        def there() -> bool:
            self._dry = False
            return bool(self._shelf.ready)

        try:
            self._bell.wait(seconds, drained, there)
        finally:
            if self._left:
                self._bell.close()

    def wake(self) -> None:
        """Let all threads that wait call their `check` again."""
        with alone(self._guard):
            self._bell.wake()

    # -- settling

    def task_done(self) -> None:
        """Settle what this thread got first, or else what the process got first; ValueError if nothing is left."""
        with alone(self._guard):
            oldest = self._shelf.oldest()
            if oldest is None:
                raise ValueError(f"queue {self.queue!r}: task_done() called too many times: every item was settled")
            self._done(oldest)
        self.flush()

    def settle(self, one: Delivery) -> None:
        with alone(self._guard):
            self._done(one)
        self.flush()

    def flush(self) -> None:
        """Settle what is done. In a signal handler that interrupts an exchange of its thread: nothing, for now."""
        if interrupts(self._talk):
            return
        with contextlib.suppress(Closed), alone(self._talk):
            if self._of.acks or self._of.outcomes:
                self._exchange(0)

    def _done(self, one: Delivery) -> None:
        """Settle it with the next exchange. The caller holds `_guard`."""
        if self._shelf.drop(one) and not one.disowned:
            if is_tracked(one.message):  # a task's job: its result is None, as no function was called
                ended = completion.done(one.message, self.queue, 1, b"null", self._puts)
                self._of.outcomes.append((one.tag, ended))
                return
            if not self._of.acks:
                self._acked_at = time.monotonic()
            self._of.acks.append(one.tag)

    def give_back(self, one: Delivery) -> None:
        # Dropped from the shelf only with `_talk`: a reconcile in between would adopt it as new.
        with contextlib.suppress(Closed), alone(self._talk):
            with self._guard:
                dropped = self._shelf.drop(one)
            if dropped and not one.lost:
                self._give_back([one.tag])

    def bury(self, one: Delivery, error: BaseException) -> None:
        """Bury an item that cannot be read."""
        failure = Failure(f"{type(error).__name__}: {error}")
        report = Report(one.message.id, None, failure.error, consumer=self._consumer)
        outcome = completion.buried(one.message, self.queue, 1, failure, report.buried(), self._puts)
        with contextlib.suppress(Closed), alone(self._talk):
            with self._guard:
                if self._shelf.drop(one) and not one.disowned:
                    self._of.outcomes.append((one.tag, outcome))
            self._surely(self._session.settle)

    def give_all_back(self, patience: float | None = None) -> None:
        """Give back all items: those got and not settled, those taken ahead, and those on their way back already."""
        with contextlib.suppress(Closed), alone(self._talk):
            if self._left and self._session.unsure:
                # A lost answer may have brought items.
                self._surely(lambda: self._session.reconcile(lost=True), patience)
            with self._guard:
                tags = self._shelf.clear() | self._of.leaving
            with self._leaving(tags):
                if self._of.acks or self._of.outcomes:
                    self._exchange(0, patience)
                if tags:
                    self._surely(lambda: self._session.give_back(self._of, sorted(tags)), patience)

    def _return_spare(self, kept: int = 0, got: Delivery | None = None) -> None:
        """Give back items that no thread needs. If it fails no `get` fails: the next reconcile adopts the items."""
        try:
            with contextlib.suppress(Closed, RqLiteError), alone(self._talk):
                with self._guard:
                    spare = [self._shelf.ready.pop() for _ in range(self._spare(kept))]
                if spare:
                    self._give_back([one.tag for one in spare])
        except BaseException:  # the caller does not get the item that it has picked
            with self._guard:
                if got is not None:
                    self._shelf.put_back(got)
            raise

    # -- Redis; callers hold `_talk`

    @contextlib.contextmanager
    def _leaving(self, tags: Collection[int]) -> Iterator[None]:
        """The block gives these back. If it fails the next reconcile adopts them (if Closed, `leave` returns them)."""
        self._of.leaving.update(tags)
        try:
            yield
        except Closed:
            raise
        except BaseException:
            self._of.leaving.difference_update(tags)
            raise

    def _give_back(self, tags: list[int]) -> None:
        with self._leaving(tags):
            self._surely(lambda: self._session.give_back(self._of, tags))

    def _exchange(self, want: int, patience: float | None = None) -> Taken:
        def attempt() -> None:
            if self._of.outcomes:
                self._session.settle()
            self._session.exchange([self._of], want)

        self._surely(attempt, patience)
        while (reply := self._shelf.answered()) is None:  # there was no lease: others may have our items by now
            self._surely(self._session.reconcile, patience)
            self._surely(attempt, patience)
        if reply.code is Code.NEWER:
            raise BrokerUnsuitable(newer_format(self.queue))
        if self._session.audit_due:
            self._surely(self._session.reconcile, patience)
        if self._of.outcomes:  # entries that could not be read
            self._surely(self._session.settle, patience)
        return reply

    def _surely(self, step: Callable[[], T], patience: float | None = None) -> T:
        """Run one step, retrying transient errors; the session reconciles first if the last outcome is unknown.

        `patience` (seconds) is given only by `leave`: once the getter has left, a step without it raises Closed.
        """

        def attempt() -> T:
            if self._left and patience is None:
                raise Closed
            return step()

        try:
            return self.broker.takes.patiently(attempt, self._session.link, patience)
        except BaseException:  # also if the thread is interrupted while the answer is on its way
            self._session.close()
            raise

    def audit(self) -> None:
        """Reconcile periodically, even without callers: a delayed request may take effect after a timeout."""
        if not self._talk.acquire(blocking=False):
            return
        try:
            if not self._left and (self._session.audit_due or self._session.unsure or self._of.acks):
                self._exchange(0)
        finally:
            self._talk.release()
        if time.monotonic() - self._got_at > IDLE:
            self._return_spare()

    def leave(self, *, tell: bool) -> bool:
        """Give everything back, and let Redis forget this consumer. Later calls raise Closed.

        True if Redis has done so; without `tell` it is not asked.
        """
        self._left = True
        self.wake()
        if tell:
            try:
                self.give_all_back(LAST)
                with self._talk:
                    self._surely(self._session.forget, LAST)
            except RqLiteError:
                tell = False
        with self._talk:
            self._session.close()
        self._bell.close()
        return tell

    def after_fork(self) -> None:
        """In a forked child, which has neither its parent's items nor its connections."""
        self._left = True
        self._guard = self._shelf.guard = self._bell.guard = threading.RLock()
        self._talk = threading.RLock()
        self._bell.news = threading.Condition(self._guard)
        self._shelf.clear()
        self._of.leaving.clear()
        self._of.acks.clear()
        self._of.outcomes.clear()

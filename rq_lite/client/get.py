"""This process's part of one queue: what it has got with `Queue.get` and not settled yet.

Threads that get at the same time ask Redis together: who is first takes for all that wait.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from rq_lite.broker import REDIS_ERRORS, Acks, Broker, Code, Death, Taken
from rq_lite.errors import QueueEmpty as Empty
from rq_lite.errors import RqLiteError, ShutDown
from rq_lite.logs import RateLimitedLog
from rq_lite.model.message import ITEM, Message, Undecodable, decode
from rq_lite.model.retry import Report
from rq_lite.process.reentry import alone, interrupts

log = logging.getLogger("rq_lite.leasing")

BLOCK = 1.5  # seconds a wait for the bell lasts; a wake-up that was lost heals after it
PROMPT = 0.01  # seconds that a loop's settled items may wait to be told together, while more are here already
NAP = 0.0005  # seconds that who takes ahead lets items gather, when they come one by one
IDLE = 1.0  # seconds after which items that were taken ahead go back if nobody gets any more
AUDIT = 10.0  # seconds between two looks at what Redis says we own; sooner after an error
SOON = 2.0
ISOLATE = 1.0  # seconds between two looks for suspects while others wait
LAST = 1.0  # seconds that Redis has at the end of the process to hear what goes back
ENDED = Death("it has ended", charged="none")
T = TypeVar("T")


class _Me(threading.local):
    """Who holds an item. Not the thread's number: the next thread may get the same one when this has ended."""

    def __init__(self) -> None:
        self.token = object()


_me = _Me()


class Left(Exception):
    """What was asked of a lane of which all went back meanwhile; another lane is to be had from `lane_of`."""


class Held:
    """An item that this process has, on lease."""

    __slots__ = ("lane", "lost", "message", "owner", "settled", "tag")

    def __init__(self, lane: Lane, tag: int, message: Message) -> None:
        self.lane = lane
        self.tag = tag
        self.message = message
        self.owner: object = None  # the thread that got it
        self.settled = False
        self.lost = False  # its lease has ended: somebody else has it, or will have


class Lane:
    """This process's part of one queue. `_guard` is for what threads share; who holds `_talk` uses the link."""

    def __init__(self, broker: Broker, consumer: str, queue: str, suspects: Callable[[], int]) -> None:
        self.queue = queue
        self.broker = broker
        self._consumer = consumer
        self._suspects = suspects
        self._guard = threading.RLock()
        self._news = threading.Condition(self._guard)
        self._waiting = 0  # threads in `get`
        self._listening = False  # one of them waits for the bell, the others for it
        self._ready: deque[Held] = deque()  # taken, for who waits
        self._held: dict[object, dict[Held, None]] = {}  # by the thread that got them, the oldest first
        self._going: set[int] = set()  # on their way back, or to the dead set: not for anybody here any more
        self._acks: list[int] = []
        self._acked_at = 0.0  # when the first of them was
        self._left = False  # for good
        self._dry = False  # the last take came up short, and no bell has rung since
        self._got_at = 0.0  # when somebody last asked for an item
        self._talk = threading.RLock()
        self._link = broker.link()
        self._ear = broker.link()
        self._registered = False
        self._isolate_at = 0.0  # not before is a suspect taken although others wait; 0: none was seen yet
        self._unsure = False  # nobody knows whether the last request was done
        self._audit_at = time.monotonic() + AUDIT
        self._seldom = RateLimitedLog(log)

    # -- getting

    def get(
        self,
        timeout: float | None,
        check: Callable[[], None],
        *,
        done: Held | None = None,
        lingering: bool = False,
        ahead: int = 0,
    ) -> Held:
        """The next item, waiting up to `timeout` s (None: for ever), and up to `ahead` more for later calls.

        `done` is settled in the same step. `check` raises once the caller may get nothing any more: see `wake`.

        Raises Empty, and ShutDown once the queue was shut down and nothing waits in it; `lingering`: and nothing is
        held by others either, who might give it back. Raises Left.
        """
        if done is not None:
            with alone(self._guard):
                self._done(done)
        elif self._ready and not self._acks:  # brought along by an earlier call
            with alone(self._guard):
                if self._ready:
                    return self._pick(check)
        until = None if timeout is None else time.monotonic() + timeout
        held: Held | None = None
        with alone(self._guard):
            self._waiting += 1
        try:
            if self._dry and not self._ready and timeout != 0 and done is None:
                if ahead:
                    time.sleep(NAP)  # whoever puts them can put some more meanwhile
                else:
                    self._wait(BLOCK if timeout is None else timeout, False)
            while True:
                held, closed = self._fetch(check, ahead)
                if held is not None:
                    return held
                if closed == 0 and not (lingering and self._elsewhere()):
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
                    self._news.notify()
            if spare > 0:  # this thread was interrupted while another took for it, or an answer that was lost is found
                self._return_spare_after(held, ahead)

    @property
    def ready(self) -> int:
        """How many were taken ahead and not got yet."""
        return len(self._ready)

    def _fetch(self, check: Callable[[], None], ahead: int) -> tuple[Held | None, int]:
        """What is there for this thread, and how much waits somewhere in a queue that was shut down (else -1)."""
        closed = -1
        with alone(self._talk):
            check()
            self._got_at = now = time.monotonic()
            if not self._ready or (self._acks and now - self._acked_at > PROMPT):
                closed = self._take(ahead)
            with self._guard:
                return (self._pick(check) if self._ready else None), closed

    def _pick(self, check: Callable[[], None]) -> Held:
        check()
        held = self._ready.popleft()
        held.owner = owner = _me.token
        own = self._held.get(owner)
        if own is None:
            own = self._held[owner] = {}
        own[held] = None
        return held

    def _spare(self, kept: int = 0) -> int:
        """How much was taken that nobody waits for, apart from so many."""
        return len(self._ready) - self._waiting - kept

    def _take(self, ahead: int) -> int:
        if self._suspects() and self._is_their_turn():
            self._isolate()
            if self._ready:
                return -1  # alone
        want = max(0, self._waiting + ahead - len(self._ready))
        reply = self._exchange(want)
        self._dry = len(reply.jobs) < want and reply.closed < 0 and reply.code is Code.OK
        if reply.jobs:
            self._arrived([(reply.tag + n, entry) for n, entry in enumerate(reply.jobs, 1)])
        elif not self._ready and (reply.closed > 0 or self._suspects()):
            self._isolate()
        return reply.closed

    def _is_their_turn(self) -> bool:
        """Now and then suspects go before what waits: while the queue is never empty they would never be got."""
        now, due = time.monotonic(), self._isolate_at
        if not due or now > due:
            self._isolate_at = now + ISOLATE
        return bool(due) and now > due

    def _isolate(self) -> None:
        """Take an item whose consumers have died twice, as our only one: if it kills us too, no other is charged."""
        with self._guard:
            if any(self._held.values()) or self._ready:
                return
        code, tag, entry = self._surely(lambda: self.broker.takes.isolate(self.queue, self._consumer, self._link))
        if code is Code.OK and tag:
            self._arrived([(tag, entry)])

    def _arrived(self, jobs: list[tuple[int, bytes]]) -> None:
        found, none = [], []
        for tag, entry in jobs:
            try:
                message = decode(self.broker.core.opened(self.queue, entry))[0]
                if not message.task and len(message.args) != 1 and ITEM not in message.kwargs:
                    raise Undecodable("neither a task's name nor an item")
                found.append(Held(self, tag, message))
            except Undecodable as error:
                report = Report(None, None, f"{error.said}: {error}", consumer=self._consumer)
                none.append((tag, report.buried().report))
        with self._guard:
            self._ready += found
            if self._waiting > 1:
                self._news.notify(len(found))
        if none:
            self._seldom.warn("undecodable", f"queue {self.queue!r}: buried {len(none)} entries that are no job")
            self._surely(lambda: self.broker.takes.bury(self.queue, self._consumer, none, self._link))

    def _wait(self, seconds: float, drained: bool) -> None:
        """Until perhaps there is something; one thread waits for the bell, the others for that one."""
        with self._guard:
            self._dry = False
            if self._ready:
                return
            if self._listening:
                self._news.wait(min(seconds, 4 * BLOCK))
                return
            self._listening = True
        try:
            self.broker.takes.wait_item(self.queue, min(seconds, BLOCK), self._ear, drained=drained)
        except REDIS_ERRORS:
            self._ear.close()
            time.sleep(random.uniform(0.02, min(seconds, 0.5)))
        except BaseException:
            self._ear.close()
            raise
        finally:
            with self._guard:
                self._listening = False
                self._news.notify()
            if self._left:
                self._ear.close()

    def wake(self) -> None:
        """Let all who wait look again whether they may."""
        with alone(self._guard):
            self._news.notify_all()
            if self._listening:
                self._ear.drop()

    def _elsewhere(self) -> bool:
        """Whether somebody else has an item that may come back."""
        with self._guard:
            own = sum(not held.lost for held in self._held.get(_me.token, ()))
        return self.broker.tends.unfinished(self.queue)[0] > own

    # -- settling

    def task_done(self) -> None:
        """Settle what this thread got first, or else the process; raises ValueError when nothing is left."""
        with alone(self._guard):
            own = self._held.get(_me.token) or min(
                filter(None, self._held.values()), key=lambda those: next(iter(those)).tag, default=None
            )
            if not own:
                raise ValueError(f"queue {self.queue!r}: task_done() called too many times: nothing got is left")
            self._done(next(iter(own)))
        self.flush()

    def settle(self, held: Held) -> None:
        with alone(self._guard):
            self._done(held)
        self.flush()

    def flush(self) -> None:
        """Tell Redis what is done; where this interrupts somebody who talks to Redis, it is told a little later."""
        if interrupts(self._talk):
            return
        with contextlib.suppress(Left), alone(self._talk):
            if self._acks:
                self._exchange(0)

    def _done(self, held: Held) -> None:
        """It is settled with the next exchange. Whoever calls this holds `_guard`."""
        if not self._drop(held):
            return
        if held.lost:
            self._note_stale(1)
            return
        if not self._acks:
            self._acked_at = time.monotonic()
        self._acks.append(held.tag)

    def give_back(self, held: Held) -> None:
        # Dropped only by who may talk: else a look at what we own in between would find it for new.
        with contextlib.suppress(Left), alone(self._talk):
            with self._guard:
                dropped = self._drop(held)
            if dropped and not held.lost:
                self._give_back([held.tag])

    def bury(self, held: Held, error: BaseException) -> None:
        """To the dead set: it cannot even be read."""
        report = Report(held.message.id, None, f"{type(error).__name__}: {error}", consumer=self._consumer).buried()
        with contextlib.suppress(Left), alone(self._talk):
            with self._guard:
                dropped = self._drop(held)
            if dropped:
                buried = [(held.tag, report.report)]
                with self._letting_go([held.tag]):
                    self._surely(lambda: self.broker.takes.bury(self.queue, self._consumer, buried, self._link))

    def give_all_back(self, patience: float | None = None) -> None:
        """What was got here and is not settled, what was taken for threads that are no more, what was to go back."""
        with contextlib.suppress(Left), alone(self._talk):
            if self._left and self._unsure:
                self._surely(lambda: None, patience)  # an answer that was lost may have brought something
            with self._guard:
                every = [held for those in self._held.values() for held in those] + [*self._ready]
                for held in every:
                    held.settled = True
                self._held.clear()
                self._ready.clear()
            tags = sorted({*self._going, *(held.tag for held in every if not held.lost)})
            with self._letting_go(tags):
                if self._acks:
                    self._exchange(0, patience)
                if tags:
                    self._give_back(tags, patience)

    def _drop(self, held: Held) -> bool:
        """Whether it was held."""
        if held.settled:
            return False
        held.settled = True
        those = self._held.get(held.owner, {})
        those.pop(held, None)
        if not those:
            self._held.pop(held.owner, None)
        return True

    def _return_spare_after(self, got: Held | None, kept: int) -> None:
        """A courtesy that no `get` fails for: what cannot go back now is found at the next look."""
        try:
            with contextlib.suppress(RqLiteError):
                self._return_spare(kept)
        except BaseException:  # nobody hears of what was got
            with self._guard:
                if got is not None and self._drop(got):
                    got.settled = False
                    self._ready.appendleft(got)
            raise

    def _return_spare(self, kept: int = 0) -> None:
        with contextlib.suppress(Left), alone(self._talk):
            with self._guard:
                spare = [self._ready.pop() for _ in range(self._spare(kept))]
            if spare:
                self._give_back([held.tag for held in spare])

    # -- Redis; whoever calls these holds `_talk`

    @contextlib.contextmanager
    def _letting_go(self, tags: list[int]) -> Iterator[None]:
        """A look at what we own, before Redis has heard of it, must not take these for new ones."""
        self._going.update(tags)
        try:
            yield
        except Left:
            raise  # who leaves takes them along
        except BaseException:
            self._going.difference_update(tags)
            raise
        self._going.difference_update(tags)

    def _give_back(self, tags: list[int], patience: float | None = None) -> None:
        with self._letting_go(tags):
            self._surely(
                lambda: self.broker.takes.give_back(self.queue, self._consumer, tags, link=self._link), patience
            )

    def _exchange(self, want: int, patience: float | None = None) -> Taken:
        def attempt() -> Taken:
            sent = self._acks[:]
            reply = self.broker.takes.exchange(self._consumer, [Acks(self.queue, sent)], want, self._link)[0]
            with self._guard:
                del self._acks[: len(sent)]
            return reply

        if time.monotonic() > self._audit_at:
            self._unsure = True
        while True:
            reply = self._surely(attempt, patience)
            if reply.stale:
                self._note_stale(reply.stale)
            if reply.code is not Code.NOLEASE:
                return reply
            # It has ended, perhaps with what we hold: look before we go on.
            self._registered, self._unsure = False, True

    def _surely(self, attempt: Callable[[], T], patience: float | None = None) -> T:
        """Do something with Redis, through weather; once nobody knows what was done, look first what we own.

        `patience` is what the last steps of a lane that was left have; any other raises Left then.
        """

        def step() -> T:
            if self._left and patience is None:
                raise Left
            if not self._registered:
                self.broker.takes.register(self.queue, self._consumer, link=self._link)
                self._registered = True
            if self._unsure:
                self._reconcile()
            self._unsure = True
            reply = attempt()
            self._unsure = False
            return reply

        try:
            return self.broker.takes.patiently(step, self._link, patience)
        except BaseException:  # also a thread that is interrupted while the answer is on its way
            self._link.close()
            raise
        finally:
            if self._unsure:
                self._audit_at = time.monotonic() + SOON

    def _reconcile(self) -> None:
        """Learn what we own: what came in an answer that was lost is there for who waits; what is lost is marked."""
        owned = self.broker.takes.inflight(self.queue, self._consumer, self._link)
        with self._guard:
            self._acks = [tag for tag in self._acks if tag in owned]
            here = [held for those in self._held.values() for held in those]
            for held in here:
                held.lost = held.lost or held.tag not in owned
            self._ready = deque(held for held in self._ready if held.tag in owned)
            known = {*self._acks, *self._going, *(held.tag for held in (*here, *self._ready) if not held.lost)}
        strangers = sorted(owned - known)
        if strangers:
            self.broker.reads.heed_limit(self._link)
        found = self.broker.takes.booked(self.queue, self._consumer, strangers, self._link)
        self._unsure = False
        self._audit_at = time.monotonic() + AUDIT
        if found:
            self._arrived(found)

    def audit(self) -> None:
        """Now and then, also when nobody gets: a request that was held up may be done long after we gave it up."""
        if not self._talk.acquire(blocking=False):
            return
        try:
            if not self._left and (time.monotonic() > self._audit_at or self._acks):
                self._exchange(0)
        finally:
            self._talk.release()
        if time.monotonic() - self._got_at > IDLE:
            self._return_spare()

    def _note_stale(self, count: int) -> None:
        self._seldom.warn("stale", f"queue {self.queue!r}: {count} items were done after their lease had ended")

    def leave(self, *, tell: bool) -> bool:
        """The end: everything goes back, and Redis forgets this consumer. Who asks for something then, gets Left.

        Whether Redis was there to hear of it; it is not asked unless `tell`.
        """
        self._left = True
        self.wake()
        if tell:
            try:
                self.give_all_back(LAST)
                with self._talk:
                    self.broker.takes.patiently(self._forget, self._link, LAST)
            except RqLiteError:
                tell = False
        with self._talk:
            self._link.close()
        with self._guard:
            if not self._listening:
                self._ear.close()
        return tell

    def _forget(self) -> None:
        self.broker.tends.reclaim(self.queue, self._consumer, certain=True, death=ENDED, link=self._link)

    def begin_anew(self) -> None:
        """In a forked child, which has nothing of what its parent holds, and none of its connections."""
        self._left = True
        self._guard, self._talk = threading.RLock(), threading.RLock()
        self._news = threading.Condition(self._guard)
        for those in self._held.values():
            for held in those:
                held.settled = True
        self._held.clear()
        self._ready.clear()
        self._going.clear()
        self._acks.clear()

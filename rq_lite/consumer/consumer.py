"""A consumer: one greenlet exchanges results for jobs with Redis, the slots run them.

    exchange ──feed──► slots ──finished──► deliveries ──acks──► exchange
       ▲ news                                                     │
       └──── listen (BRPOP on the bells, when a take came up short)

While a call is under way further results gather for the next one: batches without added delay.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing

import gevent
from gevent.event import Event

from rq_lite import events
from rq_lite.broker import REDIS_ERRORS, Broker, Taken, is_transient
from rq_lite.broker.deliveries import Deliveries
from rq_lite.broker.session import AUDIT, MOST, Session
from rq_lite.consumer.cancel import Cancellations
from rq_lite.consumer.exit import critical
from rq_lite.consumer.slots import Slot, Slots
from rq_lite.logs import RateLimitedLog
from rq_lite.model.backoff import pauses
from rq_lite.model.outcome import Outcome
from rq_lite.process.board import LANE, ROOM, TAKEN, TOOK, Board

log = logging.getLogger("rq_lite.consumer")

BLOCK = 1.5  # seconds a wait for the bell lasts; a wake-up that was lost heals after it
SWALLOWED = 1.0  # seconds that jobs have to end once Stopped was raised in them
LAST = 1.5  # seconds that Redis has to hear of the last results, when everything else is over


class Rebuild(ConnectionError):
    """Somebody outside says that nothing is taken though there is something: connect anew."""


class Order:
    """In which order the queues are asked: as listed, or by chance in proportion to their weights."""

    def __init__(self, weights: dict[str, float], *, strict: bool, chance: random.Random | None = None) -> None:
        self._weights = weights
        self._strict = strict or len(weights) == 1
        self._chance = chance or random.Random()
        self.queues = list(weights)

    def __call__(self) -> list[str]:
        if self._strict:
            return self.queues
        # Weighted order without replacement (Efraimidis and Spirakis 2006): the largest u^(1/w) goes first.
        return sorted(self.queues, key=lambda queue: -(self._chance.random() ** (1 / self._weights[queue])))


class Consumer:
    """Takes jobs while there are free slots, until `stop`; then gives back what does not end within `grace` s.

    1. `run` starts the slots and the greenlets that listen: for the bells, and for calls to interrupt a job.
    2. One greenlet, the exchanger, asks the session for as many jobs as there are free slots; each goes to a slot.
    3. A slot runs its job and notes the outcome in the deliveries of its queue; the exchanger hears of it and settles
       it with its next exchange. While that is under way further outcomes gather.
    4. A take that came up short means that nothing waits: the bell's greenlet listens, and wakes the exchanger.
    5. After an error the exchanger tries again, with growing pauses; the session first finds out what was done.
    6. `stop` ends the taking: jobs have their grace time, then Stopped is raised in them, and the rest is given back.

    `declare` makes a queue known once more, where its lease was lost.
    """

    def __init__(
        self,
        broker: Broker,
        name: str,
        order: Order,
        board: Board,
        run: Callable[[Slot[Deliveries], bytes], Outcome],
        *,
        grace: float,
        seldom: RateLimitedLog | None = None,
        declare: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self._broker = broker
        self._order = order
        self._board = board
        self._slots: Slots[Deliveries] = Slots(board, run, self._finished)
        self._grace = grace
        self._seldom = seldom or RateLimitedLog(log)
        queues = [Deliveries(queue, number * LANE) for number, queue in enumerate(order.queues)]
        self._session = Session(broker, name, queues, self, self._seldom, declare)
        self._deliveries = self._session.deliveries
        self._cancelling = Cancellations(broker, self._slots, self._session.link, self._finished)
        self._news = Event()  # something has changed for the exchange
        self._dry = False  # the last take came up short, and no bell has rung since
        self._hungry = Event()  # listen for the bell
        self._doubt: Exception | None = None  # who listens was cut off: ours may be as dead, and take as long to say so
        self._leaving = False
        self._stops = 0
        self._until = float("inf")  # when leaving: how long running jobs have, in time.monotonic()
        self._give_up = float("inf")  # when leaving: no more tries to reach Redis after this
        self._well = Event()  # Redis has answered the last exchange
        self._well.set()
        self._pauses = pauses()  # between tries while it does not
        self._told = Event()  # `stop` was called: a pause between tries ends
        self._exchanger: gevent.greenlet | None = None

    # -- life

    def run(self) -> None:
        """Work until stopped. Jobs that are left at the end are given back."""
        self._exchanger = gevent.getcurrent()
        self._slots.start()
        others = [
            critical(gevent.spawn(self._listen)),
            critical(gevent.spawn(self._cancelling.hear, self.name, self._deliveries, self._well)),
            critical(gevent.spawn(self._flush_log)),
        ]
        gevent.sleep(0)  # the slots wait at the door before the first jobs come
        self._news.set()
        while not self._leaving:
            self._exchange_while(lambda: not self._leaving, wait=AUDIT)
        others[0].kill()
        self._wind_down()
        gevent.killall(others)
        self._session.close()
        self._seldom.flush(at_once=True)

    def stop(self) -> None:
        """Take no more, and end within the grace time; called again: give back at once. Safe from a hub callback."""
        self._stops += 1
        self._until = time.monotonic() + (self._grace if self._stops == 1 else 0.0)
        self._told.set()
        self._leave()

    def forked(self) -> None:
        """In a process that a job has forked: there only the job goes on, and none of our greenlets."""
        gevent.hub.set_hub(gevent.hub.Hub(default=False))
        self._slots.forked()

    def retire(self) -> None:
        """Take no more, and end when the running jobs have ended, however long they take; `stop` may still come."""
        self._leave()

    def rebuild(self) -> None:
        """Connect anew, whatever the exchange waits for. From a hub callback."""
        if self._exchanger is not None and not self._leaving and self._well.is_set():
            self._exchanger.throw(Rebuild("nothing was taken though jobs wait: connecting anew"))

    def _flush_log(self) -> None:
        while True:
            gevent.sleep(RateLimitedLog.FLUSH)
            self._seldom.flush()

    def _leave(self) -> None:
        self._leaving = True
        self._news.set()

    def _wind_down(self) -> None:
        events.emit("leave.before", self._session.link, consumer=self.name)
        self._give_back(self._slots.not_started())
        while not self._slots.idle and (left := self._until - time.monotonic()) > 0:
            self._exchange_while(lambda: True, wait=min(left, AUDIT))
        if self._stops:
            self._give_up = min(self._give_up, time.monotonic() + LAST)
        ending = self._slots.stop_running()
        if ending:
            when = "when it was told to end at once" if self._stops > 1 else "within the grace time"
            log.warning("jobs that were not done %s, and are given back: %d", when, len(ending))
            gevent.joinall(ending, timeout=SWALLOWED)
        if self._session.unsettled:  # else there is nothing to tell, and no reason to wait for a Redis that is away
            self._exchange_while(lambda: True)
        self._give_back(self._slots.held())

    def _give_back(self, held: Sequence[tuple[Deliveries, int]]) -> None:
        """Uncharged, and without waiting for Redis: what it does not hear of is reclaimed."""
        for of in self._deliveries.values():
            tags = [tag for owner, tag in held if owner is of]
            if not tags:
                continue
            try:
                self._session.give_back(of, tags, looking=False)
            except REDIS_ERRORS as error:
                of.leaving.difference_update(tags)
                self._session.close()
                log.warning(
                    "Redis: %s; jobs that will be reclaimed: %d", self._broker.core.veiled(str(error)), len(tags)
                )

    # -- the exchange

    def _finished(self, of: Deliveries | None, tag: int, outcome: Outcome) -> None:
        if of is None:
            pass  # there is room for another, and nothing to tell
        elif outcome is None:
            of.acks.append(tag)
        else:
            of.outcomes.append((tag, outcome))
        if not self._news.is_set():
            self._news.set()

    def _exchange_while(self, going_on: Callable[[], bool], *, wait: float = 0.0) -> None:
        """Exchange as long as there is something to settle or to take, after waiting for that up to `wait` s."""
        while True:
            try:
                if wait:
                    self._news.wait(wait)
                    self._news.clear()
                    wait = 0.0
                while self._answered_step() and going_on():
                    pass
                return
            except REDIS_ERRORS as error:
                self._well.clear()
                if not self._recover(error):
                    return

    def _answered_step(self) -> bool:
        going_on = self._step()
        if not self._well.is_set():
            self._well.set()
            self._pauses = pauses()
            log.info("Redis answers again")
        return going_on

    def _step(self) -> bool:
        """One exchange, if there is a reason for one."""
        if self._doubt is not None:
            raise self._doubt  # not just a new connection: Redis may have lost something, so look what we own
        session = self._session
        if session.unsure:
            self._reconcile(lost=True)
        # There may be less than none: jobs that an answer brought which was lost were not asked for.
        want = 0 if self._leaving else max(0, min(self._slots.room, MOST))
        session.settle()
        going_on = self._exchange(want)
        # Only now: results that come too late (after a long standstill) are refused and counted, not just forgotten.
        if session.audit_due and not (self._leaving and self._slots.idle):
            self._reconcile(lost=False)
            return True
        return going_on or any(of.outcomes for of in self._deliveries.values())

    def _reconcile(self, *, lost: bool) -> None:
        for of in self._deliveries.values():
            self._cancelling.look(of)  # an exchange that takes nothing does not tell that a job was cancelled
        self._session.reconcile(lost=lost)
        self._dry = False

    def _exchange(self, want: int) -> bool:
        acking = self._session.acking
        if not acking and (want == 0 or self._dry):
            if want:
                self._hungry.set()
            else:
                self._hungry.clear()  # else it would hear its own bell, handed on, again and again
            return False
        self._hungry.clear()
        came, complete = self._session.exchange(
            [self._deliveries[queue] for queue in self._order()] if want else acking, want
        )
        self._dry = complete and came < want
        self._show(came)
        return True

    def _show(self, came: int) -> None:
        """On the board: that so many jobs have come."""
        words = self._board.words
        words[ROOM] = self._slots.room
        if came:
            words[TOOK] = time.monotonic_ns()
            words[TAKEN] += came

    def _recover(self, error: Exception) -> bool:
        """After an error: whether to try again, after a pause; the session then finds out what was done.

        Not so at a stop, which does not wait for Redis: running jobs have their grace time, their results `LAST`.
        """
        self._session.close()
        self._session.unsure = True
        self._doubt = None
        lasts = "" if is_transient(error) else " (will not pass by itself)"
        self._seldom.warn("redis", f"Redis: {self._broker.core.veiled(str(error))}{lasts}")
        self._news.set()
        pause = next(self._pauses)  # longer and longer until an exchange works: a replica lets us look, not take
        if self._stops:
            deadline = self._until if self._give_up == float("inf") else self._give_up
            pause = min(pause, max(0.0, deadline - time.monotonic()))
        self._told.clear()
        self._told.wait(pause)
        self._dry = False
        if self._leaving and self._slots.idle and not self._session.unsettled:
            return False
        now = time.monotonic()
        if self._stops and self._slots.idle:
            self._give_up = min(self._give_up, now + LAST)
        if now >= self._give_up:
            self._forget_results()
            return False
        return now <= self._until or self._give_up < float("inf")

    def _forget_results(self) -> None:
        """Redis was not there to hear of them: their jobs are reclaimed and run again."""
        count = self._session.unsettled
        if count:
            log.warning("Redis could not be told of %d jobs that are done: they will run again", count)
        for of in self._deliveries.values():
            of.forget_all_but(set())

    # -- what the session asks for

    def held(self, of: Deliveries) -> Collection[int]:
        return [tag for owner, tag in self._slots.held() if owner is of]

    def took(self, of: Deliveries, taken: Taken) -> None:
        self._cancelling.learn(of, taken.cancels)
        if taken.jobs:
            self._cancelling.feed(of, taken.tag, taken.jobs)

    def adopt(self, of: Deliveries, found: list[tuple[int, bytes]]) -> None:
        self._cancelling.look(of)
        for tag, job in found:
            self._cancelling.feed(of, tag - 1, [job])

    def look(self, of: Deliveries, owned: set[int]) -> None:
        self._slots.withdraw(of, owned)

    def disown(self, of: Deliveries, owned: set[int]) -> int:
        return self._slots.disown(of, owned)

    # -- the bell

    def _listen(self) -> None:
        """Wait for the bell while a take came up short; a token that comes too late is handed on."""
        with closing(self._broker.link()) as link:
            while True:
                self._hungry.wait()
                block = BLOCK * random.uniform(0.8, 1.2)
                # Not those whose jobs are not for us: a token that we took would be missing elsewhere.
                queues = [queue for queue in self._order.queues if queue not in self._session.newer]
                try:
                    rang = self._broker.takes.wait_bell(queues, block, link) if queues else gevent.sleep(block)
                    if rang is not None and self._slots.room <= 0:
                        self._broker.takes.ring(rang, link)
                        continue
                except REDIS_ERRORS as error:
                    self._doubt = error
                    link.close()
                    gevent.sleep(random.uniform(0.05, 1.0))
                self._dry = False
                self._hungry.clear()
                self._news.set()


class SuspectConsumer(Consumer):
    """Runs suspects, one at a time, and ends when there are none."""

    def _exchange(self, want: int) -> bool:
        going_on = super()._exchange(0)
        if not want or not self._slots.idle:
            return going_on
        for of in self._deliveries.values():
            if self._session.isolate(of):
                self._show(int(not self._slots.idle))
                return True
        self.retire()
        return False

"""A consumer: one greenlet exchanges results for jobs with Redis, the slots run them.

    exchange ──feed──► slots ──finished──► deliveries ──acks──► exchange
       ▲ news                                                     │
       └──── listen (BRPOP on the bells, when a take came up short)

While a call is under way further results gather for the next one: batches without added delay.
"""

from __future__ import annotations

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
from rq_lite.logs import RateLimitedLog, logger
from rq_lite.model.backoff import pauses
from rq_lite.model.outcome import Outcome
from rq_lite.process.board import LANE, ROOM, TAKEN, TOOK, Board

log = logger("rq_lite.consumer")

BLOCK = 1.5  # seconds that a wait for the bell lasts: the most that a lost wake-up costs
SWALLOWED = 1.0  # seconds that jobs have to end once Stopped was raised in them
LAST = 1.5  # seconds in which the last results must reach Redis, once all jobs have ended


class Rebuild(ConnectionError):
    """The supervisor noticed that nothing is taken though jobs wait: reconnect."""


class Order:
    """The order in which queues are asked for jobs: as listed (`strict`), or random in proportion to their weights."""

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
    """Takes jobs while there are free slots, until `stop`; then gives back jobs that do not end within `grace` s.

    1. `run` starts the slots and the greenlets that listen: for the bells, and for calls to interrupt a job.
    2. One greenlet, the exchanger, asks the session for as many jobs as there are free slots; each goes to a slot.
    3. A slot runs its job, notes the outcome in the deliveries of its queue and wakes the exchanger, which settles it
       with the next exchange. While one is under way further outcomes gather.
    4. A take that came up short means that nothing waits: the bell's greenlet listens, and wakes the exchanger.
    5. After an error the exchanger tries again, with growing pauses; the session reconciles first.
    6. `stop` ends the taking: jobs get the grace time, then Stopped is raised in them, and they are given back.

    `declare` declares a queue again, once the consumer's lease on it was lost.
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
        self._dry = False  # the last take came up short, and no bell has rung since it was sent
        self._rings = 0  # of the bell, so far
        self._hungry = Event()  # listen for the bell
        self._doubt: Exception | None = None  # the listener was cut off: the exchanger's connection may be dead, too
        self._leaving = False
        self._stops = 0
        self._until = float("inf")  # when leaving: running jobs have until then, in time.monotonic()
        self._give_up = float("inf")  # when leaving: no more tries to reach Redis after this
        self._well = Event()  # Redis has answered the last exchange
        self._well.set()
        self._pauses = pauses()  # between tries while Redis does not answer
        self._told = Event()  # `stop` was called: a pause between tries ends
        self._exchanger: gevent.greenlet | None = None

    # -- life

    def run(self) -> None:
        """Work until stopped. Jobs that have not ended by then are given back."""
        self._exchanger = gevent.getcurrent()
        self._slots.start()
        others = [
            critical(gevent.spawn(self._listen)),
            critical(gevent.spawn(self._cancelling.hear, self.name, self._deliveries, self._well)),
            critical(gevent.spawn(self._flush_log)),
        ]
        gevent.sleep(0)  # every slot's greenlet waits before the first jobs come
        self._news.set()
        while not self._leaving:
            self._exchange_while(lambda: not self._leaving, wait=AUDIT)
        others[0].kill()
        self._wind_down()
        gevent.killall(others)
        self._session.close()
        self._seldom.flush(at_once=True)

    def stop(self) -> None:
        """Take no more, and end within the grace time; a second call: give back at once. Safe in a hub callback."""
        self._stops += 1
        self._until = time.monotonic() + (self._grace if self._stops == 1 else 0.0)
        self._told.set()
        self._leave()

    def forked(self) -> None:
        """In a process that a job has forked: only the job goes on there, and none of the consumer's greenlets."""
        gevent.hub.set_hub(gevent.hub.Hub(default=False))
        self._slots.forked()

    def retire(self) -> None:
        """Take no more, and end when the running jobs have ended, however long they take; `stop` may still come."""
        self._leave()

    def rebuild(self) -> None:
        """Reconnect, whatever the exchanger waits for. To be called from a hub callback."""
        if self._exchanger is not None and not self._leaving and self._well.is_set():
            self._exchanger.throw(Rebuild("nothing was taken though jobs wait; reconnecting"))

    def _flush_log(self) -> None:
        while True:
            gevent.sleep(RateLimitedLog.FLUSH)
            self._seldom.flush()

    def _leave(self) -> None:
        self._leaving = True
        self._slots.close()
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
            when = "at the second request to stop" if self._stops > 1 else "within the grace time"
            log.warning("giving back jobs that were not done %s: %d", when, len(ending))
            gevent.joinall(ending, timeout=SWALLOWED)
        if self._session.unsettled:  # else there is no reason to wait for a Redis that does not answer
            self._exchange_while(lambda: True)
        self._give_back(self._slots.held())

    def _give_back(self, held: Sequence[tuple[Deliveries, int]]) -> None:
        """Give back, uncharged, without waiting for Redis: jobs whose request fails are reclaimed."""
        for of in self._deliveries.values():
            tags = [tag for owner, tag in held if owner is of]
            if not tags:
                continue
            try:
                self._session.give_back(of, tags, looking=False)
            except REDIS_ERRORS as error:
                of.leaving.difference_update(tags)
                self._session.close()
                log.warning("Redis: %s; jobs that will be reclaimed: %d", self._broker.core.in_words(error), len(tags))

    # -- the exchange

    def _finished(self, of: Deliveries | None, tag: int, outcome: Outcome) -> None:
        if of is None:
            pass  # a slot is free, and there is nothing to settle
        elif outcome is None:
            of.acks.append(tag)
        else:
            of.outcomes.append((tag, outcome))
        if not self._news.is_set():
            self._news.set()

    def _exchange_while(self, going_on: Callable[[], bool], *, wait: float = 0.0) -> None:
        """Wait up to `wait` s for something to settle or to take, then exchange until there is no more."""
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
            log.debug("Redis answers again")  # the supervisor says it, once for all consumers
        return going_on

    def _step(self) -> bool:
        """One exchange, if there is a reason for one."""
        if self._doubt is not None:
            raise self._doubt  # reconnecting is not enough: Redis may have lost data, so reconcile
        session = self._session
        if session.unsure:
            self._reconcile(lost=True)
        # The room may be negative: jobs adopted from a lost answer come on top of those asked for.
        want = 0 if self._leaving else max(0, min(self._slots.room, MOST))
        session.settle()
        going_on = self._exchange(want)
        # Only after settling: so Redis refuses and counts results that are too late (after a long standstill), which a
        # reconcile would just forget.
        if session.audit_due and not (self._leaving and self._slots.idle):
            self._reconcile(lost=False)
            return True
        return going_on or any(of.outcomes for of in self._deliveries.values())

    def _reconcile(self, *, lost: bool) -> None:
        for of in self._deliveries.values():
            self._cancelling.look(of)  # the reply to an exchange that takes nothing does not show cancelled jobs
        self._session.reconcile(lost=lost)
        self._dry = False

    def _exchange(self, want: int) -> bool:
        acking = self._session.acking
        if not acking and (want == 0 or self._dry):
            if want:
                self._hungry.set()
            else:
                self._hungry.clear()  # else the listener would get back the token that it hands on, again and again
            return False
        self._hungry.clear()
        rings = self._rings
        came, complete = self._session.exchange(
            [self._deliveries[queue] for queue in self._order()] if want else acking, want
        )
        # A bell that rang meanwhile may be for a job that was put after Redis had answered.
        self._dry = complete and came < want and rings == self._rings
        self._show(came)
        return True

    def _show(self, came: int) -> None:
        """Show on the board that this number of jobs has come."""
        words = self._board.words
        words[ROOM] = self._slots.room
        if came:
            words[TOOK] = time.monotonic_ns()
            words[TAKEN] += came

    def _recover(self, error: Exception) -> bool:
        """Pause after an error; True if the exchanger is to try again (the session then reconciles first).

        A stop does not wait for Redis: running jobs get the grace time, their results `LAST` seconds.
        """
        self._session.close()
        self._session.unsure = True
        self._doubt = None
        lasts = "" if is_transient(error) else " (will not pass by itself)"
        self._seldom.warn("redis", f"Redis: {self._broker.core.in_words(error)}{lasts}")
        self._news.set()
        pause = next(self._pauses)  # grows until an exchange works: a replica answers a reconcile, but no take
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
        """Redis could not be told of these results in time: their jobs are reclaimed and run again."""
        count = self._session.unsettled
        if count:
            log.warning("jobs that are done and run again, because Redis could not be told of their end: %d", count)
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
        """Wait for the bell after a take came up short; a token that comes when no slot is free is handed on."""
        with closing(self._broker.link()) as link:
            while True:
                self._hungry.wait()
                block = BLOCK * random.uniform(0.8, 1.2)
                # Not queues of a newer format: this consumer would take tokens from workers that can run their jobs.
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
                self._rings += 1
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

"""A consumer: one greenlet exchanges results for jobs with Redis, the slots run them.

    exchange ──feed──► slots ──finished──► lanes ──acks──► exchange
       ▲ news                                                │
       └──── listen (BRPOP on the bells, when a take came up short)

While a call is under way further results gather for the next one: batches without added delay.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import gevent
from gevent.event import Event

from rq_lite import events
from rq_lite.broker import REDIS_ERRORS, Acks, Broker, Code, Link, is_transient
from rq_lite.broker.deliveries import Lane, Order, portions
from rq_lite.consumer.cancel import Cancellations
from rq_lite.consumer.exit import critical
from rq_lite.consumer.slots import Slot, Slots
from rq_lite.logs import RateLimitedLog
from rq_lite.model.backoff import pauses
from rq_lite.model.outcome import Buried, Crashed, Dropped, Finished, Outcome, Parked, Retried
from rq_lite.process.board import ROOM, TAKEN, TOOK, Board

log = logging.getLogger("rq_lite.consumer")

MOST = 1000  # jobs or acks per exchange
BLOCK = 1.5  # seconds a wait for the bell lasts; a wake-up that was lost heals after it
SWALLOWED = 1.0  # seconds that jobs have to end once Stopped was raised in them
AUDIT = 10.0  # seconds between two looks at what Redis says we own, without any error
SOON = 2.0  # likewise, after an error: a request that was on its way may be done after we have looked
LAST = 1.5  # seconds that Redis has to hear of the last results, when everything else is over


class Rebuild(ConnectionError):
    """Somebody outside says that nothing is taken though there is something: connect anew."""


class Consumer:
    """Takes jobs while there are free slots, until `stop`; then gives back what does not end within `grace` s.

    `declare` makes a queue known once more, where its lease was lost.
    """

    def __init__(
        self,
        broker: Broker,
        name: str,
        order: Order,
        board: Board,
        run: Callable[[Slot[Lane], bytes], Outcome],
        *,
        grace: float,
        seldom: RateLimitedLog | None = None,
        declare: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self._broker = broker
        self._order = order
        self._lanes = {queue: Lane(queue, number) for number, queue in enumerate(order.queues)}
        self._board = board
        self._slots: Slots[Lane] = Slots(board, run, self._finished)
        self._grace = grace
        self._declare = declare
        self._link: Link = broker.link()
        self._cancelling = Cancellations(broker, self._slots, self._link, self._finished)
        self._news = Event()  # something has changed for the exchange
        self._dry = False  # the last take came up short, and no bell has rung since
        self._hungry = Event()  # listen for the bell
        self._doubt: Exception | None = None  # who listens was cut off: ours may be as dead, and take as long to say so
        self._registered = False
        self._leaving = False
        self._stops = 0
        self._until = float("inf")  # when leaving: how long running jobs have, in time.monotonic()
        self._give_up = float("inf")  # when leaving: no more tries to reach Redis after this
        self._audit_at = time.monotonic() + AUDIT * random.uniform(0.5, 1.0)
        self._well = Event()  # Redis has answered the last exchange
        self._well.set()
        self._pauses = pauses()  # between tries while it does not
        self._exchanger: gevent.greenlet | None = None
        self._seldom = seldom or RateLimitedLog(log)

    # -- life

    def run(self) -> None:
        """Work until stopped. Jobs that are left at the end are given back."""
        self._exchanger = gevent.getcurrent()
        self._slots.start()
        others = [
            critical(gevent.spawn(self._listen)),
            critical(gevent.spawn(self._cancelling.hear, self.name, self._lanes, self._well)),
            critical(gevent.spawn(self._flush_log)),
        ]
        gevent.sleep(0)  # the slots wait at the door before the first jobs come
        self._news.set()
        while not self._leaving:
            self._exchange_while(lambda: not self._leaving, wait=AUDIT)
        others[0].kill()
        self._wind_down()
        gevent.killall(others)
        self._link.close()
        self._seldom.flush(at_once=True)

    def stop(self) -> None:
        """Take no more, and end within the grace time; called again: give back at once. Safe from a hub callback."""
        self._stops += 1
        self._until = time.monotonic() + (self._grace if self._stops == 1 else 0.0)
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
        events.emit("leave.before", self._link, consumer=self.name)
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
        self._exchange_while(lambda: True)
        self._give_back(self._slots.held())

    def _give_back(self, held: Sequence[tuple[Lane, int]]) -> None:
        """Uncharged, and without waiting for Redis: what it does not hear of is reclaimed."""
        for lane in self._lanes.values():
            tags = [tag for owner, tag in held if owner is lane]
            if not tags:
                continue
            try:
                self._broker.takes.give_back(lane.queue, self.name, tags, link=self._link)
            except REDIS_ERRORS as error:
                self._link.close()
                log.warning(
                    "Redis: %s; jobs that will be reclaimed: %d", self._broker.core.veiled(str(error)), len(tags)
                )

    # -- the exchange

    def _finished(self, lane: Lane | None, tag: int, outcome: Outcome) -> None:
        if lane is None:
            pass  # there is room for another, and nothing to tell
        elif outcome is None:
            lane.acks.append(tag)
        else:
            lane.others.append((tag, outcome))
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
        # There may be less than none: jobs that an answer brought which was lost were not asked for.
        want = 0 if self._leaving else max(0, min(self._slots.room, MOST))
        if not self._registered and want:
            self._register()
        for lane in self._lanes.values():
            if lane.others:
                self._settle_others(lane)
        going_on = self._exchange(want)
        # Only now: results that come too late (after a long standstill) are refused and counted, not just forgotten.
        if time.monotonic() > self._audit_at and not (self._leaving and self._slots.idle):
            self._reconcile()
            return True
        return going_on or any(lane.others for lane in self._lanes.values())

    def _exchange(self, want: int) -> bool:
        acking = [lane for lane in self._lanes.values() if lane.acks]
        if not acking and (want == 0 or self._dry):
            if want:
                self._hungry.set()
            else:
                self._hungry.clear()  # else it would hear its own bell, handed on, again and again
            return False
        self._hungry.clear()
        lanes = [self._lanes[queue] for queue in self._order()] if want else acking
        sent = [lane.acks[:MOST] for lane in lanes]
        replies = self._broker.takes.exchange(
            self.name, [Acks(lane.queue, acks) for lane, acks in zip(lanes, sent, strict=True)], want, self._link
        )
        came = 0
        for lane, acks, (code, stale, tag, jobs, cancels, _) in zip(lanes, sent, replies, strict=True):
            del lane.acks[: len(acks)]
            if stale:
                self._note_stale(lane, stale)
            if code is Code.NOLEASE:
                if self._declare is not None:
                    self._declare(lane.queue)  # it may be that Redis has lost everything
                self._broker.takes.register(lane.queue, self.name, link=self._link)
                continue
            self._cancelling.learn(lane, cancels)
            if jobs:
                if tag < lane.highest:
                    self._begin_anew(lane)
                lane.highest = tag + len(jobs)
                self._cancelling.feed(lane, tag, jobs)
                came += len(jobs)
        self._dry = came < want and all(reply.code is Code.OK for reply in replies)
        self._show(came)
        return True

    def _begin_anew(self, lane: Lane) -> None:
        """Tags count up, unless Redis has lost its data: what ran or has ended under the old ones is nobody's now."""
        lane.forget_all_but(set())
        count = self._slots.disown(lane, set())
        self._seldom.warn("emptied", f"queue {lane.queue!r}: Redis has lost its data, and {count} jobs that run here")

    def _show(self, came: int) -> None:
        """On the board: so many jobs have come."""
        words = self._board.words
        words[ROOM] = self._slots.room
        if came:
            words[TOOK] = time.monotonic_ns()
            words[TAKEN] += came

    def _register(self) -> None:
        for queue in self._order.queues:
            self._broker.takes.register(queue, self.name, link=self._link)
        self._registered = True

    def _settle_others(self, lane: Lane) -> None:
        batch = lane.others[:MOST]
        reports = [(tag, outcome.report) for tag, outcome in batch if isinstance(outcome, Buried)]
        delays = [(tag, outcome.delay) for tag, outcome in batch if isinstance(outcome, Retried)]
        unknown = [(tag, outcome.task) for tag, outcome in batch if isinstance(outcome, Parked)]
        deaths = [(tag, *outcome) for tag, outcome in batch if isinstance(outcome, Crashed)]
        dropped = [(tag, outcome.job) for tag, outcome in batch if isinstance(outcome, Dropped)]
        stale = 0
        if dropped:
            stale += self._broker.takes.drop(lane.queue, self.name, dropped, self._link)
            lane.marks.difference_update(job for _, job in dropped)
        if reports:
            stale += self._broker.takes.bury(lane.queue, self.name, reports, self._link)
        if delays:
            stale += self._broker.takes.retry(lane.queue, self.name, delays, self._link)
        if unknown:
            stale += self._broker.takes.park(lane.queue, self.name, unknown, self._link)
        if deaths:
            stale += self._broker.takes.crashed(lane.queue, self.name, deaths, self._link)
        ends = [(tag, outcome) for tag, outcome in batch if isinstance(outcome, Finished)]
        for some in portions(ends):
            stale += self._broker.takes.finish(lane.queue, self.name, some, self._link)
        del lane.others[: len(batch)]
        if stale:
            self._note_stale(lane, stale)

    def _note_stale(self, lane: Lane, stale: int) -> None:
        self._seldom.warn(
            "stale", f"queue {lane.queue!r}: {stale} results came too late, their jobs had been reclaimed"
        )

    def _recover(self, error: Exception) -> bool:
        """After an error nobody knows what was done: look what we own, and go on from there, unless this returns False.

        That is at a stop, which does not wait for Redis: running jobs have their grace time, their results `LAST`.
        """
        for pause in self._pauses:  # longer and longer until an exchange works: a replica lets us look, but not take
            self._link.close()
            self._doubt = None
            lasts = "" if is_transient(error) else " (will not pass by itself)"
            self._seldom.warn("redis", f"Redis: {self._broker.core.veiled(str(error))}{lasts}")
            gevent.sleep(pause)
            if self._leaving and self._slots.idle and not any(lane.finished for lane in self._lanes.values()):
                return False
            now = time.monotonic()
            if self._stops and self._slots.idle:
                self._give_up = min(self._give_up, now + LAST)
            if now > self._give_up:
                self._forget_results()
                return False
            if now > self._until and self._give_up == float("inf"):
                return False
            try:
                self._reconcile(anew=True)
                self._audit_at = time.monotonic() + SOON
                return True
            except REDIS_ERRORS as again:
                error = again
        raise AssertionError("pauses never end")

    def _forget_results(self) -> None:
        """Redis was not there to hear of them: their jobs are reclaimed and run again."""
        count = sum(len(lane.finished) for lane in self._lanes.values())
        if count:
            log.warning("Redis could not be told of %d jobs that are done: they will run again", count)
        for lane in self._lanes.values():
            lane.forget_all_but(set())

    def _reconcile(self, *, anew: bool = False) -> None:
        """Start what is booked on us and we never heard of; forget results that have arrived after all.

        `anew`: after an error, when Redis may have forgotten its last steps (a failover, a file that lost its tail). It
        then gives the same tags once more, and what still runs under one of them must not settle another's job.
        """
        for lane in self._lanes.values():
            self._cancelling.look(lane)
        held = self._slots.held()
        for lane in self._lanes.values():
            owned = self._broker.takes.inflight(lane.queue, self.name, self._link)
            lane.forget_all_but(owned)
            if anew and (count := self._slots.disown(lane, owned)):
                self._seldom.warn(
                    "disowned", f"queue {lane.queue!r}: Redis knows nothing of {count} jobs that run here"
                )
            known = {tag for owner, tag in held if owner is lane} | lane.finished
            strangers = sorted(owned - known)
            if strangers:
                self._adopt(lane, strangers)
        self._audit_at = time.monotonic() + AUDIT * random.uniform(0.8, 1.2)
        self._dry = False

    def _adopt(self, lane: Lane, tags: list[int]) -> None:
        """Run jobs that were booked on us by an answer that was lost."""
        self._broker.reads.heed_limit(self._link)
        found = self._broker.takes.booked(lane.queue, self.name, tags, self._link)
        for tag, job in found:
            self._cancelling.feed(lane, tag - 1, [job])
        self._seldom.warn("lost", f"queue {lane.queue!r}: an answer was lost; {len(found)} jobs in it begin now")

    # -- the bell

    def _listen(self) -> None:
        """Wait for the bell while a take came up short; a token that comes too late is handed on."""
        queues = self._order.queues
        with closing(self._broker.link()) as link:
            while True:
                self._hungry.wait()
                try:
                    rang = self._broker.takes.wait_bell(queues, BLOCK * random.uniform(0.8, 1.2), link)
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
        for lane in self._lanes.values():
            code, tag, job = self._broker.takes.isolate(lane.queue, self.name, self._link)
            if code is Code.NOLEASE:
                self._broker.takes.register(lane.queue, self.name, link=self._link)
                return True
            if tag:
                self._cancelling.look(lane)
                self._cancelling.feed(lane, tag - 1, [job])
                self._show(1)
                return True
        self.retire()
        return False

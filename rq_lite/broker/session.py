"""One consumer's conversation with Redis, the same for the greenlets of a worker and for threads that `get`.

    owner ──acks, outcomes──► Deliveries ──► Session ──► Redis
      ▲                                         │
      └───────────── took, adopt, disown ───────┘

The session does not wait, retry or lock: its owner calls it from one greenlet or thread at a time, and after an error
calls it again when it wants to. Errors of Redis pass through unchanged.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol, TypeVar

from rq_lite.broker import Acks, Broker, Code, Death, Taken
from rq_lite.broker.deliveries import Deliveries, portions
from rq_lite.errors import counted
from rq_lite.logs import RateLimitedLog
from rq_lite.model.outcome import Crashed, Finished, Parked, Retried

MOST = 1000  # jobs or acks per exchange
AUDIT = 10.0  # seconds between two reconciles if there was no error
SOON = 2.0  # the same after an error: a delayed request may take effect after the first reconcile
ENDED = Death("it has ended", charged="none")
T = TypeVar("T")


class Owner(Protocol):
    """What runs, or hands out, the jobs that a session takes."""

    def held(self, of: Deliveries) -> Collection[int]:
        """The tags of deliveries that the owner has and that have not ended."""

    def took(self, of: Deliveries, taken: Taken) -> None:
        """Begin the jobs, if any, in the answer of one queue."""

    def adopt(self, of: Deliveries, found: list[tuple[int, bytes]]) -> None:
        """Begin these deliveries (tag and entry), which Redis says are the consumer's and the owner does not have."""

    def look(self, of: Deliveries, owned: set[int]) -> None:
        """Redis says that the consumer owns `owned`: do not begin a delivery that is not among them."""

    def disown(self, of: Deliveries, owned: set[int]) -> int:
        """Ignore the end of deliveries that are not in `owned`: other jobs may get their tags. Returns how many."""


class Session:
    """Which deliveries one consumer has, according to Redis and to the session's owner, and how both are kept the same.

    1. It registers: without a lease on a queue nothing is taken from it.
    2. `exchange` acks what is done, by its bare tag, and takes up to `want` jobs, in one step; `settle` settles runs
       that have ended otherwise.
    3. Jobs come with delivery tags that count up; each is fenced by its tag: a result under a tag that is no longer the
       consumer's is refused and counted as stale.
    4. Without a lease (it ended during a standstill, or Redis lost its data) the answer is NOLEASE: the session
       declares the queue again, registers, and reconciles soon. A lower tag than before means that the data is gone.
    5. After an error the outcome of the last request is unknown: the next call reconciles first. It asks Redis what the
       consumer owns, adopts deliveries that came in a lost answer, forgets results that arrived after all, and disowns
       what Redis does not know.
    6. Periodically it reconciles without an error: a delayed request may take effect after its caller timed out.
    7. Nothing is taken from a queue with a newer format (NEWER); what was taken before is settled as usual.
    8. At the end `give_back` returns what has not ended, uncharged; `forget` ends the lease.
    """

    def __init__(
        self,
        broker: Broker,
        consumer: str,
        queues: Iterable[Deliveries],
        owner: Owner,
        log: RateLimitedLog,
        declare: Callable[[str], None] | None = None,
    ) -> None:
        self.consumer = consumer
        self.deliveries = {of.queue: of for of in queues}
        self.link = broker.link()
        self._broker = broker
        self._owner = owner
        self._log = log
        self._declare = declare
        self._registered = False
        self.newer: set[str] = set()  # queues with a newer format, from which nothing is taken
        self.unsure = False  # the outcome of the last request is unknown
        self._audit_at = time.monotonic() + AUDIT * random.uniform(0.5, 1.0)

    @property
    def audit_due(self) -> bool:
        return time.monotonic() > self._audit_at

    @property
    def acking(self) -> list[Deliveries]:
        """The queues with something to ack."""
        return [of for of in self.deliveries.values() if of.acks]

    @property
    def unsettled(self) -> int:
        """How many runs have ended and are not settled."""
        return sum(len(of.acks) + len(of.outcomes) for of in self.deliveries.values())

    def close(self) -> None:
        """Cut the connection; after an error, so that no late answer is read as that to the next request."""
        self.link.close()

    # -- taking and settling

    def exchange(self, of: Sequence[Deliveries], want: int) -> tuple[int, bool]:
        """Ack what is done, and take up to `want` jobs from these queues in their order.

        Returns how many came, and whether every queue has given all it could: then nothing more waits just now.
        """
        self._begin(want > 0)
        acks = [Acks(some.queue, some.acks[:MOST]) for some in of]
        self.unsure = True
        replies = self._broker.takes.exchange(self.consumer, acks, want, self.link)
        came, complete = 0, True
        for some, sent, taken in zip(of, acks, replies, strict=True):
            del some.acks[: len(sent.acks)]
            if taken.stale:
                self._note_stale(some, taken.stale)
            if taken.code is Code.NEWER:
                self.newer.add(some.queue)
            else:
                self.newer.discard(some.queue)
                complete = complete and taken.code is Code.OK
            if taken.code is Code.NOLEASE:
                self._renew(some)
                continue
            if taken.jobs:
                if taken.tag < some.highest:
                    self._begin_again(some)
                some.highest = taken.tag + len(taken.jobs)
                came += len(taken.jobs)
            self._owner.took(some, taken)
        self.unsure = False  # only now: if an interruption keeps jobs from the owner, the next request adopts them
        return came, complete

    def settle(self) -> None:
        """Settle up to `MOST` runs of each queue that have ended otherwise than with an ack."""
        for of in self.deliveries.values():
            if of.outcomes:
                self._begin(False)
                batch = of.outcomes[:MOST]
                stale = self._ask(lambda of=of, batch=batch: self._settle(of, batch))  # type: ignore[misc]
                del of.outcomes[: len(batch)]
                if stale:
                    self._note_stale(of, stale)

    def _settle(self, of: Deliveries, batch: list[tuple[int, Retried | Parked | Crashed | Finished]]) -> int:
        takes, queue, consumer, link = self._broker.takes, of.queue, self.consumer, self.link
        delays = [(tag, outcome.delay) for tag, outcome in batch if isinstance(outcome, Retried)]
        unknown = [(tag, outcome.task) for tag, outcome in batch if isinstance(outcome, Parked)]
        deaths = [(tag, *outcome) for tag, outcome in batch if isinstance(outcome, Crashed)]
        stale = 0
        if delays:
            stale += takes.retry(queue, consumer, delays, link)
        if unknown:
            stale += takes.park(queue, consumer, unknown, link)
        if deaths:
            stale += takes.crashed(queue, consumer, deaths, link)
        for some in portions([(tag, outcome) for tag, outcome in batch if isinstance(outcome, Finished)]):
            stale += takes.finish(queue, consumer, some, link)
            of.marks.difference_update(end.job for _, end in some if end.job)
        return stale

    def isolate(self, of: Deliveries) -> bool:
        """Take a suspect, for an owner that runs nothing else; True if one came, or the queue is to be asked again."""
        self._begin(True)
        self.unsure = True
        code, tag, entry = self._broker.takes.isolate(of.queue, self.consumer, self.link)
        if code is Code.NOLEASE:
            self._renew(of)
        elif tag:
            if tag <= of.highest:
                self._begin_again(of)
            of.highest = tag
            self._owner.adopt(of, [(tag, entry)])
        self.unsure = False
        return code is Code.NOLEASE or tag > 0

    def give_back(self, of: Deliveries, tags: Collection[int], *, looking: bool = True) -> None:
        """Return these to the head of the queue, uncharged. Without `looking` no reconcile, which may begin jobs."""
        of.leaving.update(tags)  # until Redis has confirmed it, even if that takes several tries
        if looking:
            self._begin(False)
        self._ask(lambda: self._broker.takes.give_back(of.queue, self.consumer, [*tags], link=self.link))
        of.leaving.difference_update(tags)

    def forget(self) -> None:
        """End the leases: what is left returns to its queue, uncharged, and Redis forgets this consumer."""
        for queue in self.deliveries:
            self._broker.tends.reclaim(queue, self.consumer, certain=True, death=ENDED, link=self.link)

    # -- what is owned

    def reconcile(self, *, lost: bool = False) -> None:
        """Make what Redis and the owner know the same again.

        `lost`: after an error, when Redis may have forgotten its last steps (a failover, a file that lost its tail). It
        then gives the same tags again, and a run under an old tag must not settle the job that now has this tag.
        """
        for of in self.deliveries.values():
            held = set(self._owner.held(of))  # read before `finished`: a run that ends meanwhile is in both
            owned = self._broker.takes.inflight(of.queue, self.consumer, self.link)
            of.forget_all_but(owned)
            of.leaving &= owned
            if not lost:
                self._owner.look(of, owned)
            elif count := self._owner.disown(of, owned):
                jobs = counted(count, "job")
                self._log.warn("disowned", f"queue {of.queue!r}: Redis knows nothing of {jobs} running here")
            strangers = sorted(owned - held - of.finished - of.leaving)
            if strangers:
                self._adopt(of, strangers)
        self.unsure = False
        self._audit_at = time.monotonic() + (SOON if lost else AUDIT * random.uniform(0.8, 1.2))

    def _adopt(self, of: Deliveries, tags: list[int]) -> None:
        """Begin jobs that Redis has booked on this consumer in an answer that was lost."""
        self._broker.reads.heed_limit(self.link)
        of.highest = max(of.highest, tags[-1])  # else a lower tag, after a loss of data, would not be noticed
        found = self._broker.takes.booked(of.queue, self.consumer, tags, self.link)
        self._owner.adopt(of, found)
        self._log.warn("lost", f"queue {of.queue!r}: an answer with {counted(len(found), 'job')} was lost; begun now")

    def _begin(self, taking: bool) -> None:
        """Before each request: register, if it takes jobs; reconcile, if the outcome of the last one is unknown."""
        if taking and not self._registered:
            for queue in self.deliveries:
                self._broker.takes.register(queue, self.consumer, link=self.link)
            self._registered = True
        if self.unsure:
            self.reconcile(lost=True)

    def _ask(self, request: Callable[[], T]) -> T:
        self.unsure = True
        reply = request()
        self.unsure = False
        return reply

    def _renew(self, of: Deliveries) -> None:
        """Register again: the lease has expired, or Redis has lost all data, the queue's bound and order included."""
        if self._declare is not None:
            self._declare(of.queue)
        self._broker.takes.register(of.queue, self.consumer, link=self.link)
        self._audit_at = 0.0

    def _begin_again(self, of: Deliveries) -> None:
        """A lower tag means that Redis lost its data: running and finished deliveries no longer exist there."""
        of.forget_all_but(set())
        of.leaving.clear()
        jobs = counted(self._owner.disown(of, set()), "job")
        self._log.warn("emptied", f"queue {of.queue!r}: Redis has lost its data, including {jobs} running here")

    def _note_stale(self, of: Deliveries, count: int) -> None:
        self._log.warn("stale", f"queue {of.queue!r}: {counted(count, 'result')} came too late, after a reclaim")

"""Jobs that were cancelled: they never start, or are interrupted where they run.

The mark in Redis is what counts: each take shows a consumer whether there are new ones. A call is only a hint, for a
consumer that takes nothing because all its slots are busy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from contextlib import closing

import gevent
from gevent.event import Event

from rq_lite.broker import REDIS_ERRORS, Broker, Link
from rq_lite.broker.deliveries import Deliveries
from rq_lite.consumer.slots import Slots
from rq_lite.model.message import id_in
from rq_lite.model.outcome import Finished, cancelled

MARKS = 20_000  # marks that are kept before all are read again


class Cancellations:
    """Between a consumer and its slots. `dropped` is called for jobs that will not begin; `link` is the consumer's."""

    def __init__(
        self,
        broker: Broker,
        slots: Slots[Deliveries],
        link: Link,
        dropped: Callable[[Deliveries, int, Finished], None],
    ) -> None:
        self._broker = broker
        self._slots = slots
        self._link = link
        self._dropped = dropped
        self._busy = Event()  # there may be something to interrupt

    def feed(self, lane: Deliveries, tag: int, jobs: list[bytes]) -> None:
        """Hand jobs to the slots, except cancelled ones; the first has the delivery tag `tag + 1`.

        `lane.marks` is as new as the jobs: it was read after they were taken, and includes calls that came since.
        """
        try:
            if lane.marks:
                self._feed_but_marked(lane, tag, jobs)
            else:
                self._slots.feed(lane, tag, jobs)
        finally:
            if not self._busy.is_set():
                self._busy.set()  # only now: it wakes `hear`, and the jobs come first

    def _feed_but_marked(self, lane: Deliveries, tag: int, jobs: list[bytes]) -> None:
        doubtful: list[tuple[int, str, bytes]] = []
        for number, job in enumerate(jobs, tag + 1):
            name = id_in(job)
            if name in lane.marks:
                doubtful.append((number, str(name), job))
            else:
                self._slots.feed(lane, number - 1, [job])
        # A mark may be gone by now, because its job was requeued.
        marked = self._broker.takes.marked(lane.queue, [name for _, name, _ in doubtful], self._link)
        for number, name, job in doubtful:
            if name in marked:
                self._dropped(lane, number, cancelled(name))
            else:
                lane.marks.discard(name)
                self._slots.feed(lane, number - 1, [job])

    def look(self, lane: Deliveries) -> None:
        """Learn of new marks without the reply to an exchange, which would show whether there are any."""
        self.learn(lane, self._broker.takes.cancels(lane.queue, self._link))

    def learn(self, lane: Deliveries, cancels: bytes) -> None:
        """Read which jobs were cancelled since the last time, if any; interrupt those that run here."""
        if not cancels or cancels == lane.cancels:
            return
        # All of them at first, when Redis has lost some (a failover), and when too many are kept: most are of jobs
        # long done.
        everything = not lane.cancels or int(cancels) < int(lane.cancels) or len(lane.marks) > MARKS
        known = set(lane.marks)
        found = self._broker.takes.marks(lane.queue, b"" if everything else lane.cancels, self._link)
        if everything:
            lane.marks -= known  # marks that came with a call meanwhile stay
        lane.marks |= found
        lane.cancels = cancels
        self.interrupt(lane, found)

    def interrupt(self, lane: Deliveries, ids: Collection[str]) -> None:
        for tag, name in self._slots.cancel(lane, ids):
            self._dropped(lane, tag, cancelled(name))

    def hear(self, name: str, lanes: Mapping[str, Deliveries], well: Event) -> None:
        """Interrupt the jobs that the consumer of this name is called for, while `well` is set. Does not return."""
        queues = list(lanes)
        with closing(self._broker.link()) as link:
            while True:
                self._busy.wait()
                gevent.sleep(0)  # most jobs are done at once
                if self._slots.idle:
                    self._busy.clear()
                    continue
                try:
                    call = self._broker.takes.wait_call(queues, name, link)
                    # The call may be from before the job was requeued: its mark is gone then.
                    found = self._broker.takes.marked(call[0], [call[1]], link) if call is not None else set()
                except REDIS_ERRORS:
                    link.close()
                    gevent.sleep(random.uniform(0.05, 1.0))
                    well.wait()
                    continue
                if call is not None:
                    lane = lanes[call[0]]
                    lane.marks |= found
                    self.interrupt(lane, found)

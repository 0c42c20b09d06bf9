"""What supervisors and operators do with queues."""

from __future__ import annotations

from collections.abc import Sequence

from rq_lite import events
from rq_lite.broker import keys
from rq_lite.broker.address import ANSWER
from rq_lite.broker.base import Base, blank, flat, ms
from rq_lite.broker.link import Link
from rq_lite.broker.replies import Cancelled, Death, Reclaimed, Renewed, Requeued
from rq_lite.broker.scripts import Code
from rq_lite.model.message import encode

UNSEEN = Death("nobody saw how")
PURGED = 1000  # jobs from each place in a step of a purge that has to tell somebody


class Tending(Base):
    """Duties, bounds, pauses, the dead set, and waiting until all is done."""

    # -- duties

    def renew(self, queue: str, consumers: Sequence[str]) -> Renewed:
        """Prolong leases."""
        key = keys.of(queue)
        with events.span("renew", None, queue=queue):
            reply = self._run("renew", (key.consumers, key.meta, key.pending), ms(self.settings.lease), *consumers)
        return Renewed(*reply[1:])

    def reclaim(
        self,
        queue: str,
        consumer: str,
        *,
        certain: bool,
        death: Death = UNSEEN,
        most: int = 500,
        cursor: int = 0,
        link: Link | None = None,
    ) -> Reclaimed | None:
        """Return a dead consumer's jobs to the head of the queue, a batch; `cursor` is what the last call returned.

        None: its lease has not ended, and nobody said that it is `certain` to be dead.
        """
        key = keys.of(queue)
        names = (
            key.inflight(consumer), key.pending, key.meta, key.consumers, key.bell, key.suspects,
            key.dead, key.dead_index, key.scheduled, key.drained,
        )  # fmt: skip
        args = (consumer, most, int(certain), death.charged, death.how, death.where, cursor, *self._caps)
        with events.span("reclaim", link, queue=queue, consumer=consumer) as facts:
            reply = self._run("reclaim", names, *args, link=link)
            facts["moved"] = 0 if reply[0] == Code.ALIVE else reply[1]
        return None if reply[0] == Code.ALIVE else Reclaimed(*map(int, reply[1:]))

    def promote(self, queue: str, most: int = 500) -> tuple[int, float | None]:
        """Move jobs that are due to the queue, a batch; how many, and seconds until the next is due."""
        key = keys.of(queue)
        with events.span("promote", None, queue=queue):
            reply = self._run("promote", (key.scheduled, key.pending, key.meta, key.bell, key.suspects), most)
        return reply[1], None if reply[2] < 0 else reply[2] / 1000

    def consumers(self, queue: str) -> dict[str, float]:
        """Every consumer that is listed, and for how many more seconds its lease holds (below 0: it ended)."""
        clock, pairs = self.read(("TIME",), ("ZRANGE", keys.of(queue).consumers, 0, -1, "WITHSCORES"))
        now = int(clock[0]) + int(clock[1]) / 1e6
        return {pairs[i].decode(): float(pairs[i + 1]) / 1000 - now for i in range(0, len(pairs), 2)}

    def announce(self, worker_id: str, facts: dict[str, str | int], lifetime: float) -> None:
        """Say in `rq-lite:worker:<id>` what a worker is; it is gone by itself after `lifetime` seconds."""
        names, said = (keys.worker(worker_id), keys.WORKERS), flat(list(facts.items()))
        with events.span("announce", None, worker=worker_id):
            self._run("announce", names, worker_id, ms(lifetime), *said)

    def unannounce(self, worker_id: str) -> None:
        self.read(("DEL", keys.worker(worker_id)), ("ZREM", keys.WORKERS, worker_id))

    # -- operators

    def unfinished(self, queue: str) -> tuple[int, int]:
        """How many jobs wait, are scheduled or in flight; and how many of these are parked."""
        key = keys.of(queue)
        reply = self._run("unfinished", (key.pending, key.scheduled, key.meta, key.drained))
        return reply[1], reply[2]

    def wait_drained(self, queue: str, seconds: float) -> bool:
        """Wait until perhaps nothing is unfinished; False after the time (about 2 s at most), or after weather."""
        return self._wait((keys.of(queue).drained,), seconds)

    def configure(
        self, queue: str, maxsize: int | None = None, maxbytes: int | None = None, headroom: int | None = None
    ) -> None:
        """Set a queue's bound for everybody."""
        key = keys.of(queue)
        self._run("configure", (key.meta, key.room), *map(blank, (maxsize, maxbytes, headroom)))

    def pause(self, queue: str) -> None:
        """Nothing more is taken; puts go on up to the bound."""
        self.read(("HSET", keys.of(queue).meta, "paused", 1))

    def resume(self, queue: str) -> None:
        """Undo a pause and wake the consumers."""
        key = keys.of(queue)
        self._run("resume", (key.meta, key.pending, key.bell))

    def shutdown(self, queue: str, *, immediate: bool = False) -> int:
        """Nothing more is put, for everybody, until `reopen`; `immediate` drops what waits: how many jobs."""
        key = keys.of(queue)
        names = (key.pending, key.scheduled, key.meta, key.bell, key.room, key.drained, key.suspects)
        _, dropped, left = self._run("shutdown", names, PURGED if immediate else "")
        return int(dropped) + (self.purge(queue) if left else 0)

    def reopen(self, queue: str) -> None:
        """Undo a shutdown."""
        self.read(("HDEL", keys.of(queue).meta, "closed"))

    def purge(self, queue: str) -> int:
        """Drop everything that waits or is scheduled; how many jobs that were.

        Jobs of which somebody wants to hear end as cancelled. Where there may be such it goes in steps, and takes what
        is put meanwhile instead of the last of those that were there.
        """
        purged, left = self._purge(queue)
        most, gone = purged + left, purged
        while left and gone and purged < most:
            gone, left = self._purge(queue)
            purged += gone
        return purged

    def _purge(self, queue: str) -> tuple[int, int]:
        """A step: how many jobs are gone, and left. A request that arrives late does not touch what came since."""
        key = keys.of(queue)
        names = (key.pending, key.scheduled, key.meta, key.bell, key.room, key.drained, key.suspects)
        while True:
            (clock,) = self.read(("TIME",))
            code, *counts = self._run("purge", names, PURGED, int(clock[0]) * 1000 + int(clock[1]) // 1000 + ms(ANSWER))
            if code == Code.OK:
                return int(counts[0]), int(counts[1])

    def cancel(self, queue: str, job_id: str, *, interrupt: bool = True) -> Cancelled:
        """Drop a job that waits, or interrupt it; what could be done. See docs/jobs.md.

        Without `interrupt` a tracked job that somebody has taken is left alone.
        Safe to repeat, but the second time a job that was removed is unknown.
        """
        key = keys.of(queue)
        names = (
            key.pending, key.scheduled, key.suspects, key.meta, key.consumers, key.room, key.drained, key.cancelled,
            key.job(job_id), key.result(job_id),
        )  # fmt: skip
        return Cancelled(self._run("cancel", names, job_id, encode(job_id), 0 if interrupt else 1)[1].decode())

    def requeue(self, queue: str, tags: Sequence[int], *, woken: bool = False) -> Requeued:
        """Let buried jobs, at most 500, wait again at the end of the queue, as many as fit.

        Repeated after a lost answer it moves nothing twice, but what was moved then counts as no longer dead.
        """
        key = keys.of(queue)
        names = (key.dead, key.dead_index, key.pending, key.scheduled, key.meta, key.bell, key.room, key.cancelled)
        with events.span("requeue", None, queue=queue, tags=tags) as facts:
            code, *figures = self._run("requeue", names, int(woken), *tags)
            reply = Requeued(Code(code), *figures)
            facts["tags"] = tags[: reply.seen]
        return reply

    def forget(self, queue: str, tags: Sequence[int]) -> int:
        """Drop buried jobs, at most 500 and at least one; how many there were."""
        key = keys.of(queue)
        return int(self._run("forget", (key.dead, key.dead_index, key.meta), *tags)[1])

    def trim(self, queue: str) -> int:
        """Drop buried jobs over the caps; how many. There may be more until it says 0."""
        key = keys.of(queue)
        return int(self._run("trim", (key.dead, key.dead_index, key.meta, key.cancelled), *self._caps)[1])

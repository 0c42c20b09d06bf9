"""What keeps queues going: leases, reclaim, promotion, announcements of workers, waiting until a queue is drained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rq_lite import events
from rq_lite.broker import keys
from rq_lite.broker.base import Core, flat, ms
from rq_lite.broker.link import Link
from rq_lite.broker.replies import Death, Named, Reclaimed, Renewed
from rq_lite.broker.scripts import Code

UNSEEN = Death("for an unknown reason")
NOTICES = 1000  # of a queue that are kept; as in lib.lua
NOTED = 604_800_000  # ms for which they are kept


class Tending:
    """Duties of workers, and of any process that gets."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # -- duties

    def renew(self, queue: str, consumers: Sequence[str]) -> Renewed:
        """Prolong leases."""
        key = keys.of(queue)
        with events.span("renew", None, queue=queue):
            reply = self._core.run(
                "renew", (key.consumers, key.meta, key.pending), ms(self._core.settings.lease), *consumers
            )
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
        limits: Mapping[str, int] = MappingProxyType({}),
        noting: bool = False,
        link: Link | None = None,
    ) -> Reclaimed | None:
        """Return a dead consumer's jobs to the head of the queue, a batch; `cursor` is what the last call returned.

        `limits`: with which crash a task's jobs are buried, where that is not the setting `max_crashes`.
        `noting`: leave a notice of each job that is charged, for hooks.

        None: its lease has not ended, and the caller did not say that it is `certain` to be dead.
        """
        key = keys.of(queue)
        names = (
            key.inflight(consumer), key.pending, key.meta, key.consumers, key.bell, key.suspects,
            key.dead, key.dead_index, key.scheduled, key.drained,
        )  # fmt: skip
        died, last = "consumers", self._core.settings.max_crashes
        if death.worker:
            died, last, limits = "workers", self._core.settings.max_worker_deaths, {}
        args = (
            consumer, most, int(certain), death.charged, death.how, death.where, cursor, *self._core.caps,
            died, last, int(noting), *flat(list(limits.items())),
        )  # fmt: skip
        with events.span("reclaim", link, queue=queue, consumer=consumer) as facts:
            reply = self._core.run("reclaim", names, *args, link=link)
            facts["moved"] = 0 if reply[0] == Code.ALIVE else reply[1]
        if reply[0] == Code.ALIVE:
            return None
        named = [
            Named(job.decode(errors="replace"), task.decode(errors="replace"), int(crashes), int(deaths), buried == 1)
            for job, task, crashes, deaths, buried in reply[6]
        ]
        moved, left, cursor, suspects, buried = map(int, reply[1:6])
        return Reclaimed(moved, left, cursor, suspects, buried, named)

    def leave_notice(self, queue: str, notice: bytes) -> None:
        """Leave a notice of a failed run for hooks; the newest `NOTICES` are kept, for a week."""
        key = keys.of(queue).notices
        self._core.read(("RPUSH", key, notice), ("LTRIM", key, -NOTICES, -1), ("PEXPIRE", key, NOTED))

    def notices(self, queue: str, link: Link) -> list[bytes]:
        """The oldest notices of failed runs of which hooks are to be told."""
        found: list[bytes] = link.call("LRANGE", keys.of(queue).notices, 0, 9)
        return found

    def told(self, queue: str, notice: bytes, link: Link) -> None:
        """The hooks were told."""
        link.call("LREM", keys.of(queue).notices, 1, notice)

    def promote(self, queue: str, most: int = 500) -> tuple[int, float | None]:
        """Move jobs that are due to the queue, a batch; how many, and seconds until the next is due (None: no job)."""
        key = keys.of(queue)
        with events.span("promote", None, queue=queue):
            reply = self._core.run("promote", (key.scheduled, key.pending, key.meta, key.bell, key.suspects), most)
        return reply[1], None if reply[2] < 0 else reply[2] / 1000

    def consumers(self, queue: str) -> dict[str, float]:
        """Every consumer that is listed, and for how many more seconds its lease holds (below 0: it ended)."""
        clock, pairs = self._core.read(("TIME",), ("ZRANGE", keys.of(queue).consumers, 0, -1, "WITHSCORES"))
        now = int(clock[0]) + int(clock[1]) / 1e6
        return {pairs[i].decode(): float(pairs[i + 1]) / 1000 - now for i in range(0, len(pairs), 2)}

    def announce(self, worker_id: str, facts: dict[str, str | int], lifetime: float) -> None:
        """Write what a worker is to `rq-lite:worker:<id>`, which expires after `lifetime` seconds."""
        names, said = (keys.worker(worker_id), keys.WORKERS), flat(list(facts.items()))
        with events.span("announce", None, worker=worker_id):
            self._core.run("announce", names, worker_id, ms(lifetime), *said)

    def unannounce(self, worker_id: str) -> None:
        self._core.read(("DEL", keys.worker(worker_id)), ("ZREM", keys.WORKERS, worker_id))

    def unfinished(self, queue: str) -> tuple[int, int]:
        """How many jobs wait, are scheduled or in flight; and how many of these are parked."""
        key = keys.of(queue)
        reply = self._core.run("unfinished", (key.pending, key.scheduled, key.meta, key.drained))
        return reply[1], reply[2]

    def wait_drained(self, queue: str, seconds: float) -> bool:
        """Wait until nothing may be unfinished; False after `seconds` (about 2 at most), or after a transient error."""
        return self._core.wait((keys.of(queue).drained,), seconds)

    def trim(self, queue: str) -> int:
        """Drop buried jobs over the caps; returns how many. There may be more until it returns 0."""
        key = keys.of(queue)
        return int(self._core.run("trim", (key.dead, key.dead_index, key.meta, key.cancelled), *self._core.caps)[1])

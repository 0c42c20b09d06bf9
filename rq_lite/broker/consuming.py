"""The consumers' side of the broker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from redis.exceptions import OutOfMemoryError

from rq_lite import events
from rq_lite.broker import events as emit
from rq_lite.broker import keys
from rq_lite.broker.base import Core, T, blank, firsts, flat, ms
from rq_lite.broker.link import LONGEST_BLOCK, Link
from rq_lite.broker.producing import Producing
from rq_lite.broker.reading import Reading
from rq_lite.broker.replies import Acks, Taken
from rq_lite.broker.scripts import CODES, Code
from rq_lite.broker.transient import REDIS_ERRORS
from rq_lite.errors import BrokerOutOfMemory
from rq_lite.model.names import encoded_id
from rq_lite.model.outcome import Finished

MARKS = 1000  # marks of cancelled jobs that one command reads


class Consuming:
    """Leases, taking and settling; settling may also put jobs (callbacks)."""

    def __init__(self, core: Core, reads: Reading, puts: Producing) -> None:
        self._core, self._reads, self._puts = core, reads, puts

    def register(self, queue: str, consumer: str, *, link: Link | None = None) -> None:
        """Begin (or begin again) the lease without which nothing can be taken.

        A queue with a newer format gives no lease; `exchange` then reports NEWER.
        """
        key = keys.of(queue)
        with events.span("register", link, queue=queue, consumer=consumer):
            self._core.run("register", (key.consumers, key.meta), consumer, ms(self._core.settings.lease), link=link)

    def exchange(self, consumer: str, lanes: Sequence[Acks], want: int, link: Link) -> list[Taken]:
        """Ack what is done and take up to `want` jobs, from the lanes in their order; an answer for each."""
        names: list[str] = []
        args: list[Any] = [consumer, want, self._core.portion]
        for queue, acks in lanes:
            key = keys.of(queue)
            names += (
                key.pending, key.scheduled, key.meta, key.consumers,
                key.inflight(consumer), key.bell, key.room, key.drained,
            )  # fmt: skip
            args.append(len(acks))
            args += acks
        if events.subscribers:
            emit.exchange_begins(consumer, lanes, want, link)
        try:
            reply = self._core.run("exchange", tuple(names), *args, link=link)
            replies = [Taken(CODES[code], *rest) for code, *rest in reply]
            for lane, taken in zip(lanes, replies, strict=True):
                if taken.jobs == [None]:
                    taken.jobs[:] = [job for _, job in self._owned(lane.queue, consumer, [taken.tag + 1], link)]
        except REDIS_ERRORS:
            emit.exchange_failed(consumer, lanes, want, link)
            raise
        if events.subscribers:
            emit.exchange_ended(consumer, lanes, replies, want, link)
        return replies

    def isolate(self, queue: str, consumer: str, link: Link) -> tuple[Code, int, bytes]:
        """Take one suspect, for a consumer that runs nothing else: its delivery tag (0: no suspect) and the job."""
        key = keys.of(queue)
        names = (key.meta, key.consumers, key.suspects, key.inflight(consumer))
        with events.span("take", link, consumer=consumer, queue=queue) as facts:
            code, tag, job = self._core.run("isolate", names, consumer, self._core.portion, link=link)
            if tag and job is None:
                ((tag, job),) = self._owned(queue, consumer, [tag], link) or [(0, b"")]
            facts["jobs"] = [(tag, emit.id_of(job))] if tag else []
        return Code(code), tag, job

    def retry(self, queue: str, consumer: str, delays: Sequence[tuple[int, int]], link: Link | None = None) -> int:
        """Let deliveries (tag, delay in ms) run again later, charged an attempt; returns how many were stale."""
        key = keys.of(queue)
        names = (key.inflight(consumer), key.scheduled, key.meta, key.alarm)
        return self._settle("retry", queue, consumer, firsts(delays), names, *flat(delays), link=link)

    def park(self, queue: str, consumer: str, unknown: Sequence[tuple[int, str]], link: Link) -> int:
        """Put deliveries (tag, task) of unknown tasks aside, uncharged; returns how many were stale."""
        key = keys.of(queue)
        names = (key.inflight(consumer), key.scheduled, key.meta, key.alarm)
        return self._settle(
            "park",
            queue,
            consumer,
            firsts(unknown),
            names,
            ms(self._core.settings.park),
            consumer,
            *flat(unknown),
            link=link,
        )

    def give_back(self, queue: str, consumer: str, tags: Sequence[int], *, link: Link | None = None) -> int:
        """Return unfinished deliveries to the head of the queue, uncharged; returns how many were stale."""
        key = keys.of(queue)
        names = (key.inflight(consumer), key.pending, key.meta, key.bell, key.suspects)
        return self._settle("give_back", queue, consumer, sorted(tags), names, *sorted(tags), link=link)

    def finish(self, queue: str, consumer: str, ends: Sequence[tuple[int, Finished]], link: Link | None = None) -> int:
        """End deliveries: done, given up or cancelled, with results and callbacks; returns how many were stale.

        A job that is done and not tracked can also be acked by `exchange`, which does not read its entry.
        """
        key = keys.of(queue)
        targets = list(dict.fromkeys(target for _, end in ends for target, _ in end.puts))
        for target in targets:
            self._make_known(target, link)
        names = [
            key.inflight(consumer), key.dead, key.dead_index, key.meta, key.pending, key.scheduled, key.drained,
            key.cancelled,
        ]  # fmt: skip
        for its in map(keys.of, targets):
            names += (its.pending, its.meta, its.bell)
        args: list[Any] = [*self._core.caps]
        for tag, end in ends:
            args += (tag, end.state, blank(end.ttl), end.detail, end.report, end.job, len(end.puts))
            for target, entry in end.puts:
                args += (targets.index(target) + 1, entry)
        told = emit.finishing(ends) if events.subscribers else {}
        return self._settle("finish", queue, consumer, firsts(ends), tuple(names), *args, link=link, told=told)

    def _make_known(self, queue: str, link: Link | None) -> None:
        """Declare a queue of callbacks, which may be new. At maxmemory that is put off: jobs must be able to end."""
        if queue not in self._core.known:
            with contextlib.suppress(OutOfMemoryError, BrokerOutOfMemory):
                self._puts.declare(queue, link=link)
                self._core.known.add(queue)

    def crashed(
        self, queue: str, consumer: str, deaths: Sequence[tuple[int, str, str, int]], link: Link | None = None
    ) -> int:
        """Return deliveries, charged a crash; returns how many were stale.

        Of each: its tag, how the engine died, its stack, and with which crash the job is buried.
        """
        key = keys.of(queue)
        names = (
            key.inflight(consumer), key.pending, key.meta, key.bell, key.suspects,
            key.dead, key.dead_index, key.scheduled, key.drained,
        )  # fmt: skip
        deaths = sorted(deaths)
        return self._settle(
            "crashed", queue, consumer, [tag for tag, *_ in deaths], names, consumer, *self._core.caps,
            *(part for death in deaths for part in death), link=link,
        )  # fmt: skip

    def _settle(
        self,
        verb: str,
        queue: str,
        consumer: str,
        tags: list[int],
        names: tuple[str, ...],
        *args: Any,
        link: Link | None,
        told: Mapping[str, Any] = MappingProxyType({}),
    ) -> int:
        """Run a script that ends deliveries; returns how many tags were stale, that is no longer the consumer's."""
        name = "give_back" if verb == "give_back" else "settle"
        with events.span(name, link, queue=queue, consumer=consumer, verb=verb, tags=tags, **told) as facts:
            facts["stale"] = stale = int(self._core.run(verb, names, *args, link=link)[2])
        return stale

    def inflight(self, queue: str, consumer: str, link: Link | None = None) -> set[int]:
        """The delivery tags that this consumer owns according to Redis."""
        return {int(tag) for tag in self._core.one(("HKEYS", keys.of(queue).inflight(consumer)), link)}

    def booked(
        self, queue: str, consumer: str, tags: Sequence[int], link: Link | None = None
    ) -> list[tuple[int, bytes]]:
        """Deliveries of a consumer: tag and job; those that are no longer its own are left out."""
        if not tags:
            return []
        with events.span("reconcile", link, queue=queue, consumer=consumer) as facts:
            found = self._owned(queue, consumer, tags, link)
            facts["jobs"] = [(tag, emit.id_of(job)) for tag, job in found]
        return found

    def _owned(self, queue: str, consumer: str, tags: Sequence[int], link: Link | None) -> list[tuple[int, bytes]]:
        jobs = self._reads.values(keys.of(queue).inflight(consumer), tags, link)
        return [(tag, job) for tag, job in zip(tags, jobs, strict=True) if job is not None]

    def progress(
        self, queue: str, consumer: str, job_id: str, tag: int, head: bytes, detail: bytes, link: Link
    ) -> None:
        """Store how far a running job is; a `detail` of b"" means that it has stopped.

        `head` names the consumer, tag and task, `detail` is what the job reported, both as JSON without braces.
        Nothing is written if the job is not, or no longer, this consumer's.
        """
        key = keys.of(queue)
        mark = encoded_id(job_id)
        names = (key.inflight(consumer), key.progress, key.job(mark), key.meta)
        self._core.run("progress", names, mark, tag, head, detail, link=link)

    def hold(self, queue: str, consumer: str, tags: Collection[int], lifetime: int, link: Link) -> None:
        """Tell which deliveries wait in this consumer for a thread or an engine; `lifetime` in ms."""
        key = keys.of(queue).held(consumer)
        if tags:
            link.call("SET", key, " ".join(map(str, tags)), "PX", lifetime)
        else:
            link.call("DEL", key)

    def held(self, queue: str, consumer: str) -> set[int]:
        """The tags that `hold` was told."""
        (told,) = self._core.read(("GET", keys.of(queue).held(consumer)))
        return set(map(int, (told or b"").split()))

    def marked(self, queue: str, ids: Sequence[str], link: Link | None = None) -> set[str]:
        """Which of these jobs were cancelled and are to be dropped."""
        if not ids:
            return set()
        scores = self._core.one(("ZMSCORE", keys.of(queue).cancelled, *ids), link)
        return {job_id for job_id, score in zip(ids, scores, strict=True) if score is not None}

    def marks(self, queue: str, since: bytes, link: Link) -> set[str]:
        """The jobs that were cancelled after a time (ms, as `Taken.cancels`; empty: all that are remembered)."""
        found: set[str] = set()
        least = b"(" + since if since else b"-inf"
        while True:
            limits = ("+inf", "WITHSCORES", "LIMIT", 0, MARKS)
            flat = link.call("ZRANGEBYSCORE", keys.of(queue).cancelled, least, *limits)
            found.update(job_id.decode(errors="replace") for job_id in flat[::2])
            if len(flat) < 2 * MARKS:
                return found
            least = b"(" + flat[-1]  # no two marks have the same time

    def cancels(self, queue: str, link: Link | None = None) -> bytes:
        """When a job was last cancelled, as in `Taken`."""
        return self._core.one(("HGET", keys.of(queue).meta, "cancels"), link) or b""

    def wait_call(self, queues: Sequence[str], consumer: str, link: Link) -> tuple[str, str] | None:
        """Wait up to two seconds for a job that this consumer is to interrupt: its queue and id."""
        calls = {keys.of(queue).calls(consumer).encode(): queue for queue in queues}
        # Not BRPOP: so CLIENT LIST tells this wait from a wait for jobs.
        reply = link.call("BLPOP", *calls, LONGEST_BLOCK)
        return None if reply is None else (calls[reply[0]], reply[1].decode(errors="replace"))

    def wait_bell(self, queues: Sequence[str], seconds: float, link: Link) -> str | None:
        """Wait for something to take, up to 2 s (below the links' own timeout); the queue that rang."""
        bells = {keys.of(queue).bell.encode(): queue for queue in queues}
        reply = link.call("BRPOP", *bells, min(seconds, LONGEST_BLOCK))
        return None if reply is None else bells[reply[0]]

    def wait_item(self, queue: str, seconds: float, link: Link, *, drained: bool = False) -> None:
        """Wait like `wait_bell`, for one queue; `drained`: or until it may have no unfinished job."""
        key = keys.of(queue)
        link.call("BRPOP", key.bell, *([key.drained] if drained else []), max(0.01, min(seconds, LONGEST_BLOCK)))

    def patiently(self, step: Callable[[], T], link: Link, patience: float | None = None) -> T:
        """Run a step on the caller's own link, retrying transient errors; raises BrokerError as other methods do."""
        return self._core.patiently(step, link, self._core.until(patience))

    def ring(self, queue: str, link: Link) -> None:
        """Pass on a wake-up token that came to a consumer without room."""
        link.call("LPUSH", keys.of(queue).bell, 1)

"""What operators do to queues and jobs; each is one script or command, safe to repeat after a lost answer.

They raise BrokerUnsuitable for a queue of a newer format: its jobs may hold things that this version cannot release.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rq_lite import events
from rq_lite.broker import Broker, Cancelled, Code, Requeued, keys, newer_format
from rq_lite.broker.address import ANSWER
from rq_lite.broker.base import blank, ms
from rq_lite.broker.scheduling import Planned
from rq_lite.errors import BrokerUnsuitable
from rq_lite.model.message import as_is, encode
from rq_lite.model.names import encoded_id
from rq_lite.model.schedule import from_json

# What `delete` may find in a queue, in the order of the script's counts.
IN_IT = (
    "{:,} waiting", "{:,} scheduled", "{:,} waiting to run alone", "{:,} in flight", "{:,} in the dead set",
    "consumers that serve it: {:,}",
)  # fmt: skip
PURGED = 1000  # jobs from each place in a step of a purge, if there may be tracked jobs
EXPIRED = 10_000  # jobs at the head of a place among which expired ones are looked for
LOOKS = 100  # of these in a step


def configure(
    broker: Broker,
    queue: str,
    maxsize: int | None = None,
    maxbytes: int | None = None,
    headroom: int | None = None,
    full: str | None = None,
) -> None:
    """Set a queue's bound, and what a put does that finds no room, for all processes."""
    key = keys.of(queue)
    done(queue, broker.core.run("configure", (key.meta, key.room), *map(blank, (maxsize, maxbytes, headroom, full))))


def pause(broker: Broker, queue: str) -> None:
    """Let consumers take nothing more; puts go on up to the bound."""
    broker.core.read(("HSET", keys.of(queue).meta, "paused", 1))


def resume(broker: Broker, queue: str) -> None:
    """Undo a pause and wake the consumers."""
    key = keys.of(queue)
    done(queue, broker.core.run("resume", (key.meta, key.pending, key.bell)))


def shutdown(broker: Broker, queue: str, *, immediate: bool = False) -> int:
    """Refuse puts from every process, until `reopen`; `immediate` drops what waits. How many jobs were dropped."""
    key = keys.of(queue)
    names = (key.pending, key.scheduled, key.meta, key.bell, key.room, key.drained, key.suspects)
    _, dropped, left = done(queue, broker.core.run("shutdown", names, PURGED if immediate else ""))
    return int(dropped) + (purge(broker, queue) if left else 0)


def reopen(broker: Broker, queue: str) -> None:
    """Undo a shutdown."""
    broker.core.read(("HDEL", keys.of(queue).meta, "closed"))


def purge(broker: Broker, queue: str) -> int:
    """Drop everything that waits or is scheduled; how many jobs that were.

    Tracked jobs end as cancelled. If there may be any, the purge goes in steps, and may drop jobs that are put
    meanwhile instead of the last ones that were there.
    """
    purged, left = _step(broker, queue)
    most, gone = purged + left, purged
    while left and gone and purged < most:
        gone, left = _step(broker, queue)
        purged += gone
    return purged


def _step(broker: Broker, queue: str) -> tuple[int, int]:
    """A step: how many jobs were dropped, and are left. A request that arrives late does not touch newer jobs."""
    key = keys.of(queue)
    names = (key.pending, key.scheduled, key.meta, key.bell, key.room, key.drained, key.suspects)
    while True:
        until = broker.plans.clock() + ms(ANSWER)
        code, *counts = done(queue, broker.core.run("purge", names, PURGED, until))
        if code == Code.OK:
            return int(counts[0]), int(counts[1])


def purge_expired(broker: Broker, queue: str) -> int:
    """Drop jobs that have expired, among the first EXPIRED that wait and that are scheduled; how many that were.

    Other expired jobs end when their turn comes, as do those with callbacks, which a consumer has to put.
    """
    key = keys.of(queue)
    names = (key.pending, key.scheduled, key.meta, key.bell, key.room, key.drained, key.suspects)
    dropped = 0
    for place in ("pending", "scheduled"):
        first = 0
        while first < EXPIRED:
            until = broker.plans.clock() + ms(ANSWER)
            code, *counts = done(queue, broker.core.run("purge", names, LOOKS, until, place, first))
            if code == Code.OK:
                gone, seen = map(int, counts)
                dropped += gone
                first += seen - gone
                if seen < LOOKS:
                    break
    return dropped


def delete(broker: Broker, queue: str) -> list[str]:
    """Forget a queue that no program uses any more; what stands in the way, in words, if that was refused.

    Also forgets how far its feeds are. A program that still uses the queue makes it again, as if for the first time.
    """
    key = keys.of(queue)
    planned = [one.name for one in broker.plans.all_planned() if queue_of(one) == queue]
    if planned:
        return [f"the schedule {planned[0]}" + (f" and {len(planned) - 1:,} more" if planned[1:] else "")]
    names = (
        key.pending, key.scheduled, key.meta, key.consumers, key.suspects, key.dead, key.dead_index, key.bell, key.room,
        key.drained, key.alarm, key.cancelled, key.progress, key.over, key.blocked, key.seen,
    )  # fmt: skip
    _, deleted, *counts = done(queue, broker.core.run("delete", names))
    if not deleted:
        return [words.format(count) for count, words in zip(counts, IN_IT, strict=True) if count]
    broker.core.known.discard(queue)
    cursor, left = b"0", True
    while left:
        ((cursor, feeds),) = broker.core.read(("SCAN", cursor, "MATCH", key.feed("*"), "COUNT", 1000))
        if feeds:
            broker.core.read(("UNLINK", *feeds))
        left = int(cursor) != 0
    # Last: if this process dies before, the queue is still listed, and can be deleted again.
    _, again = broker.core.read(("SREM", keys.QUEUES, queue), ("EXISTS", key.meta))
    if again:  # a program has made it again meanwhile
        broker.core.read(("SADD", keys.QUEUES, queue))
    return []


def queue_of(planned: Planned) -> str:
    """The queue that a schedule puts into; empty if it cannot be read."""
    schedule = from_json(planned.name, planned.definition, as_is)
    return "" if schedule is None else schedule.queue


def cancel(broker: Broker, queue: str, job_id: str, *, interrupt: bool = True) -> Cancelled:
    """Drop a job that waits, or interrupt one that runs; what could be done. See docs/jobs.md.

    Without `interrupt` a tracked job that a consumer has taken is left alone.
    Safe to repeat, but the second time a job that was removed is unknown.
    """
    key = keys.of(queue)
    names = (
        key.pending, key.scheduled, key.suspects, key.meta, key.consumers, key.room, key.drained, key.cancelled,
        key.job(encoded_id(job_id)), key.result(encoded_id(job_id)),
    )  # fmt: skip
    reply = done(queue, broker.core.run("cancel", names, job_id, encode(job_id), 0 if interrupt else 1))
    return Cancelled(reply[1].decode())


def requeue(broker: Broker, queue: str, tags: Sequence[int], *, woken: bool = False) -> Requeued:
    """Let buried jobs, at most 500, wait again at the end of the queue, as many as fit.

    Repeated after a lost answer it moves nothing twice, but counts what it has moved before as no longer dead.
    """
    key = keys.of(queue)
    names = (key.dead, key.dead_index, key.pending, key.scheduled, key.meta, key.bell, key.room, key.cancelled)
    with events.span("requeue", None, queue=queue, tags=tags) as facts:
        code, *figures = done(queue, broker.core.run("requeue", names, int(woken), *tags))
        reply = Requeued(Code(code), *figures)
        facts["tags"] = tags[: reply.seen]
    return reply


def forget(broker: Broker, queue: str, tags: Sequence[int]) -> int:
    """Drop buried jobs, at most 500 and at least one; how many there were."""
    key = keys.of(queue)
    return int(done(queue, broker.core.run("forget", (key.dead, key.dead_index, key.meta), *tags))[1])


def done(queue: str, reply: list[Any]) -> list[Any]:
    """The reply of a script. Raises BrokerUnsuitable if the script found a newer format, and did nothing."""
    if reply[0] == Code.NEWER:
        raise BrokerUnsuitable(newer_format(queue))
    return reply

"""The events of puts and exchanges, with their facts for subscribers (see rq_lite/events.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rq_lite import events
from rq_lite.broker.link import Link
from rq_lite.broker.replies import Acks, Put, Taken
from rq_lite.model.message import Undecodable, bare, decode
from rq_lite.model.outcome import Finished


def put_ended(queue: str, entries: Sequence[bytes], put: Put, origin: str, link: Link) -> None:
    jobs = [id_of(entry) for entry in entries[: put.accepted]]
    facts = {"jobs": jobs, "size": put.size, "maxsize": put.maxsize, "unbounded": origin.startswith("over")}
    if put.verdicts:
        facts["kept_out"] = [job for job, word in zip(jobs, put.words, strict=True) if word[0] == "d"]
    events.emit("put.after", link, queue=queue, **facts)


def exchange_begins(consumer: str, lanes: Sequence[Acks], want: int, link: Link) -> None:
    for lane in lanes:
        if lane.acks:
            events.emit("ack.before", link, consumer=consumer, queue=lane.queue, tags=lane.acks)
    if want:
        events.emit("take.before", link, consumer=consumer, want=want)


def exchange_failed(consumer: str, lanes: Sequence[Acks], want: int, link: Link) -> None:
    for lane in lanes:
        if lane.acks:
            events.emit("ack.failed", link, consumer=consumer, queue=lane.queue, tags=lane.acks)
    if want:
        events.emit("take.failed", link, consumer=consumer, want=want)


def exchange_ended(consumer: str, lanes: Sequence[Acks], replies: Sequence[Taken], want: int, link: Link) -> None:
    for lane, reply in zip(lanes, replies, strict=True):
        if lane.acks:
            events.emit("ack.after", link, consumer=consumer, queue=lane.queue, tags=lane.acks, stale=reply.stale)
    if want:
        for lane, reply in zip(lanes, replies, strict=True):
            jobs = [(reply.tag + n, id_of(job)) for n, job in enumerate(reply.jobs, 1)]
            events.emit("take.after", link, consumer=consumer, queue=lane.queue, jobs=jobs)


def finishing(ends: Sequence[tuple[int, Finished]]) -> dict[str, Any]:
    """Which of these are not done (buried, or cancelled), and the callbacks that are put with them: queue and id."""
    puts = [(queue, id_of(entry)) for _, end in ends for queue, entry in end.puts]
    return {"buried": [tag for tag, end in ends if end.state != "done"], "puts": puts}


def id_of(entry: bytes) -> str | None:
    """A job's id; None for what is no job."""
    try:
        return decode(bare(entry))[0].id
    except Undecodable:
        return None

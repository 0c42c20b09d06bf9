"""Where jobs are: reads a queue's jobs in pages, never all at once, and searches for one. Only `hasten` writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from rq_lite.admin import dead
from rq_lite.admin.dead import Buried
from rq_lite.broker import Broker, keys
from rq_lite.model.message import Undecodable, decode, id_in
from rq_lite.model.names import encoded_id
from rq_lite.model.outcome import stated
from rq_lite.model.states import State
from rq_lite.model.unreadable import UNREADABLE

STEP = 100  # jobs that are read at once
LOOKS = 3  # searches for a job that is not found at once
FAR = 10_000  # jobs at each end of a place that a search reads
PLACES = (State.INFLIGHT, State.PENDING, State.SCHEDULED, State.REPLACING, State.SUSPECT, State.DEAD)


# What `Job.state` says of a job in each place, of one that has ended, and of one of which nothing is found.
WORDS = {
    State.PENDING: "waiting",
    State.SUSPECT: "waiting",
    State.REPLACING: "waiting",
    State.SCHEDULED: "scheduled",
    State.INFLIGHT: "running",
    State.DEAD: "failed",
}
ENDED = ("done", "failed", "cancelled", "expired", "dropped", "replaced")
UNKNOWN = "unknown"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A job and where it is. What does not apply is empty, 0 or None."""

    queue: str
    state: State
    entry: bytes
    id: str | None  # None: the entry is not a job
    task: str | None
    attempts: int  # runs that failed, crashed, or ended with their whole worker
    crashes: int  # of these, crashes
    worker_deaths: int = 0  # of these, ends of whole workers
    member: bytes = b""  # in `scheduled`
    due: float | None = None  # seconds since 1970, by Redis' clock
    parked: bool = False
    consumer: str = ""  # the one that has it
    tag: int = 0
    tags: tuple[str, ...] = ()
    held: bool = False  # it waits in the consumer for a thread or an engine (`run_in`)
    buried: Buried | None = None


class Search(NamedTuple):
    """What a search for a job has found, and how many waiting jobs it has not read."""

    job: Found | None
    unseen: int


def made(queue: str, state: State, entry: bytes, **facts: Any) -> Found:
    try:
        message, failed, crashes, deaths = decode(entry)
        job_id, task, tags = message.id, message.task, message.tags
    except Undecodable:
        job_id, task, tags, failed, crashes, deaths = None, None, (), 0, 0, 0
    return Found(
        queue=queue, state=state, entry=entry, id=job_id, task=task, attempts=failed + crashes + deaths,
        crashes=crashes, worker_deaths=deaths, tags=tags, **facts,
    )  # fmt: skip


def sizes(broker: Broker, queue: str) -> dict[State, int]:
    """How many jobs are in each place."""
    key = keys.of(queue)
    kinds = broker.read(("TYPE", key.pending))[0]
    pending, scheduled, replacing, lone, buried = broker.read(
        ("ZCARD" if kinds == b"zset" else "LLEN", key.pending),
        ("ZCARD", key.scheduled),
        ("HLEN", key.latest),
        ("LLEN", key.suspects),
        ("ZCARD", key.dead_index),
    )
    return dict(zip(PLACES, (len(owned(broker, queue)), pending, scheduled, replacing, lone, buried), strict=True))


def page(broker: Broker, queue: str, state: State, first: int, count: int) -> list[Found]:
    """Jobs of a place, from number `first` on; first come the next to be taken, the next due, or the newest dead."""
    key = keys.of(queue)
    if state is State.INFLIGHT:
        return inflight(broker, queue, owned(broker, queue)[first : first + count])
    if state is State.DEAD:
        flat = broker.read(("ZRANGE", key.dead_index, first, first + count - 1, "REV", "WITHSCORES"))[0]
        tags = [(int(flat[i]), float(flat[i + 1])) for i in range(0, len(flat), 2) if flat[i].isdigit()]
        reports = [dead.job_of(queue, *each) for each in dead.contents(broker, queue, tags)]
        return [of_dead(report) for report in reports]
    if state is State.SCHEDULED:
        return [
            of_scheduled(queue, member, float(due)) for member, due in broker.reads.window(key.scheduled, first, count)
        ]
    if state is State.REPLACING:
        return replacing(broker, queue, first, count)
    place = key.pending if state is State.PENDING else key.suspects
    return [made(queue, state, entry) for entry in waiting(broker, place, first, count)]


def waiting(broker: Broker, place: str, first: int, count: int) -> list[bytes]:
    """Entries of a list or, if the queue has priorities, of a sorted set; the next to be taken first."""
    return [entry.partition(b"|")[2] if score else entry for entry, score in broker.reads.window(place, first, count)]


def of_scheduled(queue: str, member: bytes, due: float) -> Found:
    entry = member.partition(b"|")[2]
    parked = member[:1] == b"p"
    return made(queue, State.SCHEDULED, entry, member=member, due=due / 1000, parked=parked)


def replacing(broker: Broker, queue: str, first: int, count: int) -> list[Found]:
    """The jobs that are to replace others, by the names of their locks."""
    place = keys.of(queue).latest
    names = sorted(broker.read(("HKEYS", place))[0])[first : first + count]
    found = []
    for kept in broker.read(*(("HGET", place, name) for name in names)) if names else ():
        if kept is not None:
            due, _, entry = kept.partition(b"|")
            found.append(made(queue, State.REPLACING, entry, due=int(due) / 1000 or None))
    return found


def of_dead(report: Buried) -> Found:
    return Found(
        queue=report.queue, state=State.DEAD, entry=report.entry, id=report.id, task=report.task,
        attempts=report.attempts, crashes=report.crashes, worker_deaths=report.worker_deaths,
        consumer=report.consumer, tag=report.tag, tags=report.tags, buried=report,
    )  # fmt: skip


def owned(broker: Broker, queue: str) -> list[tuple[str, int]]:
    """The jobs in flight: consumer and tag, the oldest first. There are no more than slots."""
    found = [(tag, name) for name in broker.tends.consumers(queue) for tag in broker.takes.inflight(queue, name)]
    return [(name, tag) for tag, name in sorted(found)]


def inflight(broker: Broker, queue: str, tags: list[tuple[str, int]]) -> list[Found]:
    found = []
    held = {name: broker.takes.held(queue, name) for name in {name for name, _ in tags}}
    for name, tag in tags:
        found += [
            made(queue, State.INFLIGHT, entry, consumer=name, tag=tag, held=tag in held[name])
            for tag, entry in broker.takes.booked(queue, name, [tag])
        ]
    return found


def listed(broker: Broker, queue: str, state: State, first: int = 0) -> Iterator[Found]:
    """All jobs of a place from number `first` on, in pages. Jobs that move meanwhile may come twice, or be missed."""
    while jobs := page(broker, queue, state, first, STEP):
        yield from jobs
        first += len(jobs)


def near(broker: Broker, queue: str, state: State, count: int, far: int = FAR) -> Iterator[Found]:
    """The jobs at both ends of a place that holds `count`: up to `far` at each, in the order of `page`."""
    for begin, end in ((0, min(count, far)), (max(far, count - far), count)):
        for first in range(begin, end, STEP):
            yield from page(broker, queue, state, first, min(STEP, end - first))


# -- one job


def find(broker: Broker, queue: str, job_id: str) -> Search:
    """Where this job is, as far as can be told without reading all that waits."""
    for _ in range(LOOKS):
        found = look(broker, queue, job_id)
        if found.job is not None:
            break
    return found


def look(broker: Broker, queue: str, job_id: str) -> Search:
    """One search; it misses a job that moves meanwhile to a place that was read before."""
    key = keys.of(queue)
    consumer, tag = broker.read(("HMGET", key.job(encoded_id(job_id)), "consumer", "tag"))[0]
    if consumer is not None and tag is not None and tag.isdigit():
        for job in inflight(broker, queue, [(consumer.decode(), int(tag))]):
            if job.id == job_id:
                return Search(job, 0)
    counts, unseen = sizes(broker, queue), 0
    for state in (State.INFLIGHT, State.SUSPECT, State.PENDING, State.REPLACING, State.SCHEDULED):
        for job in near(broker, queue, state, counts[state]):
            if id_in(job.entry) == job_id:
                return Search(job, 0)
        unseen += max(0, counts[state] - 2 * FAR)
    for report in dead.buried(broker, queue, dead.Filter(ids=frozenset([job_id]))):
        return Search(of_dead(report), 0)
    return Search(None, unseen)


def word(broker: Broker, queue: str, job_id: str) -> str:
    """How it is with this job, in the words of `Job.state`, as far as Redis knows."""
    if (said := ended(broker, queue, job_id)) is not None:
        return said
    if (found := find(broker, queue, job_id).job) is not None:
        return WORDS[State.PENDING if found.held else found.state]
    return ended(broker, queue, job_id) or UNKNOWN  # it may have ended during the search


def ended(broker: Broker, queue: str, job_id: str) -> str | None:
    """How it has ended, if its result is kept."""
    result = broker.puts.result(queue, job_id)
    if result is None:
        return None
    with contextlib.suppress(*UNREADABLE):
        return state if (state := stated(result).state) in ENDED else UNKNOWN
    return UNKNOWN


def hasten(broker: Broker, job: Found) -> bool:
    """Let a scheduled job be due now; False if it is not scheduled any more."""
    key = keys.of(job.queue)
    changed = broker.read(("ZADD", key.scheduled, "XX", "CH", broker.plans.clock(), job.member))[0]
    broker.tends.promote(job.queue)
    return bool(changed)

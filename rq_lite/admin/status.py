"""Reads the state of queues and workers, for commands and producers; never costs more for a longer queue.

A killed process leaves its lease behind until that ends. On its own host it is seen to be gone, and does not count.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import msgspec

from rq_lite.broker import Broker, keys
from rq_lite.broker.base import ms_of
from rq_lite.errors import counted
from rq_lite.model.message import id_in, made_at
from rq_lite.model.names import NAME
from rq_lite.model.unreadable import UNREADABLE
from rq_lite.process.identity import surely_dead


class UnknownTask(msgspec.Struct, frozen=True):
    """A task that a worker met and did not know; its jobs are parked."""

    task: str
    worker: str
    seconds_ago: float


class Underway(msgspec.Struct, frozen=True):
    """A running job that has reported progress."""

    id: str
    task: str
    done: int | float
    total: int | float | None
    note: str
    seconds_ago: float


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """What `rq-lite status` shows of a queue. Sizes are jobs or bytes, times are seconds."""

    pending: int
    scheduled: int
    inflight: int
    suspects: int  # wait to run alone: their consumers or workers died repeatedly
    dead: int
    maxsize: int  # 0: unbounded
    maxbytes: int  # 0: no bound
    bytes: int  # of pending and scheduled jobs
    full: float | None  # 0 to 1; None where there is no bound
    done: int
    failed: int
    retried: int
    reclaimed: int
    put: int
    requeued: int
    purged: int
    cancelled: int
    dropped: int  # buried jobs, trimmed from the dead set; jobs whose state is `dropped` are `overflowed`
    stale: int  # acks, retries, burials that came too late
    parked: int  # of the scheduled ones
    unknown_tasks: list[UnknownTask]
    consumers: int
    last_seen: float | None
    jobs_per_second: float  # over the last seconds
    oldest_waiting: float | None = None  # by the producer's clock; None: nothing waits, or its id tells no time
    order: str  # fifo, lifo or priority
    paused: bool
    closed: bool  # shut down: nothing more is put
    warnings: list[str]
    progress: list[Underway] = []  # at most 20 of those that run
    headroom: int | None = None  # jobs beyond the bound that its own workers' jobs may put; None: any number
    over: int = 0  # jobs that wait beyond maxsize
    over_bytes: int = 0  # and bytes beyond maxbytes
    over_by: dict[str, int] = {}  # task -> what its running jobs have put since the queue went over its bound
    blocked_jobs: int = 0  # running jobs of workers that do not serve this queue, and wait for room in it
    when_full: str = "wait"  # what a put does that finds no room
    expired: int = 0
    overflowed: int = 0  # jobs whose state is `dropped`: the queue was full
    replaced: int = 0  # by newer jobs of their keys
    replacing: int = 0  # jobs that wait to replace others of their keys; not counted as pending
    duplicates: int = 0  # puts that were kept out by a job with the same key
    remembered: int = 0  # keys that are unique for ever


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker shows of itself in `rq-lite:worker:<id>`; any of it may come from another program."""

    host: str
    pid: str
    queues: list[str]
    procs: str
    slots: str  # of each process
    since: float | None  # seconds ago
    trouble: str  # what is wrong with its consumers; empty: nothing
    stuck: int  # consumers whose loop does not turn
    idle: int  # consumers that take nothing though jobs wait


LARGEST = 2**63  # of numbers in Redis

RANK = re.compile(rb"^[rs]\d{16}\|")  # before an entry that waits in a priority queue

HEAD = 1000  # bytes at the head of a job that hold its id


def queues(broker: Broker) -> list[str]:
    """The names of all queues, in order; invalid ones are left out (other programs may write there)."""
    names = (name.decode(errors="replace") for name in broker.read(("SMEMBERS", keys.QUEUES))[0])
    return sorted(filter(NAME.fullmatch, names))


def workers(broker: Broker, part: str = "") -> list[WorkerState]:
    """The living workers whose ids (see rq_lite/process/identity.py) contain `part`, by host and pid."""
    clock, pairs = broker.read(("TIME",), ("ZRANGE", keys.WORKERS, 0, -1, "WITHSCORES"))
    now = ms_of(clock)
    found = [name for name in alive(pairs, now) if part in name]
    hashes = broker.read(*(("HGETALL", keys.worker(name)) for name in found)) if found else []
    # The hash of a worker that has left since then is empty.
    living = [worker_state(now / 1000, flat) for flat in hashes if flat]
    return sorted(living, key=lambda worker: (worker.host, worker.pid))


def alive(leases: list[bytes], now: int) -> list[str]:
    """Whose lease holds (names, each with the end of its lease in ms), unless the process is seen to be gone."""
    held = [name.decode(errors="replace") for name, end in zip(*[iter(leases)] * 2, strict=True) if real(end) > now]
    return [name for name in held if not surely_dead(name)]


def worker_state(now: float, flat: list[bytes]) -> WorkerState:
    facts = {flat[i].decode(errors="replace"): flat[i + 1].decode(errors="replace") for i in range(0, len(flat), 2)}
    since = facts.get("since", "")
    return WorkerState(
        host=facts.get("host", "?"),
        pid=facts.get("pid", "?"),
        queues=list(filter(None, facts.get("queues", "").split(","))),
        procs=facts.get("procs", "?"),
        slots=facts.get("slots", "?"),
        # By that machine's clock, which may be wrong.
        since=max(0.0, now - count(since)) if since.isdecimal() else None,
        trouble=facts.get("trouble", ""),
        stuck=count(facts.get("stuck", "")),
        idle=count(facts.get("idle", "")),
    )


def count(text: str) -> int:
    return max(0, whole(text.encode()))


def eviction(broker: Broker) -> str | None:
    """A warning if Redis is set to drop keys when its memory is full; None if it refuses to store more."""
    # Not CONFIG GET: hosted servers often forbid it.
    info = broker.read(("INFO", "memory"))[0].decode(errors="replace")
    policy = info.partition("maxmemory_policy:")[2].partition("\r")[0]
    if policy in ("", "noeviction"):
        return None
    # Only the keys that remember a producer's last put have a TTL, and may be dropped by a volatile policy.
    volatile = policy.startswith("volatile")
    harm = "forgets what was put, so that a put may be done twice" if volatile else "drops whole queues with their jobs"
    return f"maxmemory-policy is {policy}: a Redis that is full {harm}; set it to noeviction"


def orders(broker: Broker, names: list[str]) -> dict[str, str]:
    """In which order each queue is taken from: fifo, lifo or priority (there `pending` is a zset)."""
    found = broker.read(*(("HGET", keys.of(name).meta, "order") for name in names)) if names else []
    return {name: (order or b"fifo").decode(errors="replace") for name, order in zip(names, found, strict=True)}


def signs_of_life(broker: Broker, queue: str) -> tuple[int, float | None]:
    """How many consumers live, and how many seconds ago one last showed a sign of life (None: never)."""
    living = consumers(broker, queue)
    clock, seen = broker.read(("TIME",), ("HGET", keys.of(queue).meta, "seen"))
    return len(living), age(clock, seen)


def consumers(broker: Broker, queue: str) -> list[str]:
    """The living consumers of a queue."""
    clock, leases = broker.read(("TIME",), ("ZRANGE", keys.of(queue).consumers, 0, -1, "WITHSCORES"))
    return alive(leases, ms_of(clock))


def is_paused(broker: Broker, queue: str) -> bool:
    return bool(broker.read(("HGET", keys.of(queue).meta, "paused"))[0] == b"1")


def states(broker: Broker, names: list[str]) -> dict[str, QueueState]:
    """The state of each queue, read in two round trips, and one more for each queue with waiting jobs."""
    commands: list[tuple[Any, ...]] = [("TIME",)]
    for name, order in orders(broker, names).items():
        key = keys.of(name)
        ranked = order == "priority"
        commands += [
            ("ZCARD" if ranked else "LLEN", key.pending),
            ("ZCARD", key.scheduled),
            ("ZCARD", key.dead_index),
            ("HGETALL", key.meta),
            ("ZRANGE", key.consumers, 0, -1, "WITHSCORES"),
            ("HGETALL", key.progress),
            ("HGETALL", key.over),
            ("HGETALL", key.blocked),
            ("HLEN", key.seen),
        ]
    clock, *replies = broker.read(*commands)
    return {
        name: msgspec.structs.replace(
            state(clock, *replies[9 * i : 9 * i + 5], *replies[9 * i + 6 : 9 * i + 8]),
            oldest_waiting=oldest_waiting(broker, name, clock) if replies[9 * i] else None,
            progress=underway(broker, name, clock, replies[9 * i + 5]),
            remembered=replies[9 * i + 8],
        )
        for i, name in enumerate(names)
    }


class Said(msgspec.Struct):
    """A value of `progress`."""

    consumer: str
    tag: int
    at: int
    task: str = ""
    done: int | float = 0
    total: int | float | None = None
    note: str = ""


def underway(broker: Broker, queue: str, clock: list[bytes], flat: list[bytes]) -> list[Underway]:
    """Progress of jobs that do run: one whose consumer died has reported some, too, but waits again."""
    said: list[tuple[str, Said]] = []
    for i in range(0, len(flat), 2):
        with contextlib.suppress(*UNREADABLE):
            said.append((flat[i].decode(errors="replace"), msgspec.json.decode(flat[i + 1], type=Said)))
    if not said:
        return []
    key = keys.of(queue)
    runs = broker.read(*(("HEXISTS", key.inflight(one.consumer), one.tag) for _, one in said))
    now = ms_of(clock)
    found = [
        Underway(job_id, one.task, one.done, one.total, one.note, max(0.0, (now - one.at) / 1000))
        for (job_id, one), running in zip(said, runs, strict=True)
        if running
    ]
    return sorted(found, key=lambda one: one.id)


def real(raw: bytes) -> float:
    """The number in a field; 0 for anything else, or a number too large, which another program may have written."""
    with contextlib.suppress(ValueError):
        number = float(raw)
        return number if abs(number) <= LARGEST else 0.0
    return 0.0


def whole(raw: bytes) -> int:
    with contextlib.suppress(ValueError):
        number = int(raw)
        return number if abs(number) <= LARGEST else 0
    return int(real(raw))


def state(
    clock: list[bytes],
    pending: int,
    scheduled: int,
    dead: int,
    flat: list[bytes],
    leases: list[bytes],
    beyond: list[bytes],
    blocked: list[bytes],
) -> QueueState:
    # The name of an unknown task may be cut in the middle of a character.
    meta = {flat[i].decode(errors="replace"): flat[i + 1] for i in range(0, len(flat), 2)}

    def number(field: str) -> int:
        return whole(meta.get(field, b"0"))

    now = ms_of(clock)
    maxsize, maxbytes, used = number("maxsize"), number("maxbytes"), max(0, number("bytes"))
    bounds = ((pending + scheduled, maxsize), (used, maxbytes))
    parts = [amount / bound for amount, bound in bounds if bound]
    rate_age = age(clock, meta.get("rate_at"))
    unknown = unknown_tasks(meta, clock)
    found = QueueState(
        pending=pending,
        scheduled=scheduled,
        inflight=max(0, number("inflight")),
        suspects=max(0, number("suspects")),
        dead=dead,
        maxsize=maxsize,
        maxbytes=maxbytes,
        bytes=used if pending + scheduled else 0,
        full=max(parts) if parts else None,
        done=number("done"),
        failed=number("failed"),
        retried=number("retried"),
        reclaimed=number("reclaimed"),
        put=number("put"),
        requeued=number("requeued"),
        purged=number("purged"),
        cancelled=number("cancelled"),
        dropped=number("dropped"),
        stale=number("stale"),
        parked=number("parked"),
        unknown_tasks=unknown if number("parked") else [],
        consumers=len(alive(leases, now)),
        last_seen=age(clock, meta.get("seen")),
        jobs_per_second=real(meta.get("rate", b"0")) if rate_age is not None and rate_age < 15 else 0.0,
        order=meta.get("order", b"fifo").decode(errors="replace"),
        paused=meta.get("paused") == b"1",
        closed="closed" in meta,
        warnings=[],
        headroom=number("headroom") if "headroom" in meta else None,
        over=max(0, pending + scheduled - maxsize) if maxsize else 0,
        over_bytes=max(0, used - maxbytes) if maxbytes and pending + scheduled else 0,
        blocked_jobs=blocked_jobs(blocked, now),
        when_full=meta.get("full", b"wait").decode(errors="replace"),
        expired=number("expired"),
        overflowed=number("overflowed"),
        replaced=number("replaced"),
        replacing=max(0, number("latest")),
        duplicates=number("duplicates"),
    )
    if found.over or found.over_bytes:
        tasks = {
            beyond[i].decode(errors="replace"): count(beyond[i + 1].decode(errors="replace"))
            for i in range(0, len(beyond), 2)
        }
        found = msgspec.structs.replace(found, over_by=dict(sorted(tasks.items(), key=lambda pair: -pair[1])))
    return msgspec.structs.replace(found, warnings=warnings(found, declared="maxsize" in meta))


def warnings(found: QueueState, *, declared: bool) -> list[str]:
    """What an operator should look at, a line each."""
    lines = []
    if declared and found.full is None:
        lines.append("unbounded: a producer that is too fast fills Redis")
    if found.paused:
        lines.append("paused: nothing is taken")
    if found.closed:
        lines.append("shut down: nothing is put")
    if found.consumers == 0 and found.pending + found.scheduled + found.inflight > 0:
        seen = "" if found.last_seen is None else f"; the last one was seen {found.last_seen:,.0f} s ago"
        lines.append(f"jobs wait and no consumer runs{seen}")
    if found.over_by:
        jobs, size = counted(found.over, "job"), counted(found.over_bytes, "byte")
        over = [jobs] * bool(found.over) + [size] * bool(found.over_bytes)
        tasks = ", ".join(f"{task} ({number:,})" for task, number in [*found.over_by.items()][:3])
        lines.append(
            f"{' and '.join(over)} over its bound: put by running jobs of {tasks}; producers wait until it is below"
        )
    if found.blocked_jobs:
        lines.append(f"running jobs of other workers that wait for room here: {found.blocked_jobs:,}")
    if found.suspects:
        lines.append(f"jobs whose consumers or workers died repeatedly wait to run alone: {found.suspects:,}")
    if found.dead and found.dropped:
        lines.append(f"dead jobs that were dropped over the caps (dead_max, dead_age): {found.dropped:,}")
    lines += [
        f"unknown task {unknown.task}: met {unknown.seconds_ago:,.0f} s ago by {unknown.worker}; its jobs are parked"
        for unknown in found.unknown_tasks
    ]
    return lines


def blocked_jobs(flat: list[bytes], now: int) -> int:
    """The jobs of all processes that have reported some lately, each as `<jobs> <until, ms>`."""
    pairs = (flat[i].split() for i in range(1, len(flat), 2))
    return sum(max(0, whole(pair[0])) for pair in pairs if len(pair) == 2 and whole(pair[1]) > now)


def unknown_tasks(meta: dict[str, bytes], clock: list[bytes]) -> list[UnknownTask]:
    found = []
    for field, value in sorted(meta.items()):
        kind, _, task = field.partition(":")
        if kind == "unknown":
            met, _, worker = value.partition(b" ")
            found.append(UnknownTask(task, worker.decode(errors="replace"), age(clock, met) or 0.0))
    return found


def oldest_waiting(broker: Broker, queue: str, clock: list[bytes]) -> float | None:
    """How long the job at the head of the queue has waited, in seconds."""
    head = broker.reads.head(keys.of(queue).pending, HEAD)
    job_id = id_in(RANK.sub(b"", head)) if head else None
    made = None if job_id is None else made_at(job_id)
    return None if made is None else max(0.0, ms_of(clock) / 1000 - made)


def age(clock: list[bytes], at: bytes | None) -> float | None:
    """Seconds since a time by Redis' clock, in ms."""
    return None if at is None else max(0.0, (ms_of(clock) - whole(at)) / 1000)

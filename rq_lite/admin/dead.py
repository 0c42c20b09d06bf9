"""The dead set of a queue: read it in pages, requeue jobs or forget them in batches.

Never all of it at once: it may hold thousands of jobs of a megabyte. Any program may have written to it, so reading
takes reports and entries as they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from rq_lite.admin import operate
from rq_lite.broker import Broker, Code, Requeued, keys
from rq_lite.errors import BrokerError
from rq_lite.model.message import Undecodable, decode, parse, tags_of
from rq_lite.model.unreadable import UNREADABLE

STEP = 300  # jobs per page
BATCH = 500  # jobs per script


class Buried(msgspec.Struct, frozen=True, kw_only=True):
    """A job in the dead set. What its report does not hold is None, empty or 0."""

    queue: str
    tag: int  # of its last delivery: names it within the queue, whatever its id
    id: str | None  # None: the entry is not a job
    task: str | None
    error: str
    traceback: str
    attempts: int  # runs that failed, crashed, or ended with their whole worker
    crashes: int  # of these
    consumer: str
    seconds: float  # that the last run took
    buried_at: float  # seconds since 1970, by Redis' clock
    entry: bytes

    @property
    def tags(self) -> tuple[str, ...]:
        """Read from the entry when it is asked for: that of a large job takes time."""
        return tags_of(self.entry)

    @property
    def worker_deaths(self) -> int:
        """How many of its runs ended with their whole worker."""
        head = parse(self.entry)
        return 0 if head is None else head.deaths


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which buried jobs are meant: those that fit every field that is set. Ages are seconds since the burial."""

    ids: frozenset[str] = frozenset()  # job ids, or `tag:<delivery tag>`
    task: str | None = None
    error: str | None = None  # a part of it, in upper or lower case
    older_than: float | None = None
    newer_than: float | None = None
    tags: frozenset[str] = frozenset()  # the job has all of these

    def fits(self, job: Buried) -> bool:
        """Whether the job fits; its age is not checked, since the index selects by that."""
        return (
            (not self.ids or not self.ids.isdisjoint(names(job)))
            and (self.task is None or self.task == job.task)
            and (self.error is None or self.error.casefold() in job.error.casefold())
            and (not self.tags or self.tags.issubset(job.tags))
        )


EVERYTHING = Filter()


def names(job: Buried) -> tuple[str, ...]:
    """Names of the job: always its tag, too, since an id may be missing, strange, or that of several jobs."""
    return (f"tag:{job.tag}",) if job.id is None else (job.id, f"tag:{job.tag}")


# -- reading


def buried(broker: Broker, queue: str, wanted: Filter = EVERYTHING) -> Iterator[Buried]:
    """The buried jobs that fit the filter, newest first; those buried after the first was read are left out."""
    now = broker.plans.clock()
    newest = "+inf" if wanted.older_than is None else str(before(now, wanted.older_than))
    oldest = "-inf" if wanted.newer_than is None else str(before(now, wanted.newer_than))
    for page in pages(broker, queue, newest, oldest):
        for tag, at, value in contents(broker, queue, page):
            job = job_of(queue, tag, at, value)
            if wanted.fits(job):
                yield job


def before(now: int, age: float) -> int:
    return int(max(0.0, now - age * 1000))


def count(broker: Broker, queue: str) -> int:
    """How many are buried."""
    return int(broker.read(("ZCARD", keys.of(queue).dead_index))[0])


def pages(broker: Broker, queue: str, newest: str, oldest: str) -> Iterator[list[tuple[int, float]]]:
    """Tags and times of burial (ms) in steps. Each begins at the time where the last one ended, not at a rank:
    jobs that are buried meanwhile would shift the ranks."""
    index = keys.of(queue).dead_index
    top, skip = newest, 0
    while True:
        limits = ("BYSCORE", "REV", "LIMIT", skip, STEP, "WITHSCORES")
        flat = broker.read(("ZRANGE", index, top, oldest, *limits))[0]
        if not flat:
            return
        last = flat[-1].decode()
        skip = flat[1::2].count(flat[-1]) + (skip if last == top else 0)
        top = last
        yield [(int(flat[i]), float(flat[i + 1])) for i in range(0, len(flat), 2) if flat[i].isdigit()]


def contents(broker: Broker, queue: str, page: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float, bytes]]:
    """The values of a page; jobs that are gone meanwhile are left out."""
    values = broker.reads.values(keys.of(queue).dead, [tag for tag, _ in page])
    return ((tag, when, value) for (tag, when), value in zip(page, values, strict=True) if value is not None)


def job_of(queue: str, tag: int, at: float, value: bytes) -> Buried:
    report, _, entry = value.partition(b"\n")
    told = read_report(report)
    job_id, task = text_or_none(told.get("id")), text_or_none(told.get("task"))
    if job_id is None:
        try:
            message = decode(entry)[0]
            job_id, task = message.id, message.task
        except Undecodable:
            pass
    return Buried(
        queue=queue,
        tag=tag,
        id=job_id,
        task=task,
        error=text_or_none(told.get("error")) or "",
        traceback=text_or_none(told.get("traceback")) or "",
        attempts=int(number(told.get("attempts"))),
        crashes=int(number(told.get("crashes"))),
        consumer=text_or_none(told.get("consumer")) or "",
        seconds=number(told.get("seconds")),
        buried_at=at / 1000,
        entry=entry,
    )


def read_report(report: bytes) -> dict[str, Any]:
    """The fields of a report; if it cannot be read, an error that says so and holds its text."""
    text = report.decode(errors="replace")  # a task's name may be cut anywhere, and a stack may hold any bytes
    try:
        fields: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except UNREADABLE:
        return {"error": f"its report cannot be read: {text[:1000]}"}
    return fields


def text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def number(value: object) -> float:
    return value if isinstance(value, (int, float)) and 0 <= value < 1e15 else 0


# -- requeuing and forgetting


class Requeue:
    """A requeue and what it has done so far, kept up to date while it runs."""

    def __init__(self, queue: str, tags: Sequence[int]) -> None:
        self.queue = queue
        self.left = list(tags)  # in the order in which they are to wait
        self.moved = 0
        self.missing = 0  # jobs that were not dead any more
        self.oversized = 0  # jobs that stay dead: larger than the queue's maxbytes
        self.expired = 0  # they stay dead, too
        self.taken = 0  # and these, whose key another job has
        self.last = Requeued(Code.OK)

    def run(self, broker: Broker, wait: float = 0.0) -> None:
        """Requeue what fits; wait for room as a producer does, up to `wait` seconds after the last job that fitted."""
        broker.puts.declare(self.queue)
        since, woken = time.monotonic(), False
        while self.left:
            self._step(broker, woken)
            if not self.last.full:
                woken = False
                continue
            if self.last.moved:
                since = time.monotonic()
            seconds = since + wait - time.monotonic()
            if seconds <= 0:
                return
            woken = broker.puts.wait_room(self.queue, seconds)

    def _step(self, broker: Broker, woken: bool) -> None:
        step = self.last = operate.requeue(broker, self.queue, self.left[:BATCH], woken=woken)
        if step.code is not Code.OK:
            raise BrokerError(f"queue {self.queue!r}: requeue was answered with {step.code.name}")
        del self.left[: step.seen]
        self.moved += step.moved
        self.oversized += step.oversized
        self.expired += step.expired
        self.taken += step.taken
        self.missing += step.seen - step.moved - step.oversized - step.expired - step.taken

    @property
    def stay(self) -> int:
        """How many of those that were seen stay dead."""
        return self.oversized + self.expired + self.taken


def forget(broker: Broker, queue: str, tags: Sequence[int]) -> int:
    """Drop buried jobs for good; how many there were."""
    return sum(operate.forget(broker, queue, tags[i : i + BATCH]) for i in range(0, len(tags), BATCH))

"""What a supervisor does for a consumer whose loop stands still: finds its cancelled jobs, and names its jobs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from rq_lite.broker import Broker
from rq_lite.broker.events import id_of
from rq_lite.errors import RqLiteError
from rq_lite.logs import logger, one_line
from rq_lite.model.message import id_in
from rq_lite.process.board import Running

log = logger("rq_lite.worker")

STEP = 20  # jobs that are read at once: any of them may be large
NAMED = 10  # jobs of a stuck consumer that are named


class StuckJobs:
    """The jobs of a consumer whose loop stands still; none of them begins or ends until it turns again.

    `jobs` are those that it runs, by queue. The supervisor's loop makes the object and reads `cancelled`; the duties'
    thread reads the marks in Redis, and replaces `cancelled`.
    """

    def __init__(self, consumer: str, turned: int, jobs: Mapping[str, Sequence[Running]]) -> None:
        self.consumer = consumer
        self.turned = turned  # when the loop last turned, as its board says
        self.cancelled: Mapping[Running, float] = MappingProxyType({})  # job to when that was seen, time.monotonic()
        self._jobs = jobs
        self._ids: dict[str, dict[Running, str]] = {}  # by queue
        self._newest: dict[str, bytes] = {}  # queue to its newest mark when its marks were last read

    def look(self, broker: Broker) -> None:
        """One request for each queue, and more only if a job was cancelled there since the last time."""
        for queue in self._jobs:
            newest = broker.takes.cancels(queue)
            if newest != self._newest.get(queue, b""):
                found = dict.fromkeys(self._marked(broker, queue), time.monotonic())
                self.cancelled = {**found, **self.cancelled}
                self._newest[queue] = newest

    def _marked(self, broker: Broker, queue: str) -> list[Running]:
        if queue not in self._ids:
            self._ids[queue] = dict(self._read_ids(broker, queue))
        ids = self._ids[queue]
        marked = broker.takes.marked(queue, list(ids.values()))
        return [job for job, name in ids.items() if name in marked]

    def _read_ids(self, broker: Broker, queue: str) -> Iterator[tuple[Running, str]]:
        jobs = {job.tag: job for job in self._jobs[queue]}
        tags = sorted(jobs)
        for first in range(0, len(tags), STEP):
            for tag, entry in broker.takes.booked(queue, self.consumer, tags[first : first + STEP]):
                if name := id_in(entry):
                    yield jobs[tag], name


def log_stuck(
    broker: Broker,
    queues: Sequence[str],
    consumer: str,
    headline: str,
    stack: str,
    blamed: tuple[str, int] | None,
) -> None:
    """Log a consumer whose loop does not turn: the ids of its jobs, the blamed one first, and its stack."""
    named: list[str] = []
    count = 0
    with contextlib.suppress(RqLiteError):
        for name in queues:
            tags = sorted(broker.takes.inflight(name, consumer), key=lambda tag: ((name, tag) != blamed, tag))
            count += len(tags)
            entries = broker.takes.booked(name, consumer, tags[: NAMED - len(named)])
            named += [id_of(entry) or "(no job)" for _, entry in entries]
    more = f" and {count - len(named)} more" if count > len(named) else ""
    log.error("%s; its jobs: %s%s\n%s", headline, one_line(", ".join(named)) or "unknown", more, stack)

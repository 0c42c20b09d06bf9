"""Writes the progress of jobs to Redis in the background: a job that reports it never waits, others pay nothing."""

from __future__ import annotations

import time

import gevent
import msgspec

from rq_lite.broker import Broker, Link
from rq_lite.broker.deliveries import Deliveries
from rq_lite.client.current import CurrentJob, Progress
from rq_lite.consumer.background import Background
from rq_lite.consumer.slots import Slot
from rq_lite.model.message import Undecodable, decode
from rq_lite.model.policy import FOREVER
from rq_lite.process.board import NEVER, SECOND

PACE = 0.5  # seconds between two writes about the same job
LOOK = 0.1  # seconds between two checks for something to write

encode = msgspec.json.encode


class Told:
    """A running job that has reported progress."""

    def __init__(self, slot: Slot[Deliveries], job_id: str, queue: str, head: bytes) -> None:
        self._slot = slot
        self.tag = slot.tag
        self._lane = slot.lane
        self.id = job_id
        self.queue = queue
        self.head = head  # its consumer, tag and task, as JSON without the braces
        self.latest: Progress | None = None  # not written yet
        self.due = 0.0  # the next write is not before this, in time.monotonic()

    @property
    def runs(self) -> bool:
        return self._slot.tag == self.tag and self._slot.lane is self._lane


class ProgressReporter:
    """One for a consumer. `current_job` calls `find`."""

    def __init__(self, broker: Broker, consumer: str) -> None:
        self._broker = broker
        self._consumer = consumer
        self._told: dict[tuple[int, int], Told] = {}  # by slot and tag
        # Jobs also report from threads.
        self._wake = gevent.get_hub().loop.async_()
        self._wake.start(Background(broker, self._write).begin)

    def find(self) -> CurrentJob | None:
        """The calling greenlet's job; None if the greenlet is no slot's, or the slot runs no job just now."""
        slot: Slot[Deliveries] | None = getattr(gevent.getcurrent(), "rq_lite_slot", None)
        if slot is None or slot.lane is None or slot.deadline == NEVER:
            return None
        if slot.current is None or slot.current[0] != slot.tag:
            try:
                slot.current = slot.tag, self._made(slot, slot.lane.queue)
            except Undecodable:
                return None
        found: CurrentJob = slot.current[1]
        return found

    def _made(self, slot: Slot[Deliveries], queue: str) -> CurrentJob:
        message, *begun = decode(slot.entry)
        left = (slot.deadline - time.monotonic_ns()) / SECOND
        head = encode({"consumer": self._consumer, "tag": slot.tag, "task": message.task[:200]})[1:-1]
        told = Told(slot, message.id, queue, head)

        def tell(progress: Progress) -> None:
            told.latest = progress
            self._told[slot.number, told.tag] = told
            self._wake.send()

        return CurrentJob(
            id=message.id,
            queue=queue,
            task=message.task,
            attempt=sum(begun) + 1,
            deadline=time.time() + left if left < FOREVER / 2 else None,
            tell=tell,
            tags=message.tags,
        )

    def _write(self, link: Link) -> bool:
        """Write what is due; True while jobs run that have reported progress."""
        for key, told in list(self._told.items()):
            now, latest = time.monotonic(), told.latest
            if not told.runs:
                self._broker.takes.progress(told.queue, self._consumer, told.id, told.tag, told.head, b"", link)
                del self._told[key]
            elif latest is not None and now >= told.due:
                told.due = now + PACE
                detail = encode(latest)[1:-1]
                self._broker.takes.progress(told.queue, self._consumer, told.id, told.tag, told.head, detail, link)
                if told.latest is latest:
                    told.latest = None
        gevent.sleep(LOOK)
        return bool(self._told)

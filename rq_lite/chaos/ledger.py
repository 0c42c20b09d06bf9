"""The facts of a history about each job and each delivery, gathered in one pass.

Files are read one after the other, so nothing here depends on the order between processes. A million jobs must fit:
a job is a number and a row in a few arrays, a delivery is two small integers.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rq_lite.chaos import reading
from rq_lite.chaos.reading import Moment
from rq_lite.errors import UsageError

# Marks of a job: a put was sent; certainly put; perhaps put; was taken, was run, or is in a place at the end.
INVOKED, PUT, UNSURE, SEEN = 1, 2, 4, 8
# Marks of a delivery: an ack was sent; perhaps acked; certainly acked, buried, back in the queue.
ASKED, PERHAPS, ACKED, BURIED, BACK = 1, 2, 4, 8, 16
SETTLED = ACKED | BURIED | BACK
MAYBE = ASKED | PERHAPS  # an ack was sent, and its outcome is unknown
# The mark of tags that were not acked, by verb.
MARK_OF = {
    "finish": BURIED,
    "retry": BACK,
    "park": BACK,
    "give_back": BACK,
    "crashed": BACK,
}

REPEATS = {"retry", "park", "cut", "crash"}  # outcomes after which a job is meant to run again

SHIFT = 24  # bits for the owner's number, below the job's
OWNER = (1 << SHIFT) - 1


class Jobs:
    """A row for each job. Times are those of the first such event; infinite without one."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.names: list[str] = []
        self.marks = bytearray()
        self.lanes = array("L")
        self.runs = array("L")
        self.invoked = array("d")
        self.taken = array("d")
        self.began = array("d")

    def number(self, name: str, lane: Lane) -> int:
        number = self.numbers.get(name)
        if number is None:
            number = self.numbers[name] = len(self.names)
            self.names.append(name)
            self.marks.append(0)
            self.lanes.append(lane.number)
            self.runs.append(0)
            self.invoked.append(math.inf)
            self.taken.append(math.inf)
            self.began.append(math.inf)
        return number


class Lane:
    """A queue: its deliveries by their tags, and how many acks it certainly accepted."""

    def __init__(self, queue: str, number: int) -> None:
        self.queue = queue
        self.number = number
        self.delivered: dict[int, int] = {}  # tag → job << SHIFT | owner
        self.settled: dict[int, int] = {}  # tag → marks
        self.requeued: set[int] = set()  # tags of buried deliveries whose jobs were requeued
        self.accepted = 0

    def last_tags(self) -> dict[int, int]:
        """The last tag of each job that was delivered."""
        last: dict[int, int] = {}
        for tag, delivery in self.delivered.items():
            job = delivery >> SHIFT
            if tag > last.get(job, -1):
                last[job] = tag
        return last


class Ledger:
    """All facts by which the promises are judged; `read` fills it, a file at a time."""

    def __init__(self) -> None:
        self.jobs = Jobs()
        self.lanes: dict[str, Lane] = {}
        self.owners: dict[str, int] = {}
        self.orders: dict[tuple[str, str], array[int]] = {}  # (file, queue) → jobs in the order of their ok puts
        self.put_twice: list[int] = []
        self.breaches: list[reading.PutAfter] = []
        self.settled_twice: list[tuple[Lane, int]] = []
        self.two_owners: list[tuple[Lane, int, int]] = []  # lane, tag, the second delivery under it
        self.takes = array("d")
        self.ends = array("d")  # of faults
        self.faults = 0
        self.inflight = 0  # at the faults, together
        self.stale = 0
        self.repeats = 0  # runs after which the job is meant to run again
        self.first_run, self.last_run = math.inf, -math.inf
        self.first_fault = math.inf
        self.looks: list[reading.Looked] = []
        self.following: dict[str, tuple[Lane, int, int]] = {}  # job → the run that named it: lane, tag, attempt
        self.origins: dict[str, tuple[str, int]] = {}  # job → the run that it says it follows: job, attempt
        self.final: reading.Final | None = None
        self._file = ""
        self._puts: dict[tuple[str, str], Sequence[str]] = {}  # unanswered puts of this file: (queue, first id) → ids
        self._running: dict[str, int] = {}  # in this file: job → tag
        self._note: dict[type[Moment], Callable[[Any], None]] = {
            reading.PutBefore: self._put_before,
            reading.PutAfter: self._put_after,
            reading.PutFailed: self._put_failed,
            reading.Took: self._took,
            reading.RunBefore: self._run_before,
            reading.RunAfter: self._run_after,
            reading.SettleBefore: self._settle_before,
            reading.SettleAfter: self._settle_after,
            reading.SettleFailed: self._settle_failed,
            reading.Requeued: self._requeued,
            reading.Then: self._then,
            reading.Followed: self._followed,
            reading.Looked: self.looks.append,
            reading.Fault: self._fault,
            reading.FaultEnd: self._fault_end,
            reading.Final: self._at_rest,
        }

    def read(self, file: str, moments: Iterable[Moment]) -> None:
        self._file = file
        note = self._note
        for moment in moments:
            note[type(moment)](moment)
        for (queue, _), names in self._puts.items():
            self._unsure(queue, names)
        self._puts.clear()
        self._running.clear()

    def lane(self, queue: str) -> Lane:
        lane = self.lanes.get(queue)
        if lane is None:
            lane = self.lanes[queue] = Lane(queue, len(self.lanes))
        return lane

    # -- puts

    def _put_before(self, moment: reading.PutBefore) -> None:
        if not moment.jobs:
            return
        jobs, lane = self.jobs, self.lane(moment.queue)
        for name in moment.jobs:
            number = jobs.number(name, lane)
            jobs.marks[number] |= INVOKED
            if moment.t < jobs.invoked[number]:
                jobs.invoked[number] = moment.t
        key = (moment.queue, moment.jobs[0])
        self._unsure(moment.queue, self._puts.get(key, ()))
        self._puts[key] = moment.jobs

    def _put_after(self, moment: reading.PutAfter) -> None:
        jobs, lane = self.jobs, self.lane(moment.queue)
        self._answered(moment.queue, moment.jobs)
        order = self.orders.get((self._file, moment.queue))
        if order is None:
            order = self.orders[self._file, moment.queue] = array("L")
        kept_out = {*moment.kept_out}
        for name in moment.jobs:
            if name in kept_out:
                continue
            number = jobs.number(name, lane)
            if jobs.marks[number] & PUT:
                self.put_twice.append(number)
            jobs.marks[number] |= INVOKED | PUT
            order.append(number)
        if moment.jobs and 0 < moment.maxsize < moment.size and not moment.unbounded:
            self.breaches.append(moment)

    def _put_failed(self, moment: reading.PutFailed) -> None:
        self._answered(moment.queue, moment.jobs)
        if moment.outcome != "not put":
            self._unsure(moment.queue, moment.jobs)

    def _answered(self, queue: str, jobs: Sequence[str]) -> None:
        """A full queue accepts the first jobs of a put or none, so the first id tells which put was answered."""
        if jobs:
            self._puts.pop((queue, jobs[0]), None)
            return
        waiting = [key for key in self._puts if key[0] == queue]
        if len(waiting) == 1:
            del self._puts[waiting[0]]

    def _unsure(self, queue: str, names: Sequence[str]) -> None:
        """A put of these was never answered: they may be stored or not."""
        lane = self.lane(queue)
        for name in names:
            self.jobs.marks[self.jobs.number(name, lane)] |= UNSURE

    # -- deliveries and runs

    def _took(self, moment: reading.Took) -> None:
        if not moment.jobs:
            return
        jobs, lane, owner = self.jobs, self.lane(moment.queue), self._owner(moment.consumer)
        for tag, name in moment.jobs:
            number = jobs.number(name, lane)
            if moment.t < jobs.taken[number]:
                jobs.taken[number] = moment.t
            self._delivered(lane, tag, number, owner)
        self.takes.append(moment.t)

    def _run_before(self, moment: reading.RunBefore) -> None:
        jobs, lane = self.jobs, self.lane(moment.queue)
        number = jobs.number(moment.job, lane)
        jobs.runs[number] += 1
        if moment.t < jobs.began[number]:
            jobs.began[number] = moment.t
        self._delivered(lane, moment.tag, number, self._owner(moment.consumer))
        self._running[moment.job] = moment.tag
        self.first_run = min(self.first_run, moment.t)
        self.last_run = max(self.last_run, moment.t)

    def _run_after(self, moment: reading.RunAfter) -> None:
        self.last_run = max(self.last_run, moment.t)
        self._running.pop(moment.job, None)
        if moment.outcome in REPEATS:
            self.repeats += 1

    def _then(self, moment: reading.Then) -> None:
        tag = self._running.get(moment.job, 0)
        self.following[moment.following] = self.lane(moment.queue), tag, moment.attempt

    def _followed(self, moment: reading.Followed) -> None:
        self.origins[moment.job] = moment.of, moment.attempt

    def _delivered(self, lane: Lane, tag: int, number: int, owner: int) -> None:
        self.jobs.marks[number] |= SEEN
        delivery = number << SHIFT | owner
        if lane.delivered.setdefault(tag, delivery) != delivery:
            self.two_owners.append((lane, tag, delivery))

    def _owner(self, consumer: str) -> int:
        return self.owners.setdefault(consumer, len(self.owners))

    # -- settling

    def _settle_before(self, moment: reading.SettleBefore) -> None:
        settled = self.lane(moment.queue).settled
        for tag in parts(moment)[0]:
            settled[tag] = settled.get(tag, 0) | ASKED
        self._put_with(moment, UNSURE)  # until the answer is known

    def _settle_after(self, moment: reading.SettleAfter) -> None:
        lane, (done, others) = self.lane(moment.queue), parts(moment)
        stale = min(moment.stale, len(moment.tags))
        self.stale += stale
        lane.accepted += max(0, len(done) - stale)
        if stale == 0:
            self._mark(lane, done, ACKED, ASKED)
            self._mark(lane, others, MARK_OF.get(moment.verb, BACK))
            self._put_with(moment, PUT)
        else:
            self._mark(lane, done, 0 if stale == len(moment.tags) else PERHAPS, ASKED)

    def _settle_failed(self, moment: reading.SettleFailed) -> None:
        self._mark(self.lane(moment.queue), parts(moment)[0], PERHAPS, ASKED)

    def _put_with(self, moment: reading.SettleBefore, mark: int) -> None:
        """Mark the callbacks of a step. A step that is repeated, or a job that runs again, asks for the same ones."""
        for queue, name in moment.puts:
            number = self.jobs.number(name, self.lane(queue))
            self.jobs.marks[number] |= INVOKED | mark
            self.jobs.invoked[number] = min(self.jobs.invoked[number], moment.t)

    def _mark(self, lane: Lane, tags: Sequence[int], mark: int, instead_of: int = 0) -> None:
        settled = lane.settled
        for tag in tags:
            old = settled.get(tag, 0)
            if mark & SETTLED and old & SETTLED:
                self.settled_twice.append((lane, tag))
            settled[tag] = old & ~instead_of | mark

    def _requeued(self, moment: reading.Requeued) -> None:
        self.lane(moment.queue).requeued.update(moment.tags)

    # -- the harness

    def _fault(self, moment: reading.Fault) -> None:
        self.faults += 1
        self.first_fault = min(self.first_fault, moment.t)
        self.inflight += moment.inflight

    def _fault_end(self, moment: reading.FaultEnd) -> None:
        self.ends.append(moment.t)

    def _at_rest(self, moment: reading.Final) -> None:
        if self.final is not None:
            raise UsageError(f"{self._file}: a second final record; a history has one, written when the run is over")
        self.final = moment
        for queue, state in moment.queues.items():
            lane = self.lane(queue)
            for consumer, held in state.inflight.items():
                for tag, name in held.items():
                    self._delivered(lane, tag, self.jobs.number(name, lane), self._owner(consumer))


def parts(moment: reading.SettleBefore) -> tuple[Sequence[int], Sequence[int]]:
    """The tags that a step acks, and the others."""
    if moment.verb == "ack":
        return moment.tags, ()
    if moment.verb == "finish":
        buried = {*moment.buried}
        return [tag for tag in moment.tags if tag not in buried], moment.buried
    return (), moment.tags

"""The promises, judged by a ledger: I1 to I12 as far as a history can show them; once.py has I13 to I16.

Each function yields the breaches of its promise, in words, each with its job, if it is about one.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import accumulate

import msgspec

from rq_lite.chaos import once
from rq_lite.chaos.ledger import (
    ACKED,
    BACK,
    BURIED,
    INVOKED,
    MAYBE,
    OWNER,
    PUT,
    SEEN,
    SHIFT,
    UNSURE,
    Lane,
    Ledger,
)
from rq_lite.chaos.once import Finding
from rq_lite.chaos.reading import QueueAtRest

NEVER, MAYBE_ACCEPTED, SURELY_ACCEPTED = 0, 1, 2
TOLD = 8  # deliveries of one job that are shown


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """What this history must show beyond the promises that always hold."""

    drained: bool = False  # everything that was put should have been run
    fifo: bool = False  # one consumer with one slot ran all jobs, and none may overtake another
    recover: float | None = None  # seconds after the end of a fault until jobs are taken again
    most_runs: int | None = None  # of one job


class Findings:
    """What follows from the ledger for each job, computed once for all checks."""

    def __init__(self, ledger: Ledger) -> None:
        self.places: dict[int, str] = {}
        self.crowded: set[int] = set()  # jobs in more than one place
        for queue, state in (ledger.final.queues if ledger.final else {}).items():
            self._locate(ledger, ledger.lane(queue), state)
        self.accepted = bytearray(len(ledger.jobs.names))  # NEVER, MAYBE_ACCEPTED, SURELY_ACCEPTED
        self.acked_again: set[int] = set()  # jobs with more than one accepted ack
        self.overtaken: list[tuple[Lane, int, int]] = []  # lane, acked tag, the job's last tag
        self.risen: set[int] = set()  # jobs that were delivered again after their burial, without a requeue
        self.unheard: list[tuple[Lane, int]] = []  # tags that were settled, but never delivered to a consumer
        for lane in ledger.lanes.values():
            self._settle(lane)

    def _settle(self, lane: Lane) -> None:
        last = lane.last_tags()
        for tag, marks in lane.settled.items():
            delivery = lane.delivered.get(tag)
            if delivery is None:
                if marks & (ACKED | BURIED | BACK):
                    self.unheard.append((lane, tag))
                continue
            job = delivery >> SHIFT
            if marks & ACKED:
                if self.accepted[job] == SURELY_ACCEPTED:
                    self.acked_again.add(job)
                self.accepted[job] = SURELY_ACCEPTED
                if last[job] > tag:
                    self.overtaken.append((lane, tag, last[job]))
            elif marks & BURIED and last[job] > tag and tag not in lane.requeued:
                self.risen.add(job)
            # An unanswered ack of an earlier delivery was refused: otherwise there would be no later one.
            elif marks & MAYBE and last[job] == tag:
                self.accepted[job] = max(self.accepted[job], MAYBE_ACCEPTED)

    def _locate(self, ledger: Ledger, lane: Lane, state: QueueAtRest) -> None:
        for place in ("pending", "scheduled", "suspects", "dead"):
            for name in getattr(state, place):
                self._put_down(ledger, lane, name, place)
        for held in state.inflight.values():
            for name in held.values():
                self._put_down(ledger, lane, name, "inflight")

    def _put_down(self, ledger: Ledger, lane: Lane, name: str, place: str) -> None:
        job = ledger.jobs.number(name, lane)
        ledger.jobs.marks[job] |= SEEN
        if job in self.places:
            self.crowded.add(job)
            place = f"{self.places[job]} and {place}"
        self.places[job] = place


def judge(ledger: Ledger, demands: Demands) -> Iterator[Finding]:
    found = Findings(ledger)
    if ledger.final is None:
        yield Finding("I1 no final record: lost and left-over jobs cannot be judged")
    else:
        yield from accounted(ledger, found)
        yield from counted(ledger, found)
        if demands.drained:
            yield from drained(found)
        yield from clean(ledger)
    yield from invented(ledger, found)
    yield from not_repeated(ledger)
    yield from fenced(ledger, found)
    yield from bounded(ledger)
    yield from once.looked(ledger)
    yield from once.followed(ledger)
    if demands.fifo:
        yield from in_order(ledger)
    if demands.recover is not None:
        yield from recovering(ledger, demands.recover)
    if demands.most_runs is not None:
        yield from few_runs(ledger, demands.most_runs)


def accounted(ledger: Ledger, found: Findings) -> Iterator[Finding]:
    """I1: each job that was put is in exactly one place, or accepted."""
    jobs = ledger.jobs
    missing: defaultdict[int, list[int]] = defaultdict(list)
    for job, accepted in enumerate(found.accepted):
        marks, place = jobs.marks[job], found.places.get(job)
        if place is None:
            if not accepted and (marks & PUT or (marks & UNSURE and marks & SEEN)):
                missing[jobs.lanes[job]].append(job)
        elif accepted == SURELY_ACCEPTED:
            yield Finding(f"I1 DOUBLED: an ack of it was accepted, and it is still in {place}", job)
    for job in sorted(found.crowded):
        yield Finding(f"I1 DOUBLED: it is in {found.places[job]}", job)
    for job in ledger.put_twice:
        yield Finding("I1 DOUBLED: two puts of it were accepted", job)
    for lane in ledger.lanes.values():
        yield from lost(ledger, lane, missing[lane.number])


def lost(ledger: Ledger, lane: Lane, missing: list[int]) -> Iterator[Finding]:
    assert ledger.final is not None
    state = ledger.final.queues.get(lane.queue, QueueAtRest())
    # The history has no ids of purged jobs, only their number.
    dropped = state.purged + state.dropped
    if len(missing) <= dropped:
        return
    gone = f" ({len(missing):,} are missing, {dropped:,} were purged or dropped)" if dropped else ""
    for job in missing:
        yield Finding(f"I1 LOST: it was put, is nowhere, and no ack of it was accepted{gone}", job)


def counted(ledger: Ledger, found: Findings) -> Iterator[Finding]:
    """I1: the counters in Redis agree with the answers that the processes got."""
    assert ledger.final is not None
    jobs = ledger.jobs
    put, unsure, gone = Counter[int](), Counter[int](), Counter[int]()
    for job, (lane_number, marks) in enumerate(zip(jobs.lanes, jobs.marks, strict=True)):
        put[lane_number] += bool(marks & PUT)
        unsure[lane_number] += marks & (PUT | UNSURE) == UNSURE
        gone[lane_number] += found.accepted[job] != NEVER and job not in found.places
    for lane in ledger.lanes.values():
        state = ledger.final.queues.get(lane.queue)
        if state is None:
            yield Finding(f"I1 COUNTERS: the final record lacks queue {lane.queue!r}")
            continue
        surely = put[lane.number]
        yield from disagreeing(lane, "put", state.put, surely, surely + unsure[lane.number])
        # If an unanswered ack was accepted, its job is gone at the end; a purge may also have removed it.
        most = max(lane.accepted, gone[lane.number])
        least = max(lane.accepted, gone[lane.number] - state.purged - state.dropped)
        yield from disagreeing(lane, "done", state.done, least, most)


def disagreeing(lane: Lane, what: str, counter: int | None, least: int, most: int) -> Iterator[Finding]:
    if counter is not None and not least <= counter <= most:
        history = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        yield Finding(f"I1 COUNTERS: queue {lane.queue!r} counts {counter:,} {what}, its processes {history}")


def drained(found: Findings) -> Iterator[Finding]:
    """I2: no jobs are left but buried ones."""
    for job, place in found.places.items():
        if place != "dead":
            yield Finding(f"I2 LEFT OVER: everything should have been run, but it is in {place}", job)


def invented(ledger: Ledger, found: Findings) -> Iterator[Finding]:
    """I3: every job that runs was put."""
    for job, marks in enumerate(ledger.jobs.marks):
        if marks & SEEN and not marks & INVOKED:
            yield Finding("I3 INVENTED: it was never put", job)
        elif marks & SEEN and not marks & (PUT | UNSURE):
            yield Finding("I3 INVENTED: every put of it was refused, but it is there", job)
    for lane, tag in found.unheard:
        yield Finding(f"I3 INVENTED: tag {tag} of queue {lane.queue!r} was settled, but never delivered")


def not_repeated(ledger: Ledger) -> Iterator[Finding]:
    """I4: a job runs again only after a fault, or if it is meant to."""
    runs = ledger.jobs.runs
    extra = sum(runs) - sum(1 for count in runs if count)
    requeued = sum(len(lane.requeued) for lane in ledger.lanes.values())
    if extra > ledger.inflight + ledger.repeats + requeued:
        most = heapq.nlargest(3, range(len(runs)), key=runs.__getitem__)
        names = ", ".join(f"{ledger.jobs.names[job]!r} ({runs[job]})" for job in most)
        yield Finding(
            f"I4 DOUBLED RUNS: {extra:,} runs beyond the first of each job, but {ledger.inflight:,} jobs were in "
            f"flight at {ledger.faults:,} faults and {ledger.repeats + requeued:,} runs were to be repeated; "
            f"most often {names}"
        )


def fenced(ledger: Ledger, found: Findings) -> Iterator[Finding]:
    """I5: of several runs of a job at most one is accepted."""
    for job in sorted(found.acked_again):
        yield Finding("I5 DOUBLED ACCEPTANCE: more than one ack of it was accepted", job)
    for lane, tag, last in found.overtaken:
        yield Finding(
            f"I5 STALE ACCEPTED: the ack of tag {tag} was accepted, although it was delivered again as {last}",
            lane.delivered[tag] >> SHIFT,
        )
    for job in sorted(found.risen):
        yield Finding("I5 DOUBLED ACCEPTANCE: it was buried, and delivered again without a requeue", job)
    for lane, tag in ledger.settled_twice:
        job_or_none = lane.delivered[tag] >> SHIFT if tag in lane.delivered else None
        yield Finding(f"I5 DOUBLED ACCEPTANCE: tag {tag} of queue {lane.queue!r} was settled twice", job_or_none)
    if not (found.acked_again or found.unheard or ledger.settled_twice):
        yield from outnumbered(ledger, found)
    owners = list(ledger.owners)
    for lane, tag, delivery in ledger.two_owners:
        second = f"{ledger.jobs.names[delivery >> SHIFT]!r} to {owners[delivery & OWNER]}"
        yield Finding(
            f"I5 TAG USED TWICE: tag {tag} of queue {lane.queue!r} was also {second}", lane.delivered[tag] >> SHIFT
        )


def outnumbered(ledger: Ledger, found: Findings) -> Iterator[Finding]:
    """I5 by numbers, for batches in which some acks were refused: the history does not show which."""
    able = Counter(lane for lane, accepted in zip(ledger.jobs.lanes, found.accepted, strict=True) if accepted != NEVER)
    for lane in ledger.lanes.values():
        if lane.accepted > able[lane.number]:
            yield Finding(
                f"I5 STALE ACCEPTED: queue {lane.queue!r} accepted {lane.accepted:,} acks, but only "
                f"{able[lane.number]:,} jobs have a last delivery that was acked"
            )


def bounded(ledger: Ledger) -> Iterator[Finding]:
    """I6: no put from outside takes a queue above its bound."""
    for put in ledger.breaches:
        yield Finding(
            f"I6 BOUND BROKEN: queue {put.queue!r} held {put.size:,} jobs after a put of {put.jobs[0]!r}"
            f"{' and others' if len(put.jobs) > 1 else ''}; bound {put.maxsize:,}"
        )


def clean(ledger: Ledger) -> Iterator[Finding]:
    """I7: nothing is left behind."""
    assert ledger.final is not None
    for key in ledger.final.keys:
        yield Finding(f"I7 LEAK: key {key!r} is left in Redis")
    for pid in ledger.final.processes:
        yield Finding(f"I7 LEAK: process {pid} is left")


def in_order(ledger: Ledger) -> Iterator[Finding]:
    """I10: jobs of one producer begin in the order of their puts."""
    jobs = ledger.jobs
    for (file, queue), order in ledger.orders.items():
        latest = None
        for job in order:
            if jobs.began[job] == math.inf:
                continue
            if latest is None or jobs.began[job] >= jobs.began[latest]:
                latest = job
            else:
                before = f"before {jobs.names[latest]!r} of queue {queue!r}"
                yield Finding(f"I10 OUT OF ORDER: it first ran {before}, which {file} had put earlier", job)


def recoveries(ledger: Ledger) -> list[tuple[float, float]]:
    """For each end of a fault at which jobs waited: its time, and the seconds until jobs were taken (infinite: never).

    A job waits from the time of its put's request until it is taken for the first time.
    """
    ends, jobs = sorted(ledger.ends), ledger.jobs
    if not ends:
        return []
    pending = {name for state in (ledger.final.queues if ledger.final else {}).values() for name in state.pending}
    change = [0] * (len(ends) + 1)  # of the number of waiting jobs, from one end to the next
    for name, invoked, taken in zip(jobs.names, jobs.invoked, jobs.taken, strict=True):
        if taken < math.inf or name in pending:
            change[bisect_left(ends, invoked)] += 1
            change[bisect_left(ends, max(invoked, taken))] -= 1
    takes = [*sorted(ledger.takes), math.inf]
    waiting = accumulate(change)
    return [(end, takes[bisect_left(takes, end)] - end) for end, count in zip(ends, waiting, strict=False) if count]


def recovering(ledger: Ledger, seconds: float) -> Iterator[Finding]:
    """I11: when a fault is over, jobs are taken again."""
    for end, gap in recoveries(ledger):
        if gap > seconds:
            when = "never" if gap == math.inf else f"{gap:.1f} s later"
            yield Finding(f"I11 NO RECOVERY: a fault ended at {end:.3f}, jobs waited, and were taken {when}")


def few_runs(ledger: Ledger, most: int) -> Iterator[Finding]:
    """I12: no job runs more often than it may."""
    for job, runs in enumerate(ledger.jobs.runs):
        if runs > most:
            yield Finding(f"I12 TOO MANY RUNS: {runs:,} runs, at most {most:,} were allowed", job)


def told(ledger: Ledger, findings: list[Finding]) -> list[str]:
    """The findings in words, each with the known deliveries of its job."""
    stories = stories_of(ledger, {finding.job for finding in findings if finding.job is not None})
    queues = list(ledger.lanes)
    lines = []
    for text, job in findings:
        if job is not None:
            queue, story = queues[ledger.jobs.lanes[job]], "; ".join(stories[job]) or "never delivered"
            text = f"{text}: job {ledger.jobs.names[job]!r} of queue {queue!r} ({story})"
        lines.append(text)
    return lines


def stories_of(ledger: Ledger, jobs: set[int]) -> dict[int, list[str]]:
    """The first few deliveries of each of these jobs: tag, consumer, end."""
    stories: dict[int, list[str]] = {job: [] for job in jobs}
    owners = list(ledger.owners)
    for lane in ledger.lanes.values() if jobs else ():
        for tag, delivery in lane.delivered.items():
            story = stories.get(delivery >> SHIFT)
            if story is not None and len(story) < TOLD:
                story.append(f"tag {tag} to {owners[delivery & OWNER]}: {end_of(lane.settled.get(tag, 0))}")
    return stories


def end_of(marks: int) -> str:
    """How a delivery ended, as far as the history shows it."""
    for mark, word in ((ACKED, "acked"), (BURIED, "buried"), (BACK, "brought back"), (MAYBE, "ack unanswered")):
        if marks & mark:
            return word
    return "not settled"

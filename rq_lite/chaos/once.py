"""The promises of unique jobs and of follow-ups: I13 to I16.

I13 to I15 are judged by looks at a queue. A look is read in one step, so they hold also while the queue is in use.
I16 is judged by the ledger, for tasks whose jobs say in the history which job follows their run, and which run a job
follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import unquote

from rq_lite.chaos.ledger import ACKED, MAYBE, SEEN, SHIFT, Lane, Ledger
from rq_lite.chaos.reading import Look, Marked, QueueAtRest

ENDS = ("done", "failed", "cancelled", "purged", "expired", "overflowed", "replaced")
COUNTERS = ("put", "requeued", *ENDS)
UNTIL_END, UNTIL_START = "e", "s"


class Finding(NamedTuple):
    text: str
    job: int | None = None


def looked(ledger: Ledger) -> Iterator[Finding]:
    """I13 to I15, by every look."""
    jobs = ledger.jobs
    texts: dict[str, None] = {}  # each breach once, though later looks see it, too
    for moment in ledger.looks:
        when, lane = moment.t, ledger.lane(moment.queue)
        # A consumer that was killed may have taken a job and not written that down.
        if all_known := when < ledger.first_fault:

            def never_taken(job: str, when: float = when, lane: Lane = lane) -> bool:
                return jobs.taken[jobs.number(unquote(job), lane)] > when

        found = breaches(moment.look, never_taken if all_known else unknown)
        texts.update(dict.fromkeys(f"{text} (queue {moment.queue!r})" for text in found))
    yield from map(Finding, texts)


def unknown(_job: str) -> bool:
    return False


def breaches(look: Look, never_taken: Callable[[str], bool] = unknown) -> Iterator[str]:
    """What is wrong in one look. `never_taken`: whether it is certain that no consumer ever took the job of this id."""
    yield from two_of_a_key(look, never_taken)
    yield from locks_without_jobs(look)
    yield from jobs_without_locks(look, never_taken)
    yield from ended_twice(look)


def holds(one: Marked, never_taken: Callable[[str], bool]) -> bool:
    """Whether this job certainly keeps others of its key out."""
    if one.mode == UNTIL_START:
        return not was_taken(one) and never_taken(one.job)
    return one.mode == UNTIL_END


def was_taken(one: Marked) -> bool:
    return one.charged or one.place == "inflight"


def two_of_a_key(look: Look, never_taken: Callable[[str], bool]) -> Iterator[str]:
    """I13: of jobs with the same key at most one is there. Until their start: one that was never taken."""
    first: dict[str, Marked] = {}
    for one in look.marked:
        if holds(one, never_taken):
            other = first.setdefault(one.name, one)
            if other is not one:
                yield f"I13 TWO OF A KEY: {one.name!r} is the key of {said(other)} and of {said(one)}"


def locks_without_jobs(look: Look) -> Iterator[str]:
    """I14: each lock belongs to a job that has not ended, or to the newer payload behind it."""
    there = {(one.name, one.job): one for one in look.marked}
    for name, lock in look.locks.items():
        mode, job = lock.split("|")[:2]
        if mode not in (UNTIL_END, UNTIL_START) or look.newer.get(name) == job:
            continue
        holder = there.get((name, job))
        if holder is None:
            yield f"I14 LOCK WITHOUT ITS JOB: {name!r} is locked by job {job}, which is not there"
        elif mode == UNTIL_START and was_taken(holder):
            yield f"I14 LOCK WITHOUT ITS JOB: {name!r} is locked by {said(holder)}, which was taken before"


def jobs_without_locks(look: Look, never_taken: Callable[[str], bool]) -> Iterator[str]:
    """I14: each job that keeps others of its key out has the lock."""
    for one in look.marked:
        if holds(one, never_taken) and look.locks.get(one.name, "").split("|")[1:2] != [one.job]:
            has = look.locks.get(one.name, "nothing")
            yield f"I14 JOB WITHOUT ITS LOCK: {said(one)} does not have the lock {one.name!r}, which is {has}"


def said(one: Marked) -> str:
    return f"job {one.job} in {one.place}"


def ended_twice(look: Look) -> Iterator[str]:
    """I15: each job that was put, or put back, has ended once, or is there."""
    count = look.counters
    began = count.get("put", 0) + count.get("requeued", 0)
    ended = sum(count.get(name, 0) for name in ENDS)
    if began != ended + look.alive:
        what = "ENDED TWICE" if began < ended + look.alive else "NOT ENDED"
        yield f"I15 {what}: {began:,} jobs were put or put back, {ended:,} have ended, {look.alive:,} have not"


def followed(ledger: Ledger) -> Iterator[Finding]:
    """I16: exactly one job follows each accepted run that has named one, and none follows another run."""
    jobs, states = ledger.jobs, ledger.final.queues if ledger.final else {}
    last = {lane.number: lane.last_tags() for lane in ledger.lanes.values()} if ledger.following else {}
    for following, (lane, tag, attempt) in ledger.following.items():
        marks = lane.settled.get(tag, 0)
        job = lane.delivered.get(tag, -1 << SHIFT) >> SHIFT
        accepted = marks & ACKED or (marks & MAYBE and last[lane.number].get(job) == tag)
        number = jobs.numbers.get(following)
        exists = number is not None and jobs.marks[number] & SEEN
        if exists and not accepted:
            yield Finding(f"I16 FOLLOWS NOTHING: it was to follow the run of tag {tag}, which was not accepted", number)
        elif marks & ACKED and not exists and not states.get(lane.queue, QueueAtRest()).purged:
            yield Finding(f"I16 NOT FOLLOWED: its run of tag {tag} was accepted, {following!r} is nowhere", job)
        says = ledger.origins.get(following)
        if says is not None and says != (jobs.names[job], attempt):
            yield Finding(f"I16 FOLLOWS ANOTHER: it says that it follows attempt {says[1]} of job {says[0]!r}", number)
    for name in ledger.origins.keys() - ledger.following.keys():
        yield Finding("I16 FOLLOWS NOTHING: no run has named it", jobs.numbers.get(name))

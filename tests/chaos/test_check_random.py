"""The checker believes every history of a small model of the queue, and no history that was tampered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.forged import Forged, Q


class Model:
    """A queue that keeps its promises, two consumers that die and are late, and what they all write down."""

    def __init__(self) -> None:
        self.forged = Forged()
        self.pending: list[str] = []
        self.scheduled: list[str] = []
        self.dead: list[str] = []
        self.graves: dict[str, int] = {}  # of the dead: the tags under which they were buried
        self.inflight: dict[str, dict[int, str]] = {"c0": {}, "c1": {}}
        self.heard: dict[str, dict[int, str]] = {"c0": {}, "c1": {}}  # not yet settled, as far as the consumer knows
        self.jobs = self.tag = self.puts = self.done = 0

    # -- steps; `n` makes their choices

    def put(self, n: int) -> None:
        jobs = [self._new() for _ in range(1 + n % 3)]
        self.forged.put(*jobs)
        self._accept(jobs)

    def put_in_part(self, n: int) -> None:
        jobs = [self._new() for _ in range(3)]
        self.forged.put(*jobs, accepted=n % 3)
        self.forged.put(*jobs[n % 3 :])
        self._accept(jobs)

    def put_unsure(self, n: int) -> None:
        job = self._new()
        self.forged.put_fails(job)
        self._accept([job] if n % 2 else [])

    def not_put(self, _: int) -> None:
        self.forged.put_fails(self._new(), outcome="not put")

    def take(self, n: int) -> None:
        consumer = self._consumer(n)
        jobs = self._book(consumer)
        self.forged.take(consumer, jobs)
        self.heard[consumer].update(jobs)

    def take_unheard(self, n: int) -> None:
        self._book(self._consumer(n))

    def reconcile(self, n: int) -> None:
        consumer = self._consumer(n)
        jobs = {tag: job for tag, job in self.inflight[consumer].items() if tag not in self.heard[consumer]}
        self.forged.take(consumer, jobs, at="reconcile.after")
        self.heard[consumer].update(jobs)

    def ack(self, n: int) -> None:
        for consumer, tag, job in self._next(n):
            self.forged.run(consumer, tag, job)
            accepted = self.inflight[consumer].pop(tag, None) is not None
            self.forged.ack(consumer, tag, stale=int(not accepted))
            self.done += accepted

    def ack_unanswered(self, n: int) -> None:
        for consumer, tag, job in self._next(n):
            self.forged.run(consumer, tag, job)
            self.forged.ask(consumer, tag)
            self.done += self.inflight[consumer].pop(tag, None) is not None
            if n % 4 < 2:
                self.forged.say(consumer, "ack.failed", consumer=consumer, queue=Q, tags=[tag])

    def retry(self, n: int) -> None:
        self._settle(n, "retry", self.scheduled)

    def bury(self, n: int) -> None:
        for tag, job in self._settle(n, "bury", self.dead):
            self.graves[job] = tag

    def finish(self, n: int) -> None:
        """Done or buried, with a callback; some answers are lost."""
        for consumer, tag, job in self._next(n):
            self.forged.run(consumer, tag, job)
            callback, bury, lost = self._new(), n % 3 == 0, n % 4 == 0
            owned = self.inflight[consumer].pop(tag, None) is not None
            self.forged.finish(
                consumer, tag, buried=[tag] * bury, puts=[callback], stale=None if lost else int(not owned)
            )
            if owned:
                self._accept([callback])
            if owned and bury:
                self.dead.append(job)
                self.graves[job] = tag
            elif owned:
                self.done += 1

    def promote(self, _: int) -> None:
        self.pending += self.scheduled
        self.scheduled.clear()

    def requeue(self, _: int) -> None:
        if self.dead:
            self.forged.say("harness", "requeue.after", queue=Q, tags=[self.graves.pop(self.dead[0])])
            self.pending.append(self.dead.pop(0))

    def late(self, n: int) -> None:
        """A consumer loses its lease and does not know it."""
        self._reclaim(self._consumer(n))

    def kill(self, n: int) -> None:
        """A consumer dies, perhaps in the middle of a job; another one starts."""
        consumer = self._consumer(n)
        if n % 4 < 2:
            for _, tag, job in self._next(n):
                self.forged.begin(consumer, tag, job)
        self._reclaim(consumer)
        del self.heard[consumer], self.inflight[consumer]
        fresh = f"c{n % 2}-{self.tag}-{self.forged.now:g}"
        self.heard[fresh], self.inflight[fresh] = {}, {}

    def drain(self) -> None:
        while self.pending or self.scheduled or any(self.inflight.values()):
            for n in range(2):
                self.promote(n)
                self.take(n)
                self.reconcile(n)
                self.ack(n)

    def rest(self) -> Forged:
        held = {
            consumer: {str(tag): job for tag, job in jobs.items()} for consumer, jobs in self.inflight.items() if jobs
        }
        places = {"pending": self.pending, "scheduled": self.scheduled, "dead": self.dead}
        self.forged.rest(put=self.puts, done=self.done, inflight=held, **places)
        return self.forged

    # -- parts of steps

    def _new(self) -> str:
        self.jobs += 1
        return f"job-{self.jobs}"

    def _accept(self, jobs: list[str]) -> None:
        self.pending += jobs
        self.puts += len(jobs)

    def _consumer(self, n: int) -> str:
        return list(self.heard)[n % 2]

    def _book(self, consumer: str) -> dict[int, str]:
        jobs = {}
        for job in self.pending[:2]:
            self.tag += 1
            jobs[self.tag] = job
        del self.pending[:2]
        self.inflight[consumer].update(jobs)
        return jobs

    def _next(self, n: int) -> list[tuple[str, int, str]]:
        """The first delivery that a consumer has not settled, if there is one; it counts as settled now."""
        consumer = self._consumer(n)
        return [(consumer, tag, self.heard[consumer].pop(tag)) for tag in list(self.heard[consumer])[:1]]

    def _settle(self, n: int, verb: str, place: list[str]) -> list[tuple[int, str]]:
        """The deliveries that were accepted: tag and job."""
        accepted = []
        for consumer, tag, job in self._next(n):
            self.forged.run(consumer, tag, job, verb)
            owned = self.inflight[consumer].pop(tag, None) is not None
            if verb == "bury":
                self.forged.finish(consumer, tag, buried=[tag], stale=int(not owned))
            else:
                self.forged.settle(consumer, verb, tag, stale=int(not owned))
            if owned:
                place.append(job)
                accepted.append((tag, job))
        return accepted

    def _reclaim(self, consumer: str) -> None:
        held = self.inflight[consumer]
        self.forged.fault(inflight=len(held))
        self.pending[:0] = held.values()
        held.clear()
        self.forged.heal()


STEPS = [step for step in vars(Model) if not step.startswith("_") and step not in ("drain", "rest")]
steps = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), max_size=60)


def lived(through: list[tuple[str, int]], *afterwards: str) -> Model:
    model = Model()
    for step, n in [*through, *((step, 0) for step in afterwards)]:
        getattr(model, step)(n)
    return model


@given(steps)
def test_a_history_of_the_model_keeps_every_promise(through: list[tuple[str, int]]) -> None:
    assert lived(through).rest().check().violations == ()


@given(steps)
def test_a_drained_history_of_the_model_keeps_every_promise(through: list[tuple[str, int]]) -> None:
    model = lived(through)
    model.drain()
    assert model.rest().check(drained=True).violations == ()


# -- what one can do to a history


def moments(forged: Forged, at: str) -> list[dict[str, Any]]:
    return [line for lines in forged.files.values() for line in lines if line["at"] == at]


def remove(forged: Forged, gone: Callable[[dict[str, Any]], bool]) -> None:
    for file, lines in forged.files.items():
        forged.files[file] = [line for line in lines if not gone(line)]


def last_acked(forged: Forged) -> tuple[int, str]:
    """The last delivery that was surely acked: its tag and its job."""
    tag = [line["tags"][0] for line in moments(forged, "ack.after") if not line["stale"]][-1]
    return tag, next(line["job"] for line in moments(forged, "run.before") if line["tag"] == tag)


def state(forged: Forged) -> dict[str, Any]:
    queue: dict[str, Any] = moments(forged, "final")[0]["queues"][Q]
    return queue


def drop_an_ack(forged: Forged) -> None:
    tag, _ = last_acked(forged)
    remove(forged, lambda line: line["at"].startswith("ack.") and line["tags"] == (tag,))


def drop_a_put(forged: Forged) -> None:
    _, job = last_acked(forged)
    for line in [*moments(forged, "put.before"), *moments(forged, "put.after"), *moments(forged, "put.failed")]:
        line["jobs"] = [name for name in line["jobs"] if name != job]
    for line in [
        *moments(forged, "settle.before"),
        *moments(forged, "settle.after"),
        *moments(forged, "settle.failed"),
    ]:
        line["puts"] = [put for put in line.get("puts", ()) if put[1] != job]


def accept_a_stale_ack(forged: Forged) -> None:
    next(line for line in moments(forged, "ack.after") if line["stale"])["stale"] = 0


def put_an_accepted_job_back(forged: Forged) -> None:
    state(forged)["pending"] = [*state(forged)["pending"], last_acked(forged)[1]]


def lose_a_waiting_job(forged: Forged) -> None:
    state(forged)["pending"] = state(forged)["pending"][:-1]


def count_one_more_done(forged: Forged) -> None:
    state(forged)["done"] += 1


def count_one_less_put(forged: Forged) -> None:
    state(forged)["put"] -= state(forged)["put"] - sum(len(line["jobs"]) for line in moments(forged, "put.after")) + 1


def run_once_more(forged: Forged) -> None:
    tag, job = last_acked(forged)
    owner = next(line["consumer"] for line in moments(forged, "run.before") if line["tag"] == tag)
    for _ in range(1 + sum(line["inflight"] for line in moments(forged, "fault")) + len(forged.files) * 100):
        forged.begin(owner, tag, job)


WORKED = ("kill", "kill", "put", "take", "ack")  # afterwards an ack was surely accepted
LATE = ("kill", "kill", "put", "take", "late", "ack")  # an ack was stale


@pytest.mark.parametrize(
    ("tamper", "afterwards", "promise"),
    [
        (drop_an_ack, WORKED, "I1 LOST"),
        (drop_a_put, WORKED, "I3 INVENTED"),
        (accept_a_stale_ack, LATE, ""),
        (put_an_accepted_job_back, WORKED, "I1 DOUBLED"),
        (lose_a_waiting_job, ("put",), "I1 LOST"),
        (count_one_more_done, (), "I1 COUNTERS"),
        (count_one_less_put, (), "I1 COUNTERS"),
        (run_once_more, WORKED, "I4 DOUBLED RUNS"),
    ],
)
@given(through=steps)
def test_a_history_that_was_tampered_with_is_not_believed(
    tamper: Callable[[Forged], None], afterwards: tuple[str, ...], promise: str, through: list[tuple[str, int]]
) -> None:
    forged = lived(through, *afterwards).rest()
    tamper(forged)
    assert [found for found in forged.check().violations if found.startswith(promise)]

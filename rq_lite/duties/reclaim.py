"""Reclaims the jobs of dead consumers: they wait again, run alone, or are buried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from rq_lite.broker import Broker, Death, Named
from rq_lite.errors import BrokerOutOfMemory
from rq_lite.logs import logger, one_line
from rq_lite.model import completion
from rq_lite.model.message import Message, Undecodable, decode
from rq_lite.model.notice import Notice, written
from rq_lite.model.outcome import Finished, Retried, cancelled
from rq_lite.model.retry import SUSPECT, UNLUCKY, Failure, RetryPolicy, decide
from rq_lite.process.identity import surely_dead

log = logger("rq_lite.worker")

BATCH = 100  # jobs per step: a step keeps Redis busy for less than 1 ms, on a slow machine for less than 5
LEASE_ENDED = Death("its lease was not renewed: its machine or its supervisor is gone", worker=True)
GONE = Death("it is gone, with its supervisor", worker=True)

NO_LIMITS: Mapping[str, int] = MappingProxyType({})


class ConsumerEnd(NamedTuple):
    """How a consumer ended, and which job is to blame."""

    consumer: str
    death: Death  # `charged`: all or none
    blamed: tuple[str, Sequence[int]] | None = None  # the queue and delivery tags of what brought it down, if known
    timed_out: Sequence[tuple[str, int]] = ()  # the jobs that it was killed for
    tasks: Mapping[str, RetryPolicy] = MappingProxyType({})  # by task: what follows when a job is given up or retried


class ForHooks:
    """What hooks of the app are to be told of, between the duties and the consumers, which call them."""

    def __init__(self) -> None:
        self.wanted = False  # the app has hooks for failures: leave notices
        self.left = False  # there may be notices that no consumer was told of


class Reclaimer:
    """Reclaims for one worker. Each `reclaim_…` method returns how many jobs it has made suspects.

    1. A consumer of this worker has ended: its supervisor knows how, and which job is to blame (`reclaim_dead`).
    2. Jobs that it was killed for are ended first: cancelled, another attempt, or given up.
    3. Its other jobs go back to their queues in steps. One that is charged with the crash runs alone from the second
       crash on, and is buried with the last that its task allows. If a batch is to blame, each of its jobs is charged.
    4. A consumer of another worker is reclaimed when two checks in a row find that its lease has ended, or that its
       process on this machine is gone (`reclaim_expired`).
    5. Consumers of this machine whose processes are gone are reclaimed at once when a worker begins (`reclaim_gone`).
    6. In both cases the whole worker has died (else its supervisor would reclaim), and nothing points at the jobs: they
       are charged that apart, run alone from the fifth time on, and are buried with the `max_worker_deaths`th.
    7. If the app has hooks for failures (`for_hooks`), a notice of each run that is charged is left for a consumer.

    `between` is called between two steps: however long reclaiming takes, the leases of the living must be renewed.
    """

    def __init__(self, broker: Broker, between: Callable[[], None]) -> None:
        self._broker = broker
        self._between = between
        self.living: set[str] = set()
        self.own: set[str] = set()  # all consumers that this worker has had: `reclaim_dead` is told how they died
        self.for_hooks = ForHooks()
        self._missing: set[tuple[str, str]] = set()

    def reclaim_dead(self, end: ConsumerEnd, queues: Sequence[str]) -> int:
        """A consumer of this worker has ended: its jobs go back to their queues now."""
        self.living.discard(end.consumer)
        for name, tag in end.timed_out:
            self._end_job(end, name, tag)
        suspects = 0
        limits = {name: task.max_crashes for name, task in end.tasks.items() if task.max_crashes is not None}
        for name in queues:
            charged = end.death.charged
            if end.blamed is not None:
                queue, tags = end.blamed
                charged = ",".join(map(str, tags)) if queue == name else "none"
            suspects += self._reclaim(
                name, end.consumer, end.death._replace(charged=charged), certain=True, limits=limits
            )
        return suspects

    def _end_job(self, end: ConsumerEnd, name: str, tag: int) -> None:
        """End a job that its consumer was killed for: cancelled, another attempt, or given up."""
        for _, entry in self._broker.takes.booked(name, end.consumer, [tag]):
            try:
                message, attempts, crashes, deaths = decode(self._broker.core.opened(name, entry))
            except Undecodable:
                continue  # the consumer that takes it next buries it
            if self._broker.takes.marked(name, [message.id]):
                log.error("job %s: cancelled, and ended with its consumer", one_line(message.id))
                self._broker.takes.finish(name, end.consumer, [(tag, cancelled(message.id))])
                continue
            failure = Failure(f"JobTimeout: {end.death.how}", end.death.where)
            outcome, line = decide(
                message, attempts, crashes, end.tasks.get(message.task, RetryPolicy(0)), failure, end.consumer, deaths
            )
            number = attempts + crashes + deaths + 1
            self._leave_notice(name, entry, message, number, failure, outcome)
            log.error("%s", one_line(line))
            if isinstance(outcome, Retried):
                self._broker.takes.retry(name, end.consumer, [(tag, outcome.delay)])
                continue
            puts = completion.Puts(lambda task: end.tasks.get(task, RetryPolicy(0)).says, self._broker.core.seal)
            settled = completion.buried(message, name, number, failure, outcome, puts)
            self._broker.takes.finish(name, end.consumer, [(tag, settled)])

    def _leave_notice(
        self, name: str, entry: bytes, message: Message, number: int, failure: Failure, outcome: Retried | Finished
    ) -> None:
        """For the hooks; before the job is settled, so that a notice cannot be lost."""
        if not self.for_hooks.wanted:
            return
        delay, then = (outcome.delay / 1000, "on_retry") if isinstance(outcome, Retried) else (0.0, "on_bury")
        notice = Notice(
            id=message.id, task=message.task, attempt=number, error=failure.error, traceback=failure.traceback,
            delay=delay, next=then,
        )  # fmt: skip
        try:
            self._broker.tends.leave_notice(name, written(notice, entry))
        except BrokerOutOfMemory:  # the job must be able to end
            log.warning("job %s: no hook is called for this: Redis is at its maxmemory", one_line(message.id))
        self.for_hooks.left = True

    def _reclaim(
        self, name: str, consumer: str, death: Death, *, certain: bool, limits: Mapping[str, int] = NO_LIMITS
    ) -> int:
        """Reclaim step by step. Returns how many of its jobs have become suspects."""
        total = cursor = buried = suspects = 0
        while step := self._broker.tends.reclaim(
            name,
            consumer,
            certain=certain,
            death=death,
            most=BATCH,
            cursor=cursor,
            limits=limits,
            noting=self.for_hooks.wanted,
        ):
            total, cursor = total + step.moved, step.cursor
            buried, suspects = buried + step.buried, suspects + step.suspects
            for job in step.named:
                log.error("%s", one_line(fate(job, death)))
            self._between()
            if not step.left:
                break
        if total:
            self.for_hooks.left = True
            log.warning(
                "queue %r: jobs of dead consumer %s that wait again: %d%s%s",
                name,
                one_line(consumer),
                total - buried,
                f", {suspects} of them alone" if suspects else "",
                f"; buried as poison: {buried}" if buried else "",
            )
        return suspects

    def reclaim_expired(self, queues: Sequence[str]) -> int:
        """Reclaim from consumers whose lease has ended, or whose process here is gone, in two checks in a row."""
        dead = {}
        for name in queues:
            for consumer, left in self._broker.tends.consumers(name).items():
                if consumer in self.living:
                    continue
                gone = surely_dead(consumer)
                if left <= 0 or (gone and consumer not in self.own):
                    dead[name, consumer] = gone
        suspects = 0
        for name, consumer in self._missing & dead.keys():
            certain = dead[name, consumer]
            suspects += self._reclaim(name, consumer, GONE if certain else LEASE_ENDED, certain=certain)
        self._missing = set(dead)
        return suspects

    def reclaim_gone(self, queues: Sequence[str]) -> int:
        """Reclaim from consumers of this machine whose processes are gone, without waiting for their leases."""
        return sum(
            self._reclaim(name, consumer, GONE, certain=True)
            for name in queues
            for consumer in self._broker.tends.consumers(name)
            if consumer not in self.own and surely_dead(consumer)
        )


def fate(job: Named, death: Death) -> str:
    """What the log says of a job whose consumer died."""
    died, count = ("its whole worker died", f"worker's death {job.deaths}") if death.worker else (
        "its consumer died", f"crash {job.crashes}"
    )  # fmt: skip
    alone = job.crashes >= SUSPECT or job.deaths >= UNLUCKY
    what = "buried as poison" if job.buried else f"it runs again{', alone' if alone else ''}"
    return f"job {job.id} {job.task}: {died} while it ran, {count}; {what}"

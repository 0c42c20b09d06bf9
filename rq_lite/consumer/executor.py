"""One job through its steps: decode, find the task, restore the arguments, run, say how it ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any

import msgspec

from rq_lite import events
from rq_lite.broker.deliveries import Deliveries
from rq_lite.broker.events import id_of
from rq_lite.client.task import Task
from rq_lite.consumer.offload.pools import Pools
from rq_lite.consumer.offload.processes import Died
from rq_lite.consumer.run import check_ran
from rq_lite.consumer.slots import Expired, Slot, Stopped
from rq_lite.errors import JobTimeout
from rq_lite.logs import RateLimitedLog
from rq_lite.model import completion
from rq_lite.model.failure import RemoteFailure, beside_a_loop, describe, is_final, trace
from rq_lite.model.message import Message, Undecodable, as_is, decode, is_tracked
from rq_lite.model.outcome import Buried, Crashed, Dropped, Finished, Outcome, Parked, Retried
from rq_lite.model.policy import Policy, nanoseconds
from rq_lite.model.retry import POISON, Failure, Report, RetryPolicy, decide
from rq_lite.model.signing import Signer
from rq_lite.process.board import NEVER, SECOND

log = logging.getLogger("rq_lite.consumer")
ENDED: dict[type, str] = {
    type(None): "done", Retried: "retry", Buried: "bury", Parked: "park", Dropped: "drop", Crashed: "crash",
}  # fmt: skip


class Executor:
    """Runs jobs of the given tasks; each in a fresh contextvars context, none of them sees another's."""

    def __init__(
        self,
        tasks: Mapping[str, Task[Any, Any]],
        consumer: str,
        elsewhere: Pools,
        *,
        verbose: bool = False,
        max_result: int = 1_000_000,
        signer: Signer | None = None,
        seldom: RateLimitedLog | None = None,
    ) -> None:
        self._tasks = tasks
        self._elsewhere = elsewhere
        # Checks the signature of a queue's entry, before anything else of it is looked at.
        self._opened = None if signer is None else signer.opened
        self._consumer = consumer
        self._verbose = verbose
        self._max_result = max_result
        self._puts = completion.Puts(self._says, as_is if signer is None else signer.seal)
        self._seldom = seldom or RateLimitedLog(log)

    def run(self, slot: Slot[Any], entry: bytes) -> Outcome:
        """How the run ended. Raises nothing but Stopped, which says that the job goes back unfinished."""
        began = time.monotonic_ns()
        try:
            if self._opened is not None:
                assert slot.lane is not None
                entry = self._opened(slot.lane.queue, entry)
            message, attempts, crashes = decode(entry)
        except Undecodable as error:
            self._seldom.warn(error.said, f"buried an entry: {error.said}: {error}")
            return Report(None, None, f"{error.said}: {error}", consumer=self._consumer).buried()
        if crashes >= POISON and is_tracked(message):
            return self._poison(message, attempts, crashes, slot)
        task = self._tasks.get(message.task)
        if task is None:
            if not message.task:
                self._seldom.warn(
                    "item", f"parked: an item, which is for Queue.get, not for a worker ({self._consumer})"
                )
                return Parked("(an item, for Queue.get)")
            self._seldom.warn(
                message.task, f"parked: task {message.task!r} is not known to this worker ({self._consumer})"
            )
            return Parked(message.task)
        timeout = task.timeout_ns if message.timeout is None else nanoseconds(message.timeout)
        slot.deadline = slot.words[slot.due] = began + timeout
        try:
            if task.elsewhere:
                result = self._elsewhere.run(slot, task, message, entry, timeout)
            else:
                args, kwargs = message.args, message.kwargs
                if not task.arguments.plain:
                    args, kwargs = task.arguments.restore(args, kwargs)
                result = Context().run(task.function, *args, **kwargs)
                if result is not None:
                    check_ran(task, result)
            slot.deadline = NEVER
            ended = None
            if message.result_ttl is not None or message.then is not None:
                ended = self._ended(message, attempts + crashes + 1, slot, task, result)
        except Stopped:
            slot.deadline = NEVER
            raise
        except BaseException as error:  # also SystemExit: it would end the whole consumer
            slot.deadline = NEVER
            if slot.cancelled:
                self._seldom.warn("cancelled", f"cancelled: job {message.id} {message.task}")
                return Dropped(message.id)
            if isinstance(error, Died):
                said = f"job {message.id} {message.task}: its process {error.how}; charged a crash"
                self._seldom.warn("Crashed", said)
                return Crashed(error.how, error.where)
            if task.elsewhere:
                began = slot.began
            failure = failed(error, timeout / SECOND, (time.monotonic_ns() - began) / SECOND)
            if not task.elsewhere:
                failure = beside_a_loop(error, failure)
            return self._judged(message, attempts, crashes, chances(task.policy, error), failure, slot)
        if self._verbose:
            log.info("done %s %s in %.3f s", message.id, message.task, (time.monotonic_ns() - began) / SECOND)
        # The last line, and the only one that says "done": a run that was cut short anywhere is not.
        return ended

    def _ended(self, message: Message, attempts: int, slot: Slot[Any], task: Task[Any, Any], result: Any) -> Finished:
        # From another process it comes as it is to be kept.
        raw = isinstance(result, msgspec.Raw)
        text = bytes(result) if raw else completion.encoded(message, result, task.arguments, self._max_result)
        return completion.done(message, queue_of(slot), attempts, text, self._puts)

    def _judged(
        self, message: Message, attempts: int, crashes: int, chances: RetryPolicy, failure: Failure, slot: Slot[Any]
    ) -> Outcome:
        outcome, line = decide(message, attempts, crashes, chances, failure, self._consumer)
        kind = failure.error.partition(":")[0]
        self._seldom.warn(f"{message.task}: {kind}, {ended_as(outcome)}", line)
        if isinstance(outcome, Buried):
            return completion.buried(message, queue_of(slot), attempts + crashes + 1, failure, outcome, self._puts)
        return outcome

    def _poison(self, message: Message, attempts: int, crashes: int, slot: Slot[Any]) -> Outcome:
        """Too many consumers have died of it; it comes here once more only for its callbacks, and is not run."""
        failure = Failure(f"poison: {crashes} consumers died while it ran")
        outcome = Report(
            message.id, message.task, failure.error, "", attempts + crashes, crashes, self._consumer
        ).buried()
        self._seldom.warn("poison", f"job {message.id} {message.task}: {failure.error}; buried")
        return completion.buried(message, queue_of(slot), attempts + crashes, failure, outcome, self._puts)

    def _says(self, name: str) -> dict[str, Any]:
        """What a put of this task says beside its arguments, where this worker knows it."""
        task = self._tasks.get(name)
        return {} if task is None else task.says


def watched(
    run: Callable[[Slot[Deliveries], bytes], Outcome], consumer: str
) -> Callable[[Slot[Deliveries], bytes], Outcome]:
    """The same, with the moments `run.before` and `run.after`."""

    def told(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        assert slot.lane is not None
        facts = {"consumer": consumer, "queue": queue_of(slot), "tag": slot.tag, "job": id_of(entry)}
        ended = "cut"
        events.emit("run.before", None, **facts)
        try:
            outcome = run(slot, entry)
            ended = ended_as(outcome)
        finally:
            events.emit("run.after", None, **facts, outcome=ended)
        return outcome

    return told


def queue_of(slot: Slot[Any]) -> str:
    assert slot.lane is not None
    queue: str = slot.lane.queue
    return queue


def ended_as(outcome: Outcome) -> str:
    """A word for the history."""
    if isinstance(outcome, Finished):
        return "bury" if outcome.report else "done"
    return ENDED[type(outcome)]


def chances(policy: Policy, error: BaseException) -> RetryPolicy:
    """How often a job that raised this is tried again."""
    if isinstance(error, RemoteFailure):
        final = error.final
    else:
        final = is_final(policy, JobTimeout() if isinstance(error, Expired) else error)
    return RetryPolicy(policy.retries, policy.backoff, policy.backoff_max, final)


def failed(error: BaseException, timeout: float, seconds: float) -> Failure:
    """The error in words."""
    if isinstance(error, RemoteFailure):
        return error.failure
    if isinstance(error, Expired):
        said = error.said or f"soft limit of {timeout:g} s: not done after {seconds:.1f} s"
        return Failure(f"JobTimeout: {said}", error.where or trace(error), seconds)
    return describe(error, seconds)

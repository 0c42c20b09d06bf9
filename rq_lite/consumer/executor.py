"""One job through its steps: decode, find the task, restore the arguments, run, return the outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rq_lite import events
from rq_lite.broker.deliveries import Deliveries
from rq_lite.broker.events import id_of
from rq_lite.client.middleware import JobEvent, WorkerEvent, emit
from rq_lite.client.registry import near_miss
from rq_lite.client.task import Task
from rq_lite.consumer.offload.pools import Pools
from rq_lite.consumer.offload.processes import Died
from rq_lite.consumer.run import Attempt, Outcomes, chances, failed, runner
from rq_lite.consumer.slots import Slot, Stopped
from rq_lite.logs import RateLimitedLog, logger, one_line
from rq_lite.model import notice
from rq_lite.model.failure import beside_a_loop, error_text
from rq_lite.model.message import VERSION, Message, Newer, Undecodable, as_is, decode, has_expired, is_tracked
from rq_lite.model.outcome import Crashed, Finished, Outcome, Parked, Retried, cancelled
from rq_lite.model.policy import nanoseconds
from rq_lite.model.retry import Failure, Limits, Report
from rq_lite.model.signing import Signer
from rq_lite.process.board import NEVER, SECOND

log = logger("rq_lite.consumer")
ENDED: dict[type, str] = {type(None): "done", Retried: "retry", Parked: "park", Crashed: "crash"}
FINISHED = {"done": "done", "failed": "bury", "cancelled": "drop", "expired": "expire"}  # by the state
BRACE = ord("{")
AFTER_FAILURE = ("on_retry", "on_bury")


class Executor:
    """Runs jobs of the given tasks, each in a fresh contextvars context."""

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
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        self._tasks = tasks
        self._elsewhere = elsewhere
        # Checks an entry's signature, before anything else of the entry is read.
        self._opened = None if signer is None else signer.opened
        self._consumer = consumer
        self._verbose = verbose
        self._run_once = runner()
        self._outcomes = Outcomes(
            tasks, consumer, as_is if signer is None else signer.seal, max_result, emit_between_jobs
        )
        self._seldom = seldom or RateLimitedLog(log)
        self._limits = limits

    def run(self, slot: Slot[Any], entry: bytes) -> Outcome:
        """Run a job; return its outcome. Raises only Stopped: the job is then given back unfinished."""
        began = time.monotonic_ns()
        try:
            if self._opened is not None:
                assert slot.lane is not None
                entry = self._opened(slot.lane.queue, entry)
            message, attempts, crashes, deaths = decode(entry)
        except Undecodable as error:
            return self._unread(error)
        task = self._tasks.get(message.task)
        headed = entry[0] != BRACE  # most entries are their JSON alone
        if headed:
            if (crashes or deaths) and is_tracked(message):
                of_task = None if task is None else task.policy.max_crashes
                if self._limits.reached(of_task, crashes, deaths):
                    return self._poisoned(Attempt(message, queue_of(slot), attempts, crashes, deaths))
            if message.expires is not None and has_expired(entry):
                return self._outcomes.expired(Attempt(message, queue_of(slot), attempts, crashes, deaths))
        if task is None:
            return self._parked(message.task)
        timeout = task.timeout_ns if message.timeout is None else nanoseconds(message.timeout)
        slot.deadline = slot.words[slot.due] = began + timeout
        try:
            if task.elsewhere:
                result = self._elsewhere.run(slot, task, message, entry, timeout)
            else:
                run_once = self._run_once  # a local name: CPython calls it 40 ns faster than an attribute
                result = run_once(task, message, None)
            slot.deadline = NEVER
            ended = None
            follow_ups = () if slot.current is None else follow_ups_of(slot)
            if headed or follow_ups or message.result_ttl is not None or message.then is not None:
                attempt = Attempt(message, queue_of(slot), attempts, crashes, deaths)
                is_json = task.policy.run_in == "process"
                ended = self._outcomes.returned(attempt, task, result, is_json=is_json, follow_ups=follow_ups)
        except Stopped:
            slot.deadline = NEVER
            raise
        except BaseException as error:  # also SystemExit: it would end the whole consumer
            slot.deadline = NEVER
            seconds = (time.monotonic_ns() - (slot.began if task.elsewhere else began)) / SECOND
            attempt = Attempt(message, queue_of(slot), attempts, crashes, deaths)
            return self._raised(slot, attempt, task, error, timeout, seconds)
        if self._verbose:
            log.info("done %s %s in %.3f s", one_line(message.id), message.task, (time.monotonic_ns() - began) / SECOND)
        # The last line, and the only one that means "done": a run that was cut short anywhere does not get here.
        return ended

    def tell(self, queue: str, left: bytes) -> None:
        """Call the hooks for a failed run that a supervisor settled, of which it has left this notice."""
        found = notice.read(left)
        if found is None:
            return
        said, entry = found
        message = Message(VERSION, said.id, said.task)
        if entry:
            try:
                message = decode(entry if self._opened is None else self._opened(queue, entry))[0]
            except Undecodable:
                return
        attempt, failure = Attempt(message, queue, said.attempt - 1, 0), Failure(said.error, said.traceback)
        self._outcomes.tell("on_failure", attempt, failure)
        if said.next in AFTER_FAILURE:
            self._outcomes.tell(said.next, attempt, failure, said.delay if said.next == "on_retry" else None)

    def _parked(self, task: str) -> Parked:
        if not task:
            self._seldom.warn("item", f"parked: an item, which is for Queue.get, not for a worker ({self._consumer})")
            return Parked("(an item, for Queue.get)")
        near = near_miss(task, self._tasks)
        reason = f"; it knows {near!r}, which may be the same: name APP as the producers import it" if near else ""
        self._seldom.warn(task, f"parked: task {task!r} is not known to this worker ({self._consumer}){reason}")
        return Parked(task)

    def _unread(self, error: Undecodable) -> Outcome:
        if isinstance(error, Newer):
            self._seldom.warn(error.what, f"parked: a job with {error} ({self._consumer}); a newer worker can run it")
            return Parked(f"({error.what})")
        self._seldom.warn(error.said, f"buried an entry: {error.said}: {error}")
        return Report(None, None, f"{error.said}: {error}", consumer=self._consumer).buried()

    def _raised(
        self,
        slot: Slot[Any],
        attempt: Attempt,
        task: Task[Any, Any],
        error: BaseException,
        timeout: int,
        seconds: float,
    ) -> Outcome:
        message = attempt.message
        if slot.cancelled:
            self._seldom.warn("cancelled", f"cancelled: job {message.id} {message.task}")
            return cancelled(message.id)
        if isinstance(error, Died):
            self._seldom.warn("Crashed", f"job {message.id} {message.task}: its process {error.how}; charged a crash")
            most = self._limits.crashes_of(task.policy.max_crashes)
            self._outcomes.crashed(attempt, Failure(f"Crashed: its process {error.how}", error.where, seconds), most)
            return Crashed(error.how, error.where, most)
        failure = failed(error, timeout / SECOND, seconds)
        if task.policy.run_in == "greenlet":
            failure = beside_a_loop(error, failure)
        outcome, line = self._outcomes.raised(attempt, chances(task.policy, error), failure)
        kind = failure.error.partition(":")[0]
        self._seldom.warn(f"{message.task}: {kind}, {ended_as(outcome)}", line)
        return outcome

    def _poisoned(self, attempt: Attempt) -> Outcome:
        """Too much died while it ran. It was taken once more only for its callbacks, and is not run."""
        outcome, line = self._outcomes.poisoned(attempt)
        self._seldom.warn("poison", line)
        return outcome


def emit_between_jobs(name: str, event: JobEvent | WorkerEvent) -> None:
    """Call hooks between jobs. An exception there, say a gevent.Timeout that a job has left behind, is only logged.

    Raises Stopped.
    """
    try:
        emit(name, event)
    except Stopped:
        raise
    except BaseException as error:
        log.warning("hooks %s: cut short by %s", name, one_line(error_text(error)) or type(error).__name__)


def watched(
    run: Callable[[Slot[Deliveries], bytes], Outcome], consumer: str
) -> Callable[[Slot[Deliveries], bytes], Outcome]:
    """`run` with the events `run.before` and `run.after`."""

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


def follow_ups_of(slot: Slot[Any]) -> Sequence[tuple[str, bytes]]:
    """What is to be put if Redis accepts the run of this slot, which has ended: queue and entry."""
    (tag, current), slot.current = slot.current, None
    return current.take_follow_ups() if tag == slot.tag else ()


def queue_of(slot: Slot[Any]) -> str:
    assert slot.lane is not None
    queue: str = slot.lane.queue
    return queue


def ended_as(outcome: Outcome) -> str:
    """A word for the history."""
    if isinstance(outcome, Finished):
        return FINISHED[outcome.state]
    return ENDED[type(outcome)]

"""One job through its steps: decode, find the task, restore the arguments, run, say how it ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any

from rq_lite import moments
from rq_lite.broker.codec import Message, Undecodable, decode
from rq_lite.broker.telling import id_of
from rq_lite.errors import JobTimeout
from rq_lite.outcome import Buried, Crashed, Outcome, Parked, Retried
from rq_lite.runtime.board import NEVER, SECOND
from rq_lite.runtime.consumer import Lane
from rq_lite.runtime.elsewhere import Elsewhere
from rq_lite.runtime.engines import Died
from rq_lite.runtime.failures import Reported, described, is_final, trace
from rq_lite.runtime.seldom import Seldom
from rq_lite.runtime.slots import Expired, Slot, Stopped
from rq_lite.runtime.verdict import Chances, Failure, Report, judge
from rq_lite.task import Policy, Task, nanoseconds

log = logging.getLogger("rq_lite.consumer")
ENDED: dict[type, str] = {type(None): "done", Retried: "retry", Buried: "bury", Parked: "park", Crashed: "crash"}


class Executor:
    """Runs jobs of the given tasks; each in a fresh contextvars context, none of them sees another's."""

    def __init__(
        self, tasks: Mapping[str, Task[Any, Any]], consumer: str, elsewhere: Elsewhere, *, verbose: bool = False
    ) -> None:
        self._tasks = tasks
        self._elsewhere = elsewhere
        self._consumer = consumer
        self._verbose = verbose
        self._seldom = Seldom(log)

    def run(self, slot: Slot[Any], entry: bytes) -> Outcome:
        """How the run ended. Raises nothing but Stopped, which says that the job goes back unfinished."""
        began = time.monotonic_ns()
        try:
            message, attempts, crashes = decode(entry)
        except Undecodable as error:
            self._seldom.warn("undecodable", f"buried an entry that is no job: {error}")
            return Report(None, None, f"not a job: {error}", consumer=self._consumer).buried()
        task = self._tasks.get(message.task)
        if task is None:
            self._seldom.warn(
                message.task, f"parked: task {message.task!r} is not known to this worker ({self._consumer})"
            )
            return Parked(message.task)
        timeout = task.timeout_ns if message.timeout is None else nanoseconds(message.timeout)
        slot.deadline = slot.words[slot.due] = began + timeout
        try:
            if task.elsewhere:
                self._elsewhere.run(slot, task, message, entry, timeout)
            else:
                args, kwargs = message.args, message.kwargs
                if not task.arguments.plain:
                    args, kwargs = task.arguments.restore(args, kwargs)
                Context().run(task.function, *args, **kwargs)
            slot.deadline = NEVER
        except Stopped:
            slot.deadline = NEVER
            raise
        except Died as death:
            slot.deadline = NEVER
            self._seldom.warn("Crashed", f"job {message.id} {message.task}: its process {death.how}; charged a crash")
            return Crashed(death.how, death.where)
        except BaseException as error:  # also SystemExit: it would end the whole consumer
            slot.deadline = NEVER
            if task.elsewhere:
                began = slot.began
            failure = failed(error, timeout / SECOND, (time.monotonic_ns() - began) / SECOND)
            return self._judged(message, attempts, crashes, chances(task.policy, error), failure)
        if self._verbose:
            log.info("done %s %s in %.3f s", message.id, message.task, (time.monotonic_ns() - began) / SECOND)
        # The last line, and the only one that says "done": a run that was cut short anywhere is not.
        return None

    def _judged(self, message: Message, attempts: int, crashes: int, chances: Chances, failure: Failure) -> Outcome:
        outcome, line = judge(message, attempts, crashes, chances, failure, self._consumer)
        self._seldom.warn(type(outcome).__name__, line)
        return outcome


def watched(run: Callable[[Slot[Lane], bytes], Outcome], consumer: str) -> Callable[[Slot[Lane], bytes], Outcome]:
    """The same, with the moments `run.before` and `run.after`."""

    def told(slot: Slot[Lane], entry: bytes) -> Outcome:
        assert slot.lane is not None
        facts = {"consumer": consumer, "queue": slot.lane.queue, "tag": slot.tag, "job": id_of(entry)}
        ended = "cut"
        moments.reach("run.before", None, **facts)
        try:
            outcome = run(slot, entry)
            ended = ENDED[type(outcome)]
        finally:
            moments.reach("run.after", None, **facts, outcome=ended)
        return outcome

    return told


def chances(policy: Policy, error: BaseException) -> Chances:
    """How often a job that raised this is tried again."""
    if isinstance(error, Reported):
        final = error.final
    else:
        final = is_final(policy, JobTimeout() if isinstance(error, Expired) else error)
    return Chances(policy.retries, policy.backoff, policy.backoff_max, final)


def failed(error: BaseException, timeout: float, seconds: float) -> Failure:
    """The error in words."""
    if isinstance(error, Reported):
        return error.failure
    if isinstance(error, Expired):
        said = error.said or f"soft limit of {timeout:g} s: not done after {seconds:.1f} s"
        return Failure(f"JobTimeout: {said}", error.where or trace(error), seconds)
    return described(error, seconds)

"""One run of a job, the same wherever it happens: in a slot's greenlet, in a thread, in an engine, or inline in a test.

    1. decode, find   its entry becomes a message, and that names a task; what there is to do where either cannot be is
                      the caller's to say: a consumer buries or parks, a test is told
    2. run_once       the arguments are restored, the function is called, and what it gave is looked at
    3. failed         what was raised, in words
    4. Outcomes       what follows: a result with callbacks, another attempt, or the dead set

Knows neither gevent nor Redis: engines and tests have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NamedTuple

from rq_lite.client.current import CurrentJob, given
from rq_lite.client.task import Task
from rq_lite.errors import JobTimeout
from rq_lite.model import completion
from rq_lite.model.completion import BadResult
from rq_lite.model.failure import RemoteFailure, describe, is_final, trace
from rq_lite.model.message import Message, is_tracked
from rq_lite.model.outcome import Buried, Finished, Retried
from rq_lite.model.policy import Policy
from rq_lite.model.retry import Failure, Report, RetryPolicy, decide

# What is returned by functions that were called and have not run.
UNRUN = {CoroutineType: "a coroutine", AsyncGeneratorType: "an async generator", GeneratorType: "a generator"}


class Expired(BaseException):
    """Raised in a job at its deadline. Private: a class that jobs or libraries catch would be retried away.

    Tracebacks show it as what the job is said to have failed of. `said` and `where`: what to report instead, and the
    traceback, of a job that ran in another process.
    """

    __module__, __qualname__ = JobTimeout.__module__, JobTimeout.__qualname__

    def __init__(self, said: str = "", where: str = "") -> None:
        super().__init__(said or "the job's time is up")
        self.said = said
        self.where = where


class Attempt(NamedTuple):
    """One run of a job; `attempts` and `crashes` are those before it."""

    message: Message
    queue: str
    attempts: int
    crashes: int

    @property
    def number(self) -> int:
        """Which run of the job it is; the first is 1."""
        return self.attempts + self.crashes + 1


def run_once(task: Task[Any, Any], message: Message, current: CurrentJob | None = None) -> Any:
    """What the function returns. Raises what it raises; ValidationError for arguments that are not its; BadResult.

    It runs in a fresh context, where it finds `current`; a slot's greenlet hands none over, since `current_job` finds
    its slot there.
    """
    args, kwargs = message.args, message.kwargs
    if not task.arguments.plain:
        args, kwargs = task.arguments.restore(args, kwargs)
    context = Context()
    if current is not None:
        context.run(given.set, current)
    result = context.run(task.function, *args, **kwargs)
    if result is not None:
        check_ran(task, result)
    return result


def check_ran(task: Task[Any, Any], result: Any) -> None:
    """Raises BadResult for what a wrapped `async def` or generator returns: such a job has done nothing."""
    kind = UNRUN.get(type(result))
    if kind is None:
        return
    if isinstance(result, CoroutineType):
        result.close()  # or Python warns that nobody awaited it
    raise BadResult(f"{task.name} returned {kind}, which nothing runs; jobs are plain functions")


def failed(error: BaseException, timeout: float, seconds: float) -> Failure:
    """The error of a run in words. `timeout`: seconds that the run had; `seconds`: that it took."""
    if isinstance(error, RemoteFailure):
        return error.failure
    if isinstance(error, Expired):
        said = error.said or f"soft limit of {timeout:g} s: not done after {seconds:.1f} s"
        return Failure(f"JobTimeout: {said}", error.where or trace(error), seconds)
    return describe(error, seconds)


def chances(policy: Policy, error: BaseException) -> RetryPolicy:
    """How often a job that raised this is tried again."""
    if isinstance(error, RemoteFailure):
        final = error.final
    else:
        final = is_final(policy, JobTimeout() if isinstance(error, Expired) else error)
    return RetryPolicy(policy.retries, policy.backoff, policy.backoff_max, final)


class Outcomes:
    """What the runs of jobs lead to. `consumer` stands in the reports; `seal` signs the callbacks of a queue."""

    def __init__(
        self,
        tasks: Mapping[str, Task[Any, Any]],
        consumer: str,
        seal: Callable[[str, bytes], bytes],
        max_result: int,
    ) -> None:
        self._tasks = tasks
        self._consumer = consumer
        self._max_result = max_result
        self._puts = completion.Puts(self._says, seal)

    def returned(
        self, attempt: Attempt, task: Task[Any, Any], result: Any, *, is_json: bool = False
    ) -> Finished | None:
        """The function has returned: None unless the job is tracked. Raises BadResult; an engine's result `is_json`."""
        message = attempt.message
        if not is_tracked(message):
            return None
        text = bytes(result) if is_json else completion.encoded(message, result, task.arguments, self._max_result)
        return completion.done(message, attempt.queue, attempt.number, text, self._puts)

    def raised(
        self, attempt: Attempt, chances: RetryPolicy, failure: Failure
    ) -> tuple[Retried | Buried | Finished, str]:
        """The run has failed: what to settle, and a line for the log."""
        outcome, line = decide(attempt.message, attempt.attempts, attempt.crashes, chances, failure, self._consumer)
        if isinstance(outcome, Buried):
            return self._buried(attempt, attempt.number, failure, outcome), line
        return outcome, line

    def poisoned(self, attempt: Attempt) -> tuple[Buried | Finished, str]:
        """Consumers have died of the job: it is not run any more. What to settle, and a line for the log."""
        message, begun = attempt.message, attempt.attempts + attempt.crashes
        failure = Failure(f"poison: {attempt.crashes} consumers died while it ran")
        report = Report(message.id, message.task, failure.error, "", begun, attempt.crashes, self._consumer)
        outcome = self._buried(attempt, begun, failure, report.buried())
        return outcome, f"job {message.id} {message.task}: {failure.error}; buried"

    def _buried(self, attempt: Attempt, begun: int, failure: Failure, outcome: Buried) -> Buried | Finished:
        return completion.buried(attempt.message, attempt.queue, begun, failure, outcome, self._puts)

    def _says(self, name: str) -> dict[str, Any]:
        """What a put of this task says beside its arguments, where this process knows it."""
        task = self._tasks.get(name)
        return {} if task is None else task.says

"""One run of a job, the same wherever it happens: in a slot's greenlet, in a thread, in an engine, or inline in a test.

    1. decode, find   its entry becomes a message, and that names a task; what there is to do where either cannot be is
                      the caller's to say: a consumer buries or parks, a test is told
    2. run_once       the arguments are restored, the function is called, and what it gave is looked at; where the app
                      has hooks around runs it is run_with_hooks, as `runner` says once
    3. failed         what was raised, in words
    4. Outcomes       what follows: a result with callbacks, another attempt, or the dead set

Knows neither gevent nor Redis: engines and tests have none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NamedTuple

import msgspec

from rq_lite.client.current import CurrentJob, current_job, given
from rq_lite.client.middleware import JobEvent, WorkerEvent, emit, registered
from rq_lite.client.task import Task
from rq_lite.errors import JobTimeout
from rq_lite.model import completion
from rq_lite.model.completion import BadResult
from rq_lite.model.failure import RemoteFailure, describe, is_final, trace
from rq_lite.model.message import Message, is_tracked
from rq_lite.model.outcome import Finished, Retried
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


def run_once(task: Task[Any, Any], message: Message, current: CurrentJob | None) -> Any:
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
    # Without ** where there is nothing for it: most jobs have none, and it costs as much as this whole function.
    result = context.run(task.function, *args, **kwargs) if kwargs else context.run(task.function, *args)
    if result is not None:
        check_ran(task, result)
    return result


def run_with_hooks(task: Task[Any, Any], message: Message, current: CurrentJob | None) -> Any:
    """The same with the hooks before_run and after_run, in the job's own context and time."""
    event = run_event(task, message, current or current_job())
    return Context().run(_run_with_hooks, task, message, current, event)


def _run_with_hooks(task: Task[Any, Any], message: Message, current: CurrentJob | None, event: JobEvent) -> Any:
    if current is not None:
        given.set(current)
    emit("before_run", event)
    pid, began = os.getpid(), time.monotonic()

    def after(error: BaseException | None) -> None:
        if os.getpid() == pid:  # else it has forked, and this is the copy
            seconds = time.monotonic() - began
            emit("after_run", msgspec.structs.replace(event, seconds=seconds, exception=error))

    try:
        args, kwargs = task.arguments.restore(message.args, message.kwargs)
        result = task.function(*args, **kwargs)
        check_ran(task, result)
    except BaseException as error:
        after(error)
        raise
    after(None)
    return result


def run_event(task: Task[Any, Any], message: Message, current: CurrentJob | None) -> JobEvent:
    """The run, for its hooks."""
    return JobEvent(
        id=message.id,
        queue=task.queue.name if current is None else current.queue,
        task=message.task,
        args=tuple(message.args),
        kwargs=dict(message.kwargs),
        attempt=1 if current is None else current.attempt,
    )


def runner() -> Callable[..., Any]:
    """What runs jobs in this process: run_once, unless the app has hooks around runs. Ask once the app is imported."""
    return run_with_hooks if registered.runs else run_once


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
    """What the runs of jobs lead to. `consumer` stands in the reports; `seal` signs the callbacks of a queue.

    The hooks on_failure, on_retry and on_bury are called here, by `emit`.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task[Any, Any]],
        consumer: str,
        seal: Callable[[str, bytes], bytes],
        max_result: int,
        emit: Callable[[str, JobEvent | WorkerEvent], None] = emit,
    ) -> None:
        self._tasks = tasks
        self._consumer = consumer
        self._max_result = max_result
        self._emit = emit
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

    def raised(self, attempt: Attempt, chances: RetryPolicy, failure: Failure) -> tuple[Retried | Finished, str]:
        """The run has failed: what to settle, and a line for the log."""
        outcome, line = decide(attempt.message, attempt.attempts, attempt.crashes, chances, failure, self._consumer)
        self.tell("on_failure", attempt, failure)
        if isinstance(outcome, Finished):
            self.tell("on_bury", attempt, failure)
            return self._buried(attempt, attempt.number, failure, outcome), line
        self.tell("on_retry", attempt, failure, outcome.delay / 1000)
        return outcome, line

    def poisoned(self, attempt: Attempt) -> tuple[Finished, str]:
        """Consumers have died of the job: it is not run any more. What to settle, and a line for the log."""
        message, begun = attempt.message, attempt.attempts + attempt.crashes
        failure = Failure(f"poison: {attempt.crashes} consumers died while it ran")
        report = Report(message.id, message.task, failure.error, "", begun, attempt.crashes, self._consumer)
        self.tell("on_bury", attempt._replace(crashes=attempt.crashes - 1), failure)  # of its last run
        outcome = self._buried(attempt, begun, failure, report.buried())
        return outcome, f"job {message.id} {message.task}: {failure.error}; buried"

    def tell(self, name: str, attempt: Attempt, failure: Failure, delay: float | None = None) -> None:
        """Call the hooks of this name, if there are any."""
        if not registered.hooks[name]:
            return
        message = attempt.message
        event = JobEvent(
            id=message.id,
            queue=attempt.queue,
            task=message.task,
            args=tuple(message.args),
            kwargs=dict(message.kwargs),
            attempt=attempt.number,
            seconds=failure.seconds,
            error=failure.error,
            traceback=failure.traceback,
            delay=delay,
        )
        self._emit(name, event)

    def _buried(self, attempt: Attempt, begun: int, failure: Failure, outcome: Finished) -> Finished:
        return completion.buried(attempt.message, attempt.queue, begun, failure, outcome, self._puts)

    def _says(self, name: str) -> dict[str, Any]:
        """What a put of this task says beside its arguments, where this process knows it."""
        task = self._tasks.get(name)
        return {} if task is None else task.says

"""One run of a job, the same wherever it happens: in a slot's greenlet, in a thread, in an engine, or inline in a test.

    1. decode, find   the entry becomes a message, which names a task; if either fails the caller decides: a consumer
                      buries or parks the job, a test gets an error
    2. run_once       the arguments are restored, the function is called, and its result is checked; run_with_hooks,
                      if the app has hooks around runs (`runner` chooses once); run_batch, for several jobs in one call
    3. failed         the error as text
    4. Outcomes       what follows: a result with callbacks, another attempt, or the dead set

Knows neither gevent nor Redis: engines and tests have none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NamedTuple

import msgspec

from rq_lite.client.current import CurrentJob, current_job, given
from rq_lite.client.middleware import JobEvent, WorkerEvent, emit, event_of, registered
from rq_lite.client.registry import says_of
from rq_lite.client.task import Task
from rq_lite.errors import BatchFailed, JobTimeout, counted
from rq_lite.model import completion
from rq_lite.model.batch import Ran, failed_apart, failed_by, sorted_out
from rq_lite.model.completion import BadResult
from rq_lite.model.failure import RemoteFailure, describe, is_final, trace
from rq_lite.model.message import Message, is_tracked
from rq_lite.model.outcome import Finished, Retried
from rq_lite.model.policy import Policy
from rq_lite.model.retry import Failure, Report, RetryPolicy, decide

# What a call returns without running the function's body.
UNRUN = {CoroutineType: "a coroutine", AsyncGeneratorType: "an async generator", GeneratorType: "a generator"}


class Expired(BaseException):
    """Raised in a job at its deadline. Private: jobs and libraries might catch a public class and retry it away.

    Tracebacks show it as JobTimeout, the error that is reported. `said` and `where`: the text and the traceback to
    report for a job that ran in another process.
    """

    __module__, __qualname__ = JobTimeout.__module__, JobTimeout.__qualname__

    def __init__(self, said: str = "", where: str = "") -> None:
        super().__init__(said or "the job's time is up")
        self.said = said
        self.where = where


class Attempt(NamedTuple):
    """One run of a job; `attempts`, `crashes` and `deaths` (of whole workers) are those before it."""

    message: Message
    queue: str
    attempts: int
    crashes: int
    deaths: int = 0

    @property
    def number(self) -> int:
        """Which run of the job it is; the first is 1."""
        return self.attempts + self.crashes + self.deaths + 1


def run_once(task: Task[Any, Any], message: Message, current: CurrentJob | None) -> Any:
    """Call the task's function; its result. Raises what it raises; ValidationError for unfit arguments; BadResult.

    It runs in a fresh context that holds `current`. In a slot's greenlet that is None: `current_job` finds the slot.
    """
    args, kwargs = message.args, message.kwargs
    if not task.arguments.plain:
        args, kwargs = task.arguments.restore(args, kwargs)
    context = Context()
    if current is not None:
        context.run(given.set, current)
    # No ** without kwargs: most jobs have none, and ** costs as much as this whole function.
    result = context.run(task.function, *args, **kwargs) if kwargs else context.run(task.function, *args)
    if result is not None:
        check_ran(task, result)
    return result


def run_with_hooks(task: Task[Any, Any], message: Message, current: CurrentJob | None) -> Any:
    """`run_once` with the hooks before_run and after_run, in the job's own context and time."""
    event = run_event(task, message, current or current_job())
    return Context().run(_run_with_hooks, task, message, current, event)


def _run_with_hooks(task: Task[Any, Any], message: Message, current: CurrentJob | None, event: JobEvent) -> Any:
    if current is not None:
        given.set(current)
    emit("before_run", event)
    pid, began = os.getpid(), time.monotonic()

    def after(error: BaseException | None) -> None:
        if os.getpid() == pid:  # else the job has forked, and this is the child
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
    """The run, as its hooks get it."""
    queue, attempt = (task.queue.name, 1) if current is None else (current.queue, current.attempt)
    return event_of(message, queue, attempt)


def runner() -> Callable[..., Any]:
    """The function that runs jobs: run_with_hooks if the app has hooks around runs. Call it after the app's import."""
    return run_with_hooks if registered.runs else run_once


def run_batch(task: Task[Any, Any], attempts: Sequence[Attempt], elements: Sequence[Any]) -> list[Ran]:
    """Call the function once for these jobs, with a list of their elements: how each has ended. Raises nothing.

    It runs in a fresh context without a `current_job`. The hooks before_run and after_run are called for each job.
    """
    try:
        if registered.runs:
            return Context().run(_batch_with_hooks, task, attempts, elements)
        return Context().run(_run_batch, task, elements)
    except BaseException as error:
        return [failed_by(error)] * len(elements)


def _run_batch(task: Task[Any, Any], elements: Sequence[Any]) -> list[Ran]:
    """Raises what is every job's error."""
    try:
        returned = task.function([*elements])
        check_ran(task, returned)
        return sorted_out(task.name, len(elements), returned)
    except BatchFailed as failed:
        return failed_apart(task.name, len(elements), failed)


def _batch_with_hooks(task: Task[Any, Any], attempts: Sequence[Attempt], elements: Sequence[Any]) -> list[Ran]:
    events = [event_of(one.message, one.queue, one.number) for one in attempts]
    for event in events:
        emit("before_run", event)
    pid, began = os.getpid(), time.monotonic()
    try:
        ran = _run_batch(task, elements)
    except BaseException as error:
        ran = [failed_by(error)] * len(elements)
    if os.getpid() == pid:  # else the job has forked, and this is the child
        seconds = time.monotonic() - began
        for event, one in reversed([*zip(events, ran, strict=True)]):
            emit("after_run", msgspec.structs.replace(event, seconds=seconds, exception=one.error))
    return ran


def check_ran(task: Task[Any, Any], result: Any) -> None:
    """Raises BadResult for what a wrapped `async def` or generator returns: such a job has done nothing."""
    kind = UNRUN.get(type(result))
    if kind is None:
        return
    if isinstance(result, CoroutineType):
        result.close()  # or Python warns that it was never awaited
    raise BadResult(f"{task.name} returned {kind}, which nothing runs; jobs are plain functions")


def failed(error: BaseException, timeout: float, seconds: float) -> Failure:
    """The error of a run as text. `timeout`: seconds that the run had; `seconds`: that it took."""
    if isinstance(error, RemoteFailure):
        return error.failure
    if isinstance(error, Expired):
        said = error.said or f"soft limit of {timeout:g} s: not done after {seconds:.1f} s"
        return Failure(f"JobTimeout: {said}", error.where or trace(error), seconds)
    return describe(error, seconds)


def chances(policy: Policy, error: BaseException) -> RetryPolicy:
    """The retry policy of a job that raised this."""
    if isinstance(error, RemoteFailure):
        final = error.final
    else:
        final = is_final(policy, JobTimeout() if isinstance(error, Expired) else error)
    return RetryPolicy(policy.retries, policy.backoff, policy.backoff_max, final)


class Outcomes:
    """Makes outcomes of runs. `consumer` is named in reports; `seal` signs a callback for its queue.

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
        self._consumer = consumer
        self._max_result = max_result
        self._emit = emit
        self._puts = completion.Puts(says_of(tasks), seal)

    def returned(
        self,
        attempt: Attempt,
        task: Task[Any, Any],
        result: Any,
        *,
        is_json: bool = False,
        follow_ups: Sequence[tuple[str, bytes]] = (),
    ) -> Finished | None:
        """The function has returned: the outcome; None if an ack will do: not tracked, no follow-ups. Raises BadResult.

        `is_json`: the result comes from an engine, as JSON.
        """
        message = attempt.message
        if not is_tracked(message):
            return Finished("done", puts=follow_ups) if follow_ups else None
        text = bytes(result) if is_json else completion.encoded(message, result, task.arguments, self._max_result)
        ended = completion.done(message, attempt.queue, attempt.number, text, self._puts)
        return ended._replace(puts=[*ended.puts, *follow_ups]) if follow_ups else ended

    def raised(self, attempt: Attempt, chances: RetryPolicy, failure: Failure) -> tuple[Retried | Finished, str]:
        """The run has failed: its outcome, and a line for the log."""
        outcome, line = decide(
            attempt.message, attempt.attempts, attempt.crashes, chances, failure, self._consumer, attempt.deaths
        )
        self.tell("on_failure", attempt, failure)
        if isinstance(outcome, Finished):
            self.tell("on_bury", attempt, failure)
            return self._buried(attempt, attempt.number, failure, outcome), line
        self.tell("on_retry", attempt, failure, outcome.delay / 1000)
        return outcome, line

    def crashed(self, attempt: Attempt, failure: Failure, most: int) -> None:
        """The job's engine died: its hooks are called. With `most` crashes Redis buries it (callbacks: `poisoned`)."""
        self.tell("on_failure", attempt, failure)
        if attempt.crashes + 1 < most:
            self.tell("on_retry", attempt, failure, 0.0)
        elif not attempt.message.then:
            self.tell("on_bury", attempt, failure)

    def poisoned(self, attempt: Attempt) -> tuple[Finished, str]:
        """Too many consumers or workers died while it ran: its outcome, and a line for the log."""
        message, begun = attempt.message, attempt.number - 1
        count, died = max((attempt.crashes, "consumer"), (attempt.deaths, "worker"))
        failure = Failure(f"poison: {counted(count, died)} died while it ran")
        report = Report(message.id, message.task, failure.error, "", begun, attempt.crashes, self._consumer)
        self.tell("on_bury", attempt._replace(attempts=attempt.attempts - 1), failure)  # the event of its last run
        outcome = self._buried(attempt, begun, failure, report.buried())
        return outcome, f"job {message.id} {message.task}: {failure.error}; buried"

    def expired(self, attempt: Attempt) -> Finished:
        """Redis has found that the job had expired, and left it to this consumer to put its callbacks."""
        return completion.expired(attempt.message, attempt.queue, attempt.number - 1, self._puts)

    def tell(self, name: str, attempt: Attempt, failure: Failure, delay: float | None = None) -> None:
        """Call the hooks of this name, if there are any."""
        if not registered.hooks[name]:
            return
        event = msgspec.structs.replace(
            event_of(attempt.message, attempt.queue, attempt.number),
            seconds=failure.seconds,
            error=failure.error,
            traceback=failure.traceback,
            delay=delay,
        )
        self._emit(name, event)

    def _buried(self, attempt: Attempt, begun: int, failure: Failure, outcome: Finished) -> Finished:
        return completion.buried(attempt.message, attempt.queue, begun, failure, outcome, self._puts)

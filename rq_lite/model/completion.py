"""How a tracked job ends: its result as JSON, and its callbacks as entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from rq_lite.model.arguments import Arguments
from rq_lite.model.message import Message, Seal, entry_of, is_tracked, offspring, version_of
from rq_lite.model.outcome import Ended, Finished
from rq_lite.model.retry import Failure, Report

LONGEST_TTL = 10**9  # seconds


class Puts(NamedTuple):
    """How callbacks are put."""

    says: Callable[[str], dict[str, Any]]  # what a put of this task says beside its arguments; nothing: unknown here
    seal: Seal


class BadResult(ValueError):
    """A result that JSON cannot carry unchanged, that is too large, or that is no result yet. Final."""


def done(message: Message, queue: str, attempts: int, result: bytes, puts: Puts) -> Finished:
    """The job has returned; `result` is JSON, as `encoded` makes it."""
    kept = message.result_ttl is not None
    ended = ended_of(message, queue, attempts, "done", result=msgspec.Raw(result))
    return Finished("done", b'"value":' + result if kept else b"", ttl(message), b"", callbacks(message, ended, puts))


def given_up(message: Message, queue: str, attempts: int, failure: Failure, report: bytes, puts: Puts) -> Finished:
    """A tracked job is buried; `attempts` are the runs that were begun."""
    kind, _, text = failure.error.partition(": ")
    whole = text if failure.message is None else failure.message
    error = {"type": kind, "message": whole, "traceback": failure.traceback}
    ended = ended_of(message, queue, attempts, "failed", result=None, error=failure.error, traceback=failure.traceback)
    detail = b'"error":' + msgspec.json.encode(error)
    return Finished("failed", detail, ttl(message), report, callbacks(message, ended, puts))


def expired(message: Message, queue: str, begun: int, puts: Puts) -> Finished:
    """A job has expired before its run number `begun` + 1."""
    error = "JobExpired: it was not begun in time"
    ended = ended_of(message, queue, begun, "expired", result=None, error=error, traceback="")
    return Finished("expired", b"", ttl(message), b"", callbacks(message, ended, puts))


def buried(message: Message, queue: str, attempts: int, failure: Failure, outcome: Finished, puts: Puts) -> Finished:
    """The outcome of a failed job: `outcome`, its burial, with result and callbacks if the job is tracked."""
    if not is_tracked(message):
        return outcome
    try:
        return given_up(message, queue, attempts, failure, outcome.report, puts)
    except Exception as fault:  # callbacks may be impossible to encode, as with arguments that nest too deep
        report = msgspec.json.decode(outcome.report, type=Report)
        report.error = f"{report.error}; its callbacks could not be made: {type(fault).__name__}: {fault}"
        return report.buried()


def encoded(message: Message, result: Any, arguments: Arguments, most: int) -> bytes:
    """The result as JSON; raises BadResult. It is not encoded if neither a client nor a callback gets it."""
    if message.result_ttl is None and not (message.then or {}).keys() & {"success", "done"}:
        return b"null"
    try:
        trouble = arguments.result_trouble(result)
        text = b"" if trouble else msgspec.json.encode(result)
    except RecursionError:
        trouble = "it is nested too deeply, or contains itself"
    except Exception as error:
        trouble = f"JSON cannot carry it: {error}"
    if trouble:
        raise BadResult(f"the result of {message.task}: {trouble}")
    if len(text) > most:
        raise BadResult(
            f"the result of {message.task} has {len(text):,} bytes as JSON, max_result is {most:,}; "
            "put large data elsewhere and return its name"
        )
    return text


def ended_of(message: Message, queue: str, attempts: int, state: str, **more: Any) -> Ended:
    return Ended(
        id=message.id,
        queue=queue,
        task=message.task,
        args=message.args,
        kwargs=message.kwargs,
        attempts=attempts,
        state=state,
        **more,
    )


def callbacks(message: Message, ended: Ended, puts: Puts) -> list[tuple[str, bytes]]:
    """The callbacks to put: queue and entry. Their ids derive from the job's: made again, they are the same."""
    found = []
    for word, (queue, task) in (message.then or {}).items():
        if word in ("done", "success" if ended.state == "done" else "failure"):
            argument = ended.result if word == "success" else ended
            says = puts.says(task)
            about = Message(version_of(says), offspring(message.id, word), task, [argument], **says)
            found.append((queue, entry_of(about, queue, puts.seal)))
    return found


def ttl(message: Message) -> int:
    """How long the result is kept, ms."""
    return 0 if message.result_ttl is None else max(1, round(min(message.result_ttl, LONGEST_TTL) * 1000))

"""What a job raised, in words."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

from rq_lite.logs import one_line
from rq_lite.model.completion import BadResult
from rq_lite.model.outcome import Bury, Retry
from rq_lite.model.policy import Policy
from rq_lite.model.retry import Failure

OURS = str(Path(__file__).parents[1])
LONGEST_TRACEBACK = 16_000
LONGEST_MESSAGE = 10_000
ASYNC = {"asyncio", "anyio", "asgiref", "django", "nest_asyncio", "sniffio", "uvloop"}
BESIDE_A_LOOP = (
    "another job's event loop is running: jobs share a thread, and a thread runs one loop at a time. "
    'Give a task that uses asyncio run_in="process"'
)


class RemoteFailure(BaseException):
    """A job's error that was raised in another process, in words: no class is ever made from a name.

    `final`: it is not worth another attempt.
    """

    def __init__(self, failure: Failure, *, final: bool) -> None:
        super().__init__(failure.error)
        self.failure = failure
        self.final = final


def describe(error: BaseException, seconds: float) -> Failure:
    text = error_text(error)
    said = encodable(f"{type(error).__name__}: {one_line(text, 1000)}".removesuffix(": "))
    return Failure(said, trace(error), seconds, wanted_delay(error), encodable(text[:LONGEST_MESSAGE]))


def beside_a_loop(error: BaseException, failure: Failure) -> Failure:
    """The failure of a greenlet's job, with the way out if another job's asyncio caused it.

    Greenlets share one thread, and a thread runs one event loop at a time. The job's own loop has ended by now.
    """
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None or not is_of_async(error):
        return failure
    return failure._replace(
        error=f"{failure.error} ({BESIDE_A_LOOP})", traceback=f"{failure.traceback}{BESIDE_A_LOOP}\n"
    )


def is_of_async(error: BaseException | None) -> bool:
    """Whether code that looks for a running loop raised this error, or one that caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if frames and str(frames[-1].f_globals.get("__name__")).partition(".")[0] in ASYNC:
            return True
        error = error.__cause__ or error.__context__
    return False


def wanted_delay(error: BaseException) -> float | None:
    """The delay that the error asks for, in seconds; None if none, or no possible one: a subclass may hold anything."""
    if not isinstance(error, Retry):
        return None
    try:
        return Retry(delay=error.delay).delay
    except BaseException:
        return None


def is_final(policy: Policy, error: BaseException) -> bool:
    """Whether a job that raised this is not tried again, however many retries it has."""
    return isinstance(error, (Bury, BadResult)) or not (isinstance(error, Retry) or policy.is_retried(error))


def error_text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # a __str__ that raises must not hide the error itself
        return "(its text could not be made)"


def trace(error: BaseException) -> str:
    """The traceback from the job's own code on, its end if it is long."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(OURS):
        tb = tb.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, tb))
    except Exception:  # a SyntaxError may hold anything
        text = "".join(traceback.format_tb(tb)) + f"{type(error).__name__} (which cannot be shown)\n"
    return encodable(text[-LONGEST_TRACEBACK:])


def encodable(text: str) -> str:
    """The text without lone surrogates (a file name that is not UTF-8 has them): a report is UTF-8."""
    return text.encode(errors="replace").decode()

"""One job through its steps: decode, find the task, restore the arguments, run, say how it ended."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping
from contextvars import Context
from pathlib import Path
from typing import Any

import msgspec

from rq_lite.backoff import full_jitter
from rq_lite.broker.codec import Message, Undecodable, decode
from rq_lite.outcome import Bury, Outcome, Park, Retry
from rq_lite.runtime.seldom import Seldom, one_line
from rq_lite.runtime.slots import Expired, Slot, Stopped
from rq_lite.task import Task

log = logging.getLogger("rq_lite.consumer")
OURS = str(Path(__file__).parents[1])
NEVER = float("inf")
LONGEST_TRACEBACK = 16_000


class Report(msgspec.Struct, omit_defaults=True):
    """What the dead set keeps of a job beside its bytes."""

    id: str | None
    task: str | None
    error: str
    traceback: str = ""
    attempts: int = 0  # runs that were begun: those that failed, and the crashes
    crashes: int = 0  # of these, how many ended with the death of their consumer
    consumer: str = ""
    seconds: float = 0.0


class Executor:
    """Runs jobs of the given tasks; each in a fresh contextvars context, none of them sees another's."""

    def __init__(self, tasks: Mapping[str, Task[Any, Any]], consumer: str, *, verbose: bool = False) -> None:
        self._tasks = tasks
        self._consumer = consumer
        self._verbose = verbose
        self._seldom = Seldom(log)

    def run(self, slot: Slot[Any], entry: bytes) -> Outcome:
        """How the run ended. Raises nothing but Stopped, which says that the job goes back unfinished."""
        began = time.monotonic()
        try:
            message, attempts, crashes = decode(entry)
        except Undecodable as error:
            self._seldom.warn("undecodable", f"buried an entry that is no job: {error}")
            return self._buried(Report(None, None, f"not a job: {error}", consumer=self._consumer))
        task = self._tasks.get(message.task)
        if task is None:
            self._seldom.warn(
                message.task, f"parked: task {message.task!r} is not known to this worker ({self._consumer})"
            )
            return Park(message.task)
        timeout = task.policy.timeout if message.timeout is None else message.timeout
        slot.deadline = NEVER if timeout is None else began + timeout
        try:
            args, kwargs = message.args, message.kwargs
            if not task.arguments.plain:
                args, kwargs = task.arguments.restore(args, kwargs)
            Context().run(task.function, *args, **kwargs)
            slot.deadline = NEVER
        except Stopped:
            slot.deadline = NEVER
            raise
        except BaseException as error:  # also SystemExit: it would end the whole consumer
            slot.deadline = NEVER
            return self._failed(message, attempts, crashes, task, error, time.monotonic() - began)
        if self._verbose:
            log.info("done %s %s in %.3f s", message.id, message.task, time.monotonic() - began)
        # The last line, and the only one that says "done": a run that was cut short anywhere is not.
        return None

    def _failed(
        self,
        message: Message,
        attempts: int,
        crashes: int,
        task: Task[Any, Any],
        error: BaseException,
        seconds: float,
    ) -> Outcome:
        attempt = attempts + 1
        retries = task.policy.retries if message.retries is None else message.retries
        text = encodable(f"{type(error).__name__}: {error_text(error)}")
        if isinstance(error, Expired):
            text = f"JobTimeout: not done after {seconds:.1f} s"
        if attempt <= retries:
            delay = full_jitter(attempt)
            self._seldom.warn(
                "retry", f"job {message.id} {message.task}: {text}; attempt {attempt + 1} in {delay:.1f} s"
            )
            return Retry(round(delay * 1000))
        self._seldom.warn("bury", f"job {message.id} {message.task}: {text}; buried after attempt {attempt}")
        return self._buried(
            Report(
                message.id,
                message.task,
                text,
                trace(error),
                attempt + crashes,
                crashes,
                self._consumer,
                round(seconds, 3),
            )
        )

    def _buried(self, report: Report) -> Bury:
        return Bury(msgspec.json.encode(report))


def error_text(error: BaseException) -> str:
    try:
        return one_line(str(error), 1000)
    except Exception:  # a __str__ that raises must not hide the error itself
        return "(its text could not be made)"


def trace(error: BaseException) -> str:
    """The traceback from the job's own code on, its end if it is long."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(OURS):
        tb = tb.tb_next
    text = "".join(traceback.format_exception(type(error), error, tb))
    return encodable(text[-LONGEST_TRACEBACK:])


def encodable(text: str) -> str:
    """The text without lone surrogates (as the name of a file that is no UTF-8 has them): a report is UTF-8."""
    return text.encode(errors="replace").decode()

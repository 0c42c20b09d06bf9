"""What becomes of a job whose run failed: another attempt, or the dead set."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from rq_lite.model.backoff import full_jitter
from rq_lite.model.message import Message, Undecodable
from rq_lite.model.outcome import Finished, Retried
from rq_lite.model.signing import Refused

UNREAD = {kind.said: kind.__name__ for kind in (Undecodable, Refused)}  # what an error begins with: its type
SUSPECT, UNLUCKY = 2, 5  # from so many crashes, or so many deaths of whole workers, on a job runs alone; as in lib.lua


class Limits(NamedTuple):
    """With which crash, or death of a whole worker, a job is buried: the settings of these names; 0: never."""

    max_crashes: int = 3
    max_worker_deaths: int = 10

    def crashes_of(self, task: int | None) -> int:
        """`task`: what the task says, if it does."""
        return self.max_crashes if task is None else task

    def reached(self, task: int | None, crashes: int, deaths: int) -> bool:
        return crashes >= self.crashes_of(task) or 0 < self.max_worker_deaths <= deaths


class Report(msgspec.Struct, omit_defaults=True):
    """What the dead set keeps of a job beside its bytes."""

    id: str | None
    task: str | None
    error: str
    traceback: str = ""
    attempts: int = 0  # runs that were begun: those that failed, the crashes, and the deaths of whole workers
    crashes: int = 0  # how many of these were crashes
    consumer: str = ""
    seconds: float = 0.0

    def buried(self) -> Finished:
        """The outcome: the job goes to the dead set. Clients that wait for it get the error without a traceback."""
        kind, _, text = self.error.partition(": ")
        error = {"type": UNREAD.get(kind, kind), "message": text, "traceback": ""}
        return Finished("failed", b'"error":' + msgspec.json.encode(error), report=msgspec.json.encode(self))


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often a task's job is tried again after an error of some kind, and with which back-off (seconds)."""

    retries: int
    backoff: float = 1.0
    backoff_max: float = 600.0
    final: bool = False  # after this kind of error the job is never tried again, whatever its own `retries` says
    max_crashes: int | None = None  # None: the setting
    says: dict[str, Any] = {}  # the fields that a put of this task adds to the message


class Failure(NamedTuple):
    """A run that failed."""

    error: str  # one line: the error's type and, perhaps shortened, its text
    traceback: str = ""
    seconds: float = 0.0
    delay: float | None = None  # what the job asked for, in seconds
    message: str | None = None  # the error's whole text, for clients that wait for the result; None: as in `error`


def decide(
    message: Message,
    attempts: int,
    crashes: int,
    chances: RetryPolicy,
    failure: Failure,
    consumer: str,
    deaths: int = 0,
) -> tuple[Retried | Finished, str]:
    """What to settle, and a line for the log. The counts are those before this run; `deaths`: of whole workers."""
    attempt = attempts + 1
    retries = chances.retries if message.retries is None else message.retries
    if attempt <= retries and not chances.final:
        delay = failure.delay
        if delay is None:
            delay = full_jitter(attempt, base=chances.backoff, cap=chances.backoff_max)
        line = f"job {message.id} {message.task}: {failure.error}; attempt {attempt + 1} in {delay:.1f} s"
        return Retried(round(delay * 1000)), line
    report = Report(
        message.id, message.task, failure.error, failure.traceback, attempt + crashes + deaths, crashes,
        consumer, round(failure.seconds, 6),
    )  # fmt: skip
    return report.buried(), f"job {message.id} {message.task}: {failure.error}; buried after attempt {attempt}"

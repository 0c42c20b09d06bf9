"""The ways a run can end. Done is the common one and costs nothing: it is None.

`Retry` and `Bury` are for jobs to raise; the others are what a consumer then settles with Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeAlias

import msgspec

from rq_lite.checks import LONGEST, in_seconds, number


class Retry(Exception):
    """Raise it in a job to have it run again, after `delay` seconds, or a timedelta (None: the task's back-off).

    It counts as an attempt like any other failure: when the task's `retries` are used up the job is buried.
    """

    def __init__(self, reason: str = "", *, delay: float | timedelta | None = None) -> None:
        super().__init__(reason)
        self.delay: float | None = None
        if delay is not None:
            wanted = "0 or more seconds, up to 100 years (or a timedelta)"
            self.delay = float(number("Retry: delay", in_seconds(delay), wanted, most=LONGEST))


class Bury(Exception):
    """Raise it in a job that can never succeed: it goes to the dead set at once, with this reason."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a job has ended, as callbacks get it: in this class if their parameter is annotated with it, else a dict."""

    id: str
    queue: str
    task: str
    args: list[Any]  # as in the JSON, not restored
    kwargs: dict[str, Any]
    attempts: int  # runs that were begun
    state: str  # done, failed, expired
    result: Any = None
    error: str | None = None  # one line: "ValueError: …"
    traceback: str = ""


class Retried(NamedTuple):
    """To run again after `delay` milliseconds, charged an attempt."""

    delay: int


class Parked(NamedTuple):
    """This worker does not know the task; another may."""

    task: str


class Crashed(NamedTuple):
    """The job's engine died, and its consumer did not: charged a crash."""

    how: str
    where: str = ""  # the stack, where it is known
    most: int = 3  # with which crash it is buried


class Finished(NamedTuple):
    """The job has ended: a tracked one that is done, and any that is given up or was cancelled."""

    state: str  # done, failed, cancelled, expired
    detail: bytes = b""  # what its result holds beside the state: JSON without the braces
    ttl: int | None = None  # for how long the result is kept, ms; 0: not at all; None: as the job says
    report: bytes = b""  # for the dead set, if the job failed: one line of JSON
    puts: Sequence[tuple[str, bytes]] = ()  # callbacks: queue and entry
    job: str = ""  # the id of a cancelled job: its mark is removed with it


def cancelled(job_id: str) -> Finished:
    """The outcome of a cancelled job."""
    return Finished("cancelled", job=job_id)


Outcome: TypeAlias = Retried | Parked | Crashed | Finished | None


class Stated(msgspec.Struct):
    """The field that every result has."""

    state: str


stated = msgspec.json.Decoder(Stated).decode

"""The job that runs here: what it can learn about itself, and how it reports progress.

A job that does not ask pays nothing for this: its identity is looked up when it asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar

import msgspec

from rq_lite.errors import UsageError

MOST = 1e15  # exact in every language
LONGEST = 200  # characters of a note that are kept


class Progress(msgspec.Struct, frozen=True):
    """How far a job is, in whatever it counts. `total` is None if it is not known."""

    done: int | float = 0
    total: int | float | None = None
    note: str = ""


class CurrentJob:
    """The job that runs here.

    `attempt` says which run of it this is (the first is 1; runs that ended with their consumer count, too). `deadline`
    is when it must be done, as time.time() counts; None: there is no limit. Hand this object to threads and greenlets
    that the job starts: in them `current_job` finds no job.
    """

    __slots__ = ("_tell", "attempt", "deadline", "id", "queue", "task")

    def __init__(
        self,
        *,
        id: str,
        queue: str,
        task: str,
        attempt: int,
        deadline: float | None,
        tell: Callable[[Progress], None],
    ) -> None:
        self.id = id
        self.queue = queue
        self.task = task
        self.attempt = attempt
        self.deadline = deadline
        self._tell = tell

    def __repr__(self) -> str:
        return f"<job {self.id} of {self.task}, attempt {self.attempt}>"

    def remaining(self) -> float | None:
        """Seconds until its deadline, 0 after that; None: there is no limit."""
        return None if self.deadline is None else max(0.0, self.deadline - time.time())

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Report how far it is; for `rq-lite jobs show`, `rq-lite status`, and `job.progress` in other processes.

        Costs no time: the latest report is written in the background, at most twice a second.
        Raises UsageError unless `done` and `total` are numbers of 0 or more.
        """
        for name, number in (("done", done), ("total", total)):
            if number is None and name == "total":
                continue
            if not isinstance(number, (int, float)) or not 0 <= number <= MOST:
                raise UsageError(f"progress: {name} must be a number from 0 to {MOST:,.0f}, not {number!r}")
        note = str(note)[:LONGEST].encode(errors="replace").decode()
        self._tell(Progress(plain(done), None if total is None else plain(total), note))


class _Here:
    """How this process finds the job that the caller belongs to; a consumer sets it."""

    find: Callable[[], CurrentJob | None] = staticmethod(lambda: None)


# For a job that runs outside its greenlet (in a thread, in another process): set by the code that runs it there.
given: ContextVar[CurrentJob | None] = ContextVar("rq_lite_current_job", default=None)


def found_by(find: Callable[[], CurrentJob | None]) -> None:
    """From now on `current_job` calls this first."""
    _Here.find = staticmethod(find)


def current_job() -> CurrentJob | None:
    """The job that runs here; None outside of one."""
    return _Here.find() or given.get()


def plain(number: float) -> float:
    """The number as a plain int or float: JSON has no word for subclasses, such as numpy's."""
    return int(number) if isinstance(number, int) else float(number)

"""The job that runs here: what it may know of itself, and how it says how far it is.

A plain job pays nothing for this: who it is is looked up when it asks.
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
    """How far a job is, in whatever it counts. `total` is None where nobody knows."""

    done: int | float = 0
    total: int | float | None = None
    note: str = ""


class CurrentJob:
    """The job that runs here.

    `attempt` says which run of it this is (the first is 1; runs that ended with their consumer count, too). `deadline`
    is when it must be done, as time.time() counts; None: no matter when. Hand it over to threads and greenlets that the
    job starts: they have none of their own.
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
        """Seconds until its time is up, 0 when it is; None: it has all the time it wants."""
        return None if self.deadline is None else max(0.0, self.deadline - time.time())

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far it is; for `rq-lite jobs show`, `rq-lite status`, and who waits for it (`job.progress`).

        Costs no time: it is written in the background, twice a second at most, and then the last that was said.
        Raises UsageError for what is no number of 0 or more.
        """
        for name, number in (("done", done), ("total", total)):
            if number is None and name == "total":
                continue
            if not isinstance(number, (int, float)) or not 0 <= number <= MOST:
                raise UsageError(f"progress: {name} must be a number from 0 to {MOST:,.0f}, not {number!r}")
        note = str(note)[:LONGEST].encode(errors="replace").decode()
        self._tell(Progress(plain(done), None if total is None else plain(total), note))


class _Here:
    """How this process finds the job that runs where it is asked; a consumer sets it."""

    find: Callable[[], CurrentJob | None] = staticmethod(lambda: None)


# Where a job runs outside its greenlet (in a thread, in another process) whoever runs it there says which it is.
given: ContextVar[CurrentJob | None] = ContextVar("rq_lite_current_job", default=None)


def found_by(find: Callable[[], CurrentJob | None]) -> None:
    """From now on `current_job` asks this first."""
    _Here.find = staticmethod(find)


def current_job() -> CurrentJob | None:
    """The job that runs here; None outside of one."""
    return _Here.find() or given.get()


def plain(number: float) -> float:
    """Without what a subclass makes of it (numpy's are such), which JSON has no word for."""
    return int(number) if isinstance(number, int) else float(number)

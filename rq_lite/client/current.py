"""The job that runs here: what it can learn about itself, how it reports progress, and what is to follow it.

A job that does not ask pays nothing for this: its identity is looked up when it asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

from rq_lite.errors import UsageError

if TYPE_CHECKING:
    from rq_lite.client.job import Job
    from rq_lite.client.signature import Signature

MOST_FOLLOW_UPS = 1000  # of one run
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
    is when it must be done, as time.time() counts; None: there is no limit. `tags` are the job's own. Hand this object
    to threads and greenlets that the job starts: in them `current_job` finds no job.
    """

    __slots__ = ("_follow_ups", "_room", "_tell", "attempt", "deadline", "id", "queue", "tags", "task")

    def __init__(
        self,
        *,
        id: str,
        queue: str,
        task: str,
        attempt: int,
        deadline: float | None,
        tell: Callable[[Progress], None],
        tags: tuple[str, ...] = (),
    ) -> None:
        self.id = id
        self.queue = queue
        self.task = task
        self.attempt = attempt
        self.deadline = deadline
        self.tags = tags
        self._tell = tell
        self._follow_ups: list[tuple[str, bytes]] | None = []  # queue and entry; None: the run has ended
        self._room: int | None = None  # bytes that further follow-ups may have; None: none was given yet

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

    def then(self, signature: Signature) -> Job:
        """Let a job follow this run: it is put in the step in which Redis accepts that this run has succeeded.

        It is not put if the run fails, is cancelled or given back, or if its result comes too late; the next run of the
        job says again what follows. It is put beyond any bound, as callbacks are. A run may have 1,000 follow-ups, of
        `max_payload` bytes together. Returns the job that will be put.

        Raises UsageError above that, for a signature with `delay` or `at`, and after the run has ended; BadArgument,
        PayloadTooLarge.
        """
        job, entry, most = signature.follow_up()
        if self._follow_ups is None:
            raise UsageError(f"then: this run of job {self.id} has ended, nothing can follow it any more")
        if len(self._follow_ups) == MOST_FOLLOW_UPS:
            raise UsageError(
                f"then: a run may have {MOST_FOLLOW_UPS:,} follow-ups; let one of them put more, or put jobs directly"
            )
        room = (most if self._room is None else self._room) - len(entry)
        if room < 0:
            raise UsageError(
                f"then: the follow-ups of a run may have {most:,} bytes together (max_payload); let one of them put "
                "more, or put jobs directly"
            )
        self._room = room
        self._follow_ups.append((job.queue, entry))
        return job

    def take_follow_ups(self) -> Sequence[tuple[str, bytes]]:
        """What is to be put: queue and entry. The run has ended."""
        taken, self._follow_ups = self._follow_ups or [], None
        return taken


class Brought:
    """The follow-ups of a run in another process."""

    def __init__(self, follow_ups: Sequence[tuple[str, bytes]]) -> None:
        self._follow_ups = follow_ups

    def take_follow_ups(self) -> Sequence[tuple[str, bytes]]:
        return self._follow_ups


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

"""Arguments and results of the broker's methods."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

from rq_lite.broker.scripts import Code

# What a put does that finds no room.
FULL = ("wait", "raise", "drop-new", "drop-old")


class Feed(NamedTuple):
    """A mark that moves in the same step as a put: `field` of feed `name` must be `expected` ("": absent)."""

    name: str
    field: str
    expected: str
    values: Sequence[str]  # one for each job: what the field is once that job is in


class Put(NamedTuple):
    """The result of a put: how many jobs of the batch were accepted; the queue's size and bounds after it.

    `verdicts` is empty, or says of each that was accepted what became of it (see put.lua); `full` what the queue does
    when it is full.
    """

    code: Code
    accepted: int = 0
    size: int = 0
    maxsize: int = 0
    bytes: int = 0
    maxbytes: int = 0
    verdicts: Any = b""  # bytes
    full: Any = b"wait"  # bytes

    @property
    def words(self) -> list[str]:
        """A verdict for each job; none if all simply went in."""
        return self.verdicts.decode().split(",") if self.verdicts else []


class Acks(NamedTuple):
    """A queue's part in an exchange: the delivery tags that are done."""

    queue: str
    acks: list[int]


class Taken(NamedTuple):
    """A queue's part in the answer: the first job has the delivery tag `tag + 1`, the next one more.

    `closed`: if the queue was shut down and nothing was taken, how many jobs still wait (in any place); else -1.
    """

    code: Code
    stale: int
    tag: int
    jobs: list[bytes]
    cancels: bytes = b""  # when a job was last cancelled (ms); empty: never, or nothing was to be taken
    closed: int = -1


class Renewed(NamedTuple):
    """How many of the consumers were listed, and how many jobs and suspects may be taken (0 while `paused`).

    `paused` is 1 for a paused queue, and 2 for one with a newer format, from which this version may take nothing.
    """

    leases: int
    waiting: int
    suspects: int
    paused: int


class Named(NamedTuple):
    """A job that the log names after the death of its consumer, and what became of it."""

    id: str
    task: str
    crashes: int
    deaths: int  # of whole workers
    buried: bool


class Reclaimed(NamedTuple):
    """One step of a reclaim: how many jobs moved, how many of these are suspects or buried, how many are left."""

    moved: int
    left: int
    cursor: int
    suspects: int
    buried: int
    named: Sequence[Named] = ()


class Requeued(NamedTuple):
    """How a step of a requeue went: the first `seen` tags are dealt with, the others are as they were.

    Of those seen `moved` wait again, `oversized` are larger than the queue's maxbytes, `expired` have expired, `taken`
    are kept out by a job with the same key, the rest were not dead.
    """

    code: Code
    seen: int = 0
    moved: int = 0
    oversized: int = 0
    full: int = 0  # 1: the next one has no room
    size: int = 0
    maxsize: int = 0
    bytes: int = 0
    maxbytes: int = 0
    expired: int = 0
    taken: int = 0


class Cancelled(enum.Enum):
    """What could be done to cancel a job."""

    REMOVED = "removed"  # it waited, and will never run
    INTERRUPTING = "interrupting"  # it runs, and its consumer was told
    MARKED = "marked"  # it runs, or waits far from both ends of the queue: it is interrupted, or dropped at its turn
    RUNNING = "running"  # it runs, and was left alone, as asked for
    UNKNOWN = "unknown"  # it has ended, or never was


class Death(NamedTuple):
    """How a consumer died, and which of its jobs are charged a crash for it: "all", "none", or delivery tags ("3,4").

    `worker`: it died with its whole worker, which is charged apart: nothing points at its jobs.
    """

    how: str
    charged: str = "all"
    where: str = ""  # the stack, where it is known
    worker: bool = False


def newer_format(queue: str) -> str:
    """The message about a queue that this version must not touch (Code.NEWER)."""
    return (
        f"queue {queue!r} has a newer format: a newer version of rq_lite has put jobs there, with marks that this one "
        "does not know. Use that version here, too: pip install --upgrade rq_lite"
    )

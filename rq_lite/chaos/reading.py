"""Typed events from the lines of a history.

A step with Redis has an event `before`, and then `after` or `failed`; a process that was killed between them
leaves a `before` alone. A delivery is (queue, tag).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from rq_lite.errors import UsageError
from rq_lite.model.unreadable import UNREADABLE


class Moment(msgspec.Struct, frozen=True, gc=False):
    """An event of a process; `t` is in seconds and can be compared between the processes of a machine."""

    t: float


class PutBefore(Moment, frozen=True, gc=False):
    queue: str
    jobs: list[str]


class PutAfter(Moment, frozen=True, gc=False):
    queue: str
    jobs: list[str]  # those that were accepted
    size: int = 0  # of the queue, afterwards
    maxsize: int = 0  # 0: no bound
    unbounded: bool = False  # the bound does not apply to this put: a running job's, or a schedule's
    kept_out: list[str] = []  # those of `jobs` that were not put: other jobs have their keys


class PutFailed(Moment, frozen=True, gc=False):
    queue: str
    jobs: list[str]
    outcome: str = "unknown"  # or "not put"


class Took(Moment, frozen=True, gc=False):
    """A consumer got jobs: by a take, or by reconciling after a lost answer."""

    consumer: str
    queue: str
    jobs: list[tuple[int, str]]


class RunBefore(Moment, frozen=True, gc=False):
    consumer: str
    queue: str
    tag: int
    job: str


class RunAfter(Moment, frozen=True, gc=False):
    outcome: str  # done, retry, bury, park, drop, crash; cut: interrupted, given back
    job: str = ""


class Then(Moment, frozen=True, gc=False):
    """A run has named the job that is to follow it."""

    queue: str
    job: str
    attempt: int
    following: str


class Followed(Moment, frozen=True, gc=False):
    """A job that follows a run runs, and says by its arguments which run that was."""

    job: str
    of: str
    attempt: int


class SettleBefore(Moment, frozen=True, gc=False):
    """With the verb "finish": the tags that were `buried` (or cancelled), and the callbacks of the step (queue, id)."""

    queue: str
    tags: list[int]
    verb: str = "ack"
    buried: list[int] = []
    puts: list[tuple[str, str]] = []


class SettleAfter(SettleBefore, frozen=True, gc=False, kw_only=True):
    stale: int  # how many of the tags were refused


class SettleFailed(SettleBefore, frozen=True, gc=False):
    pass


class Requeued(Moment, frozen=True, gc=False):
    queue: str
    tags: list[int]  # of the burials; some may no longer have been dead


class Fault(Moment, frozen=True, gc=False):
    kind: str = ""
    inflight: int = 0  # jobs in flight when it was injected


class FaultEnd(Moment, frozen=True, gc=False):
    kind: str = ""


class QueueAtRest(msgspec.Struct, frozen=True):
    """A queue when the run is over: counters (None: not in the record) and the ids of the jobs in each place."""

    put: int | None = None
    done: int | None = None
    purged: int = 0  # and others that have ended without a run, whose ids the history may not have
    dropped: int = 0  # buried jobs beyond the caps of the dead set
    pending: list[str] = []
    scheduled: list[str] = []
    suspects: list[str] = []
    dead: list[str] = []
    inflight: dict[str, dict[int, str]] = {}  # consumer → tag → id


class Marked(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A job that has not ended, whose entry is marked with its lock."""

    name: str  # of the lock
    mode: str
    job: str
    place: str  # pending, scheduled, suspects, inflight
    charged: bool = False  # it was taken in this life: attempts, crashes or deaths are counted


class Look(msgspec.Struct, frozen=True):
    """What is known of a queue at one moment, read in one step; so it may be in use."""

    counters: dict[str, int] = {}
    alive: int = 0  # jobs that have not ended
    marked: list[Marked] = []
    locks: dict[str, str] = {}  # name → "<mode>|<id>", and perhaps more
    newer: dict[str, str] = {}  # name → id of the newer payload that waits behind the lock


class Looked(Moment, frozen=True):
    queue: str
    look: Look


class Final(Moment, frozen=True):
    queues: dict[str, QueueAtRest]
    keys: list[str] = []  # left in Redis, and not in the catalogue
    processes: list[int] = []  # still alive


MOMENTS: dict[str, type[Moment]] = {
    "put.before": PutBefore,
    "put.after": PutAfter,
    "put.failed": PutFailed,
    "fire.before": PutBefore,
    "fire.after": PutAfter,
    "fire.failed": PutFailed,
    "take.after": Took,
    "reconcile.after": Took,
    "run.before": RunBefore,
    "run.after": RunAfter,
    "ack.before": SettleBefore,
    "ack.after": SettleAfter,
    "ack.failed": SettleFailed,
    "settle.before": SettleBefore,
    "settle.after": SettleAfter,
    "settle.failed": SettleFailed,
    "give_back.before": SettleBefore,
    "give_back.after": SettleAfter,
    "give_back.failed": SettleFailed,
    "requeue.after": Requeued,
    "then": Then,
    "followed": Followed,
    "look": Looked,
    "fault": Fault,
    "fault.end": FaultEnd,
    "final": Final,
}


class Head(msgspec.Struct, frozen=True, gc=False):
    at: str


parse_head = msgspec.json.Decoder(Head).decode
PARSERS = {at: msgspec.json.Decoder(kind).decode for at, kind in MOMENTS.items()}

History = Mapping[str, Iterable[bytes]]  # a file's name → its lines, each with its newline


def open_folder(folder: Path) -> Iterator[tuple[str, Iterable[bytes]]]:
    """The files of a history. Raises UsageError for a folder without one."""
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        raise UsageError(f"{folder}: no history; it must be a folder of *.jsonl files")
    for file in files:
        try:
            with file.open("rb") as lines:
                yield file.name, lines
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror or error}") from None


def moments(name: str, lines: Iterable[bytes]) -> Iterator[Moment]:
    """The events of one process that the checker reads, in their order.

    A last line without a newline was cut off when its process was killed, and is skipped. Raises UsageError, naming
    file and line, for any other line that is not an event.
    """
    for number, line in enumerate(lines, 1):
        try:
            at = parse_head(line).at
            if number == 1 and at != "process.begin":
                raise UsageError(f"{name}, line 1: a file of a history begins with process.begin, not {at}")
            if (parse := PARSERS.get(at)) is not None:
                yield parse(line)
        except UNREADABLE as error:
            whole = line.endswith(b"\n") or isinstance(error, msgspec.ValidationError)
            if whole:
                raise UsageError(f"{name}, line {number}: {error}") from None
            return

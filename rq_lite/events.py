"""Named events: a process emits one before and after each step. There are no subscribers unless one is asked for.

    RQ_LITE_FAILPOINT=take.after:kill@2      at the second `take.after` of a process: kill it
    RQ_LITE_FAILPOINT_ONCE=DIR               only the first process that gets there; DIR keeps the mark
    RQ_LITE_HISTORY=DIR                      every process appends what it did to a file of its own in DIR

Actions: kill (-9), stop (SIGTERM, to the worker if there is one), pause (SIGSTOP), raise, drop (the connection that
is in use), sleep=SECONDS. Several failpoints are separated by commas. The names are in NAMES; `failed` is a step that
raised. `python -m rq_lite.chaos.check` reads histories.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from rq_lite.errors import UsageError

STEPS = (
    "declare", "put",  # producers
    "register", "take", "ack", "settle", "give_back", "reconcile",  # consumers
    "renew", "announce", "promote", "reclaim", "plan", "fire",  # supervisors
    "requeue",  # operators
)  # fmt: skip
NAMES = {f"{step}.{end}" for step in STEPS for end in ("before", "after", "failed")}
NAMES |= {"run.before", "run.after", "start.before", "start.after", "stop.before", "leave.before"}


class Droppable(Protocol):
    """A connection that a failpoint can cut."""

    def drop(self) -> None: ...


class Failed(RuntimeError):
    """Raised by a failpoint."""


Subscriber = Callable[[str, Droppable | None, Mapping[str, Any]], None]
subscribers: list[Subscriber] = []


def emit(name: str, link: Droppable | None, **facts: Any) -> None:
    """Tell all subscribers of an event. Where facts cost something to collect, check `if subscribers` first."""
    for watcher in subscribers:
        watcher(name, link, facts)


class span:  # noqa: N801 - used as a verb
    """A step with its events `<name>.before`, and `<name>.after` or, if it raises, `<name>.failed`.

    Facts that are put into the dictionary meanwhile are in the second event.
    """

    __slots__ = ("_facts", "_link", "_name")

    def __init__(self, name: str, link: Droppable | None, **facts: Any) -> None:
        self._name, self._link, self._facts = name, link, facts

    def __enter__(self) -> dict[str, Any]:
        if subscribers:
            emit(f"{self._name}.before", self._link, **self._facts)
        return self._facts

    def __exit__(self, kind: object, *_: object) -> None:
        if subscribers:
            emit(f"{self._name}.{'after' if kind is None else 'failed'}", self._link, **self._facts)


class Failpoint:
    """Acts when its event comes for the n-th time in this process."""

    def __init__(self, name: str, action: str, nth: int, once: Path | None, stopped: Callable[[], int]) -> None:
        self._name = name
        self._action, _, self._seconds = action.partition("=")
        self._left = nth
        self._once = once
        self._stopped = stopped

    def __call__(self, name: str, link: Droppable | None, _facts: Mapping[str, Any]) -> None:
        if name != self._name or self._left <= 0:
            return
        self._left -= 1
        if self._left == 0 and (self._once is None or first(self._once)):
            self._act(link)

    def _act(self, link: Droppable | None) -> None:
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "stop":
            os.kill(self._stopped(), signal.SIGTERM)
        elif self._action == "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self._action == "raise":
            raise Failed(f"failpoint {self._name}")
        elif self._action == "drop" and link is not None:
            link.drop()
        elif self._action == "sleep":
            time.sleep(float(self._seconds))


def first(mark: Path) -> bool:
    """Whether this process is the first here; leaves the mark."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class History:
    """Appends each event as a line of JSON, in one write: the lines of a process that is killed stay."""

    def __init__(self, folder: Path, role: str) -> None:
        name = f"{role}-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        self._file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self("process.begin", None, {"role": role, "pid": os.getpid()})

    def close(self) -> None:
        os.close(self._file)

    def __call__(self, name: str, _link: Droppable | None, facts: Mapping[str, Any]) -> None:
        record = {"t": time.monotonic(), "w": time.time(), "at": name, **facts}
        os.write(self._file, msgspec.json.encode(record) + b"\n")


FAILPOINT = re.compile(r"(?P<name>[a-z_.]+):(?P<action>kill|stop|pause|raise|drop|sleep=[\d.]+)(?:@(?P<nth>\d+))?")


class _Begun:
    role: str | None = None


def begin(role: str, environ: Mapping[str, str] = os.environ) -> None:
    """Subscribe what the environment asks for in this process; the first call counts, it names the process's role.

    Raises UsageError for a failpoint that cannot be read.
    """
    if _Begun.role is not None:
        return
    _Begun.role = role
    subscribers.extend(asked_for(role, environ))


def asked_for(role: str, environ: Mapping[str, str]) -> list[Subscriber]:
    found: list[Subscriber] = []
    # The history first: it then has the event at which a failpoint kills.
    if folder := environ.get("RQ_LITE_HISTORY"):
        found.append(History(Path(folder), role))
    once = environ.get("RQ_LITE_FAILPOINT_ONCE")
    for text in filter(None, environ.get("RQ_LITE_FAILPOINT", "").split(",")):
        match = FAILPOINT.fullmatch(text)
        if match is None or match["name"] not in NAMES:
            raise UsageError(f"RQ_LITE_FAILPOINT: {text!r} is not EVENT:ACTION[@N], see rq_lite/events.py")
        mark = Path(once) / match["name"] if once else None
        stopped = os.getppid if role == "consumer" else os.getpid
        found.append(Failpoint(match["name"], match["action"], int(match["nth"] or 1), mark, stopped))
    return found

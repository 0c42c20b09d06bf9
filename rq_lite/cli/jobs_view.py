"""How jobs are shown wherever they are: as a row, as a page each, as JSON. All text from jobs is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from rq_lite.admin.jobs import Found
from rq_lite.cli import dead_view
from rq_lite.cli.dead_view import PAYLOAD, called, payload, shortened, text_of
from rq_lite.cli.listing import View, as_lines
from rq_lite.cli.status import amount
from rq_lite.cli.table import Column
from rq_lite.cli.text import plain, runs, span
from rq_lite.logs import escaped
from rq_lite.model.message import made_at
from rq_lite.model.states import State
from rq_lite.model.unreadable import UNREADABLE
from rq_lite.process.identity import parse

COLUMNS = (
    Column("id", 0),
    Column("queue", 4, least=10, middle=True),
    Column("task", 2, least=12, middle=True),
    Column("state", 1, style=lambda state: "red" if state == State.DEAD.value else ""),
    Column("age", 5, right=True),
    Column("runs", 6, right=True),
    Column("crashed", 7, right=True),
    Column("about", 3, least=16),
    Column("tags", 8, least=10, optional=True),
)
NOTE = 300  # characters of what a page says about a job's state


def row(job: Found, now: float) -> list[str]:
    """A row in the order of COLUMNS; `now` is Redis' time in s since 1970."""
    born = None if job.id is None else made_at(job.id)
    return [
        name(job),
        escaped(job.queue),
        "(item)" if job.task == "" else escaped(job.task or "?"),
        state(job),
        "" if born is None else span(max(0.0, now - born)),
        str(job.attempts),
        str(job.crashes),
        escaped(about(job, now)),
        escaped(", ".join(job.tags)),
    ]


def name(job: Found) -> str:
    """The name to type for a job."""
    return called(job) if job.buried is not None else escaped(job.id or "?")


def state(job: Found) -> str:
    return "parked" if job.parked else job.state.value


def about(job: Found, now: float) -> str:
    """What matters about a job in its state: its error, when it is due, or which consumer runs it."""
    if job.buried is not None:
        return job.buried.error
    if job.due is not None:
        return f"due in {span(job.due - now)}" if job.due > now else "due now"
    if job.state is not State.INFLIGHT:
        return ""
    return f"{who(job.consumer)}, waits there for its thread, process or batch" if job.held else who(job.consumer)


def who(consumer: str) -> str:
    known = parse(consumer)
    return f"on {known.host}, pid {known.pid}" if known is not None else f"with {consumer}"


def facts(job: Found) -> dict[str, Any]:
    """For JSON."""
    known = msgspec.structs.asdict(job)
    del known["member"]
    buried = known.pop("buried")
    known["state"] = job.state.value
    known["payload"] = text_of(dead_view.body(known.pop("entry")))
    return known if buried is None else {**known, "error": buried.error, "buried_at": buried.buried_at}


VIEW = View(COLUMNS, row, facts)


def page(job: Found, now: float, told: list[tuple[str, str]]) -> str:
    """Everything known about a job, in lines; `told` is what Redis knows beside its entry."""
    if job.buried is not None:
        text = dead_view.page(job.buried, now)
        return "\n".join([f"{'state':<10} {job.state.value}", *as_lines(told), text])
    born = None if job.id is None else made_at(job.id)
    known = [
        ("id", "none" if job.id is None else plain(job.id, PAYLOAD)),
        ("queue", plain(job.queue)),
        ("task", "unknown" if job.task is None else plain(job.task, PAYLOAD)),
        ("state", ", ".join(filter(None, (state(job), plain(about(job, now), NOTE))))),
        ("runs", runs(job.attempts, job.crashes, job.worker_deaths)),
    ]
    if born is not None:
        known.append(("put", f"{moment(born)}, {span(max(0.0, now - born))} ago"))
    if job.state is State.INFLIGHT:
        known += [("consumer", plain(job.consumer, 200)), ("delivery", f"tag:{job.tag}")]
    return "\n".join(as_lines([*known, *told, *payload(job.entry)]))


def moment(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # an id that only looks like one of rq_lite's
        return "at an impossible time"


def progress(told: bytes, now: float) -> str:
    """`[#####...............] 25 %, 50 of 200, half a minute left (3 s ago)`, from the progress that a job reported."""
    try:
        said = msgspec.json.decode(told, type=dict[str, Any])
    except UNREADABLE:
        return shortened(text_of(told))
    note, at = said.get("note"), said.get("at")
    done, total = (each if isinstance(each := said.get(name), (int, float)) else None for name in ("done", "total"))
    parts = [amount(done or 0.0, total)]
    if isinstance(note, str) and note:
        parts.append(plain(note, NOTE))
    ago = f" ({span(max(0.0, now - at / 1000))} ago)" if isinstance(at, (int, float)) else ""
    return ", ".join(parts) + ago

"""How buried jobs are shown: as a row, as a page each, as JSON. All text from jobs is escaped."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from rq_lite.admin.dead import Buried
from rq_lite.cli.listing import View, as_lines
from rq_lite.cli.table import Column
from rq_lite.cli.text import plain, runs, span
from rq_lite.logs import escaped
from rq_lite.model.message import Undecodable, decode, split
from rq_lite.process.identity import parse

COLUMNS = (
    Column("id", 0),
    Column("queue", 4, least=10, middle=True),
    Column("task", 2, least=12, middle=True),
    Column("buried", 3, right=True),
    Column("runs", 5, right=True),
    Column("crashed", 6, right=True),
    Column("error", 1, least=18),
)
PAYLOAD = 10_000  # characters of the arguments, of the error, and of a line of a traceback


class Named(Protocol):
    """A job that was delivered; it may have an id."""

    @property
    def id(self) -> str | None: ...

    @property
    def tag(self) -> int: ...


def called(job: Named) -> str:
    """The name to type for a job: its id, or tag:NUMBER if the id is missing or strange; see dead.names."""
    usual = job.id is not None and 0 < len(job.id) <= 60 and plain(job.id) == job.id and " " not in job.id
    return str(job.id) if usual else f"tag:{job.tag}"


def row(job: Buried, now: float) -> list[str]:
    """A row in the order of COLUMNS; `now` is Redis' time in s since 1970."""
    return [
        called(job),
        escaped(job.queue),
        escaped(job.task or "?"),
        f"{span(max(0.0, now - job.buried_at))} ago",
        str(job.attempts),
        str(job.crashes),
        escaped(job.error),
    ]


def facts(job: Buried) -> dict[str, Any]:
    """For JSON: every field, and the payload as text instead of the entry."""
    known = msgspec.structs.asdict(job)
    known |= {"tags": job.tags, "worker_deaths": job.worker_deaths}
    known["payload"] = text_of(body(known.pop("entry")))
    return known


VIEW = View(COLUMNS, row, facts)


def page(job: Buried, now: float) -> str:
    """Everything known about a job, in lines."""
    when = datetime.fromtimestamp(job.buried_at, UTC)
    who = parse(job.consumer)
    known = [
        ("id", plain(job.id, PAYLOAD) if job.id is not None else f"none; use {called(job)}"),
        ("queue", plain(job.queue)),
        ("task", plain(job.task, PAYLOAD) if job.task is not None else "unknown"),
        ("error", plain(job.error, PAYLOAD)),
        ("runs", runs(job.attempts, job.crashes, job.worker_deaths)),
        ("buried", f"{when:%Y-%m-%d %H:%M:%S} UTC, {span(max(0.0, now - job.buried_at))} ago"),
        ("ran for", ran_for(job.seconds)),
        ("ran on", "unknown" if who is None else f"{who.host}, pid {who.pid}"),
        ("consumer", plain(job.consumer, 200) or "unknown"),
        ("delivery", f"tag:{job.tag}"),
        *payload(job.entry),
    ]
    text = "\n".join(as_lines(known))
    # Of what moves a cursor only line ends stay.
    trace = [plain(line, PAYLOAD) for line in job.traceback.expandtabs().rstrip("\n").split("\n")]
    return "\n".join([text, "traceback", *(f"  {line}".rstrip() for line in trace)]) if job.traceback else text


def ran_for(seconds: float) -> str:
    """How long the last run took; unknown if its consumer died or was killed."""
    if not seconds:
        return "unknown"
    return "less than 1 ms" if seconds < 0.001 else f"{seconds:,.3f} s"


def payload(entry: bytes) -> list[tuple[str, str]]:
    """What the job carries; the raw bytes if they cannot be decoded."""
    try:
        message = decode(entry)[0]
    except Undecodable:
        return [("bytes", shortened(text_of(entry)))]
    lines = [("arguments", shortened(as_json(message.args)))]
    if message.kwargs:
        lines.append(("by name", shortened(as_json(message.kwargs))))
    if message.timeout is not None:
        lines.append(("timeout", f"{message.timeout:g} s"))
    if message.retries is not None:
        lines.append(("retries", str(message.retries)))
    if message.tags:
        lines.append(("tags", plain(", ".join(message.tags), PAYLOAD)))
    return lines


def shortened(text: str) -> str:
    left = len(text) - PAYLOAD
    rest = f" ... {left:,} more characters: `rq-lite dead list --id ID --json` prints all" if left > 0 else ""
    return plain(text[:PAYLOAD], 10 * PAYLOAD) + rest


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def body(entry: bytes) -> bytes:
    """The job's JSON, without attempts and crashes in front; bytes that are not a job are returned as they are."""
    try:
        return split(entry)[2]
    except Undecodable:
        return entry


def text_of(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")

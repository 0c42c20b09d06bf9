"""What a crawl has found: a line of JSON for each page, in one file per consumer, all in one folder.

A line is appended by a single write, so it is whole also if the process is killed at any time. A page that was fetched
again, because its first run did not get to its end, has two lines; `pages` takes one of them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec


class Visit(msgspec.Struct, kw_only=True):
    """A line: a page, or why it was not fetched."""

    url: str
    depth: int  # how much further its links are followed
    status: int | None = None
    title: str | None = None
    links: list[str] = []
    left_out: int = 0  # links that were not followed because there were too many
    seconds: float = 0.0
    error: str | None = None  # in a word: timeout, connection, robots, …
    reason: str | None = None  # in a sentence


class Results:
    """This process's file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file: int | None = None

    def add(self, visit: Visit) -> None:
        """Append a line. Raises OSError, and then the file is as it was."""
        if self.file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.ndjson"
            self.file = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        line = msgspec.json.encode(visit) + b"\n"
        written = os.write(self.file, line)
        if written != len(line):  # the disk is full
            os.ftruncate(self.file, os.fstat(self.file).st_size - written)
            raise OSError(f"{self.folder}: no room for a line of {len(line):,} bytes")


def lines(folder: Path) -> Iterator[Visit]:
    """All lines of all consumers; half a line, after a crash of the machine, is left out."""
    decode = msgspec.json.Decoder(Visit).decode
    for file in sorted(folder.glob("*.ndjson")):
        with file.open("rb") as found:
            for line in found:
                try:
                    yield decode(line)
                except msgspec.DecodeError:
                    continue


def pages(folder: Path) -> Iterator[Visit]:
    """Each page once: its first line without an error, else its first."""
    best: dict[str, tuple[bool, int]] = {}
    for number, visit in enumerate(lines(folder)):
        found = visit.error is not None, number
        best[visit.url] = min(found, best.get(visit.url, found))
    chosen = {number for _, number in best.values()}
    for number, visit in enumerate(lines(folder)):
        if number in chosen:
            yield visit

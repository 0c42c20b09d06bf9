"""What a producer shows while it works: a live line on a terminal, a plain line every 5 s on a pipe."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.live import Live
from rich.text import Text

from rq_lite.cli.table import BAR, bar, console_of, shortened
from rq_lite.client.put import Progress
from rq_lite.feeds.sources import Source

EVERY = 5.0  # seconds between two plain lines
NAME = 20  # cells that a queue's name has at most, if the line is too long


class Part(NamedTuple):
    """A figure. If a terminal has not room for all, the one with the highest rank is left out first."""

    rank: int
    text: str


BAR_RANK = 4


class Meter:
    """Current figures of a feed, from its progress and its source."""

    def __init__(
        self,
        queue: str,
        progress: Progress,
        source: Source | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue = queue
        self.progress = progress
        self._source = source
        self._clock = clock
        self._began = clock()
        self._skip = source.offset if source is not None else 0
        self._window = [(self._began, 0)]  # (when, put) of the last seconds

    def rate(self) -> float:
        """Jobs per second over the last five seconds."""
        now = self._clock()
        self._window.append((now, self.progress.put))
        while len(self._window) > 2 and self._window[1][0] < now - 5:
            self._window.pop(0)
        then, put = self._window[0]
        return (self.progress.put - put) / (now - then) if now > then else 0.0

    def share(self) -> float | None:
        """How much of the source has been put, of 1; None if its size is not known."""
        if self._source is None or not self._source.size:
            return None
        return min(1.0, self._done() / self._source.size)

    def _done(self) -> int:
        return max(self._skip, self.progress.offset)

    def left(self, rate: float) -> list[Part]:
        """How much of the source is put and, if jobs are being put, how long the rest takes at the pace so far."""
        share = self.share()
        if share is None or self._source is None or self._source.size is None:
            return []
        part, fed = Part(0, f"{100 * share:.0f} %"), self._done() - self._skip
        if rate == 0 or fed == 0:
            return [part]
        rest = max(0, self._source.size - self._done())
        return [part, Part(2, f"{duration((self._clock() - self._began) * rest / fed)} left")]

    def fullness(self) -> list[Part]:
        """How full the queue is; empty before Redis' first answer."""
        size, maxsize = self.progress.size, self.progress.maxsize
        if not size and not maxsize:
            return []
        return [Part(3, f"queue {size:,}/{maxsize:,}" if maxsize else f"queue {size:,} (unbounded)")]

    def parts(self) -> list[Part]:
        progress, rate = self.progress, self.rate()
        return [
            *self.left(rate),
            Part(5, f"{progress.put:,} put"),
            Part(6, f"{rate:,.0f}/s" if rate >= 1 or not rate else f"{rate:.1g}/s"),
            *self.fullness(),
            Part(7, f"waited {progress.waited:.1f} s"),
            *[Part(1, "waiting for room")] * progress.waiting,
        ]

    def line(self) -> str:
        return f"{self.queue}: " + ", ".join(part.text for part in self.parts())

    def view(self, room: int) -> Text:
        """One line: how much of the source is put, as a bar if its size is known, and the figures that fit."""
        parts, share = self.parts(), self.share()
        if share is not None:
            parts.insert(0, Part(BAR_RANK, " " * BAR))
        name = Text(self.queue, "bold")
        while name.cell_len + sum(len(part.text) + 3 for part in parts) > room:
            if name.cell_len > NAME:
                name = shortened(name, NAME, middle=True)
            elif len(parts) > 1:
                parts.remove(max(parts))
            else:
                break
        line = Text.assemble(name, " ")
        if share is not None and parts[0].rank == BAR_RANK:
            line.append(bar(share, "yellow" if self.progress.waiting else "green")).append(" ")
            del parts[0]
        return line.append(" · ".join(part.text for part in parts))


@contextmanager
def shown(queue: str, progress: Progress, source: Source | None, *, quiet: bool) -> Iterator[None]:
    """Show a feed's progress while the block runs."""
    if quiet:
        yield
        return
    meter = Meter(queue, progress, source)
    console = console_of(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        live = Live(
            get_renderable=lambda: meter.view(console.width - 1), console=console, refresh_per_second=8, transient=True
        )
        with live, logged_above():
            yield
        return
    over = threading.Event()
    thread = threading.Thread(target=say_now_and_then, args=(meter, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def logged_above() -> Iterator[None]:
    """Send log lines to the sys.stderr that a live line has installed, so that they appear above it."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]
    before = [each.setStream(sys.stderr) for each in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if stream is not None:
                handler.setStream(stream)


def say_now_and_then(meter: Meter, over: threading.Event) -> None:
    while not over.wait(EVERY):
        print(meter.line(), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`0:42`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

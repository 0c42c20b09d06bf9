"""What a producer shows while it works: a live line on a terminal, a plain line every 5 s on a pipe."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rq_lite.client.put import Progress
from rq_lite.feeds.sources import Source

EVERY = 5.0  # seconds between two plain lines


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

    def fill(self) -> float | None:
        return self.progress.size / self.progress.maxsize if self.progress.maxsize else None

    def queue_parts(self) -> list[str]:
        """How full the queue is; empty before Redis' first answer."""
        size, maxsize = self.progress.size, self.progress.maxsize
        if not size and not maxsize:
            return []
        return [f"queue {size:,}/{maxsize:,}" if maxsize else f"queue {size:,} (unbounded)"]

    def left(self, rate: float) -> list[str]:
        """How much of the source is left and, if jobs are being put, how long that takes at the average pace so far."""
        if self._source is None or not self._source.size:
            return []
        total, done = self._source.size, max(self._skip, self.progress.offset)
        rest, fed = max(0, total - done), done - self._skip
        part = f"{100 * rest / total:.0f} % left"
        if rate == 0 or fed == 0:
            return [part]
        return [f"{part}, {duration((self._clock() - self._began) * rest / fed)}"]

    def parts(self) -> list[str]:
        progress, rate = self.progress, self.rate()
        parts = [
            f"{progress.put:,} put",
            f"{rate:,.0f}/s" if rate >= 1 or not rate else f"{rate:.1g}/s",
            *self.queue_parts(),
            f"waited {progress.waited:.1f} s",
            *self.left(rate),
        ]
        if progress.waiting:
            parts.append("waiting for room")
        return parts

    def line(self) -> str:
        return f"{self.queue}: " + ", ".join(self.parts())

    def view(self) -> Table:
        """One line with a bar that shows how full the queue is."""
        grid = Table.grid(padding=(0, 1))
        fill = self.fill()
        color = "yellow" if self.progress.waiting else "green"
        bar = ProgressBar(
            total=1.0, completed=min(1.0, fill or 0.0), width=20, complete_style=color, finished_style=color
        )
        grid.add_row(Text(self.queue, style="bold"), bar, Text(" · ".join(self.parts())))
        return grid


@contextmanager
def shown(queue: str, progress: Progress, source: Source | None, *, quiet: bool) -> Iterator[None]:
    """Show a feed's progress while the block runs."""
    if quiet:
        yield
        return
    meter = Meter(queue, progress, source)
    console = Console(stderr=True)
    if console.is_terminal:
        live = Live(get_renderable=meter.view, console=console, refresh_per_second=8, transient=True)
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

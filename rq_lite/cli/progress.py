"""What a producer shows while it works: a live line on a terminal, a plain line now and then on a pipe."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rq_lite.putting import Progress
from rq_lite.sources import Source

EVERY = 5.0  # seconds between two plain lines


class Meter:
    """Figures of a feed as they are now, from its progress and its source."""

    def __init__(self, queue: str, progress: Progress, source: Source | None) -> None:
        self.queue = queue
        self.progress = progress
        self._source = source
        self._began = time.monotonic()
        self._skip = source.offset if source is not None else 0
        self._window = [(self._began, 0)]  # (when, put) of the last seconds

    def rate(self) -> float:
        """Jobs per second over the last five seconds."""
        now = time.monotonic()
        self._window.append((now, self.progress.put))
        while len(self._window) > 2 and self._window[1][0] < now - 5:
            self._window.pop(0)
        then, put = self._window[0]
        return (self.progress.put - put) / (now - then) if now > then else 0.0

    def fill(self) -> float | None:
        return self.progress.size / self.progress.maxsize if self.progress.maxsize else None

    def left(self) -> tuple[float, float] | None:
        """Which part of the source is left, and the seconds that will take at the pace so far."""
        if self._source is None or not self._source.size:
            return None
        done, total = self._source.offset, self._source.size
        fed, seconds = done - self._skip, time.monotonic() - self._began
        part = max(0.0, 1 - done / total)
        return part, seconds * (total - done) / fed if fed > 0 else 0.0

    def parts(self) -> list[str]:
        progress = self.progress
        bound = f"{progress.size:,}/{progress.maxsize:,}" if progress.maxsize else f"{progress.size:,} (unbounded)"
        parts = [
            f"{progress.put:,} put",
            f"{self.rate():,.0f}/s",
            f"queue {bound}",
            f"waited {progress.waited:.1f} s",
        ]
        if (left := self.left()) is not None:
            parts.append(f"{100 * left[0]:.0f} % left, {duration(left[1])}")
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
    """Show how a feed goes on while the block runs."""
    if quiet:
        yield
        return
    meter = Meter(queue, progress, source)
    console = Console(stderr=True)
    if console.is_terminal:
        with Live(get_renderable=meter.view, console=console, refresh_per_second=8, transient=True):
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


def say_now_and_then(meter: Meter, over: threading.Event) -> None:
    while not over.wait(EVERY):
        print(meter.line(), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`0:42`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

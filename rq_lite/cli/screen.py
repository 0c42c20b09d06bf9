"""A view that fills the terminal until Ctrl-C, as `top` does: what was there before comes back at the end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Generic, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

T = TypeVar("T")
PER_SECOND = 4  # redraws, so that ages go on and a terminal of another size is filled at once


class Screen(Generic[T]):
    """Draws `view` of what was last shown, grown older by `aged`, in the terminal's other screen.

    SIGTERM leaves that screen and exits with 143. Ctrl-Z leaves it, with the next redraw, while the process is stopped.
    """

    def __init__(self, console: Console, view: Callable[[T], RenderableType], aged: Callable[[T, float], T]) -> None:
        self._console = console
        self._view = view
        self._aged = aged
        self._shown: tuple[T, float] | None = None
        self._is_to_stop = False
        self._live = Live(
            console=console,
            screen=True,
            get_renderable=self._page,
            refresh_per_second=PER_SECOND,
            redirect_stdout=False,
        )

    def __enter__(self) -> Screen[T]:
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGTSTP, self._pause)
        logging.disable(logging.WARNING)  # a log line would shift the view, which itself says what is wrong
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        logging.disable(logging.NOTSET)

    def show(self, thing: T) -> None:
        self._shown = thing, time.monotonic()
        self._live.refresh()

    def _page(self) -> RenderableType:
        """What to draw. Called before each redraw, by the thread that draws."""
        if self._is_to_stop:
            self._is_to_stop = False
            self._other_screen(False)
            os.kill(os.getpid(), signal.SIGSTOP)
            self._other_screen(True)
        if self._shown is None:
            return ""
        thing, at = self._shown
        return Page(self._view(self._aged(thing, time.monotonic() - at)))

    def _pause(self, _number: int, _frame: FrameType | None) -> None:
        self._is_to_stop = True  # it may have interrupted a write to the terminal, in which another one would fail

    def _other_screen(self, on: bool) -> None:
        self._console.set_alt_screen(on)
        self._console.show_cursor(not on)


class Page:
    """As many lines as the terminal has room for; the last one then tells how many there are beside them."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._content, options.reset_height(), pad=False)
        height = console.height
        if len(lines) > height:
            lines[height - 1 :] = console.render_lines(
                Text(f"… {len(lines) - height + 1:,} more lines: name queues, or make the terminal higher", "dim"),
                options.reset_height(),
                pad=False,
            )[:1]
        for line in lines:
            yield from line
            yield Segment.line()


def end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)

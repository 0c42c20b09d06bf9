"""The view that fills the terminal."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from rq_lite.cli.screen import Screen
from tests.conftest import until

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


class Terminal(io.StringIO):
    """One whose writes a signal interrupts."""

    interrupt: Callable[[], None] | None = None
    writing = False

    def write(self, text: str) -> int:
        if self.writing:
            raise RuntimeError("reentrant call inside a write")  # as Python's own buffered files do
        self.writing = True
        try:
            if self.interrupt is not None:
                interrupt, self.interrupt = self.interrupt, None
                interrupt()
            return super().write(text)
        finally:
            self.writing = False


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_ctrl_z_may_interrupt_a_redraw(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    terminal = Terminal()
    monkeypatch.setattr(os, "kill", lambda pid, number: stopped.append(terminal.getvalue()))
    console = Console(file=terminal, force_terminal=True, width=60, height=10)
    with Screen(console, str, lambda thing, seconds: thing) as screen:
        terminal.interrupt = lambda: signal.raise_signal(signal.SIGTSTP)
        screen.show("first")
        until(lambda: stopped, "it stops with the next redraw")
        screen.show("second")
    (seen,) = stopped
    assert (seen.count(ENTER), seen.count(LEAVE)) == (1, 1)
    assert (terminal.getvalue().count(ENTER), terminal.getvalue().count(LEAVE)) == (2, 2)
    assert "second" in terminal.getvalue()

"""What a process can learn about one that it has started: how it ended, its stacks, how much memory it uses."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rq_lite.process.board import new_file

PAGE = os.sysconf("SC_PAGE_SIZE")
INSTALLED = Path(__file__).parents[2]
STACK = signal.SIGUSR2
PRINTING = 0.5  # seconds that a process has to write its stack; one that is stopped never does


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of rq_lite in a new interpreter, whatever files are in the current folder.

    With a plain `-m` Python searches the current folder first, and a `queue.py` of the app would be imported by the
    standard library in the place of its own.
    """
    safe = [] if Path.cwd() == INSTALLED else ["-P"]  # in a checkout that is not installed this folder is needed
    return [sys.executable, *safe, "-m", module, *arguments]


def ending(code: int) -> str:
    """How a process ended, from its exit code as subprocess gives it; a phrase that follows its name."""
    if code >= 0:
        return f"ended with exit code {code}"
    why = "out of memory?" if code == -signal.SIGKILL else signal.strsignal(-code)
    return f"was killed by signal {-code} ({why})"


def rss(pid: int) -> int:
    """The memory that a process uses, in bytes; 0 where /proc does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


class Stacks:
    """A file that the process inherits: it writes its stack there when it crashes, and when it is asked for it."""

    def __init__(self) -> None:
        self.file = new_file()
        self._asked = 0  # where in the file the answer to the last question begins

    def asked(self, ask: Callable[[int], None]) -> str:
        """Its present stack, whatever it does; empty if it does not answer in time. `ask` sends it a signal."""
        self._asked = os.fstat(self.file).st_size
        ask(STACK)
        return polled(self.late, PRINTING)

    def late(self) -> str:
        """What it has written since it was asked, however late."""
        return self.last(self._asked)

    def last(self, since: int = 0) -> str:
        """What was written from the offset `since` on."""
        return os.pread(self.file, 100_000, since).decode(errors="replace").strip()

    def close(self) -> None:
        os.close(self.file)


def tell_stacks(file: int) -> None:
    """Called in the process: its stack is written when it crashes or is asked, also while C code holds the GIL."""
    faulthandler.enable(file, all_threads=False)
    faulthandler.register(STACK, file, all_threads=False, chain=False)


def polled(look: Callable[[], str], seconds: float) -> str:
    """The text, once it is there and has stopped growing; after the time, whatever is there."""
    until, last = time.monotonic() + seconds, ""
    while time.monotonic() < until:
        now = look()
        if now and now == last:
            break
        last = now
        time.sleep(0.01)
    return last


PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have this process killed when its parent dies (on Linux; elsewhere the supervisor's guard does it)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the line above
        os._exit(1)

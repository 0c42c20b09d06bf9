"""Processes that a command starts for itself, and the signals that end the command and them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rq_lite.errors import RqLiteError
from rq_lite.process.subprocesses import ending, module_command

ENDING = 10.0  # seconds that a process has to end, before it is killed
LOOK = 1.0  # seconds between two checks whether its parent still lives
TOLD = 20  # lines of a log that are shown when something went wrong
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(RqLiteError):
    """A signal has ended the command; the exit code is the one that a shell gives for it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; everything was stopped and removed")
        self.exit_code = 128 + number


@contextlib.contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Collect the signals that come. They do nothing else, so that no cleaning up is cut short."""
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: caught.append(n))
        for number in SIGNALS
        # Under nohup it is ignored, and should stay so.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class BackgroundProcess:
    """A process whose output goes to a log. It ends with this one, if it calls `end_with_parent`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        environ: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._kept: str | None = None
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                module_command(*command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environ or {})},
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; below 0: minus the signal that killed it."""
        return self._process.poll()

    @property
    def said(self) -> str:
        """Its output so far."""
        return self._log.read_text("locale", "replace") if self._kept is None else self._kept

    def keep(self) -> None:
        """Keep its output: its log is about to be removed."""
        self._kept = self.said

    def trouble(self) -> str | None:
        """How it has ended, with its last lines; None while it runs."""
        code = self.exit_code
        if code is None:
            return None
        how = ending(code)
        lines = self.said.splitlines()[-TOLD:]
        said = "".join(f"\n  {line}" for line in lines) or " nothing"
        return f"the {self.name} {how}; its last output:{said}"

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._forget()

    def stop(self) -> None:
        """SIGTERM; SIGKILL if that does not end it in time."""
        self._process.terminate()
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._forget()

    def _forget(self) -> None:
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def end_with_parent() -> None:
    """Called in the background process: it gets SIGTERM when its parent is gone, for whatever reason; later SIGKILL."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    # Standard input ends with the parent, unless a process that it has forked holds the other end as well.
    # Not sys.stdin: a thread that waits there holds its lock, which breaks the interpreter's shutdown.
    while os.getppid() == parent and not select.select([0], [], [], LOOK)[0]:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ENDING)
    os.kill(os.getpid(), signal.SIGKILL)

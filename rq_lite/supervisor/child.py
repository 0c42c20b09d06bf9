"""A consumer as its supervisor sees it: a process of its own, the plan sent to it, the reports that come back."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time

from rq_lite.errors import UNREADABLE
from rq_lite.process.board import ENTRANCE, Board, Running, new_file, size
from rq_lite.process.protocol import REBUILD, RETIRE, ChildEvent, ConsumerConfig, parse_event, write_config
from rq_lite.process.subprocesses import Stacks, rss

log = logging.getLogger("rq_lite.worker")


class Child:
    """Started at once, as a fresh interpreter in a session of its own: what its jobs start goes with it."""

    def __init__(self, plan: ConsumerConfig) -> None:
        self.number = plan.number
        self.alone = plan.alone
        self.name = "consumer for suspects" if plan.alone else f"consumer {plan.number}"
        self.consumer = ""  # its id, once it has said who it is
        self.ready: ChildEvent | None = None
        self.failure: ChildEvent | None = None
        self.retired = False  # it was told to go when its jobs have ended
        self.left = False  # it has said goodbye: its end is no accident
        self.slow = False  # it was not ready in time, which was said
        self.unwanted = False  # it was killed because it was not ready when a reload began
        self.mute = False  # its end of the pipe is closed: no more reports will come
        self.guilty: list[Running] = []  # it was killed for these jobs' hard time limit
        self.born = time.monotonic()
        slots = 1 if plan.alone else plan.settings.greenlets
        # Any of these may find that the system has no more files.
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            board = new_file(size(slots))
            theirs.callback(os.close, board)
            self.board = Board(board, slots)
            ours.callback(self.board.close)
            self._stacks = Stacks()
            ours.callback(self._stacks.close)
            life, self._life = os.pipe()
            theirs.callback(os.close, life)
            ours.callback(os.close, self._life)
            self.reports, reports = os.pipe()
            theirs.callback(os.close, reports)
            ours.callback(os.close, self.reports)
            inherited = (life, reports, board, self._stacks.file)
            # Not waited for through this object: the supervisor reaps whatever ends, also as PID 1.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rq_lite.consumer.boot", *map(str, inherited)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._open = ours.pop_all()
        os.set_blocking(self.reports, False)
        self._buffer = b""
        self._warned = False
        self.pid = self._process.pid
        with contextlib.suppress(BrokenPipeError):  # it is dead already: waitpid will say so
            write_config(self._life, plan)

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"

    def hear(self) -> list[ChildEvent]:
        """The reports that have come in since the last call."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.reports, 65_536):
                self._buffer += piece
            self.mute = True
        *lines, self._buffer = self._buffer.split(b"\n")
        heard = [report for line in lines if (report := self._understood(line)) is not None]
        for report in heard:
            self.consumer = report.consumer or self.consumer
            if report.event == "ready":
                self.ready = report
            elif report.event == "failed":
                self.failure = report
            elif report.event == "left":
                self.left = True
        return heard

    def _understood(self, line: bytes) -> ChildEvent | None:
        """None: somebody else has written that, a job, or what it has started."""
        try:
            return parse_event(line)
        except UNREADABLE:
            if not self._warned:
                self._warned = True
                log.warning("%s: its report cannot be read; does a job write to files that are not its own?", self)
            return None

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def retire(self) -> None:
        """It takes no more, and ends when its running jobs have ended."""
        self.retired = True
        self._tell(RETIRE)

    def rebuild(self) -> None:
        """It connects anew."""
        self._tell(REBUILD)

    def _tell(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._life, word + b"\n")

    def queue(self, job: Running) -> str:
        """The queue of a job on its board."""
        return list(self.ready.queues)[job.lane] if self.ready is not None else ""

    def running(self) -> dict[str, list[Running]]:
        """The jobs that its loop goes round, by queue."""
        found: dict[str, list[Running]] = {}
        for job in self.board.on_the_loop():
            found.setdefault(self.queue(job), []).append(job)
        return found

    def rss(self) -> int:
        """Its memory, in bytes; 0 where that is not known."""
        return rss(self.pid)

    # -- stacks

    def stack(self) -> str:
        """Where it is just now, whatever it does; empty when it does not say so in time."""
        return self._stacks.asked(self.signal)

    def late_stack(self) -> str:
        """Where it was when it heard that it was asked; empty while it has not."""
        return self._stacks.late()

    def last_stack(self) -> str:
        """What was written of stacks: on request, and by a crash."""
        return self._stacks.last()

    def culprit(self, stack: str) -> Running | None:
        """The job that a stack belongs to; None where it is no slot's."""
        slots = re.findall(rf" in {ENTRANCE}(\d+)$", stack, re.MULTILINE)
        return self.board.running(int(slots[-1])) if slots else None

    def clean_up(self) -> None:
        """After its end: kill what its jobs have left behind, and close the pipes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.returncode = 0  # reaped elsewhere; keeps Popen from looking for it
        self._open.close()

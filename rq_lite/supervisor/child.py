"""A consumer as its supervisor sees it: a process, the configuration sent to it, the reports that come back."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time

from rq_lite.logs import logger
from rq_lite.model.unreadable import UNREADABLE
from rq_lite.process.board import ENTRANCE, Board, Running, new_file, size
from rq_lite.process.protocol import NOTICES, REBUILD, RETIRE, ChildEvent, ConsumerConfig, parse_event, write_config
from rq_lite.process.subprocesses import Stacks, module_command, rss

log = logger("rq_lite.worker")


class Child:
    """One consumer, from its start to the end of its process. Its owner is the fleet.

    1. It is started at once: a fresh interpreter, in a session of its own, so that what its jobs start can be killed
       with it. It inherits a pipe each way, the board (shared memory) and a file for its stacks.
    2. Its configuration is written to the first pipe; later single words follow (`retire`, `rebuild`, `notices`).
    3. `hear` reads what it reports: hello (its id), ready, failed or left.
    4. The watchdog reads its board, and may ask for its stack.
    5. `retire`: it takes no more jobs, and ends when its running jobs have ended. `signal` ends it sooner.
    6. The fleet reaps the process; `clean_up` kills what its jobs left behind, and closes the pipes.
    """

    def __init__(self, config: ConsumerConfig) -> None:
        self.number = config.number
        self.alone = config.alone
        self.name = "consumer for suspects" if config.alone else f"consumer {config.number}"
        self.consumer = ""  # its id, once it has reported it
        self.ready: ChildEvent | None = None
        self.failure: ChildEvent | None = None
        self.retired = False  # it was told to end when its jobs have ended
        self.left = False  # it has reported that it ends: it did not crash
        self.slow = False  # it was not ready in time, which was logged
        self.unwanted = False  # it was killed because it was not ready when a reload began
        self.mute = False  # its end of the pipe is closed: no more reports will come
        self.guilty: list[Running] = []  # it was killed because these jobs were past their hard time limit
        self.born = time.monotonic()
        slots = 1 if config.alone else config.settings.greenlets
        # Each of these may fail because the system has no file left.
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
            # Not waited for through this object: the fleet reaps every process that ends, also as PID 1.
            self._process = subprocess.Popen(
                module_command("rq_lite.consumer.boot", *map(str, inherited)),
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                cwd=config.folder or None,
                start_new_session=True,
            )
            self._open = ours.pop_all()
        os.set_blocking(self.reports, False)
        self._buffer = b""
        self._warned = False
        self.pid = self._process.pid
        with contextlib.suppress(BrokenPipeError):  # it is dead already: the fleet will reap it
            write_config(self._life, config)

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"

    def hear(self) -> list[ChildEvent]:
        """The reports that came since the last call."""
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
        """None if the line is no report: a job, or a process that it started, has written it."""
        try:
            return parse_event(line)
        except UNREADABLE:
            if not self._warned:
                self._warned = True
                log.warning("%s sent an unreadable report; does a job write to files that are not its own?", self)
            return None

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def retire(self) -> None:
        """Tell it to take no more jobs, and to end when its running jobs have ended."""
        self.retired = True
        self._tell(RETIRE)

    def rebuild(self) -> None:
        """Tell it to reconnect to Redis."""
        self._tell(REBUILD)

    def tell_notices(self) -> None:
        """Tell it to look for notices, and to call hooks."""
        self._tell(NOTICES)

    def _tell(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._life, word + b"\n")

    def queue(self, job: Running) -> str:
        """The queue of a job on its board."""
        return list(self.ready.queues)[job.lane] if self.ready is not None else ""

    def running(self) -> dict[str, list[Running]]:
        """The jobs that run in its loop, by queue."""
        found: dict[str, list[Running]] = {}
        for job in self.board.on_the_loop():
            found.setdefault(self.queue(job), []).append(job)
        return found

    def rss(self) -> int:
        """The memory that it uses, in bytes; 0 if unknown."""
        return rss(self.pid)

    # -- stacks

    def stack(self) -> str:
        """Its stack just now, even if its loop stands still; empty if it does not answer in time."""
        return self._stacks.asked(self.signal)

    def late_stack(self) -> str:
        """The answer to the last `stack`, if that came too late; empty before then."""
        return self._stacks.late()

    def last_stack(self) -> str:
        """All stacks that it has written: when asked, and when it crashed."""
        return self._stacks.last()

    def culprit(self, stack: str) -> Running | None:
        """The job whose slot is on this stack; None if no slot is."""
        slots = re.findall(rf" in {ENTRANCE}(\d+)$", stack, re.MULTILINE)
        return self.board.running(int(slots[-1])) if slots else None

    def clean_up(self) -> None:
        """After its end: kill the processes that its jobs left behind, and close the pipes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.returncode = 0  # reaped by the fleet: Popen must not wait for it
        self._open.close()

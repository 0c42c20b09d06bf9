"""A consumer as its supervisor sees it: a process of its own, the plan sent to it, the reports that come back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from rq_lite.runtime.plan import Plan, Report, parse_report, write_plan


class Child:
    """Started at once, as a fresh interpreter in a session of its own: what its jobs start goes with it."""

    def __init__(self, plan: Plan) -> None:
        self.number = plan.number
        self.consumer = ""  # its id, once it has said who it is
        self.queues: dict[str, int] = {}
        self.ready = False
        self.failure: Report | None = None
        self.born = time.monotonic()
        life, self._life = os.pipe()
        self.reports, reports = os.pipe()
        try:
            # Not waited for through this object: the supervisor reaps whatever ends, also as PID 1.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rq_lite.runtime.boot", str(life), str(reports)],
                pass_fds=(life, reports),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(life)
            os.close(reports)
        os.set_blocking(self.reports, False)
        self._buffer = b""
        self.pid = self._process.pid
        with contextlib.suppress(BrokenPipeError):  # it is dead already: waitpid will say so
            write_plan(self._life, plan)

    def hear(self) -> list[Report]:
        """The reports that have come in since the last call."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.reports, 65_536):
                self._buffer += piece
        *lines, self._buffer = self._buffer.split(b"\n")
        heard = [parse_report(line) for line in lines]
        for report in heard:
            self.consumer = report.consumer or self.consumer
            if report.event == "ready":
                self.ready, self.queues = True, report.queues
            elif report.event == "failed":
                self.failure = report
        return heard

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def bury(self) -> None:
        """After its end: kill what its jobs have left behind, and close the pipes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.returncode = 0  # reaped elsewhere; keeps Popen from looking for it
        os.close(self._life)
        os.close(self.reports)

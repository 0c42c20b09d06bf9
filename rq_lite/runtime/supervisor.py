"""A worker's parent process: starts consumers, watches them, ends them. Plain Python, never patched, runs no jobs.

Starting is in two steps: the first consumer imports the app and says which queues there are, then the others follow;
so an app that cannot be imported is reported once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable

from rq_lite import __version__
from rq_lite.broker import Broker
from rq_lite.runtime.child import Child
from rq_lite.runtime.duties import Duties
from rq_lite.runtime.guard import Guard
from rq_lite.runtime.identity import mine
from rq_lite.runtime.plan import Plan

log = logging.getLogger("rq_lite.worker")

STOPPING = (signal.SIGTERM, signal.SIGINT)
MARGIN = 5.0  # seconds beyond its grace after which a consumer that does not end is killed
YOUNG = 10.0  # a consumer that dies sooner has died at its start
TRIES = 6  # deaths at the start, in a row, after which the worker gives up


class Supervisor:
    """One worker. `run` returns its exit code; `plan` makes the plan of consumer number n."""

    def __init__(self, broker: Broker, plan: Callable[[int], Plan], procs: int, *, burst: bool = False) -> None:
        self._broker = broker
        self._plan = plan
        self._procs = procs
        self._grace = broker.settings.grace
        self._children: dict[int, Child] = {}  # by pid
        self._due: dict[int, float] = {}  # consumers to start: number to when
        self._deaths = 0  # in a row, of young consumers
        self._stops = 0
        self._hurried = False  # the second signal was passed on
        self._kill_at: float | None = None
        self._exit_code: int | None = None
        self._shown = False
        self._wake, self._woken = os.pipe()
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        self._selector = selectors.DefaultSelector()
        self._guard = Guard()
        facts: dict[str, str | int] = {"procs": procs, "slots": broker.settings.greenlets, "since": round(time.time())}
        self._duties = Duties(broker, str(mine()), facts, self._drained if burst else None)

    # -- the loop

    def run(self) -> int:
        self._catch_signals()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._start(1)
        while self._children or self._due:
            self._selector.select(self._pause())
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._hear()
            self._reap()
            if self._stops:
                self._stop_children()
            self._start_what_is_due()
        self._duties.stop()
        self._guard.close()
        self._reap()
        return self._exit_code or 0

    def _pause(self) -> float:
        """Seconds until something is due; children are also looked for now and then, should a signal get lost."""
        dues = [*self._due.values(), *([self._kill_at] if self._kill_at else [])]
        return max(0.0, min([time.monotonic() + 1.0, *dues]) - time.monotonic())

    def _catch_signals(self) -> None:
        """Handlers do nothing but count and wake the loop."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOPPING:
            signal.signal(number, self._on_stop)

    def _on_stop(self, *_: object) -> None:
        self._stops += 1

    def _drained(self) -> None:
        """From the duties' thread, in burst mode."""
        if not self._stops:
            log.info("everything is drained")
        self._stops = max(1, self._stops)
        with contextlib.suppress(BlockingIOError):
            os.write(self._woken, b"\0")

    # -- consumers

    def _start(self, number: int) -> None:
        child = Child(self._plan(number))
        self._children[child.pid] = child
        self._selector.register(child.reports, selectors.EVENT_READ)
        self._guard.watch(self._children)

    def _start_what_is_due(self) -> None:
        for number, due in list(self._due.items()):
            if self._stops:
                del self._due[number]
            elif due <= time.monotonic():
                del self._due[number]
                self._start(number)

    def _hear(self) -> None:
        for child in self._children.values():
            for report in child.hear():
                if report.event == "ready":
                    self._on_ready(child)

    def _on_ready(self, child: Child) -> None:
        if not self._shown:
            self._shown = True
            self._show(child.queues)
            self._duties.start(list(child.queues))
            for number in range(2, self._procs + 1):
                self._due[number] = 0.0
        self._duties.born(child.consumer)
        log.info("consumer %d ready (pid %d)", child.number, child.pid)

    def _reap(self) -> None:
        """Whatever has ended: consumers, the guard, and as PID 1 also strangers."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                self._on_end(child, os.waitstatus_to_exitcode(status))
            elif pid == self._guard.pid and (self._children or self._due):
                self._guard.watch(self._children)

    def _on_end(self, child: Child, code: int) -> None:
        child.hear()
        self._selector.unregister(child.reports)
        child.bury()
        self._guard.watch(self._children)
        if child.consumer:
            self._duties.died(child.consumer)
        if self._stops:
            return
        if child.failure is not None and not self._shown:
            self._give_up(child.failure.error, child.failure.traceback, code)
            return
        reason = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        log.error("consumer %d (pid %d) %s%s", child.number, child.pid, reason, hint)
        self._deaths = self._deaths + 1 if time.monotonic() - child.born < YOUNG else 1
        # One that was ready has died of a job: the others' jobs must not suffer for that.
        if self._deaths >= TRIES and not child.ready:
            said = child.failure.error if child.failure else f"a consumer {reason}"
            self._give_up(f"{self._deaths} consumers in a row died at their start; the last: {said}", "", 1)
            return
        self._due[child.number] = time.monotonic() + min(30.0, 0.25 * 2 ** (self._deaths - 1))

    def _give_up(self, error: str, traceback: str, code: int) -> None:
        if traceback:
            print(traceback, end="", file=sys.stderr)
        print(f"rq-lite: {error}", file=sys.stderr)
        self._exit_code = code if code > 0 else 1
        self._stops = max(1, self._stops)
        self._due.clear()

    def _stop_children(self) -> None:
        """Tell them once; kill them when their grace and a margin are over, or soon after a second signal."""
        if self._kill_at is None:
            if self._children:
                log.info("stopping: running jobs have up to %g s", self._grace)
            self._kill_at = time.monotonic() + self._grace + MARGIN
            self._tell_all(signal.SIGTERM)
        elif self._stops > 1 and not self._hurried:
            self._hurried = True
            self._kill_at = min(self._kill_at, time.monotonic() + MARGIN)
            self._tell_all(signal.SIGTERM)
        if time.monotonic() >= self._kill_at and self._children:
            log.error("%d consumers did not end in time: killed, their jobs run again", len(self._children))
            self._tell_all(signal.SIGKILL)
            self._kill_at = time.monotonic() + MARGIN

    def _tell_all(self, number: int) -> None:
        for child in self._children.values():
            child.signal(number)

    def _show(self, queues: dict[str, int]) -> None:
        bounds = ", ".join(f"{name} ({f'bound {bound:,}' if bound else 'unbounded'})" for name, bound in queues.items())
        slots = self._broker.settings.greenlets
        print(
            f"rq-lite {__version__} worker, pid {os.getpid()}\n"
            f"  queues     {bounds}\n"
            f"  consumers  {self._procs} processes × {slots} greenlets = {self._procs * slots:,} slots\n"
            f"  redis      {self._broker.shown} (version {'.'.join(map(str, self._broker.version))})\n"
            f"  stop       Ctrl-C or SIGTERM; running jobs have {self._grace:g} s",
            file=sys.stderr,
            flush=True,
        )

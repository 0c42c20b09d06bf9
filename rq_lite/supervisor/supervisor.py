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
from collections import deque
from collections.abc import Callable

import msgspec

from rq_lite import events
from rq_lite.broker import Broker, Death
from rq_lite.duties.duties import Duties
from rq_lite.duties.reclaim import ConsumerEnd
from rq_lite.process.board import EXITING, Running
from rq_lite.process.identity import mine
from rq_lite.process.protocol import ConsumerConfig
from rq_lite.process.subprocesses import ending
from rq_lite.supervisor.child import Child
from rq_lite.supervisor.guard import Guard
from rq_lite.supervisor.restart import RestartBackoff
from rq_lite.supervisor.watchdog import Limits, Watchdog

log = logging.getLogger("rq_lite.worker")

STOPPING = (signal.SIGTERM, signal.SIGINT)
MARGIN = 3.0  # seconds beyond its grace after which a consumer that does not end is killed
LOOK = 0.5  # seconds between two looks at the consumers
LATER = 2.0  # seconds until another try where the system could not start a process
SLOW = 30.0  # a consumer that is not ready after so many seconds is reported
LONER = 0  # the number of a consumer for suspects


class Supervisor:
    """One worker. `run` returns its exit code; `plan` makes the plan of consumer number n."""

    def __init__(
        self,
        broker: Broker,
        plan: Callable[[int], ConsumerConfig],
        procs: int,
        limits: Limits,
        *,
        version: str,
        burst: bool = False,
    ) -> None:
        self._version = version
        self._broker = broker
        self._plan = plan
        self._procs = procs
        self._grace = broker.settings.grace
        self._children: dict[int, Child] = {}  # by pid
        self._due: dict[int, float] = {}  # consumers to start: number to when
        self._respawn = RestartBackoff()
        self._outgoing: deque[Child] = deque()  # to be replaced, one after the other
        self._replacing: tuple[Child, Child] | None = None  # the one that goes, and its successor
        self._loners_at = 0.0  # no consumer for suspects is started before
        self._loners_failed = 0
        self._stops = 0
        self._reload = False
        self._drained_all = False  # there is nothing more to run
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
        self._overseer = Watchdog(self._duties, limits)

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
            else:
                self._look_for_slow()
                if self._shown:
                    self._look_after()
            self._start_what_is_due()
        self._duties.stop()
        self._guard.close()
        self._reap()
        return self._exit_code or 0

    def _pause(self) -> float:
        """Seconds until something is due; children are also looked for now and then, should a signal get lost."""
        dues = [*self._due.values(), *([self._kill_at] if self._kill_at else [])]
        return max(0.0, min([time.monotonic() + LOOK, *dues]) - time.monotonic())

    def _catch_signals(self) -> None:
        """Handlers do nothing but count and wake the loop."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOPPING:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_stop(self, *_: object) -> None:
        self._stops += 1

    def _on_reload(self, *_: object) -> None:
        self._reload = True

    def _drained(self) -> None:
        """From the duties' thread, in burst mode."""
        if not self._stops:
            self._drained_all = True
            log.info("everything is drained")
        self._stops = max(1, self._stops)
        with contextlib.suppress(BlockingIOError):
            os.write(self._woken, b"\0")

    # -- consumers come

    def _start(self, number: int) -> Child:
        plan = msgspec.structs.replace(self._plan(number), alone=number == LONER, patient=self._shown)
        events.emit("start.before", None, number=number)
        child = Child(plan)
        self._children[child.pid] = child
        self._selector.register(child.reports, selectors.EVENT_READ)
        self._guard.watch(self._children)
        events.emit("start.after", None, number=number, child=child.pid)
        return child

    def _start_what_is_due(self) -> None:
        for number, due in list(self._due.items()):
            if self._stops:
                del self._due[number]
            elif due <= time.monotonic():
                del self._due[number]
                if self._start_if_possible(number) is None:
                    self._due[number] = time.monotonic() + LATER

    def _start_if_possible(self, number: int) -> Child | None:
        """None: the system has no process or file for it just now; the others go on."""
        try:
            return self._start(number)
        except OSError as error:
            log.error("no consumer can be started just now: %s", error)
            return None

    def _hear(self) -> None:
        for child in self._children.values():
            for report in child.hear():
                if report.event == "ready":
                    self._on_ready(child)
            if child.mute:
                self._stop_listening(child)

    def _stop_listening(self, child: Child) -> None:
        with contextlib.suppress(KeyError):  # that was done when its pipe ended, which would wake us for ever
            self._selector.unregister(child.reports)

    def _on_ready(self, child: Child) -> None:
        assert child.ready is not None
        self._duties.born(child.consumer)
        if not self._shown:
            self._shown = True
            self._show(child.ready.queues)
            self._duties.start(list(child.ready.queues))
            for number in range(2, self._procs + 1):
                self._due[number] = 0.0
        else:
            for queue in child.ready.queues:  # new code may have new ones
                self._duties.serve(queue)
        log.info("%s ready (pid %d)", child.name, child.pid)
        if child.alone:
            self._loners_failed = 0
        if self._replacing is not None and self._replacing[1] is child:
            old, self._replacing = self._replacing[0], None
            old.retire()
            log.info("%s takes the place of %s, which ends when its jobs have ended", child, old)

    # -- consumers that work

    def _look_for_slow(self) -> None:
        for child in self._children.values():
            if not child.ready and not child.slow and time.monotonic() > child.born + SLOW:
                child.slow = True
                log.warning("%s is not ready after %g s: is it importing the app?", child, SLOW)

    def _look_after(self) -> None:
        now = time.monotonic()
        if self._reload:
            self._reload = False
            self._begin_reload()
        for child in self._overseer.look([child for child in self._children.values() if child.ready], now):
            if child not in self._outgoing and not child.alone:
                self._outgoing.append(child)
        self._replace_next()
        loners = sum(child.alone and not child.retired for child in self._children.values())
        wanted = loners < min(self._duties.suspects, self._procs) and now >= self._loners_at
        if wanted and self._start_if_possible(LONER) is None:
            self._loners_at = now + LATER

    def _begin_reload(self) -> None:
        """Who is not ready yet may never be, and is not waited for: another is started in its place."""
        log.info("SIGHUP: the consumers are replaced one by one")
        for child in self._children.values():
            if not child.ready:
                log.info("%s is not ready yet: it is killed, and another started", child)
                child.unwanted = True
                child.signal(signal.SIGKILL)
            elif not child.alone and not child.retired and child not in self._outgoing:
                self._outgoing.append(child)

    def _replace_next(self) -> None:
        while self._replacing is None and self._outgoing:
            old = self._outgoing.popleft()
            if old.pid in self._children and not old.retired:
                successor = self._start_if_possible(old.number)
                if successor is None:
                    self._outgoing.appendleft(old)
                    return
                self._replacing = old, successor

    # -- consumers go

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
        end = self._end_of(child, code)
        self._stop_listening(child)
        child.bury()
        self._guard.watch(self._children)
        if child.consumer:
            self._duties.died(end)
        if self._stops:
            return
        if child.failure is not None and not self._shown:
            self._give_up(child.failure.error, child.failure.traceback, code)
            return
        if child.left and not child.retired and not child.alone:
            log.warning("%s was told to end by somebody else, and is replaced", child)
        elif not child.left and not child.guilty and not child.unwanted:  # else that was said when it was killed
            log.error("%s %s", child, end.death.how)
        if self._replacing is not None and child in self._replacing:
            self._on_end_of_replacing(child)
        elif child.alone:
            self._loners_failed += not child.ready
            if child.left:  # it found no more; the next renewal counts anew
                self._duties.suspects = 0
            self._loners_at = time.monotonic() + (min(30.0, 2.0**self._loners_failed) if self._loners_failed else 0.0)
        elif child.unwanted:
            self._due[child.number] = 0.0
        elif not child.retired:
            self._start_again(child, end.death.how)

    def _end_of(self, child: Child, code: int) -> ConsumerEnd:
        """How it ended, and which of its jobs are to blame."""
        how = ending(code)
        tasks = child.ready.tasks if child.ready else {}
        if child.guilty:
            limit = f"hard limit: {self._overseer.hard_limit}; its consumer was killed"
            timed_out = [(child.queue(job), job.tag) for job in child.guilty]
            return ConsumerEnd(child.consumer, Death(limit, "none", child.last_stack()), None, timed_out, tasks)
        if child.left or child.unwanted or self._kill_at is not None:
            return ConsumerEnd(child.consumer, Death(how, "none"))  # told to: nobody is to blame
        stack = child.last_stack()
        if code >= 0:  # else the stack is an older one, of a moment when it was stuck
            stack = stack.rpartition(EXITING)[2] if EXITING in stack else ""
        culprit = child.culprit(stack)
        if code == -signal.SIGKILL:
            culprit, stack = None, ""  # likewise
        return ConsumerEnd(child.consumer, Death(how, "all", stack), self._named(child, culprit))

    def _named(self, child: Child, job: Running | None) -> tuple[str, int] | None:
        return None if job is None else (child.queue(job), job.tag)

    def _on_end_of_replacing(self, child: Child) -> None:
        assert self._replacing is not None
        old, _ = self._replacing
        self._replacing = None
        if child is old or child.unwanted:
            return  # its successor is under way already, or will be
        self._outgoing.clear()
        said, where = "it did not get ready", ""
        if child.failure:
            said, where = child.failure.error, child.failure.traceback
        log.error("%s is not replaced, it works on: %s", old, f"{said}\n{where}".rstrip())

    def _start_again(self, child: Child, how: str) -> None:
        now = time.monotonic()
        pause = self._respawn.pause(ready=child.ready is not None, age=now - child.born)
        if pause is None:
            said = child.failure.error if child.failure else f"a consumer {how}"
            self._give_up(f"{self._respawn.unready} consumers in a row died at their start; the last: {said}", "", 1)
            return
        self._due[child.number] = now + pause

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
            events.emit("stop.before", None)
            if self._children and not self._drained_all:
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
            f"rq-lite {self._version} worker, pid {os.getpid()}\n"
            f"  queues     {bounds}\n"
            f"  consumers  {self._procs} processes × {slots} greenlets = {self._procs * slots:,} slots\n"
            f"  redis      {self._broker.shown} (version {'.'.join(map(str, self._broker.core.version))})\n"
            f"  stop       Ctrl-C or SIGTERM; running jobs have {self._grace:g} s",
            file=sys.stderr,
            flush=True,
        )

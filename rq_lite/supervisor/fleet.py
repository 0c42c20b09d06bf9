"""A worker's consumers: started, replaced when they should be, reaped when they have ended."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from rq_lite import events
from rq_lite.broker import Death
from rq_lite.duties.duties import Duties
from rq_lite.duties.reclaim import ConsumerEnd
from rq_lite.logs import logger
from rq_lite.process.board import EXITING
from rq_lite.process.protocol import ConsumerConfig
from rq_lite.process.subprocesses import ending
from rq_lite.supervisor.child import Child
from rq_lite.supervisor.guard import Guard
from rq_lite.supervisor.restart import RestartBackoff

log = logger("rq_lite.worker")

LATER = 2.0  # seconds until another try if the system could not start a process
SLOW = 30.0  # a consumer that is not ready after this many seconds is reported
OLD = 2  # for each consumer, so many that were replaced may still run jobs
SUSPECTS = 0  # the number of a consumer for suspects


class GaveUp(NamedTuple):
    """Why no consumer can work: the app cannot be imported, or consumers keep dying at their start."""

    error: str
    traceback: str
    exit_code: int


class Fleet:
    """The consumers of one worker. The supervisor's loop calls it; it starts no thread and never waits.

    1. `start(1)`: the first consumer imports the app and reports its queues.
    2. `hear` reads the consumers' reports. Once the first is ready: the duties start, and the others become due.
    3. `start_due` starts those that are due. If the system has no process or file left, it tries again later.
    4. `replace` and `reload`: a successor is started first; once it is ready, the old consumer is told to retire.
       One at a time, so that the worker keeps its slots. While too many old ones still run jobs (`OLD`), the others are
       put off: however often a reload is asked for, the number of processes is limited.
    5. `start_for_suspects` starts consumers that run only suspects, one at a time.
    6. `reap` collects each process that has ended, and tells the duties how, and which job is to blame.
    7. One that crashed is due again after a pause (RestartBackoff); if too many crash at their start, the worker
       gives up (`gave_up`).
    8. `stopping`: nothing more is started. `signal_all` ends those that are left.
    9. `close` ends the guard.
    """

    def __init__(
        self,
        config_of: Callable[[int], ConsumerConfig],
        procs: int,
        selector: selectors.BaseSelector,
        duties: Duties,
        *,
        hard_limit: str,
        on_begun: Callable[[dict[str, int]], None],
    ) -> None:
        self._config_of = config_of
        self._procs = procs
        self._selector = selector
        self._duties = duties
        self._hard_limit = hard_limit
        self._on_begun = on_begun
        self._children: dict[int, Child] = {}  # by pid
        self._due: dict[int, float] = {}  # consumers to start: number to when
        self._backoff = RestartBackoff()
        self._outgoing: deque[Child] = deque()  # to be replaced, one after the other
        self._replacing: tuple[Child, Child] | None = None  # the one that goes, and its successor
        self._waits = False  # the log says that replacements are put off
        self._suspects_at = 0.0  # no consumer for suspects is started before this
        self._suspects_failed = 0
        self._told_to_end = False
        self._guard = Guard()
        self.begun = False  # a consumer has been ready: the app can be imported
        self.stopping = False  # set by the supervisor, in a signal handler too
        self.gave_up: GaveUp | None = None

    # -- what there is

    def __len__(self) -> int:
        return len(self._children)

    def at_work(self) -> bool:
        """Whether consumers run, or are to be started."""
        return bool(self._children or self._due)

    def ready(self) -> list[Child]:
        return [child for child in self._children.values() if child.ready]

    def dues(self) -> list[float]:
        """When consumers are to be started, in time.monotonic()."""
        return list(self._due.values())

    # -- consumers come

    def start(self, number: int) -> Child:
        config = msgspec.structs.replace(self._config_of(number), alone=number == SUSPECTS, patient=self.begun)
        events.emit("start.before", None, number=number)
        child = Child(config)
        self._children[child.pid] = child
        self._selector.register(child.reports, selectors.EVENT_READ)
        self._guard.watch(self._children)
        events.emit("start.after", None, number=number, child=child.pid)
        return child

    def start_due(self) -> None:
        for number, due in list(self._due.items()):
            if self.stopping:
                del self._due[number]
            elif due <= time.monotonic():
                del self._due[number]
                if self._start_if_possible(number) is None:
                    self._due[number] = time.monotonic() + LATER

    def _start_if_possible(self, number: int) -> Child | None:
        """None: the system has no process or file for it just now; the other consumers go on."""
        try:
            return self.start(number)
        except OSError as error:
            log.error("no consumer can be started just now: %s", error)
            return None

    def start_for_suspects(self, now: float) -> None:
        running = sum(child.alone and not child.retired for child in self._children.values())
        wanted = running < min(self._duties.suspects, self._procs) and now >= self._suspects_at
        if wanted and self._start_if_possible(SUSPECTS) is None:
            self._suspects_at = now + LATER

    def pass_notices_on(self) -> None:
        """Let one consumer call the app's hooks for what the duties have left."""
        for_hooks = self._duties.for_hooks
        able = [child for child in self.ready() if not (child.alone or child.retired)]
        if for_hooks.left and able:
            for_hooks.left = False  # before the consumer looks: what is left meanwhile counts again
            able[0].tell_notices()

    # -- consumers report

    def hear(self) -> None:
        for child in self._children.values():
            for report in child.hear():
                if report.event == "ready":
                    self._on_ready(child)
            if child.mute:
                self._stop_listening(child)

    def _stop_listening(self, child: Child) -> None:
        with contextlib.suppress(KeyError):  # done when its pipe ended: a pipe at its end would wake the loop for ever
            self._selector.unregister(child.reports)

    def _on_ready(self, child: Child) -> None:
        assert child.ready is not None
        self._duties.born(child.consumer)
        self._duties.for_hooks.wanted = self._duties.for_hooks.left = child.ready.hooks  # left by an earlier worker
        if not self.begun:
            self.begun = True
            self._on_begun(child.ready.queues)
            self._duties.start(list(child.ready.queues))
            for number in range(2, self._procs + 1):
                self._due[number] = 0.0
        else:
            for queue in child.ready.queues:  # new code may have new queues
                self._duties.serve(queue)
        log.info("%s ready (pid %d)", child.name, child.pid)
        if child.alone:
            self._suspects_failed = 0
        if self._replacing is not None and self._replacing[1] is child:
            old, self._replacing = self._replacing[0], None
            old.retire()
            log.info("%s takes the place of %s, which ends when its jobs have ended", child, old)

    def report_slow(self) -> None:
        for child in self._children.values():
            if not child.ready and not child.slow and time.monotonic() > child.born + SLOW:
                child.slow = True
                log.warning("%s is not ready after %g s: is it importing the app?", child, SLOW)

    # -- consumers are replaced

    def reload(self) -> None:
        """Replace all consumers. One that is not ready may never be: it is killed, and another is started."""
        folder = self._config_of(1).folder
        if folder and not Path(folder).is_dir():
            log.error("SIGHUP: no consumer is replaced, all work on: the folder %s, where they start, is gone", folder)
            return
        log.info("SIGHUP: the consumers are replaced one by one")
        for child in self._children.values():
            if not child.ready:
                log.info("%s is not ready yet: it is killed, and another is started", child)
                child.unwanted = True
                child.signal(signal.SIGKILL)
            elif not child.alone and not child.retired and child not in self._outgoing:
                self._outgoing.append(child)

    def replace(self, children: Iterable[Child]) -> None:
        """Replace these, too; go on with the next, if no replacement is under way."""
        for child in children:
            if child not in self._outgoing and not child.alone:
                self._outgoing.append(child)
        while self._replacing is None and self._outgoing:
            if self._put_off():
                return
            old = self._outgoing.popleft()
            if old.pid in self._children and not old.retired:
                successor = self._start_if_possible(old.number)
                if successor is None:
                    self._outgoing.appendleft(old)
                    return
                self._replacing = old, successor

    def _put_off(self) -> bool:
        """Whether no more may be replaced before one of those that were has ended; the log says so once."""
        left = sum(child.retired for child in self._children.values())
        full = left >= OLD * self._procs
        if full and not self._waits:
            log.warning(
                "replaced consumers that still run jobs: %d; %d more are replaced once one of those has ended",
                left,
                len(self._outgoing),
            )
        self._waits = full
        return full

    # -- consumers go

    def signal_all(self, number: int) -> None:
        self._told_to_end = True
        for child in self._children.values():
            child.signal(number)

    def reap(self) -> None:
        """Collect every process that has ended: consumers, the guard and, as PID 1, also processes of others."""
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
            elif pid == self._guard.pid and self.at_work():
                self._guard.watch(self._children)

    def close(self) -> None:
        self._guard.close()
        self.reap()

    def _on_end(self, child: Child, code: int) -> None:
        child.hear()
        end = end_of(child, code, self._hard_limit, told=self._told_to_end)
        self._stop_listening(child)
        child.clean_up()
        self._guard.watch(self._children)
        if child.consumer:
            self._duties.died(end)
        if self.stopping:
            return
        if child.failure is not None and not self.begun:
            self._give_up(child.failure.error, child.failure.traceback, code)
            return
        if child.left and not child.retired and not child.alone:
            log.warning("%s was told to end, but not by this worker: it is replaced", child)
        elif not child.left and not child.guilty and not child.unwanted:  # else it was logged when it was killed
            log.error("%s %s", child, end.death.how)
        if self._replacing is not None and child in self._replacing:
            self._on_end_of_replacing(child)
        elif child.alone:
            self._on_end_for_suspects(child)
        elif child.unwanted:
            self._due[child.number] = 0.0
        elif not child.retired:
            self._start_again(child, end.death.how)

    def _on_end_of_replacing(self, child: Child) -> None:
        assert self._replacing is not None
        old, _ = self._replacing
        self._replacing = None
        if child is old or child.unwanted:
            return  # its successor is under way already, or will be
        self._outgoing.clear()
        said, where = "its successor did not get ready", ""
        if child.failure:
            said, where = child.failure.error, child.failure.traceback
        log.error("%s is not replaced, it works on: %s", old, f"{said}\n{where}".rstrip())

    def _on_end_for_suspects(self, child: Child) -> None:
        self._suspects_failed += not child.ready
        if child.left:  # it found no more suspects
            self._duties.forget_suspects()
        pause = min(30.0, 2.0**self._suspects_failed) if self._suspects_failed else 0.0
        self._suspects_at = time.monotonic() + pause

    def _start_again(self, child: Child, how: str) -> None:
        now = time.monotonic()
        pause = self._backoff.pause(ready=child.ready is not None, age=now - child.born)
        if pause is None:
            said = child.failure.error if child.failure else f"a consumer {how}"
            self._give_up(f"{self._backoff.unready} consumers in a row died at their start; the last: {said}", "", 1)
            return
        self._due[child.number] = now + pause

    def _give_up(self, error: str, traceback: str, code: int) -> None:
        self.gave_up = GaveUp(error, traceback, code if code > 0 else 1)
        self.stopping = True
        self._due.clear()


def end_of(child: Child, code: int, hard_limit: str, *, told: bool) -> ConsumerEnd:
    """How it ended, and which of its jobs are to blame; `told`: the worker had told its consumers to end."""
    how = ending(code)
    tasks = child.ready.tasks if child.ready else {}
    if child.guilty:
        limit = f"hard limit: {hard_limit}; its consumer was killed"
        timed_out = [(child.queue(job), job.tag) for job in child.guilty]
        return ConsumerEnd(child.consumer, Death(limit, "none", child.last_stack()), None, timed_out, tasks)
    if child.left or child.unwanted or told:
        return ConsumerEnd(child.consumer, Death(how, "none"))  # it was told to: no job is to blame
    if code == -signal.SIGKILL:  # SIGKILL leaves no stack of the end
        return ConsumerEnd(child.consumer, Death(how, "all"), tasks=tasks)
    stack = child.last_stack()
    if code >= 0:  # a stack without the mark is older, from when the consumer was stuck
        stack = stack.rpartition(EXITING)[2] if EXITING in stack else ""
    return ConsumerEnd(child.consumer, Death(how, "all", stack), blamed(child, stack), tasks=tasks)


def blamed(child: Child, stack: str) -> tuple[str, Sequence[int]] | None:
    """The queue and delivery tags of the job on this stack and, if it ran in a batch, of the batch's others."""
    culprit = child.culprit(stack)
    if culprit is None:
        return None
    return child.queue(culprit), [job.tag for job in child.board.together(culprit)]

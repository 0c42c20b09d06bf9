"""Acts on consumers that live but do not work well: stuck, idle for no reason, past a hard limit, worn out."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from rq_lite.duties.duties import Duties
from rq_lite.duties.stuck import StuckJobs
from rq_lite.errors import counted
from rq_lite.logs import logger
from rq_lite.process.board import ROOM, TAKEN, TOOK, TURNED, Board, Running
from rq_lite.process.protocol import SHORTEST_GRACE
from rq_lite.supervisor.child import Child

log = logger("rq_lite.worker")

TURNING = 1.0  # a loop that turned within this many seconds does not stand still, and delays no job
SLEPT = 3.0  # seconds; after a longer pause of its checks the supervisor was stopped itself, or its machine was
SPARED = 30.0  # seconds until another try to replace a consumer whose successor could not begin


NOTHING: Mapping[Running, float] = MappingProxyType({})


class Limits(NamedTuple):
    """When to step in. Times in seconds, memory in bytes; 0: no such limit."""

    stall: float  # a loop that has not turned for this long is stuck
    idle: float  # a consumer that took no job for this long, though jobs wait, is idle for no reason
    grace: float  # a job that still runs this long after its timeout is ended with its consumer
    max_jobs: int
    max_rss: int

    def jittered(self) -> Limits:
        """For one consumer: the consumers of a worker should not be replaced all at once."""
        spread = random.uniform(0.85, 1.0)
        return self._replace(max_jobs=round(self.max_jobs * spread), max_rss=round(self.max_rss * spread))


def stuck_for(board: Board, now: float) -> float:
    """Seconds since the loop last turned."""
    turned = board.seconds(TURNED)
    return max(0.0, now - turned) if turned else 0.0


def past_hard_limit(
    board: Board, limits: Limits, now: float, cancelled: Mapping[Running, float] = NOTHING
) -> list[Running]:
    """Jobs that still run though timeout and grace are over; `cancelled`: cancelled jobs, and since when."""
    before = now - max(SHORTEST_GRACE, limits.grace)
    overdue = board.overdue(before)
    return overdue + [job for job, since in cancelled.items() if since < before and job not in overdue]


def idle_for(board: Board, waiting_since: float, now: float) -> float:
    """Seconds for which it took no job, though jobs waited (since `waiting_since`) and slots were free."""
    if board.words[ROOM] < 1:
        return 0.0
    return max(0.0, now - max(waiting_since, board.seconds(TOOK)))


def worn_out(board: Board, limits: Limits, rss: int) -> str:
    """Why it should be replaced; empty if it should not."""
    taken = board.words[TAKEN]
    if limits.max_jobs and taken >= limits.max_jobs:
        return f"has taken {counted(taken, 'job')}"
    if limits.max_rss and rss >= limits.max_rss:
        return f"uses {rss / 1e6:,.0f} MB"
    return ""


class Watchdog:
    """Reads the boards of the consumers, at each turn of the supervisor's loop.

    1. It notes how long the supervisor itself stood still: what it sees right after that is not held against consumers.
    2. A job past its hard limit: the consumer is killed, and that job is to blame.
    3. A loop that has not turned for `stall` seconds is reported once, with its stack and its jobs; so is its recovery.
    4. A consumer that takes no job though jobs wait and slots are free is told to reconnect.
    5. A consumer that has taken `max_jobs` or uses `max_rss` is returned, to be replaced.
    6. Jobs that were cancelled in a stuck consumer get the grace time, then 2. (The duties' thread finds them.)
    7. What is wrong is handed to the duties, for status and health.
    """

    def __init__(self, duties: Duties, limits: Limits) -> None:
        self._duties = duties
        self._limits = limits
        self._own: dict[int, Limits] = {}  # each consumer's, by pid
        self._still: dict[int, StuckJobs] = {}  # by pid
        self._stuck: dict[int, float] = {}  # pid to seconds
        self._mute: dict[int, float] = {}  # of these, those that have shown no stack yet
        self._idle: dict[int, float] = {}  # pid to when it was last told to reconnect
        self._asked: dict[int, float] = {}  # pid to when its replacement was asked for
        self._trouble = ""
        self._looked = self._awake = 0.0  # when it last checked; since when it has checked regularly
        self._grace = max(SHORTEST_GRACE, limits.grace)
        self.hard_limit = f"its timeout and {self._grace:g} s of grace were over"

    def look(self, children: Sequence[Child], now: float) -> list[Child]:
        """Act on what is seen. Returns the consumers that should be replaced."""
        if now - self._looked > SLEPT:
            self._awake = now
        self._looked = now
        pids = {child.pid for child in children}
        for known in (self._own, self._still, self._stuck, self._mute, self._idle, self._asked):
            for pid in known.keys() - pids:
                del known[pid]
        worn = [child for child in children if self._look_at(child, now)]
        self._duties.standstills = tuple(self._still.values())
        self._tell(children)
        return worn

    def _look_at(self, child: Child, now: float) -> bool:
        """Whether it is worn out."""
        limits = self._own.get(child.pid)
        if limits is None:
            limits = self._own[child.pid] = self._limits_of(child)
        if child.guilty:
            return False  # killed a moment ago
        overdue = past_hard_limit(child.board, limits, now, self._cancelled(child, now))
        if overdue and now - self._awake > self._grace:  # else both may have stood still: first the soft limit
            self._end(child, overdue, now)
            return False
        self._look_for_stall(child, now)
        if not child.alone and not child.retired:
            self._look_for_idleness(child, now)
        if child.retired or child.alone or not (limits.max_jobs or limits.max_rss):
            return False
        if now < self._asked.get(child.pid, -SPARED) + SPARED:
            return False
        why = worn_out(child.board, limits, child.rss() if limits.max_rss else 0)
        if why:
            log.info("%s %s: it will be replaced", child, why)
            self._asked[child.pid] = now
        return bool(why)

    def _limits_of(self, child: Child) -> Limits:
        """Its own; without `max_rss` if it uses more before its first job, since a new one would be just as large."""
        limits = self._limits.jittered()
        born = child.ready.rss if child.ready is not None else 0
        if not 0 < limits.max_rss <= born:
            return limits
        log.error(
            "%s uses %d MB before its first job, max_rss is %d: raise it; this one is not replaced for its memory",
            child, born // 1_000_000, self._limits.max_rss // 1_000_000,
        )  # fmt: skip
        return limits._replace(max_rss=0)

    def _cancelled(self, child: Child, now: float) -> Mapping[Running, float]:
        """Jobs that it cannot interrupt because its loop stands still, and when they were seen to be cancelled.

        Once the loop turns, the consumer hears of them and limits their time itself.
        """
        if stuck_for(child.board, now) < TURNING:
            self._still.pop(child.pid, None)
            return NOTHING
        turned = child.board.words[TURNED]
        known = self._still.get(child.pid)
        if known is None or known.turned != turned:
            known = self._still[child.pid] = StuckJobs(child.consumer, turned, child.running())
        return known.cancelled

    def _end(self, child: Child, overdue: list[Running], now: float) -> None:
        """Kill it. The job that holds its loop, with its batch, is to blame; if the loop turns, all that do not end."""
        child.guilty = overdue
        if stuck_for(child.board, now) > TURNING:
            culprit = child.culprit(child.stack())
            if culprit is not None and culprit in overdue:
                child.guilty = child.board.together(culprit)
        log.error("killing %s; jobs that run beyond their hard time limit: %d", child, len(child.guilty))
        child.signal(signal.SIGKILL)

    def _look_for_stall(self, child: Child, now: float) -> None:
        seconds = min(stuck_for(child.board, now), now - self._awake)
        if seconds < self._limits.stall:
            self._mute.pop(child.pid, None)
            if self._stuck.pop(child.pid, 0.0):
                self._duties.say(f"{child} goes on: its loop turns again")
            return
        if child.pid not in self._stuck:
            stack = child.stack()
            culprit = child.culprit(stack)
            self._duties.tell_stuck(
                child.consumer,
                f"{child} is stuck: its loop has not turned for {seconds:.0f} s, so none of its jobs goes on "
                "(give tasks that compute a run_in=)",
                stack or "(it shows no stack: is it stopped?)",
                None if culprit is None else (child.queue(culprit), culprit.tag),
            )
            if not stack:
                self._mute[child.pid] = seconds
        elif child.pid in self._mute and (stack := child.late_stack()):
            del self._mute[child.pid]
            self._duties.say(f"{child} does not go on, and is here:\n{stack}")
        self._stuck[child.pid] = seconds

    def _look_for_idleness(self, child: Child, now: float) -> None:
        since = self._duties.waiting_since
        idle = 0.0
        # If a job holds its loop, the job's time limit ends that; reconnecting would not help.
        if since is not None and not (child.pid in self._stuck and child.running()):
            idle = min(idle_for(child.board, since, now), now - self._awake)
        if idle < self._limits.idle:
            self._idle.pop(child.pid, None)
            return
        if now - self._idle.get(child.pid, -self._limits.idle) >= self._limits.idle:
            self._idle[child.pid] = now
            log.error(
                "%s has taken no job for %.0f s although jobs wait and slots are free; reconnecting it", child, idle
            )
            child.rebuild()

    def _tell(self, children: Sequence[Child]) -> None:
        """For status and health."""
        lines = [f"{child} stuck for {self._stuck[child.pid]:.0f} s" for child in children if child.pid in self._stuck]
        lines += [f"{child} takes no jobs though jobs wait" for child in children if child.pid in self._idle]
        trouble = "; ".join(lines)
        if trouble != self._trouble:
            self._trouble = trouble
            self._duties.show(trouble=trouble, stuck=len(self._stuck), idle=len(self._idle))

"""A run under faults, from start to end.

    producers ──► queue, bounded ──► workers ◄── killed, and replaced
                    └── sampled: each fault is due at a number of done jobs

All processes write what they do into a history; at the end it is judged.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from rq_lite import events
from rq_lite.admin import status
from rq_lite.broker import keys
from rq_lite.chaos.app import queue
from rq_lite.chaos.crew import Crew
from rq_lite.chaos.invariants import Demands
from rq_lite.chaos.place import Place
from rq_lite.chaos.rest import at_rest, look, undocumented
from rq_lite.chaos.schedule import KILL, Choices, Step, schedule
from rq_lite.errors import BrokerUnavailable, RqLiteError
from rq_lite.process.background import Interrupted

TICK = 0.01  # seconds between two samples
DEMANDS = Demands(drained=True)  # what every run must show
LONGEST_OUTAGE = 30.0  # seconds that Redis may be away without a fault
STALLED = 90.0  # seconds without progress after which a run is over: three leases


class RunFailed(RqLiteError):
    """A process ended although the run had not killed it; the message has its output."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run at one time."""

    elapsed: float  # seconds
    put: int
    done: int
    inflight: int
    faults: int  # so far
    consumers: int
    last: bool = False  # everything is done


def run(
    choices: Choices, place: Place, folder: Path, history: Path, show: Callable[[Sample], None], caught: list[int]
) -> None:
    """Make a run, up to the last record of its history; `folder` is for the logs.

    Raises Interrupted once `caught` has a signal, RunFailed, RestartFailed, BrokerError.
    """
    with contextlib.closing(events.History(history, "harness")) as record:
        crew = Crew(choices, place.broker.url, folder, history)
        with contextlib.ExitStack() as stack:
            stack.callback(crew.stop)
            crew.start()
            Watch(choices, place, crew, record, show, caught).until_drained()
        record("look", None, {"queue": queue.name, "look": look(place.broker, queue.name)})
        queues = {queue.name: at_rest(place.broker, queue.name)}
        strangers = undocumented(place.broker, *keys.OURS)
        record("final", None, {"queues": queues, "keys": strangers, "processes": crew.survivors()})


class Watch:
    """Samples a run until everything is done, and injects the faults that are due."""

    def __init__(
        self,
        choices: Choices,
        place: Place,
        crew: Crew,
        record: events.Subscriber,
        show: Callable[[Sample], None],
        caught: list[int],
    ) -> None:
        self._place = place
        self._crew = crew
        self._record = record
        self._show = show
        self._caught = caught
        self._steps = list(schedule(choices))
        self._faults = 0
        self._curious = False  # a look at the queue is due
        self._began = self._moved = time.monotonic()
        self._last: tuple[int, int] = (0, 0)  # put, ended
        self._away_since: float | None = None  # Redis

    def until_drained(self) -> None:
        """Run until every job has ended and every fault was injected, or nothing has moved for STALLED seconds."""
        while time.monotonic() - self._moved < STALLED:
            self._check()
            state = self._look_patiently()
            if state is None:
                continue
            if self._steps and state.done + state.failed >= self._steps[0].at:
                self._inject(self._steps.pop(0))
            elif not self._steps and self._crew.put and self._place.broker.tends.unfinished(queue.name)[0] == 0:
                break
            time.sleep(TICK)
        self._look(last=True)

    def _look_patiently(self) -> status.QueueState | None:
        """The queue's state; None while Redis does not answer. Raises BrokerUnavailable after LONGEST_OUTAGE."""
        try:
            state = self._look()
            if self._curious:
                self._record("look", None, {"queue": queue.name, "look": look(self._place.broker, queue.name)})
                self._curious = False
        except BrokerUnavailable:
            self._away_since = self._away_since or time.monotonic()
            if time.monotonic() - self._away_since > LONGEST_OUTAGE:
                raise
            return None
        self._away_since = None
        return state

    def _look(self, *, last: bool = False) -> status.QueueState:
        state = status.states(self._place.broker, [queue.name])[queue.name]
        now = time.monotonic()
        if (state.put, state.done + state.failed) != self._last:
            self._last, self._moved = (state.put, state.done + state.failed), now
        self._show(
            Sample(
                elapsed=now - self._began,
                put=state.put,
                done=state.done,
                inflight=state.inflight,
                faults=self._faults,
                consumers=state.consumers,
                last=last,
            )
        )
        return state

    def _check(self) -> None:
        if self._caught:
            raise Interrupted(self._caught[0])
        self._crew.tend()
        if (trouble := self._crew.trouble()) is not None:
            raise RunFailed(trouble)

    def _inject(self, step: Step) -> None:
        self._faults += 1
        self._curious = True
        if step.kind == KILL:
            victim = self._crew.victim(step)
            what = "supervisor" if victim.consumer is None else "consumer"
            pid = victim.worker.pid if victim.consumer is None else victim.consumer.pid
            self._record("fault", None, {"kind": step.kind, "what": what, "pid": pid, "inflight": victim.inflight})
            self._crew.kill(victim)
        else:
            self._record("fault", None, {"kind": step.kind, "inflight": self._crew.held()})
            self._place.restart(step.away)
        self._record("fault.end", None, {"kind": step.kind})

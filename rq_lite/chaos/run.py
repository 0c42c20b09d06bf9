"""A run under faults, from start to end.

    producers ──► queue, bounded ──► workers ◄── killed, and replaced
                    └── looked at: each fault is due when so many jobs are done

Everything that the processes do goes into a history; at the end it is judged.
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
from rq_lite.chaos.rest import at_rest, undocumented
from rq_lite.chaos.schedule import KILL, Choices, Step, schedule
from rq_lite.errors import BrokerUnavailable, RqLiteError
from rq_lite.process.background import Interrupted

TICK = 0.01  # seconds between two looks
DEMANDS = Demands(drained=True)  # what every run must show
LONGEST_OUTAGE = 30.0  # seconds that Redis may be away without being told to
STALLED = 90.0  # seconds without any progress after which a run is over: three leases


class RunFailed(RqLiteError):
    """A process ended though nobody had killed it; the message holds what it said."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A look at a run."""

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
    """Everything, up to the last record of the history; `folder` takes the logs.

    Raises Interrupted once a signal is among the `caught`, RunFailed, RestartFailed, BrokerError.
    """
    with contextlib.closing(events.History(history, "harness")) as record:
        crew = Crew(choices, place.broker.url, folder, history)
        with contextlib.ExitStack() as stack:
            stack.callback(crew.stop)
            crew.start()
            Watch(choices, place, crew, record, show, caught).until_drained()
        queues = {queue.name: at_rest(place.broker, queue.name)}
        strangers = undocumented(place.broker, *keys.OURS)
        record("final", None, {"queues": queues, "keys": strangers, "processes": crew.survivors()})


class Watch:
    """Looks at a run until everything is done, and injects the faults that are due."""

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
        self._began = self._moved = time.monotonic()
        self._last: tuple[int, int] = (0, 0)  # put, ended
        self._away_since: float | None = None  # Redis

    def until_drained(self) -> None:
        """Or until nothing has moved for so long that nothing will."""
        while time.monotonic() - self._moved < STALLED:
            self._check()
            state = self._look_through_weather()
            if state is None:
                continue
            if self._steps and state.done + state.failed >= self._steps[0].at:
                self._inject(self._steps.pop(0))
            elif not self._steps and self._crew.put and self._place.broker.tends.unfinished(queue.name)[0] == 0:
                break
            time.sleep(TICK)
        self._look(last=True)

    def _look_through_weather(self) -> status.QueueState | None:
        """None while Redis does not answer; raises BrokerUnavailable when that lasts."""
        try:
            state = self._look()
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

"""T17: the processes of jobs with run_in="process" are killed at random, and now and then their consumer with them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from rq_lite import events
from rq_lite.chaos.check import check
from rq_lite.chaos.invariants import Demands
from rq_lite.chaos.rest import at_rest
from tests.acceptance.conftest import Lab, children
from tests.conftest import until

APP = "tests.chaos.jobs"


@pytest.mark.timeout(1200)
def test_nothing_is_lost_and_nothing_accepted_twice_when_engines_are_killed(
    lab: Lab, tmp_path: Path, chance: random.Random, long: bool
) -> None:
    jobs, kills = (6_000, 120) if long else (300, 12)
    history = tmp_path / "history"
    history.mkdir()
    harness = events.History(history, "harness")
    events.subscribers[:] = [events.History(history, "producer")]
    lab.broker.puts.declare("work", 0)  # all of them wait at the beginning
    for first in range(0, jobs, 500):
        lab.put("compute", *range(first, min(first + 500, jobs)), app=APP)
    events.subscribers.clear()
    lab.environment = {**lab.environment, "RQ_LITE_HISTORY": str(history)}
    worker = lab.work("--cpu-procs", "2", "--greenlets", "4", app=APP)
    for number in range(kills):
        lab.until_seen("begun", (number + 1) * jobs // (2 * kills))
        wanted = "consumer.boot" if number % 6 == 5 else "offload.engine"
        kill(chance.choice(until(partial(below, worker.pid, wanted), "there is one to kill")))
        harness("fault", None, {"kind": "kill", "inflight": 4 if wanted == "consumer.boot" else 1})
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all is done", seconds=600)
    assert worker.stop() == 0
    left = list(children(worker.pid))
    harness("final", None, {"queues": {"work": at_rest(lab.broker, "work")}, "processes": left})
    found = check(history, Demands(drained=True))
    assert (found.violations, found.faults) == ((), kills)
    assert int(lab.broker.read(("HGET", "rq:{work}:meta", "crashed"))[0]) > 0
    poison = [dead.report["error"].partition(":")[0] for dead in lab.dead()]
    assert set(poison) <= {"poison"}
    assert len({*lab.seen("done")}) + len(poison) >= jobs


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was faster
        os.kill(pid, signal.SIGKILL)


def below(pid: int, module: str) -> list[int]:
    """The processes below this one that run the module."""
    found = []
    for child in children(pid):
        try:
            program = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        found += [child] if module.encode() in program else below(child, module)
    return found

"""T8: jobs that hold their consumer, and workers that stand still for longer than their leases."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest

from rq_lite.model.message import VERSION, Message, encode, new_id
from tests.acceptance.conftest import Lab, Worker, alive, children
from tests.chaos.conftest import Tell
from tests.conftest import until

APP = "tests.chaos.jobs"
LEASE = 3.0
SLOTS = 20
HOGS = ("python", "c", "asleep")


def test_a_hog_keeps_its_lease_and_nothing_runs_twice(lab: Lab, long: bool, tell: Tell) -> None:
    """The supervisor renews the leases, whatever its consumers are busy with."""
    lab.environment["RQ_LITE_LEASE"] = f"{LEASE:g}"
    seconds = 30.0 if long else 1.5 * LEASE
    lab.put_raw(*(job("hog", how, seconds) for how in HOGS))
    busy = lab.work("--greenlets", "1", "--stall", "60", app=APP, procs=len(HOGS))
    lab.until_seen("begun", len(HOGS))
    lab.put("nap", *range(100), app=APP)
    thief = lab.work("--greenlets", "100", "--stall", "60", app=APP)
    least = LEASE
    while lab.state().inflight or lab.state().pending:
        least = min(least, *lab.broker.tends.consumers("work").values())
        time.sleep(0.05)
    assert [busy.stop(), thief.stop()] == [0, 0]
    assert Counter(lab.seen("done")) == Counter([*HOGS, *map(str, range(100))])
    assert (lab.state().reclaimed, lab.state().stale) == (0, 0)
    assert "is stuck" not in busy.said
    tell(
        f"T8 hogs of {seconds:g} s ({', '.join(HOGS)}): 0 ran twice; of a lease of {LEASE:g} s {least:.1f} s were left"
    )


def job(task: str, how: str, seconds: float) -> bytes:
    return encode(Message(VERSION, new_id(), f"{APP}:{task}", [how, seconds]))


@pytest.mark.parametrize("how", HOGS)
def test_a_hard_limit_ends_a_hog_soon(lab: Lab, how: str, long: bool, tell: Tell) -> None:
    lab.put_raw(job("hog_soon", how, 600.0))
    worker = lab.work("--grace", "1", "--stall", "60", app=APP)
    (run,) = lab.until_seen("begun", 1)
    since = time.monotonic()
    until(lambda: not alive(run.pid), "its consumer was killed")
    took = time.monotonic() - since
    until(lambda: lab.state().dead == 1, "it is buried")
    assert worker.stop() == 0
    tell(f"T8 hard limit of 1 s + 1 s grace on a hog ({how}): killed after {took:.1f} s")
    assert 1.0 < took < 10.0
    assert lab.dead()[0].report["error"].startswith("JobTimeout: hard limit")


def test_a_worker_that_stood_still_is_fenced_off(lab: Lab, long: bool, tell: Tell) -> None:
    """As when its virtual machine is suspended: another runs its jobs, then it wakes up and finishes them, too late."""
    lab.environment["RQ_LITE_LEASE"] = f"{LEASE:g}"
    rounds = 3 if long else 1
    for number in range(rounds):
        names = [f"{number}-{i}" for i in range(SLOTS)]
        lab.put("hold", *names)
        sleeper = lab.work("--greenlets", f"{SLOTS}")
        lab.until_seen("begun", (2 * number + 1) * SLOTS)
        family = [sleeper.pid, *children(sleeper.pid)]
        tell_all(family, signal.SIGSTOP)
        until_late = time.monotonic() + 3 * LEASE
        heir = lab.work("--greenlets", f"{SLOTS}")
        lab.until_seen("begun", (2 * number + 2) * SLOTS)
        time.sleep(max(0.0, until_late - time.monotonic()))
        lab.open_gate()
        until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "the heir has done them")
        tell_all(family, signal.SIGCONT)
        late_results(lab, sleeper, (number + 1) * SLOTS)
        assert [sleeper.stop(), heir.stop()] == [0, 0]
        lab.close_gate()
    done = Counter(lab.seen("done"))
    assert (len(done), set(done.values())) == (rounds * SLOTS, {2})
    state = lab.state()
    assert (state.done, state.stale, state.reclaimed) == (rounds * SLOTS, rounds * SLOTS, rounds * SLOTS)
    tell(
        f"T8 {rounds} workers of {SLOTS} jobs stopped for 3 leases: 0 lost, each of {state.done} jobs ran twice, "
        f"{state.stale} late results refused"
    )


def late_results(lab: Lab, sleeper: Worker, wanted: int) -> None:
    until(lambda: lab.state().stale == wanted, "its results came too late")
    sleeper.says("came too late, after a reclaim")


def tell_all(pids: list[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)

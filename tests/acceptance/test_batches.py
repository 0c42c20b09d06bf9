"""Batches in a real worker, whose consumer dies: nothing is lost, and the jobs of other elements pay nothing."""

from __future__ import annotations

import os
import signal

from tests.acceptance.conftest import Lab
from tests.conftest import until

APP = "tests.acceptance.apps.batched"
TEN = range(10)


def test_jobs_of_a_batch_whose_consumer_is_killed_run_again_each_by_itself(lab: Lab) -> None:
    lab.put("hold", *TEN, app=APP)
    worker = lab.work(app=APP)
    ((count, pid),) = lab.until_seen("begun", 1)
    assert count == "10"
    os.kill(pid, signal.SIGKILL)
    lab.open_gate()
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all are done")
    assert worker.stop() == 0
    assert sorted(lab.seen("done"), key=int) == list(map(str, TEN))
    assert lab.seen("begun") == ["10", *["1"] * 10]
    state = lab.state()
    assert (state.done, state.dead, state.inflight) == (10, 0, 0)


def test_the_element_that_ends_its_consumer_is_buried_after_three_deaths_and_the_others_are_done(lab: Lab) -> None:
    lab.put("hold", "neighbour", app=APP)
    worker = lab.work(app=APP)
    lab.until_seen("begun", 1)
    lab.put("fragile", *TEN, app=APP)
    until(lambda: lab.state().dead == 1, "it is buried")
    lab.open_gate()
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "the others are done")
    assert worker.stop() == 0
    (dead,) = lab.dead()
    assert dead.report["error"].startswith("poison: 3 consumers died while it ran; the last: ")
    # Some run twice: they were done and not yet settled when their consumer died of the other.
    assert set(lab.seen("done")) == {*"012345689", "neighbour"}
    assert lab.state().done == 10
    assert lab.seen("calls").count("10") == 1


def test_a_batch_that_holds_the_loop_beyond_its_hard_limit_has_failed_with_all_its_jobs(lab: Lab) -> None:
    lab.put("stuck", *range(3), app=APP)
    worker = lab.work("--grace", "1", "--stall", "2", app=APP)
    until(lambda: lab.state().dead == 3, "all are buried")
    assert worker.stop() == 0
    assert lab.seen("calls") == ["3"]
    assert {dead.report["error"].partition(";")[0].partition(":")[0] for dead in lab.dead()} == {"JobTimeout"}

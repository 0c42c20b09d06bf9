"""Consumers that are replaced: because somebody asks for it, or because they are worn out; without a gap."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Lab, Worker, children, command
from tests.conftest import DEADLINE, until

VERSIONED = "tests.acceptance.apps.versioned"


@pytest.fixture
def version(lab: Lab) -> Path:
    file = lab.folder / "evidence" / "VERSION"
    file.write_text("one")
    return file


def consumers(worker: Worker) -> set[int]:
    return {pid for pid in children(worker.pid) if "consumer.boot" in command(pid)}


def until_ready(worker: Worker, count: int) -> None:
    until(lambda: worker.said.count(" ready (pid ") == count, f"{count} consumers were ready")


def test_sighup_replaces_every_consumer_and_interrupts_nothing(lab: Lab) -> None:
    lab.put("hold", *range(4))
    worker = lab.work(procs=2)
    lab.until_seen("begun", 4)
    until_ready(worker, 2)
    before = consumers(worker)
    worker.signal(signal.SIGHUP)
    until_ready(worker, 4)
    lab.put("do", "later")
    lab.until_seen("done", 1)
    lab.open_gate()
    lab.until_seen("done", 5)
    until(lambda: len(consumers(worker)) == 2, "the old ones are gone")
    assert before.isdisjoint(consumers(worker))
    assert sorted(lab.seen("begun")) == ["0", "1", "2", "3"]  # none of them twice
    assert {run.pid for run in lab.runs("done") if run.what != "later"} <= before
    until(lambda: lab.state().consumers == 2, "the old ones are forgotten")
    assert worker.stop() == 0
    assert (lab.state().reclaimed, lab.state().stale) == (0, 0)


def test_however_often_sighup_comes_few_old_consumers_live_and_the_last_code_wins(lab: Lab) -> None:
    worker = lab.work("--greenlets", "1")
    for count in (1, 2, 3):  # each holds a job in its one slot: none of the old ones ends
        until_ready(worker, count)
        lab.put("hold", count)
        lab.until_seen("begun", count)
        worker.signal(signal.SIGHUP)
    worker.says("replaced consumers that still run jobs: 2; 1 more are replaced once one of those has ended")
    for _ in range(20):
        worker.signal(signal.SIGHUP)
    held = {run.pid for run in lab.runs("begun")}
    until(lambda: worker.said.count("SIGHUP: ") > 3, "the worker has heard it")
    assert consumers(worker) == held
    lab.open_gate()
    until_ready(worker, 4)
    until(lambda: len(consumers(worker) - held) == 1 == len(consumers(worker)), "the last is replaced, too")
    assert worker.said.count("replaced consumers that still run jobs") == 1
    assert worker.stop() == 0
    assert sorted(lab.seen("done")) == ["1", "2", "3"]


def test_sighup_brings_in_new_code(lab: Lab, version: Path) -> None:
    worker = lab.work(app=VERSIONED)
    until_ready(worker, 1)
    version.write_text("two")
    worker.signal(signal.SIGHUP)
    worker.says("takes the place of consumer 1")
    lab.put("do", 1, app=VERSIONED)
    assert [run.what for run in lab.until_seen("done", 1)] == ["1:two"]
    assert worker.stop() == 0


def test_new_code_may_bring_a_queue_that_is_then_tended_like_others(lab: Lab, version: Path) -> None:
    worker = lab.work(app=VERSIONED)
    until_ready(worker, 1)
    version.write_text("wider")
    worker.signal(signal.SIGHUP)
    worker.says("takes the place of consumer 1")
    lab.put("retry_once", 1, app=VERSIONED, queue="wider")
    lab.until_seen("done", 1)
    assert worker.stop() == 0


def test_new_code_that_is_broken_leaves_the_old_at_work(lab: Lab, version: Path) -> None:
    worker = lab.work(app=VERSIONED, procs=2)
    until_ready(worker, 2)
    before = consumers(worker)
    version.write_text("broken")
    worker.signal(signal.SIGHUP)
    worker.says("is not replaced, it works on: ")
    worker.says("ValueError: this version is broken")
    worker.says("Traceback")
    lab.put("do", 1, app=VERSIONED)
    assert [run.what for run in lab.until_seen("done", 1)] == ["1:one"]
    assert consumers(worker) == before
    assert worker.stop() == 0


@pytest.mark.parametrize("alone", [False, True], ids=["successor", "alone"])
def test_new_code_that_hangs_holds_up_no_later_reload(lab: Lab, version: Path, alone: bool) -> None:
    """Also when the consumer that should have been replaced has died meanwhile."""
    worker = lab.work(app=VERSIONED)
    until_ready(worker, 1)
    (old,) = consumers(worker)
    version.write_text("hanging")
    worker.signal(signal.SIGHUP)
    (hanging,) = lab.until_seen("begun", 1)
    if alone:
        os.kill(old, signal.SIGKILL)
        worker.says("was killed by signal 9")
    version.write_text("two")
    worker.signal(signal.SIGHUP)
    worker.says(f"(pid {hanging.pid}) is not ready yet: it is killed, and another is started")
    until_ready(worker, 2)
    until(lambda: consumers(worker).isdisjoint({old, hanging.pid}), "only the new one is left")
    lab.put("do", 1, app=VERSIONED)
    assert [run.what for run in lab.until_seen("done", 1)] == ["1:two"]
    assert worker.stop() == 0
    assert worker.said.count("signal 9") == alone


def test_a_consumer_that_does_not_get_ready_is_named_once(lab: Lab, version: Path) -> None:
    version.write_text("hanging")
    soon = "from rq_lite.supervisor import fleet; fleet.SLOW = 0.5; from rq_lite.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", soon, "work", VERSIONED, "--procs", "1"],
        cwd=lab.folder,
        env=lab.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        (begun,) = lab.until_seen("begun", 1)
        assert f"consumer 1 (pid {begun.pid}) is not ready after 0.5 s: is it importing the app?" in line
        lab.open_gate()
        lab.put("do", 1, app=VERSIONED)
        lab.until_seen("done", 1)
        process.terminate()
        assert "is not ready" not in process.communicate(timeout=DEADLINE)[1]
        assert process.returncode == 0
    finally:
        process.kill()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit")
def test_a_system_that_has_no_room_for_another_process_is_waited_for(lab: Lab) -> None:
    worker = lab.work()
    until_ready(worker, 1)
    before = consumers(worker)
    usual = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    worker.signal(signal.SIGHUP)
    worker.says("no consumer can be started just now: ")
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, usual)
    worker.says("takes the place of consumer 1")
    until(lambda: consumers(worker).isdisjoint(before), "the old one is gone")
    assert worker.stop() == 0


def test_a_stop_during_a_reload_is_a_clean_one(lab: Lab) -> None:
    lab.put("hold", 1)
    worker = lab.work("--grace", "1", procs=2)
    lab.until_seen("begun", 1)
    until_ready(worker, 2)
    worker.signal(signal.SIGHUP)
    worker.says("SIGHUP")
    assert worker.stop() == 0
    assert lab.arguments() == [1]
    assert not children(worker.pid)


def test_a_consumer_is_replaced_after_so_many_jobs(lab: Lab) -> None:
    lab.put("do", *range(60))
    worker = lab.work("--greenlets", "2", "--max-jobs", "50")
    worker.says(" jobs: it will be replaced")
    worker.says("takes the place of consumer 1")
    lab.put("do", *range(60, 70))
    assert len({run.pid for run in lab.until_seen("done", 70)}) == 2
    assert worker.stop() == 0
    assert sorted(map(int, lab.seen("done"))) == list(range(70))


def test_a_consumer_is_replaced_when_it_uses_too_much_memory(lab: Lab) -> None:
    worker = lab.work("--max-rss", "100")
    until_ready(worker, 1)
    (before,) = consumers(worker)
    lab.put("leak", *range(4))
    worker.says("MB: it will be replaced")
    until(lambda: consumers(worker) and before not in consumers(worker), "another has taken its place")
    lab.put("do", "after")
    until(lambda: "after" in lab.seen("done"), "work goes on")
    assert worker.stop() == 0
    assert lab.seen("done").count("leak") == 4


def test_a_consumer_that_is_born_too_large_is_not_replaced_for_it(lab: Lab) -> None:
    """Its successor would be as large: only starts and ends would be seen of it."""
    lab.put("do", *range(50))
    worker = lab.work("--max-rss", "1", "--max-jobs", "40")
    worker.says(" MB before its first job, max_rss is 1: raise it")
    worker.says(" jobs: it will be replaced")  # for other reasons it is
    lab.until_seen("done", 50)
    assert worker.stop() == 0
    assert "MB: it will be replaced" not in worker.said


def test_a_consumer_that_stands_still_without_a_job_is_not_healthy(lab: Lab) -> None:
    """No time limit of a job will ever end it."""
    lab.environment |= {"RQ_LITE_IDLE": "1"}
    worker = lab.work("--stall", "0.5")
    lab.put("do", 0)
    lab.until_seen("done", 1)  # its loop turns: it does not yet when it says that it is ready
    (pid,) = consumers(worker)
    os.kill(pid, signal.SIGSTOP)
    worker.says("is stuck")
    lab.put("do", 1)
    until(lambda: lab.commands.run("health").returncode == 1, "health sees it")
    os.kill(pid, signal.SIGCONT)
    lab.until_seen("done", 2)
    until(lambda: lab.commands.run("health").returncode == 0, "health sees that it is over")
    assert worker.stop() == 0


def test_a_consumer_that_takes_nothing_though_jobs_wait_connects_anew(lab: Lab, tmp_path: Path) -> None:
    lab.environment |= {
        "RQ_LITE_FAILPOINT": "take.before:sleep=600@2",
        "RQ_LITE_FAILPOINT_ONCE": str(tmp_path),
        "RQ_LITE_IDLE": "3",
    }
    lab.put("do", "first")
    worker = lab.work()
    lab.until_seen("done", 1)
    until(lambda: (tmp_path / "take.before").exists(), "it sleeps instead of taking")
    lab.put("do", "second")
    assert lab.commands.run("health").returncode == 0
    until(lambda: lab.commands.run("health").returncode == 1 or "second" in lab.seen("done"), "health sees it")
    worker.says("has taken no job for")
    assert [run.what for run in lab.until_seen("done", 2)] == ["first", "second"]
    until(lambda: lab.commands.run("health").returncode == 0, "health sees that it is over")
    assert worker.stop() == 0

"""What an app, a library or a job does to its process reaches neither us nor another job."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rq_lite.model.message import decode
from tests.acceptance.conftest import Lab
from tests.conftest import until

APP = "tests.acceptance.apps.meddler"


@pytest.fixture
def deaf() -> Iterator[int]:
    """A pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def errors(lab: Lab) -> dict[str, str]:
    """Of the buried jobs: task and first argument to what it failed of."""
    found = {}
    for dead in lab.dead():
        (argument,) = decode(dead.raw)[0].args
        found[f"{dead.report['task'].partition(':')[2]} {argument}"] = dead.report["error"]
    return found


def test_signals_timers_and_loops_of_one_job_strike_no_other(lab: Lab) -> None:
    lab.put("hold", "neighbour", app=APP)
    lab.put("loop", "first", app=APP)
    worker = lab.work(app=APP)
    lab.until_seen("begun", 2)
    hows = ["setitimer", "handler", "greenlet", "wakeup", "gevent", "thread", "dump"]
    lab.put("alarm", *hows, app=APP)
    lab.put("alarm_in_thread", "setitimer", app=APP)
    lab.put("loop", "second", "third", app=APP)
    lab.put("signal_itself", "signalled", app=APP)
    lab.put("fork", "forked", app=APP)
    until(lambda: lab.state().dead == 10, "those that cannot be are buried")
    worker.says("the app's handler of SIGHUP raised TimeUp; the error reaches no job")
    lab.open_gate()
    lab.until_seen("done", 4)
    lab.put("loop_in_loop", 1, app=APP)
    until(lambda: lab.state().dead == 11, "it is buried")
    assert sorted(lab.seen("done")) == ["first", "forked 7", "neighbour", "signalled"]
    failed = errors(lab)
    refused = [failed.pop(f"alarm {how}") for how in hows] + [failed.pop("alarm_in_thread setitimer")]
    assert all(error.startswith("UsageError: ") for error in refused)
    assert all("timeout=" in error and 'run_in="process"' in error for error in refused)
    assert 'run_in="process"' not in failed.pop("loop_in_loop 1")
    assert sorted(failed) == ["loop second", "loop third"]
    assert all("RuntimeError: " in error and 'run_in="process"' in error for error in failed.values())
    assert any('run_in="process"' in dead.report["traceback"] for dead in lab.dead())
    assert "SIGTERM belongs to rq-lite" in worker.said
    assert worker.stop() == 0


def test_in_an_engine_they_are_the_jobs_own_and_end_with_it(lab: Lab) -> None:
    lab.put("long_in_process", "long", app=APP)
    lab.put("leave_alarm_in_process", "armed", app=APP)
    lab.put("look_in_process", "looked", app=APP)
    lab.put("alarm_in_process", "struck", app=APP)
    lab.put("late_in_process", 1, app=APP)
    lab.drain("--cpu-procs", "1", "--grace", "30", app=APP)
    pids = dict(lab.runs("done"))
    assert sorted(pids) == ["armed", "long", "looked", "struck"]
    assert pids["armed"] == pids["looked"]  # one engine
    ((what, error),) = errors(lab).items()
    assert (what, error.partition(" of ")[0]) == ("late_in_process 1", "JobTimeout: soft limit")


def test_a_crash_is_charged_to_its_job_also_where_the_app_wants_the_stacks_itself(lab: Lab) -> None:
    lab.put("hold", 1, 2, 3, app=APP)
    worker = lab.work(app=APP)
    lab.until_seen("begun", 3)
    lab.put("signal_itself", "disabled", app=APP)
    lab.until_seen("done", 1)
    lab.put("crash", "crash", app=APP)
    until(lambda: lab.seen("begun").count("crash") == 3, "it has run three times")
    until(lambda: lab.state().dead == 1, "it is buried")
    (dead,) = lab.dead()
    assert " in crash" in dead.report["traceback"]
    lab.open_gate()
    until(lambda: lab.state().done == 4, "the neighbours are done")
    assert worker.stop() == 0
    assert lab.state().suspects == 0
    assert "jobs of dead consumer" in worker.said
    assert "3 of them alone" not in worker.said


def test_who_prints_is_not_to_blame_that_the_reader_is_gone(lab: Lab, deaf: int) -> None:
    speakers = ("speak", "speak_in_thread", "speak_in_process")
    for task in speakers:
        lab.put(task, f"{task} 1", f"{task} 2", app=APP)
    worker = lab.work("--burst", app=APP, stdout=deaf)
    assert worker.wait() == 0
    assert lab.dead() == []
    assert sorted(lab.seen("done")) == sorted(f"{task} {number}" for task in speakers for number in (1, 2))
    said = [line for line in worker.said.splitlines() if "what jobs print there goes nowhere" in line]
    assert 2 <= len(said) == len(set(said))  # by the consumer and by each engine, once


def test_what_a_job_closes_the_others_go_on_to_use(lab: Lab) -> None:
    lab.put("shut", 1, app=APP)
    lab.put("speak", "still heard", app=APP)
    worker = lab.drain("--greenlets", "1", app=APP)
    assert lab.dead() == []
    assert "still heard" in worker.said


@pytest.mark.parametrize("closed", [(1, 2), (0, 3)])
def test_a_worker_goes_on_where_its_streams_are_closed(lab: Lab, closed: tuple[int, int]) -> None:
    """Nor does a file of ours get the number of a stream, and what is printed."""
    lab.put("speak", "here", app=APP)
    lab.put("speak_in_process", "there", app=APP)
    worker = lab.work("--burst", app=APP, preexec_fn=lambda: os.closerange(*closed))
    assert worker.wait() == 0
    assert sorted(lab.seen("done")) == ["here", "there"]
    assert lab.dead() == []


def test_a_command_whose_reader_is_gone_ends_without_a_word(lab: Lab, deaf: int) -> None:
    lab.put("speak", 1, app=APP)
    for command in ("status", "status --watch"):
        assert run(lab, command, deaf) == (1, "")


def test_a_command_says_what_stands_in_the_way_of_its_output(lab: Lab) -> None:
    lab.put("speak", 1, app=APP)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        assert run(lab, "status --json", full) == (1, "rq-lite: standard output: No space left on device\n")
    finally:
        os.close(full)


def run(lab: Lab, command: str, stdout: int) -> tuple[int, str]:
    process = lab.commands.start(*command.split(), stdout=stdout)
    err = process.communicate(timeout=60)[1]
    return process.returncode, err

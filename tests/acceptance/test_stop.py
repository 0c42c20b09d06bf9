"""How a worker ends: told to, killed, or because it cannot begin."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rq_lite.model.message import decode
from tests.acceptance.conftest import Lab, alive, children
from tests.conftest import DURABLE, Server, until

NEVER = "1000"  # seconds; beyond every deadline of these tests
PR_SET_CHILD_SUBREAPER = 36


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_short_jobs_and_gives_back_the_rest(lab: Lab, number: signal.Signals) -> None:
    lab.put("last", "long")
    lab.put("hold", "short")
    lab.put("last", "later", "latest")
    lab.watch_moments()
    worker = lab.work("--greenlets", "2", "--grace", "2")
    lab.until_seen("begun", 2)
    worker.signal(number)
    lab.until_reached("leave.before")  # else the slot that gets free takes one more
    lab.open_gate()
    assert worker.wait() == 0
    assert lab.seen("done") == ["short"]
    assert sorted(lab.seen("begun")) == ["long", "short"]
    # The one that was given back is at the head, and nothing is charged.
    assert lab.arguments() == ["long", "later", "latest"]
    assert [decode(entry)[1:] for entry in lab.waiting()] == [(0, 0, 0)] * 3
    assert (lab.state().inflight, lab.state().consumers) == (0, 0)


def test_a_second_signal_ends_the_worker_without_waiting(lab: Lab) -> None:
    lab.put("last", 1)
    worker = lab.work("--grace", NEVER)
    lab.until_seen("begun", 1)
    worker.signal(signal.SIGINT)
    worker.says("stopping")
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    assert lab.arguments() == [1]


def test_a_job_that_swallows_the_stop_is_given_back_all_the_same(lab: Lab) -> None:
    lab.put("stubborn", 1)
    lab.put("last", 2)
    worker = lab.work("--greenlets", "2", "--grace", NEVER)
    lab.until_seen("begun", 1)
    worker.signal(signal.SIGTERM)
    worker.says("stopping")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert sorted(lab.arguments()) == [1, 2]


def test_a_stop_before_the_first_consumer_is_ready_is_a_clean_one(lab: Lab) -> None:
    lab.put("do", 1, app="tests.acceptance.apps.slow_to_import")
    worker = lab.work(app="tests.acceptance.apps.slow_to_import")
    lab.until_seen("begun", 1)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert lab.arguments() == [1]
    assert "Traceback" not in worker.said


def test_an_idle_worker_can_be_stopped_while_redis_is_gone(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab]
) -> None:
    server = private()
    worker = lab_at(server).work("--grace", NEVER)
    worker.says("consumer 1 ready")
    server.kill()
    worker.says("] Redis: ")
    assert worker.stop() == 0
    assert "Traceback" not in worker.said


def test_a_worker_whose_jobs_run_on_can_be_stopped_while_redis_is_gone(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab]
) -> None:
    server = private(*DURABLE)
    lab = lab_at(server)
    lab.put("hold", 1)
    worker = lab.work("--grace", "1")
    lab.until_seen("begun", 1)
    server.kill()
    assert worker.stop() == 0
    assert "did not end in time" not in worker.said
    assert "jobs that will be reclaimed: 1" in worker.said
    server.start(*DURABLE)
    lab.open_gate()
    lab.drain()
    assert lab.seen("done") == ["1"]
    assert (lab.state().done, lab.state().inflight) == (1, 0)


def test_nothing_outlives_a_killed_supervisor_and_the_next_one_takes_over_at_once(lab: Lab) -> None:
    # Leases that outlast the test: the next one must not wait for them.
    lab.environment["RQ_LITE_LEASE"] = NEVER
    lab.put("start_process", 1)
    lab.put("hold", *range(3))
    worker = lab.work("--greenlets", "2", procs=2)
    lab.until_seen("begun", 3)
    (started,) = lab.until_seen("started", 1)
    left = [int(started.what), *children(worker.pid)]
    assert len(left) == 1 + 2 + 1  # a job's process, consumers, the guard
    worker.signal(signal.SIGKILL)
    worker.wait()
    until(lambda: not any(map(alive, left)), "all processes of the worker are gone")

    lab.open_gate()
    successor = lab.work("--greenlets", "4", "--grace", "0")
    assert sorted(run.what for run in lab.until_seen("done", 3)) == ["0", "1", "2"]
    lab.until_seen("started", 2)
    assert successor.stop() == 0
    assert lab.state().reclaimed == 4


def test_what_jobs_have_started_ends_with_a_consumer_that_is_killed(lab: Lab) -> None:
    lab.put("start_process", 1)
    worker = lab.work()
    (first,) = lab.until_seen("started", 1)
    os.kill(first.pid, signal.SIGKILL)
    second = lab.until_seen("started", 2)[1]
    until(lambda: not alive(int(first.what)), "the job's process is gone")
    assert first.pid not in children(worker.pid)
    assert "Z" not in children(worker.pid).values()
    assert alive(int(second.what))


def test_a_guard_that_was_killed_is_replaced(lab: Lab) -> None:
    lab.put("start_process", 1)
    worker = lab.work()
    (started,) = lab.until_seen("started", 1)
    (guard,) = children(worker.pid).keys() - {started.pid}
    os.kill(guard, signal.SIGKILL)
    until(lambda: len(children(worker.pid).keys() - {guard}) == 2, "there is another guard")
    worker.signal(signal.SIGKILL)
    worker.wait()
    until(lambda: not alive(int(started.what)), "the job's process is gone")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit")
def test_a_guard_that_cannot_be_replaced_just_now_is_replaced_later(lab: Lab) -> None:
    lab.put("start_process", 1)
    worker = lab.work()
    (started,) = lab.until_seen("started", 1)
    (guard,) = children(worker.pid).keys() - {started.pid}
    usual = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    os.kill(guard, signal.SIGKILL)
    worker.says("no guard can be started just now")
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, usual)
    os.kill(started.pid, signal.SIGKILL)
    again = lab.until_seen("started", 2)[1]
    assert len(children(worker.pid).keys() - {again.pid}) == 1
    worker.signal(signal.SIGKILL)
    worker.wait()
    until(lambda: not alive(int(again.what)), "the job's process is gone")


def test_what_jobs_have_started_ends_with_a_worker_that_is_stopped(lab: Lab) -> None:
    lab.put("start_process", 1)
    worker = lab.work("--grace", "0")
    (started,) = lab.until_seen("started", 1)
    assert worker.stop() == 0
    until(lambda: not alive(int(started.what)), "the job's process is gone")


def test_as_pid_1_a_worker_leaves_no_zombies(lab: Lab) -> None:
    def adopt_orphans() -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    lab.put("leave_orphan", *range(5))
    lab.put("hold", 1)
    worker = lab.work(preexec_fn=adopt_orphans)
    lab.until_seen("done", 5)
    lab.until_seen("begun", 1)
    until(lambda: len(children(worker.pid)) == 2, "only the consumer and the guard are left")
    lab.open_gate()
    assert worker.stop() == 0
    assert lab.state().reclaimed == 0


def test_an_app_that_raises_is_reported_once(lab: Lab) -> None:
    worker = lab.work(app="tests.acceptance.apps.broken", procs=3)
    assert worker.wait() == 2
    *traceback, line = worker.said.splitlines()
    assert line == "rq-lite: 'tests.acceptance.apps.broken' cannot be imported: ValueError: no configuration"
    assert [text for text in traceback if text.startswith("Traceback")] == traceback[:1]
    # Only the user's own part of it.
    assert not any("importlib" in text or "rq_lite/" in text for text in traceback)
    assert len(lab.seen("begun")) == 1


def test_an_app_that_cannot_be_imported_is_not_kept_alive_by_its_threads(lab: Lab) -> None:
    (lab.folder / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\nraise ValueError('later')\n"
    )
    worker = lab.work(app="threaded")
    assert worker.wait() == 2
    assert worker.said.splitlines()[-1] == "rq-lite: 'threaded' cannot be imported: ValueError: later"


def test_an_app_whose_import_kills_its_process_is_given_up(lab: Lab) -> None:
    worker = lab.work(app="tests.acceptance.apps.dies", procs=2)
    assert worker.wait() == 1
    assert worker.said.splitlines()[-1].startswith("rq-lite: 6 consumers in a row died at their start; the last: ")
    assert "exit code 7" in worker.said.splitlines()[-1]
    assert len(lab.seen("begun")) == 6


@pytest.mark.parametrize("how", ["close", "garbage"])
def test_a_job_that_meddles_with_its_supervisors_pipe_does_no_harm(lab: Lab, how: str) -> None:
    lab.put("meddle", how, how)
    worker = lab.work()
    lab.until_seen("begun", 1)
    before = ticks(worker.pid)
    lab.put("nap", 2)
    lab.until_seen("done", 1)
    assert ticks(worker.pid) - before < 100  # it sleeps, instead of being woken for ever by a pipe that has ended
    assert worker.said.count("sent an unreadable report") == (how == "garbage")
    assert worker.stop() == 0
    assert "Traceback" not in worker.said


def ticks(pid: int) -> int:
    """The processor time that it has used, a hundred per second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_job_that_kills_its_consumers_does_not_end_the_worker(lab: Lab) -> None:
    lab.put("crash", 1)
    worker = lab.work()
    until(lambda: lab.state().suspects == 1, "the job waits to run alone")
    assert worker.said.count("was killed by signal 9") == 2
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tests.acceptance.apps.empty"], "app 'tests.acceptance.apps.empty' has no tasks"),
        (["no.such.app"], "'no.such.app' cannot be imported: ModuleNotFoundError"),
        (["."], "'.' is no module: say one that can be imported from here"),
        (["../shop"], "'../shop' is no module"),
        (["tests.acceptance.apps.jobs", "-q", "other"], "unknown queue 'other'; app 'tests.acceptance.apps.jobs' has "),
        (["tests.acceptance.apps.jobs", "--procs", "-1"], "procs must be at least 0, not -1"),
        (["tests.acceptance.apps.jobs", "--greenlets", "0"], "greenlets must be at least 1, not 0"),
        (["tests.acceptance.apps.jobs", "--grace", "-1"], "grace must be at least 0, not -1"),
        (["tests.acceptance.apps.jobs", "-q", "high=x"], "-q high=x: the weight must be a number"),
        (["tests.acceptance.apps.jobs", "-q", "high=0"], "-q high=0: the weight must be above 0"),
        (["tests.acceptance.apps.jobs", "-q", "high=1", "-q", "low"], "-q: give all queues a weight"),
        ([], "no APP: name the module"),
    ],
)
def test_what_cannot_be_right_ends_the_worker_with_2_and_one_line(lab: Lab, arguments: list[str], said: str) -> None:
    ended = lab.commands.run("work", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith(f"rq-lite: {said}")
    assert len(ended.stderr.splitlines()) == 1

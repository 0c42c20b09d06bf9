"""Jobs that bring their consumers down, hold them, or do not end: who pays for it, and who does not."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import pytest

from rq_lite.broker import keys
from rq_lite.model.message import decode
from rq_lite.supervisor.watchdog import SLEPT
from tests.acceptance.conftest import Lab, children, state_of
from tests.conftest import until

NEIGHBOURS = 20


@pytest.mark.parametrize("how", ["exit", "abort", "segfault", "kill", "memory"])
def test_poison_is_buried_after_three_deaths_and_its_neighbours_are_done(lab: Lab, how: str) -> None:
    lab.put("hold", *range(NEIGHBOURS))
    worker = lab.work("--greenlets", "50")
    lab.until_seen("begun", NEIGHBOURS)
    lab.put("poison", how)
    until(lambda: how in lab.seen("begun"), "the poison runs")
    lab.open_gate()
    until(lambda: lab.state().dead == 1, "the poison is buried")
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "everything else is done")
    assert worker.stop() == 0
    assert set(map(str, range(NEIGHBOURS))) <= set(lab.seen("done"))
    assert lab.seen("begun").count(how) == 3
    (dead,) = lab.dead()
    assert dead.report["error"].startswith("poison: 3 consumers died while it ran; the last: ")
    assert (dead.report["attempts"], dead.report["crashes"]) == (3, 3)
    assert dead.report["task"].endswith(":poison")
    assert (lab.state().failed, lab.state().done) == (1, NEIGHBOURS)


@pytest.mark.parametrize("how", ["segfault", "abort", "exit"])
def test_a_crash_whose_stack_is_known_is_charged_to_its_job_alone(lab: Lab, how: str) -> None:
    lab.put("hold", *range(5))
    worker = lab.work("--grace", "0")
    lab.until_seen("begun", 5)
    lab.put("poison", how)
    until(lambda: lab.state().dead == 1, "the poison is buried")
    (dead,) = lab.dead()
    assert " in poison" in dead.report["traceback"]
    assert worker.stop() == 0
    assert [decode(entry)[1:] for entry in lab.waiting()] == [(0, 0, 0)] * 5


def test_an_exhausted_recursion_fails_like_any_error(lab: Lab) -> None:
    lab.put("poison", "recursion")
    lab.drain()
    (dead,) = lab.dead()
    assert dead.report["error"].startswith("RecursionError")
    assert dead.report.get("crashes", 0) == 0


def test_innocent_suspects_run_alone_and_are_done(lab: Lab) -> None:
    """Whoever was there at two deaths is only a suspect."""
    lab.put("hold", 1, 2, 3)
    worker = lab.work("--greenlets", "3")
    for round_ in (1, 2):
        begun = lab.until_seen("begun", 3 * round_)
        os.kill(begun[-1].pid, signal.SIGKILL)
    lab.until_seen("begun", 7)
    assert lab.state().suspects == 2  # one of them runs, alone
    lab.open_gate()
    lab.until_seen("done", 3)
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all is done")
    until(lambda: len(children(worker.pid)) == 2, "only the consumer and the guard are left")
    assert worker.stop() == 0
    assert sorted(lab.seen("done")) == ["1", "2", "3"]
    assert (lab.state().dead, lab.state().suspects) == (0, 0)


@pytest.mark.parametrize("how", ["python", "c"])
def test_a_job_that_holds_the_loop_is_ended_with_its_consumer_and_its_neighbours_pay_nothing(
    lab: Lab, how: str
) -> None:
    lab.put("hold", *range(NEIGHBOURS))
    worker = lab.work("--greenlets", "50", "--grace", "1")
    lab.until_seen("begun", NEIGHBOURS)
    lab.put("hog_soon", how)
    until(lambda: lab.state().dead == 1, "it is buried")
    (dead,) = lab.dead()
    assert dead.report["error"].startswith("JobTimeout: hard limit: ")
    assert " in hog" in dead.report["traceback"]
    until(lambda: len(lab.seen("begun")) == 2 * NEIGHBOURS + 1, "the neighbours run again")
    lab.open_gate()
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "they are done")
    assert worker.stop() == 0
    assert (lab.state().dead, lab.state().done) == (1, NEIGHBOURS)
    assert "(out of memory?)" not in worker.said


def test_a_hard_timeout_is_an_attempt_like_any_other(lab: Lab) -> None:
    lab.put("hog_twice", "python")
    lab.drain("--grace", "1")
    (dead,) = lab.dead()
    assert lab.seen("begun") == ["python"] * 2
    assert (dead.report["attempts"], dead.report.get("crashes", 0)) == (2, 0)


def test_what_swallows_its_timeout_gets_it_again_and_then_ends_with_its_consumer(lab: Lab) -> None:
    lab.put("swallow", 1)
    lab.drain("--grace", "2")
    assert len(lab.seen("swallowed")) >= 2
    (dead,) = lab.dead()
    assert "hard limit" in dead.report["error"]


def test_a_soft_timeout_says_so(lab: Lab) -> None:
    lab.put("last", 1, timeout=0.2)
    lab.drain()
    (dead,) = lab.dead()
    assert dead.report["error"].startswith("JobTimeout: soft limit of 0.2 s")


def test_a_worker_that_stood_still_itself_lets_jobs_have_their_soft_limit_first(lab: Lab) -> None:
    """As on a machine that was paused: when all wake up, everything is overdue, and nobody is to blame."""
    lab.put("last", 1, timeout=1.0)
    worker = lab.work("--grace", "1", "--stall", "2")
    (run,) = lab.until_seen("begun", 1)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(run.pid, number)
        worker.signal(number)
        if number == signal.SIGSTOP:
            time.sleep(SLEPT + 1)  # the length of the standstill is the fault
    until(lambda: lab.state().dead == 1, "it is buried")
    (dead,) = lab.dead()
    assert dead.report["error"].startswith("JobTimeout: soft limit")
    assert worker.stop() == 0
    assert "is stuck" not in worker.said


def test_a_worker_whose_threads_are_signalled_while_it_stands_still_goes_on_with_its_duties(lab: Lab) -> None:
    """What ends meanwhile, a consumer perhaps, is told by a signal, to any thread; whose wait is over when it hears."""
    worker = lab.work()
    ((name,),) = until(lambda: any(found := lab.broker.read(("KEYS", keys.worker("*")))) and found, "it is announced")
    worker.signal(signal.SIGSTOP)
    until(lambda: state_of(worker.pid) == "T", "it stands still")
    time.sleep(SLEPT)  # longer than any of its waits
    for thread in Path(f"/proc/{worker.pid}/task").iterdir():
        assert ctypes.CDLL(None).tgkill(worker.pid, int(thread.name), signal.SIGCHLD) == 0
    left = lab.broker.read(("PTTL", name))[0]
    worker.signal(signal.SIGCONT)
    until(lambda: lab.broker.read(("PTTL", name))[0] > left, "it is announced anew")
    assert worker.stop() == 0


@pytest.mark.parametrize(("timeout", "done"), [(1e300, 1), (0.0, 0), (-1e300, 0)])
def test_a_timeout_that_nobody_can_mean_harms_nobody(lab: Lab, timeout: float, done: int) -> None:
    lab.put("nap", 0.5, timeout=timeout)
    lab.put("do", "other")
    lab.drain()
    assert (lab.state().done, lab.state().dead) == (1 + done, 1 - done)


@pytest.mark.parametrize("how", ["python", "c"])
def test_a_stuck_consumer_is_reported_once_with_its_stack_and_jobs(lab: Lab, how: str) -> None:
    lab.put("hold", "neighbour")
    worker = lab.work("--stall", "1", "--grace", "0")
    lab.until_seen("begun", 1)
    lab.put("hog", how)
    worker.says("is stuck: its loop has not turned for ")
    worker.says(" in hog")
    until(lambda: " stuck for " in lab.commands.run("status").stdout, "status says so")
    assert worker.said.count("is stuck") == 1
    line = next(line for line in worker.said.splitlines() if "is stuck" in line)
    named = line.partition("its jobs: ")[2].split(", ")
    (consumer,) = lab.broker.tends.consumers("work")
    entries = lab.broker.takes.booked("work", consumer, range(1, 10))
    ids = {decode(entry)[0].task.rpartition(":")[2]: decode(entry)[0].id for _, entry in entries}
    culprit_first = [ids["hog"], ids["hold"]]
    if "(it shows no stack" in worker.said:  # on a busy machine it comes too late to tell the culprit
        named.sort(key=culprit_first.index)
    assert named == culprit_first
    assert lab.state().consumers == 1  # its lease goes on
    worker.signal(signal.SIGINT)
    worker.says("stopping: ")
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0


def test_a_stack_that_comes_late_is_told_too(lab: Lab) -> None:
    """Who was stopped, or had no share of the machine, cannot show it when asked."""
    lab.put("hog", "python")
    worker = lab.work("--stall", "1", "--grace", "0")
    (run,) = lab.until_seen("begun", 1)
    os.kill(run.pid, signal.SIGSTOP)
    worker.says("(it shows no stack: is it stopped?)")
    assert " in hog" not in worker.said
    os.kill(run.pid, signal.SIGCONT)
    worker.says(" in hog")
    assert worker.said.count("is stuck") == 1
    assert "does not go on, and is here:\n" in worker.said
    worker.signal(signal.SIGINT)
    worker.says("stopping: ")
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0


def test_failures_of_each_kind_are_told_and_counted(lab: Lab) -> None:
    """The first of a kind with its id; the others are counted, at the latest when the worker ends."""
    lab.put("hopeless", *range(5))
    lab.put("fail", *range(5), retries=0)
    worker = lab.drain()
    buried = [line for line in worker.said.splitlines() if "; buried after attempt 1" in line]
    assert [line.count(":hopeless: ") + 2 * line.count(":fail: ") for line in buried] in ([1, 2], [2, 1])
    assert sum(line.endswith(", bury: 4 more like it") for line in worker.said.splitlines()) == 2
    lab.put("hopeless", *range(5))
    assert lab.drain("-v").said.count("; buried after attempt 1") == 5


def test_who_brings_a_consumer_down_is_named(lab: Lab) -> None:
    lab.put("poison", "segfault")
    (entry,) = lab.waiting()
    said = lab.drain().said
    job = decode(entry)[0]
    lines = [line for line in said.splitlines() if f"job {job.id} {job.task}: its consumer died while it ran" in line]
    assert [line.rpartition(", ")[2] for line in lines] == [
        "crash 1; it runs again", "alone", "crash 3; buried as poison",
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["kill", "segfault"])
def test_a_task_says_itself_with_which_crash_its_jobs_are_buried(lab: Lab, how: str) -> None:
    lab.put("poison_once", how)
    said = lab.drain().said
    (dead,) = lab.dead()
    assert (lab.seen("begun"), dead.report["crashes"]) == ([how], 1)
    assert "its consumer died while it ran, crash 1; buried as poison" in said


@pytest.mark.parametrize("how", ["retry", "syntax", "mute"])
def test_an_error_that_cannot_be_put_into_words_is_one_like_others(lab: Lab, how: str) -> None:
    lab.put("fail_strangely", how)
    worker = lab.drain()
    (dead,) = lab.dead()
    assert lab.seen("begun") == [how] * 2
    assert (dead.report["attempts"], dead.report.get("crashes", 0)) == (2, 0)
    assert "fault of the consumer" not in worker.said


def test_what_a_job_leaves_behind_for_its_greenlet_costs_no_slot(lab: Lab) -> None:
    worker = lab.work("--greenlets", "1")
    for round_ in range(1, 4):
        lab.put("leave_timeout", 0.05)
        lab.until_seen("done", round_)
        until(lambda: lab.state().inflight == 0, "it is acked")
        time.sleep(0.1)  # until it strikes is the fault
    assert worker.stop() == 0
    assert (lab.state().done, lab.state().reclaimed) == (3, 0)
    assert "fault of the consumer" not in worker.said


def test_a_fork_goes_on_with_its_job_alone_and_its_return_is_nobodys(lab: Lab) -> None:
    lab.put("tick", *range(5))
    lab.put("fork_and_nap", "nap")
    lab.put("fork_and_return", "twice")
    worker = lab.drain()
    done = lab.seen("done")
    assert sorted(what for what in done if "twice" not in what) == ["0", "1", "2", "3", "4", "nap"]
    assert len({*done}) == len(done) == 8
    assert len(lab.seen("ticked")) == 20
    assert (lab.state().done, lab.state().stale) == (7, 0)
    assert "Traceback" not in worker.said


def test_jobs_put_after_redis_was_emptied_are_not_settled_by_those_from_before(lab: Lab) -> None:
    """Tags begin anew, and so the same ones name other jobs."""
    lab.put("hold", *range(3))
    worker = lab.work("--greenlets", "6")
    lab.until_seen("begun", 3)
    lab.broker.read(("FLUSHALL",))
    lab.put("last", *range(3, 6))
    lab.until_seen("begun", 6)
    lab.open_gate()
    lab.until_seen("done", 3)
    lab.put("do", "more")
    until(lambda: lab.state().done >= 1 and "more" in lab.seen("done"), "a later result has arrived")
    assert (lab.state().done, lab.state().inflight) == (1, 3)
    worker.signal(signal.SIGINT)
    worker.says("stopping: ")  # two at once would be one
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    assert sorted(lab.arguments()) == [3, 4, 5]


def test_errors_that_are_not_worth_it_are_not_tried_again(lab: Lab) -> None:
    lab.put("picky", "reset", "refused", "value")
    lab.drain()
    seen = lab.seen("begun")
    assert {what: seen.count(what) for what in ("reset", "refused", "value")} == {"reset": 6, "refused": 1, "value": 1}
    assert lab.state().dead == 3


def test_a_job_can_ask_for_another_attempt_or_for_none(lab: Lab) -> None:
    lab.put("again", "a")
    lab.put("hopeless", "b")
    lab.drain()
    assert lab.seen("begun").count("a") == 3
    assert lab.seen("begun").count("b") == 1
    errors = sorted(dead.report["error"] for dead in lab.dead())
    assert errors == ["Bury: b cannot be helped", "Retry: not yet"]

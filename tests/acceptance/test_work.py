"""`rq-lite work`: jobs run, and whatever they do, the others go on."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker
from rq_lite.model.message import VERSION, Message, encode
from tests.acceptance.conftest import APP, Lab, children
from tests.conftest import DURABLE, Server, each_server, until
from tests.faults.proxy import Proxy


def test_a_burst_drains_the_queue_and_exits_0(lab: Lab) -> None:
    lab.put("do", *range(300))
    lab.drain()
    assert Counter(lab.seen("done")) == Counter(map(str, range(300)))
    assert (lab.state().done, lab.state().inflight) == (300, 0)


def test_all_slots_of_all_processes_run_at_once(lab: Lab) -> None:
    lab.put("hold", *range(130))
    worker = lab.work("--greenlets", "50", procs=2)
    begun = lab.until_seen("begun", 100)
    # The gate is closed: whoever has begun is still at it.
    assert sorted(Counter(run.pid for run in begun).values()) == [50, 50]
    assert lab.state().pending == 30
    lab.open_gate()
    lab.until_seen("done", 130)
    assert worker.stop() == 0


def test_queues_without_weights_are_served_in_strict_order(lab: Lab) -> None:
    lab.put("do_low", *range(20), queue="low")
    lab.put("do_high", *range(20), queue="high")
    lab.drain("--greenlets", "1", "-q", "high", "-q", "low")
    assert lab.seen("done") == [f"{queue}-{i}" for queue in ("high", "low") for i in range(20)]


def test_queues_with_weights_share_in_proportion(lab: Lab) -> None:
    lab.put("do_low", *range(150), queue="low")
    lab.put("do_high", *range(150), queue="high")
    lab.drain("--greenlets", "1", "-q", "high=5", "-q", "low=1")
    first = Counter(what.partition("-")[0] for what in lab.seen("done")[:60])
    # 50 and 10 are expected; by chance high has 30 or fewer once in 10^9 times, low none once in 50,000.
    assert first["high"] > 30
    assert "low" in {what.partition("-")[0] for what in lab.seen("done")[:150]}


def test_a_line_per_job_is_logged_when_asked_for(lab: Lab) -> None:
    lab.put("do", 1, 2)
    quiet = lab.drain()
    lab.put("do", 3, 4)
    told = lab.drain("--verbose")
    assert quiet.said.count(":do in ") == 0
    assert told.said.count(f" {APP}:do in ") == 2


def test_a_worker_says_that_a_queue_is_paused_and_when_it_is_not_any_more(lab: Lab) -> None:
    lab.put("do", 1)
    operate.pause(lab.broker, "work")
    worker = lab.work("--burst")
    worker.says("queue 'work' is paused, nothing is taken from it: `rq-lite queue resume work`")
    operate.resume(lab.broker, "work")
    lab.until_seen("done", 1)
    assert worker.wait() == 0
    operate.pause(lab.broker, "work")
    worker = lab.work()
    worker.says("is paused")
    operate.resume(lab.broker, "work")
    worker.says("queue 'work' is no longer paused, jobs are taken from it again")
    assert worker.stop() == 0
    assert worker.said.count("is paused") == 1


def test_the_start_is_announced_without_the_password(lab: Lab, private: Callable[..., Server]) -> None:
    server = private()
    server.broker().open().read(("CONFIG", "SET", "requirepass", "s3cret"))
    lab.environment["RQ_LITE_URL"] = f"{server.url}?password=s3cret"
    worker = lab.work("--greenlets", "7")
    worker.says("consumer 1 ready")
    shown_by_ps = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (worker.pid, *children(worker.pid))]
    assert worker.stop() == 0
    assert "work (bound 10,000)" in worker.said
    assert "1 process × 7 greenlets = 7 slots" in worker.said
    assert "s3cret" not in worker.said
    assert "***" in worker.said
    assert not any(b"s3cret" in line for line in shown_by_ps)


def test_a_job_that_fails_is_buried_with_its_traceback_and_others_go_on(lab: Lab) -> None:
    lab.put("fail", "this")
    lab.put("do", 1)
    lab.drain("--greenlets", "1")
    (dead,) = lab.dead()
    assert dead.report["error"] == "ValueError: cannot do this"
    assert "in fail\n    raise ValueError" in dead.report["traceback"]
    assert (dead.report["task"], dead.report["attempts"]) == (f"{APP}:fail", 1)
    assert lab.seen("done") == ["1"]


def test_two_retries_make_three_runs(lab: Lab) -> None:
    lab.put("fail", "this", retries=2)
    lab.drain()
    assert lab.seen("begun") == ["this"] * 3
    assert [dead.report["attempts"] for dead in lab.dead()] == [3]


@pytest.mark.parametrize("where", ["greenlet", "thread", "process"])
def test_a_job_that_returns_what_nobody_runs_is_buried_at_once(lab: Lab, where: str) -> None:
    app = "tests.acceptance.apps.unrun"
    lab.put(where, "coroutine", "generator", "async generator", app=app)
    worker = lab.drain(app=app)
    assert {dead.report["error"] for dead in lab.dead()} == {
        f"BadResult: {app}:{where} returned {what}, which nothing runs; jobs are plain functions"
        for what in ("a coroutine", "a generator", "an async generator")
    }
    assert [dead.report["attempts"] for dead in lab.dead()] == [1, 1, 1]
    assert "never awaited" not in worker.said


def test_whatever_a_job_raises_its_consumer_lives(lab: Lab) -> None:
    ways = ["exit", "interrupt", "greenlet", "deep", "text"]
    lab.put("end_badly", *ways)
    lab.put("do", *range(20))
    lab.drain("--greenlets", "2")
    errors = [dead.report["error"].partition(":")[0] for dead in lab.dead()]
    assert errors == ["SystemExit", "KeyboardInterrupt", "GreenletExit", "RecursionError", "Unspeakable"]
    assert len({run.pid for run in lab.runs("begun") + lab.runs("done")}) == 1
    assert len(lab.seen("done")) == 20


def test_a_timeout_ends_a_job_and_one_that_swallows_it_gets_it_again(lab: Lab) -> None:
    lab.put("last", "sleeps", timeout=0.3)
    lab.put("stubborn", "swallows", timeout=0.3)
    lab.put("do", 1, 2, 3)
    lab.drain("--greenlets", "2")
    assert [dead.report["error"].partition(":")[0] for dead in lab.dead()] == ["JobTimeout", "JobTimeout"]
    assert sorted(lab.seen("begun")) == ["sleeps", "swallows"]
    # Both slots work again.
    assert sorted(lab.seen("done")) == ["1", "2", "3"]


def test_no_job_sees_the_context_of_another(lab: Lab) -> None:
    lab.put("paint", "red", "green", "blue")
    lab.drain("--greenlets", "1")
    assert lab.seen("done") == ["red:none", "green:none", "blue:none"]


def test_jobs_may_put_into_their_own_full_queue(lab: Lab) -> None:
    lab.put("spread", 5, 5, queue="tiny")
    lab.drain("--greenlets", "2", "-q", "tiny")
    assert Counter(lab.seen("done")) == {"5": 2, "0": 10}
    assert lab.dead("tiny") == []


def test_when_a_consumer_is_killed_its_jobs_run_again_in_a_new_one(lab: Lab) -> None:
    lab.put("hold", *range(5))
    worker = lab.work("--greenlets", "5")
    (pid, *_) = {run.pid for run in lab.until_seen("begun", 5)}
    os.kill(pid, signal.SIGKILL)
    again = lab.until_seen("begun", 10)[5:]
    assert sorted(run.what for run in again) == ["0", "1", "2", "3", "4"]
    assert pid not in {run.pid for run in again}
    lab.open_gate()
    lab.until_seen("done", 5)
    assert worker.stop() == 0
    assert (lab.state().reclaimed, lab.state().done) == (5, 5)
    assert "killed by signal 9" in worker.said


def test_a_run_that_killed_its_consumer_is_charged(lab: Lab) -> None:
    lab.put("crash_once", 1)
    lab.drain()
    (dead,) = lab.dead()
    assert (dead.report["attempts"], dead.report["crashes"]) == (2, 1)


def test_what_is_no_job_is_buried_with_its_bytes(lab: Lab) -> None:
    garbage = [
        b"\x00\xff\r\n garbage",
        b"{",
        b"[1]",
        b"3.x{}",
        b'{"v":1,"id":5,"task":"t"}',
        b'{"v":1,"id":"x","task":"t","args":{}}',
        b'{"v":1,"id":"x","task":"t","args":' + b"[" * 100_000,
        b"",
    ]
    lab.put_raw(*garbage, b'{"v":9,"id":"x","task":"t","more":true}')
    lab.put("do", *range(10))
    worker = lab.drain("--greenlets", "3")
    assert [dead.raw for dead in lab.dead()] == garbage
    assert all(dead.report["error"].startswith("not a job: ") for dead in lab.dead())
    assert len(lab.seen("done")) == 10
    assert lab.state().parked == 1, "another version's job is not garbage"
    assert "Traceback" not in worker.said


def test_arguments_that_the_task_does_not_take_bury_the_job(lab: Lab) -> None:
    lab.put("do", "a", kwargs={"surplus": 1})
    lab.put("do", "b")
    lab.drain()
    assert [dead.report["error"].partition(":")[0] for dead in lab.dead()] == ["TypeError"]
    assert lab.seen("done") == ["b"]


def test_a_job_of_an_unknown_task_is_parked_until_a_worker_knows_it(lab: Lab) -> None:
    lab.environment["RQ_LITE_PARK"] = "0.5"
    lab.put("do", 1, app="tests.acceptance.apps.other")
    ignorant = lab.work()
    until(lambda: lab.state().parked == 1, "parked")
    (unknown,) = lab.state().unknown_tasks
    assert unknown.task == "tests.acceptance.apps.other:do"
    ignorant.says("task 'tests.acceptance.apps.other:do' is not known to this worker")
    ignorant.says(
        "it knows 'tests.acceptance.apps.jobs:do', which may be the same: name APP as the producers import it"
    )
    assert unknown.worker in ignorant.said
    assert lab.seen("done") == []
    assert ignorant.stop() == 0
    lab.environment["RQ_LITE_PARK"] = "15"
    knowing = lab.work(app="tests.acceptance.apps.other")
    lab.until_seen("done", 1)
    assert knowing.stop() == 0
    assert lab.state().parked == 0


def test_a_burst_does_not_wait_for_what_only_others_can_run(lab: Lab) -> None:
    lab.put("do", 1, app="tests.acceptance.apps.other")
    lab.put("do", 2)
    lab.drain()
    assert lab.seen("done") == ["2"]
    assert lab.state().parked == 1


def test_a_consumer_with_a_long_job_takes_others_meanwhile(lab: Lab) -> None:
    lab.put("hold", "long")
    worker = lab.work("--greenlets", "5")
    lab.until_seen("begun", 1)
    for i in range(10):
        lab.put("do", i)
        lab.until_seen("done", i + 1)
    until(lambda: lab.state().inflight == 1, "all but the long one are acked")
    lab.open_gate()
    assert worker.stop() == 0
    assert lab.seen("done")[-1] == "long"


def test_jobs_of_a_machine_that_died_run_again_when_its_leases_have_ended(lab: Lab) -> None:
    lab.put("do", 1, 2, 3)
    with_short_leases = Broker(lab.broker.url, settings=msgspec.structs.replace(lab.broker.settings, lease=1.0))
    elsewhere, link = "elsewhere.0123456789ab:1:1:0123456789abcdef", lab.broker.link()
    with_short_leases.takes.register("work", elsewhere)
    (taken,) = lab.broker.takes.exchange(elsewhere, [Acks("work", [])], 2, link)
    link.close()
    with_short_leases.close()
    assert len(taken.jobs) == 2
    worker = lab.work()
    until(lambda: sorted(lab.seen("done")) == ["1", "2", "3"], "all jobs done")
    assert worker.stop() == 0
    assert lab.state().reclaimed == 2


def test_lost_answers_to_takes_and_acks_neither_lose_nor_double_a_run(lab: Lab, proxy: Proxy) -> None:
    proxy.swallow_replies(":drained", nth=5)
    lab.put("do", *range(300))
    lab.put("fail", *range(20))
    lab.drain("--greenlets", "4", "--url", proxy.url)
    assert proxy.counters.swallowed >= 10
    assert Counter(lab.seen("done")) == Counter(map(str, range(300)))
    assert Counter(lab.seen("begun")) == Counter(map(str, range(20)))
    assert len(lab.dead()) == 20
    # What Redis has settled though its answer was lost is not sent again.
    assert lab.state().stale == 0


@each_server
def test_jobs_that_come_while_redis_is_restarted_are_not_lost(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab], program: str
) -> None:
    server = private(*DURABLE, program=program)
    lab = lab_at(server)
    lab.put("do", *range(900))
    lab.put("hold", "held")
    worker = lab.work("--greenlets", "3")
    lab.until_seen("done", 100)
    server.kill()
    server.start(*DURABLE)
    lab.open_gate()
    lab.put("do", *range(900, 1000))
    lab.until_seen("begun", 1)
    until(lambda: len({*lab.seen("done")}) == 1001, "all jobs done")
    until(lambda: lab.state().inflight == 0, "all jobs acked")
    assert worker.stop() == 0
    # Nobody died: also what was under way when Redis went is known to its consumer.
    assert len(lab.seen("done")) == 1001


def test_a_put_by_hand_is_found_without_a_bell(lab: Lab) -> None:
    """Any program may push a job; a wake-up that is lost costs a second or two and nothing else."""
    worker = lab.work()
    worker.says("consumer 1 ready")
    until(lambda: lab.blocked() == 1, "it waits for the bell")
    job = encode(Message(VERSION, "by-hand", f"{APP}:do", ["by hand"]))
    lab.broker.read(("LPUSH", "rq:{work}:pending", job))
    lab.until_seen("done", 1)
    assert worker.stop() == 0


def test_what_a_job_prints_arrives_line_by_line_and_nothing_of_it_is_lost(lab: Lab) -> None:
    """The worker's output is a file here, which Python buffers by itself."""
    worker = lab.work()
    lab.put("speak", "a whole line\n")
    worker.says("a whole line")
    lab.put("speak", "no line end")
    lab.until_seen("done", 2)
    assert worker.stop() == 0
    assert "no line end" in worker.said

"""Results and callbacks with real workers, and with everything that may happen to them meanwhile."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rq_lite import Executor, Job, JobFailed, as_completed, events, gather
from rq_lite.admin import operate
from rq_lite.broker import Broker, keys
from rq_lite.broker.base import WITH_FLAGS
from rq_lite.broker.scripts import load
from rq_lite.chaos.rest import undocumented
from rq_lite.client import results
from rq_lite.client.defaults import defaults
from tests.acceptance.conftest import Lab, children
from tests.conftest import DURABLE, ROOT, Server, until
from tests.faults.proxy import Proxy
from tests.steps import at_maxmemory

APP = "tests.acceptance.apps.ends"


@pytest.fixture(autouse=True)
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's queues are in this test's Redis, also for this process, and its tasks write their evidence there."""
    lab.app = APP
    use(lab.broker)
    monkeypatch.setattr(results, "AGAIN", 1.0)


def use(broker: Broker) -> None:
    defaults.use(broker.settings, broker)


@pytest.fixture
def ends(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app, as this process sees it."""
    monkeypatch.setenv("EVIDENCE", str(lab.folder / "evidence"))
    code = __import__(APP, fromlist=["ends"])
    for queue in (code.work, code.news):
        queue.sender.__dict__.pop("settings", None)
    return code


def put_count(lab: Lab, queue: str) -> int:
    return int(lab.broker.read(("HGET", keys.of(queue).meta, "put"))[0] or 0)


def drained(lab: Lab) -> None:
    until(lambda: not any(lab.broker.tends.unfinished(queue)[0] for queue in ("work", "news")), "all is done")


def test_the_words_of_an_error_arrive_as_they_were_said(lab: Lab, ends: Any) -> None:
    lab.work(app=APP)
    for task in (ends.complain, ends.complain_elsewhere):
        for said, heard in (("line 1\nline 2\ttab: é", "line 1\nline 2\ttab: é"), ("x" * 20_000, "x" * 10_000)):
            with pytest.raises(JobFailed) as caught:
                task.put(said).result(60)
            assert (caught.value.type, caught.value.message) == ("ValueError", heard)


def test_results_errors_and_callbacks(lab: Lab, ends: Any) -> None:
    lab.work(app=APP)
    fine, bad, quiet = ends.square.put(7), ends.fail.put(3), ends.quiet.put()
    assert fine.result(30) == 49
    with pytest.raises(JobFailed, match="ValueError: no 3") as caught:
        bad.result(30)
    assert (caught.value.type, caught.value.message) == ("ValueError", "no 3")
    assert "raise ValueError" in caught.value.traceback
    drained(lab)
    assert lab.seen("got") == ["49"]
    assert sorted(lab.seen("told")) == ["done", "failed [3] None 2 ValueError: no 3"]
    (dead,) = lab.dead()
    assert dead.report["error"] == "ValueError: no 3"
    assert quiet.result_ttl is None
    # The callback's id is derived, and its own wishes are those of its task.
    assert lab.broker.puts.result("news", f"{bad.id}.failure") is not None
    assert undocumented(lab.broker) == []


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("set", "JSON has no word for set; annotate what the task returns"),
        ("surrogate", "JSON cannot carry it"),
        ("deep", "contains itself"),
        ("large", "has 2,000,002 bytes as JSON, max_result is 1,000,000"),
    ],
)
def test_a_result_that_json_cannot_carry_is_a_failure_that_says_so(lab: Lab, ends: Any, what: str, why: str) -> None:
    job = ends.unfit.using(retries=5).put(what)
    lab.drain(app=APP)
    with pytest.raises(JobFailed, match="BadResult: the result of") as caught:
        job.result(30)
    assert why in str(caught.value)
    assert lab.state().retried == 0
    (line,) = lab.seen("told")
    assert line.startswith("failed")


def test_poison_with_a_callback_is_buried_unrun_and_its_callback_put_once(lab: Lab, ends: Any) -> None:
    lab.work(app=APP)
    job = ends.poison.put(1)
    with pytest.raises(JobFailed, match="poison: 3 consumers died"):
        job.result(60)
    until(lambda: lab.seen("told"), "the callback runs")
    drained(lab)
    assert lab.seen("told") == ["failed [1] None 3 poison: 3 consumers died while it ran"]
    assert (lab.state().dead, lab.state().suspects, lab.state().inflight) == (1, 0, 0)


def test_a_job_killed_for_its_hard_limit_tells_it(lab: Lab, ends: Any) -> None:
    lab.work("--grace", "0.1", app=APP)
    job = ends.swallow.put(1)
    with pytest.raises(JobFailed) as caught:
        job.result(60)
    assert caught.value.type == "JobTimeout"
    until(lambda: lab.seen("told"), "the callback runs")
    assert lab.seen("told")[0].startswith("failed [1] None 1 JobTimeout")
    # Put by the supervisor, which knows no app, and all the same as its task says.
    until(lambda: lab.broker.puts.result("news", f"{job.id}.failure"), "the callback's result is kept")


def test_a_job_may_wait_for_others(lab: Lab, ends: Any) -> None:
    lab.work(app=APP)
    assert ends.sum_of_squares.put(20).result(30) == sum(n * n for n in range(20))


def test_results_of_what_runs_off_the_loop(lab: Lab, ends: Any) -> None:
    lab.work(app=APP)
    assert ends.in_thread.put(1).result(60) == (1, b"thread")
    assert ends.in_process.put(2).result(60) == (2, b"process")


def test_greenlets_may_wait_too(lab: Lab, ends: Any) -> None:
    lab.work(app=APP)
    code = (
        "from gevent import monkey, spawn, joinall; monkey.patch_all()\n"
        f"from {APP} import square\n"
        "waiting = [spawn(square.put(n).result, 30) for n in range(50)]\n"
        "joinall(waiting, raise_error=True); print(sum(one.value for one in waiting))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=lab.environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"{sum(n * n for n in range(50))}\n", done.stderr


def test_an_executor_runs_tasks_and_registered_functions(lab: Lab, ends: Any) -> None:
    lab.work(app=APP, procs=2)
    with Executor(ends.work) as executor:
        assert list(executor.map(ends.nothing, range(2500), chunksize=100, timeout=60)) == list(range(2500))
        jobs = [executor.submit(math.factorial, n) for n in range(20)]
        assert sorted(job.result() for job in as_completed(jobs, 60)) == [math.factorial(n) for n in range(20)]
        unknown = executor.submit(math.comb, 4, 2)
        until(lambda: lab.state().parked == 1, "it is parked: no app registers it")
        assert not unknown.done()
        operate.purge(lab.broker, "work")


# -- faults


@pytest.mark.parametrize("action", ["kill", "stop", "raise", "drop"])
@pytest.mark.parametrize("moment", ["settle.before", "settle.after"])
def test_around_the_step_that_ends_jobs(lab: Lab, ends: Any, tmp_path: Path, moment: str, action: str) -> None:
    """Every job's end is heard of, and its callback is put exactly once."""
    assert moment in events.NAMES
    calm = lab.environment
    (tmp_path / "marks").mkdir()
    failpoint = {"RQ_LITE_FAILPOINT": f"{moment}:{action}@2", "RQ_LITE_FAILPOINT_ONCE": str(tmp_path / "marks")}
    lab.environment = {**calm, **failpoint}
    jobs = [ends.square.put(n) for n in range(12)]
    worker = lab.work("-q", "work", "--greenlets", "3", app=APP)
    until(lambda: (tmp_path / "marks" / moment).exists(), "the moment comes")
    lab.environment = calm
    if action == "stop":
        worker.wait()
        lab.work("-q", "work", app=APP)
    assert gather(*jobs, timeout=60) == [n * n for n in range(12)]
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all is done")
    assert put_count(lab, "news") == lab.state().done == 12
    lab.work("-q", "news", app=APP)
    until(lambda: len(lab.seen("got")) == 12, "the callbacks run")


@pytest.mark.parametrize("script", ["finish", "exchange"])
def test_lost_replies_of_a_worker_change_nothing(lab: Lab, ends: Any, proxy: Proxy, script: str) -> None:
    lab.broker.open()
    needle = load(flags=lab.broker.core.version >= WITH_FLAGS)[script].digest
    worker = lab.work("-q", "work", "--greenlets", "3", "--url", proxy.url, app=APP)
    worker.says("ready")
    jobs = []
    for lost in (1, 2, 3):
        proxy.swallow_replies(needle)
        jobs += [ends.square.put(n) for n in range(5)]
        until_swallowed(proxy, lost)
        proxy.calm()
        assert gather(*jobs, timeout=60) == [n * n for n in range(5)] * lost
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all is done")
    assert put_count(lab, "news") == lab.state().done == 15
    assert lab.state().stale == 0


def until_swallowed(proxy: Proxy, count: int) -> None:
    until(lambda: proxy.counters.swallowed >= count, "a reply is lost")


def test_lost_replies_of_who_waits_cost_time_only(lab: Lab, ends: Any, proxy: Proxy) -> None:
    lab.work(app=APP)
    there = Broker(proxy.url, settings=lab.broker.settings)
    jobs = [ends.hold.put(n) for n in range(10)]
    handles = [Job(id=job.id, queue="work", task="", broker=there, result_ttl=60) for job in jobs]
    assert not any(job.done() for job in handles)
    lab.until_seen("begun", 10)
    with proxy.swallow_replies("BRPOP"):
        lab.open_gate()
        until_swallowed(proxy, 1)
    assert gather(*handles, timeout=60) == list(range(10))


def test_callbacks_are_neither_lost_nor_doubled_when_consumers_are_killed_at_random(lab: Lab, ends: Any) -> None:
    chance = random.Random(4)
    worker = lab.work("-q", "work", "--greenlets", "10", app=APP, procs=2)
    jobs = []
    for n in range(400):
        jobs.append(ends.square.put(n))
        if n % 130 == 40:
            until(lambda: children(worker.pid), "there is somebody to kill")
            consumers = [pid for pid in children(worker.pid) if is_consumer(pid)]
            if consumers:
                os.kill(chance.choice(consumers), signal.SIGKILL)
    assert gather(*jobs, timeout=60) == [n * n for n in range(400)]
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all is done")
    assert put_count(lab, "news") == lab.state().done == 400
    assert lab.broker.read(("LLEN", keys.of("news").pending))[0] == 400


def is_consumer(pid: int) -> bool:
    try:
        return b"rq_lite.consumer.boot" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_redis_may_restart_while_one_waits(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab], ends: Any
) -> None:
    server = private("--appendonly", "yes", "--appendfsync", "always")
    lab = lab_at(server)
    use(lab.broker)
    for queue in (ends.work, ends.news):
        queue.sender.__dict__.pop("settings", None)
    lab.work(app=APP)
    jobs = [ends.hold.put(n) for n in range(5)]
    lab.until_seen("begun", 5)
    heard: list[object] = []
    waiting = threading.Thread(target=lambda: heard.append(gather(*jobs, timeout=60)))
    waiting.start()
    until(lambda: lab.broker.read(("HLEN", keys.of("work").job(jobs[4].id)))[0] == 4, "all are waited for")
    server.kill()
    server.start("--appendonly", "yes", "--appendfsync", "always")
    lab.open_gate()
    waiting.join(60)
    assert heard == [list(range(5))]
    until(lambda: len(lab.seen("told")) == 5, "the callbacks run")


def test_a_waiter_that_is_killed_leaves_nothing_for_good(lab: Lab, ends: Any) -> None:
    job = ends.hold.put(1)
    code = f"from rq_lite import Queue; print(Queue('work').job({job.id!r}).result())"
    waiter = subprocess.Popen([sys.executable, "-c", code], env=lab.environment, cwd=ROOT)
    until(lambda: lab.broker.read(("EXISTS", keys.of("work").job(job.id)))[0], "it waits")
    waiter.kill()
    waiter.wait()
    lab.open_gate()
    lab.drain(app=APP)
    assert job.result(30) == 1
    assert undocumented(lab.broker) == []  # the inbox of the dead has a TTL


def test_at_maxmemory_a_job_ends_though_nobody_can_make_its_callbacks_queue_known(
    lab: Lab, ends: Any, private: Callable[..., Server], lab_at: Callable[[Server], Lab]
) -> None:
    full = lab_at(private())
    full.app = APP
    use(full.broker)
    full.broker.puts.declare("work")
    ends.square.put(3)
    full.broker.read(("SREM", keys.QUEUES, "news"), ("DEL", keys.of("news").meta))
    with at_maxmemory(full.broker):
        worker = full.work("-q", "work", app=APP)
        until(lambda: full.broker.tends.unfinished("work")[0] == 0, "the job has ended")
        assert worker.stop() == 0
    assert full.state().reclaimed == 0
    assert full.drain(app=APP).process.returncode == 0
    assert full.seen("got") == ["9"]


def test_a_job_ends_with_its_callbacks_when_redis_is_back(
    lab: Lab, ends: Any, private: Callable[..., Server], lab_at: Callable[[Server], Lab]
) -> None:
    """It ends meanwhile, and its callbacks' queue is one that its consumer has never heard of."""
    server = private(*DURABLE)
    away = lab_at(server)
    away.environment |= {"RQ_LITE_PATIENCE": "0.1"}
    use(away.broker)
    ends.hold.put(3)
    worker = away.work("-q", "work", app=APP)
    away.until_seen("begun", 1)
    server.kill()
    away.open_gate()
    worker.says("Redis: ")
    server.start(*DURABLE)
    until(lambda: away.broker.tends.unfinished("work")[0] == 0, "the job has ended")
    assert worker.stop() == 0
    assert "fault of the consumer" not in worker.said
    assert away.seen("begun") == ["3"]
    away.drain(app=APP)
    assert [line.split()[0] for line in away.seen("told")] == ["done"]

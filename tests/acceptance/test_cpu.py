"""Jobs with run_in="thread" or "process": like any other, and what they do harms nobody else."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from typing import Any

import msgspec
import pytest

from rq_lite.admin import jobs, operate
from rq_lite.client.current import Progress
from rq_lite.client.job import Job
from rq_lite.model.message import VERSION, Message, decode, encode, marked, new_id
from rq_lite.model.states import State
from tests.acceptance.conftest import Lab, Worker, alive, children, command
from tests.conftest import until

APP = "tests.acceptance.apps.cpu"
KINDS = ("process", "thread")

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def cpu(lab: Lab) -> Cpu:
    return Cpu(lab)


class Cpu:
    """The lab with the app of this file."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def put(self, task: str, *arguments: object, **fields: Any) -> None:
        self.lab.put(task, *arguments, app=APP, **fields)

    def work(self, *options: str) -> Worker:
        return self.lab.work(*options, app=APP)

    def drain(self, *options: str) -> Worker:
        return self.lab.drain(*options, app=APP)

    def tracked(self, task: str, argument: object) -> str:
        """Put a job of which somebody wants to hear; its id."""
        job = new_id()
        message = Message(VERSION, job, f"{APP}:{task}", [argument], result_ttl=60)
        self.lab.put_raw(marked(encode(message), job, tracked=True))
        return job

    def result(self, job: str) -> Any:
        """What is known of how it ended."""
        (raw,) = self.lab.broker.read(("GET", f"rq:{{work}}:result:{job}"))
        return None if raw is None else msgspec.json.decode(raw)

    def ending(self, job: str) -> Any:
        return until(lambda: self.result(job), "it has ended")

    def errors(self) -> list[str]:
        return [dead.report["error"] for dead in self.lab.dead()]

    def consumers(self, worker: Worker) -> set[int]:
        """Pids: of the children of a worker those that are no shell."""
        return {pid for pid in children(worker.pid) if "consumer.boot" in command(pid)}

    def engines(self, worker: Worker) -> set[int]:
        return {
            pid for parent in self.consumers(worker) for pid in children(parent) if "offload.engine" in command(pid)
        }


# -- like any other job


def test_a_job_runs_where_its_task_says(cpu: Cpu) -> None:
    cpu.put("hold_here", "here")
    cpu.put("away_thread", "thread")
    cpu.put("away_process", "process")
    cpu.lab.open_gate()
    cpu.drain("--cpu-procs", "1")
    pids = {run.what: run.pid for run in cpu.lab.runs("done")}
    assert pids["here"] == pids["thread"] != pids["process"]


@each_kind
def test_arguments_errors_and_contexts_are_the_same(cpu: Cpu, kind: str) -> None:
    cpu.put(f"typed_{kind}", "2026-02-28T10:00:00Z", "no time")
    cpu.put(f"paint_{kind}", "red", "green")
    told = cpu.tracked(f"fail_{kind}", "this")
    cpu.drain("--cpu-procs", "1")
    assert sorted(cpu.lab.seen("done")) == ["2026-03-01T10:00:00+00:00", "green:none", "red:none"]
    reports = {dead.report["task"].rpartition(":")[2]: dead.report for dead in cpu.lab.dead()}
    assert reports[f"typed_{kind}"]["error"].startswith("ValidationError: argument 'when'")
    failed = reports[f"fail_{kind}"]
    assert failed["error"] == "ValueError: cannot do this"
    assert "in fail\n    raise ValueError" in failed["traceback"]
    assert "rq_lite/consumer" not in failed["traceback"]
    assert (failed["attempts"], failed.get("crashes", 0)) == (1, 0)
    error = {"type": "ValueError", "message": "cannot do this", "traceback": failed["traceback"]}
    assert cpu.result(told) == {"state": "failed", "error": error}


@each_kind
def test_results_are_the_same(cpu: Cpu, kind: str) -> None:
    plain, day = cpu.tracked(f"result_{kind}", "plain"), cpu.tracked(f"tomorrow_{kind}", "2026-02-28")
    megabytes = [cpu.tracked(f"long_{kind}", letters + "x" * 999_000) for letters in ("ab", "cd")]
    bad = [cpu.tracked(f"result_{kind}", text) for text in ("object", "no number")]
    bad.append(cpu.tracked(f"long_{kind}", "x" * 1_000_000))  # with its quotes it is too large
    cpu.put(f"away_{kind}", "next")
    cpu.drain("--cpu-procs", "1")
    assert cpu.result(plain) == {"state": "done", "value": [1, 2.5, None, "ä"]}
    assert cpu.result(day) == {"state": "done", "value": "2026-03-01"}
    assert [cpu.result(job)["value"] for job in megabytes] == ["x" * 999_000 + letters for letters in ("ba", "dc")]
    assert [cpu.result(job)["error"]["type"] for job in bad] == ["BadResult"] * 3
    assert cpu.lab.seen("begun") == ["plain", "object", "no number"]  # a bad result is not worth another run
    assert "next" in cpu.lab.seen("done")  # perhaps before a large one: these are taken one by one


@each_kind
def test_jobs_may_put_jobs(cpu: Cpu, kind: str) -> None:
    operate.configure(cpu.lab.broker, "work", maxsize=2)
    cpu.put(f"spread_{kind}", 5)
    cpu.drain()
    assert cpu.errors() == []
    assert Counter(cpu.lab.seen("done")) == Counter(map(str, range(5)))


@each_kind
def test_whatever_it_raises_the_next_one_runs_in_the_same_place(cpu: Cpu, kind: str) -> None:
    ways = ["exit", "interrupt", "deep", "text"]
    cpu.put(f"end_badly_{kind}", *ways)
    cpu.put(f"away_{kind}", "next")
    cpu.drain("--cpu-procs", "1")
    errors = sorted(error.partition(":")[0] for error in cpu.errors())
    assert errors == ["KeyboardInterrupt", "RecursionError", "SystemExit", "Unspeakable"]
    assert len({run.pid for run in cpu.lab.runs("begun") + cpu.lab.runs("done")}) == 1


@each_kind
def test_what_is_tried_again_is_the_same(cpu: Cpu, kind: str) -> None:
    cpu.put(f"picky_{kind}", "reset", "refused", "value")
    cpu.put(f"again_{kind}", "again")
    cpu.put(f"hopeless_{kind}", "hopeless")
    cpu.drain("--cpu-procs", "2")
    runs = {"reset": 6, "refused": 1, "value": 1, "again": 3, "hopeless": 1}
    assert Counter(cpu.lab.seen("begun")) == runs
    assert "Bury: hopeless cannot be helped" in cpu.errors()
    assert "Retry: not yet" in cpu.errors()


def test_what_a_job_prints_goes_to_the_log_and_nowhere_else(cpu: Cpu) -> None:
    cpu.put("babble_process", 1, 2)
    cpu.put("away_process", "next")
    worker = cpu.drain("--cpu-procs", "1")
    assert cpu.lab.seen("done") == ["", "", "next"]
    assert cpu.errors() == []
    assert "\x00\x00\x00\x01{}" in worker.log.read_bytes().decode(errors="replace")


@each_kind
def test_a_job_knows_who_it_is_and_says_how_far(cpu: Cpu, kind: str) -> None:
    name = cpu.tracked(f"introduce_{kind}", "it")
    job = Job(id=name, queue="work", task="t", broker=cpu.lab.broker, result_ttl=60)
    assert not job.done()
    cpu.put(f"away_{kind}", "next")
    worker = cpu.work("--cpu-procs", "1")
    until(lambda: job.progress and job.progress.done == 1000, "the last that it said is written")
    assert job.progress == Progress(1000, 2000, "half of it")
    assert cpu.lab.seen("job") == [f"{name} work introduce_{kind} 1 True"]
    cpu.lab.open_gate()
    assert job.result(30) is None
    cpu.lab.until_seen("done", 1)
    assert worker.stop() == 0
    assert cpu.lab.state().failed == 0


# -- how many


@each_kind
def test_there_are_no_more_at_once_than_the_setting_says(cpu: Cpu, kind: str) -> None:
    cpu.put(f"hold_{kind}", *range(6))
    worker = cpu.work("--cpu-procs", "2")
    cpu.lab.until_seen("begun", 2)
    cpu.put("do", "quick")
    cpu.lab.until_seen("done", 1)  # greenlets go on
    assert len(cpu.lab.seen("begun")) == 2
    assert cpu.lab.state().inflight >= 6  # they wait in their slots
    held = jobs.page(cpu.lab.broker, "work", State.INFLIGHT, 0, 10)

    def words() -> Counter[str]:
        return Counter(jobs.word(cpu.lab.broker, "work", str(job.id)) for job in held)

    until(lambda: words() == {"running": 2, "waiting": 4}, "those that wait in their slots count as waiting")
    cpu.lab.open_gate()
    cpu.lab.until_seen("done", 7)
    assert len(cpu.engines(worker)) == (2 if kind == "process" else 0)
    assert worker.stop() == 0
    assert len({run.pid for run in cpu.lab.runs("begun")}) == (2 if kind == "process" else 1)


@each_kind
def test_the_time_of_a_job_that_waits_for_a_place_has_not_begun(cpu: Cpu, kind: str) -> None:
    cpu.put(f"hold_{kind}", "first")
    worker = cpu.work("--cpu-procs", "1")
    cpu.lab.until_seen("begun", 1)
    cpu.put(f"brief_{kind}", "second")
    cpu.put("late_here", "third")
    until(lambda: cpu.lab.state().dead == 1, "the third's time, which is as short, is over")
    cpu.lab.open_gate()
    cpu.lab.until_seen("done", 2)
    assert worker.stop() == 0
    assert cpu.lab.state().done == 2


def test_without_such_jobs_there_is_no_engine(cpu: Cpu) -> None:
    worker = cpu.work()
    cpu.put("do", 1)
    cpu.put("away_thread", 2)
    cpu.lab.until_seen("done", 2)
    assert cpu.engines(worker) == set()
    assert worker.stop() == 0


@pytest.mark.parametrize(("task", "limit"), [("leak", "--max-rss=200"), ("away", "--max-jobs=2")])
def test_an_engine_that_is_worn_out_is_replaced(cpu: Cpu, task: str, limit: str) -> None:
    cpu.put(f"{task}_process", *range(6))
    cpu.drain("--cpu-procs", "1", limit)
    runs = cpu.lab.runs("done")
    assert len(runs) == 6
    assert max(Counter(run.pid for run in runs).values()) <= 3
    assert cpu.lab.state().failed == 0


# -- harm to nobody


def test_a_job_that_computes_stalls_nobody(cpu: Cpu) -> None:
    cpu.put("compute_long_process", "heavy")
    worker = cpu.work("--cpu-procs", "1", "--stall", "0.5", "--grace", "0")
    cpu.lab.until_seen("begun", 1)
    for i in range(5):
        cpu.put("do", *range(40 * i, 40 * i + 40))
        cpu.lab.until_seen("done", 40 * i + 40)
    assert "is stuck" not in worker.said
    assert cpu.lab.state().consumers == 1
    assert worker.stop() == 0


@pytest.mark.parametrize("task", ["late_here", "compute_thread", "compute_process"])
def test_a_traceback_ends_with_the_time_that_is_up(cpu: Cpu, task: str) -> None:
    cpu.put(task, "heavy")
    cpu.drain("--cpu-procs", "1")
    (dead,) = cpu.lab.dead()
    assert dead.report["traceback"].splitlines()[-1].startswith("rq_lite.errors.JobTimeout: the job's time is up")


@each_kind
def test_a_soft_timeout_ends_the_job_and_nothing_else(cpu: Cpu, kind: str) -> None:
    cpu.put("hold_here", "neighbour")
    worker = cpu.work("--cpu-procs", "1")
    cpu.lab.until_seen("begun", 1)
    cpu.put(f"compute_{kind}", "heavy")
    cpu.put(f"away_{kind}", "next")
    cpu.lab.until_seen("done", 1)
    until(lambda: cpu.lab.state().dead == 1, "it is buried")
    (dead,) = cpu.lab.dead()
    assert dead.report["error"].startswith("JobTimeout: soft limit of 0.3 s")
    assert " in compute\n" in dead.report["traceback"]
    assert cpu.lab.seen("ended") == ["heavy"]
    (heavy,), (following,) = (run.pid for run in cpu.lab.runs("ended")), (run.pid for run in cpu.lab.runs("done"))
    assert (heavy == following) == (kind == "thread")  # who was interrupted anywhere runs nothing more
    cpu.lab.open_gate()
    cpu.lab.until_seen("done", 2)
    assert worker.stop() == 0


def test_past_its_hard_limit_a_job_ends_with_its_engine_alone(cpu: Cpu) -> None:
    cpu.put("hold_here", "neighbour")
    worker = cpu.work("--cpu-procs", "1", "--grace", "1")
    cpu.lab.until_seen("begun", 1)
    before = cpu.consumers(worker)
    cpu.put("swallow_process", "heavy")
    until(lambda: cpu.lab.state().dead == 1, "it is buried")
    (dead,) = cpu.lab.dead()
    assert dead.report["error"].startswith("JobTimeout: hard limit: its timeout and 1 s of grace were over")
    assert " in swallow_all\n" in dead.report["traceback"] + "\n"
    assert (dead.report["attempts"], dead.report.get("crashes", 0)) == (1, 0)
    assert len(cpu.lab.seen("swallowed")) >= 1
    cpu.put("away_process", "next")
    cpu.lab.until_seen("done", 1)
    cpu.lab.open_gate()
    cpu.lab.until_seen("done", 2)
    assert cpu.consumers(worker) == before
    assert cpu.lab.seen("begun").count("neighbour") == 1
    assert worker.stop() == 0


def test_past_its_hard_limit_a_job_in_a_thread_ends_with_its_consumer(cpu: Cpu) -> None:
    cpu.put("hold_here", *range(5))
    worker = cpu.work("--cpu-procs", "1", "--grace", "1")
    cpu.lab.until_seen("begun", 5)
    cpu.put("swallow_thread", "heavy")
    until(lambda: cpu.lab.state().dead == 1, "it is buried")
    (error,) = cpu.errors()
    assert error.startswith("JobTimeout: hard limit: ")
    cpu.lab.until_seen("begun", 11)
    assert Counter(cpu.lab.seen("begun"))["heavy"] == 1
    cpu.lab.open_gate()
    cpu.lab.until_seen("done", 5)
    assert worker.stop() == 0
    assert (cpu.lab.state().dead, cpu.lab.state().suspects) == (1, 0)


@pytest.mark.parametrize("how", ["exit", "forked", "segfault"])
def test_poison_is_buried_after_three_engines_and_its_neighbours_never_notice(cpu: Cpu, how: str) -> None:
    cpu.put("hold_here", *range(5))
    worker = cpu.work("--cpu-procs", "1")
    cpu.lab.until_seen("begun", 5)
    job = cpu.tracked("poison_process", how)
    assert (cpu.ending(job)["state"], cpu.ending(job)["error"]["type"]) == ("failed", "poison")
    (dead,) = cpu.lab.dead()
    end = "was killed by signal 11 (Segmentation fault)" if how == "segfault" else "ended with exit code 0"
    assert dead.report["error"] == f"poison: 3 processes died while it ran; the last: {end}"
    assert (" in poison" in dead.report["traceback"]) == (how == "segfault")
    assert (dead.report["attempts"], dead.report["crashes"]) == (3, 3)
    assert Counter(cpu.lab.seen("begun")) == {**dict.fromkeys("01234", 1), how: 3}
    cpu.lab.open_gate()
    cpu.lab.until_seen("done", 5)
    until(lambda: cpu.lab.broker.tends.unfinished("work")[0] == 0, "all is done")
    assert worker.stop() == 0
    assert cpu.lab.broker.read(("HGET", "rq:{work}:meta", "crashed")) == [b"3"]
    assert (cpu.lab.state().done, cpu.lab.state().reclaimed) == (5, 0)


def test_a_crash_in_a_thread_is_charged_to_its_job_alone(cpu: Cpu) -> None:
    cpu.put("hold_here", *range(5))
    worker = cpu.work("--grace", "0")
    cpu.lab.until_seen("begun", 5)
    cpu.put("poison_thread", "segfault")
    until(lambda: cpu.lab.state().dead == 1, "it is buried")
    (dead,) = cpu.lab.dead()
    assert " in poison" in dead.report["traceback"]
    assert cpu.lab.seen("begun").count("segfault") == 3
    assert worker.stop() == 0
    assert [decode(entry)[1:] for entry in cpu.lab.waiting()] == [(0, 0, 0)] * 5


def with_an_idle_engine(cpu: Cpu) -> tuple[Worker, int]:
    """A worker, and the pid of its only engine, which has done a job."""
    cpu.put("away_process", 1)
    worker = cpu.work("--cpu-procs", "1")
    until(lambda: cpu.lab.state().done == 1, "the engine has said that it is done")
    (engine,) = cpu.engines(worker)
    return worker, engine


def goes_on_uncharged(cpu: Cpu, worker: Worker) -> bool:
    """Whether the second job is done, and no death was charged to any."""
    cpu.lab.until_seen("done", 2)
    charged = cpu.lab.broker.read(("HGET", "rq:{work}:meta", "crashed"))
    return worker.stop() == 0 and cpu.lab.state().done == 2 and charged == [None]


def test_an_engine_that_died_while_it_had_nothing_to_do_costs_nobody_anything(cpu: Cpu) -> None:
    worker, engine = with_an_idle_engine(cpu)
    os.kill(engine, signal.SIGKILL)
    until(lambda: not alive(engine), "it is dead")
    cpu.put("away_process", 2)
    assert goes_on_uncharged(cpu, worker)


@pytest.mark.skipif(sys.platform != "linux", reason="only there a socket tells what its other end has left unread")
def test_an_engine_that_dies_before_it_reads_its_order_costs_nobody_anything(cpu: Cpu) -> None:
    worker, engine = with_an_idle_engine(cpu)
    os.kill(engine, signal.SIGSTOP)
    cpu.put("away_process", 2)
    until(lambda: cpu.lab.state().inflight == 1, "the job was taken")
    os.kill(engine, signal.SIGKILL)
    assert goes_on_uncharged(cpu, worker)


def test_jobs_wait_for_engines_that_cannot_begin(cpu: Cpu) -> None:
    broken = cpu.lab.folder / "evidence" / "broken"
    broken.touch()
    cpu.put("away_process", 1)
    worker = cpu.work("--cpu-procs", "1")
    worker.says("an engine for run_in='process' cannot begin, its jobs wait")
    worker.says("RuntimeError: it cannot be imported now")
    cpu.put("do", "quick")
    cpu.lab.until_seen("done", 1)
    broken.unlink()
    cpu.lab.until_seen("done", 2)
    assert worker.stop() == 0
    assert cpu.lab.state().done == 2


def test_an_engine_whose_job_forks_and_returns_twice_answers_once(cpu: Cpu) -> None:
    worker = cpu.work("--cpu-procs", "1")
    ended = cpu.ending(cpu.tracked("fork_and_return", 0))
    assert ended["state"] == "done", ended
    assert ended["value"][1] > 0  # the parent's
    for n in range(5):
        assert cpu.ending(cpu.tracked("same", n))["value"] == n
    assert worker.stop() == 0


# -- who waits, and who cancels


@each_kind
def test_a_job_that_waits_in_its_slot_for_a_place_does_not_run(cpu: Cpu, kind: str) -> None:
    worker = cpu.work("--cpu-procs", "1")
    task = f"{APP}:hold_{kind}"
    first, second = (
        Job(id=cpu.tracked(f"hold_{kind}", n), queue="work", task=task, result_ttl=60, broker=cpu.lab.broker)
        for n in (1, 2)
    )
    until(lambda: cpu.lab.state().inflight == 2, "both are in a slot")
    until(lambda: second.state() == "waiting" and first.state() == "running", "one waits for its place")
    assert (first.running(), second.running()) == (True, False)
    (shown,) = [job for job in jobs.listed(cpu.lab.broker, "work", State.INFLIGHT) if job.held]
    assert shown.id == second.id
    (key,) = cpu.lab.broker.read(("KEYS", "rq:{work}:held:*"))[0]
    assert 0 < cpu.lab.broker.read(("PTTL", key))[0] <= 60_000
    cpu.lab.open_gate()
    cpu.lab.until_seen("done", 2)
    until(lambda: not cpu.lab.broker.read(("EXISTS", key))[0], "nothing waits any more")
    assert worker.stop() == 0


@each_kind
def test_a_job_that_is_cancelled_ends_and_its_place_goes_on(cpu: Cpu, kind: str) -> None:
    worker = cpu.work("--cpu-procs", "1")
    running, waiting = cpu.tracked(f"compute_long_{kind}", 1), cpu.tracked(f"compute_long_{kind}", 2)
    cpu.lab.until_seen("begun", 1)
    until(lambda: cpu.lab.state().inflight == 2, "the second waits in its slot")
    for job in (waiting, running):
        operate.cancel(cpu.lab.broker, "work", job)
        assert cpu.ending(job) == {"state": "cancelled"}
    cpu.put(f"away_{kind}", "next")
    cpu.lab.until_seen("done", 1)
    pids = {run.pid for run in cpu.lab.runs("begun") + cpu.lab.runs("done")}
    assert len(pids) == (1 if kind == "thread" else 2)
    assert worker.stop() == 0
    assert (cpu.lab.seen("begun"), cpu.lab.state().dead) == (["1"], 0)


def test_a_job_that_swallows_being_cancelled_ends_with_its_engine_alone(cpu: Cpu) -> None:
    worker = cpu.work("--cpu-procs", "1", "--grace", "1")
    cpu.put("hold_here", "neighbour")
    job = cpu.tracked("swallow_long_process", 1)
    cpu.lab.until_seen("begun", 2)
    before = cpu.consumers(worker)
    operate.cancel(cpu.lab.broker, "work", job)
    assert cpu.ending(job) == {"state": "cancelled"}
    assert cpu.consumers(worker) == before
    cpu.lab.open_gate()
    cpu.lab.until_seen("done", 1)
    assert worker.stop() == 0
    assert cpu.lab.seen("begun").count("neighbour") == 1


# -- stops and deaths


@each_kind
def test_a_stop_gives_back_what_does_not_end_in_time(cpu: Cpu, kind: str) -> None:
    cpu.put(f"compute_long_{kind}", 1, 2)
    worker = cpu.work("--cpu-procs", "1", "--grace", "0.2")
    cpu.lab.until_seen("begun", 1)
    engines = cpu.engines(worker)
    assert worker.stop() == 0
    assert cpu.lab.arguments() == [1, 2]
    assert [decode(entry)[1:] for entry in cpu.lab.waiting()] == [(0, 0, 0)] * 2
    assert (cpu.lab.state().inflight, cpu.lab.state().reclaimed) == (0, 0)
    assert not any(map(alive, engines))


@each_kind
def test_a_stop_waits_for_what_runs(cpu: Cpu, kind: str) -> None:
    cpu.put(f"hold_{kind}", 1)
    worker = cpu.work()
    cpu.lab.until_seen("begun", 1)
    worker.signal(signal.SIGTERM)
    worker.says("stopping: ")
    cpu.lab.open_gate()
    assert worker.wait() == 0
    assert (cpu.lab.seen("done"), cpu.lab.state().done) == (["1"], 1)


@pytest.mark.parametrize(("victim", "task"), [("consumer", "compute_long"), ("supervisor", "hold")])
def test_no_engine_outlives_its_consumer(cpu: Cpu, victim: str, task: str) -> None:
    cpu.put(f"{task}_process", 1)
    worker = cpu.work("--cpu-procs", "1", "--grace", "0")
    ((_, engine),) = cpu.lab.until_seen("begun", 1)
    (consumer,) = cpu.consumers(worker)
    os.kill(consumer if victim == "consumer" else worker.pid, signal.SIGKILL)
    until(lambda: not alive(engine), "the engine is dead")
    if victim == "consumer":
        cpu.lab.until_seen("begun", 2)
        assert worker.stop() == 0


@pytest.mark.parametrize(("when", "action"), [("before", "kill"), ("after", "kill"), ("before", "drop")])
def test_whatever_happens_as_a_crash_is_told_it_is_charged_once(cpu: Cpu, when: str, action: str) -> None:
    cpu.lab.environment["RQ_LITE_FAILPOINT"] = f"settle.{when}:{action}"
    once = cpu.lab.folder / "once"
    once.mkdir()
    cpu.lab.environment["RQ_LITE_FAILPOINT_ONCE"] = str(once)
    cpu.put("poison_process", "exit")
    cpu.drain("--cpu-procs", "1")
    assert [mark.name for mark in once.iterdir()] == [f"settle.{when}"]
    assert cpu.lab.seen("begun") == ["exit"] * 3
    (dead,) = cpu.lab.dead()
    assert (dead.report["attempts"], dead.report["crashes"]) == (3, 3)

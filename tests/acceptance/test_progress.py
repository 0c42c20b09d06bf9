"""What jobs know and say of themselves, with a real worker."""

from __future__ import annotations

import json

import pytest

from rq_lite import current_job
from rq_lite.admin import operate
from rq_lite.broker import keys
from rq_lite.client.current import Progress
from rq_lite.client.job import Job
from rq_lite.model.message import VERSION, Message, encode, marked
from tests.acceptance.conftest import APP, Lab, alive
from tests.conftest import until

KEY = keys.of("work")


def introduce(*ids: str) -> list[bytes]:
    return [encode(Message(VERSION, each, f"{APP}:introduce", [each])) for each in ids]


def test_a_job_knows_who_it_is_and_says_how_far(lab: Lab) -> None:
    lab.put_raw(*introduce("a", "b"))
    lab.work("--greenlets", "2")
    lab.until_seen("job", 4)
    assert sorted(lab.seen("job")) == [f"{job} work introduce {n} 5" for job in "ab" for n in (1, 2)]
    jobs = {each: Job(id=each, queue="work", task="t", broker=lab.broker) for each in "ab"}
    for each, job in jobs.items():
        until(lambda job=job: job.progress and job.progress.done == 100, "the last is written")  # type: ignore[misc]
        assert (job.progress and job.progress.total, job.progress and job.progress.note) == (200, f"half of {each}")
    shown = lab.broker.read(("HGETALL", KEY.progress))[0]
    assert sorted(shown[::2]) == [b"a", b"b"]
    assert {json.loads(each)["task"] for each in shown[1::2]} == {f"{APP}:introduce"}
    lab.open_gate()
    until(lambda: lab.broker.read(("EXISTS", KEY.progress, KEY.job("a"), KEY.job("b")))[0] == 0, "nothing is left")
    assert [job.progress for job in jobs.values()] == [None, None]


def test_the_producer_that_waits_hears_of_it(lab: Lab) -> None:
    (entry,) = [encode(Message(VERSION, "w", f"{APP}:introduce", ["w"], result_ttl=60))]
    lab.put_raw(marked(entry, "w", tracked=True))
    job = Job(id="w", queue="work", task="t", broker=lab.broker, result_ttl=60)
    assert not job.done()
    lab.work("--greenlets", "2")
    until(lambda: job.progress and job.progress.done == 100, "it hears of it")
    lab.open_gate()
    assert job.result(30) is None
    assert job.progress is not None  # the last that it heard


def test_what_a_job_starts_is_no_job(lab: Lab) -> None:
    assert current_job() is None
    lab.put("ask_from_elsewhere", "x")
    lab.drain()
    assert lab.seen("done") == ["x (None, None)"]


def test_cancelling_by_the_handle(lab: Lab) -> None:
    for task in ("last", "do"):
        entry = encode(Message(VERSION, task, f"{APP}:{task}", [task], result_ttl=60))
        lab.put_raw(marked(entry, task, tracked=True))
    last, done = (Job(id=each, queue="work", task="t", broker=lab.broker, result_ttl=60) for each in ("last", "do"))
    lab.work("--greenlets", "2")
    lab.until_seen("begun", 1)
    done.result(30)
    assert last.running()
    assert last.cancel() is True
    until(last.done, "it hears that it was cancelled")
    assert last.cancelled()
    assert last.cancel() is True  # it is, and stays so
    assert done.cancel() is False
    assert not done.cancelled()
    never = Job(id="never put", queue="work", task="t", broker=lab.broker)
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "nothing runs")
    assert never.cancel() is False


@pytest.mark.parametrize("where", ["thread", "process"])
def test_also_off_the_loop(lab: Lab, where: str) -> None:
    lab.put_raw(encode(Message(VERSION, "e", f"{APP}:tell_in_{where}", ["e"])))
    lab.work("--greenlets", "2")
    lab.until_seen("job", 1)
    assert lab.seen("job") == ["e work 1 5"]
    job = Job(id="e", queue="work", task="t", broker=lab.broker)
    until(lambda: job.progress == Progress(7, 8, "half of e"), "the last is written")
    lab.open_gate()
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "it ends")
    until(lambda: job.progress is None, "nothing is left")


@pytest.mark.parametrize("where", ["thread", "process"])
def test_what_runs_off_the_loop_is_cancelled_like_any_other(lab: Lab, where: str) -> None:
    lab.put_raw(encode(Message(VERSION, "e", f"{APP}:last_in_{where}", ["e"])))
    worker = lab.work("--greenlets", "2")
    (run,) = lab.until_seen("begun", 1)
    operate.cancel(lab.broker, "work", "e")
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "it ends")
    state = lab.state()
    assert (state.cancelled, state.done, state.dead, state.reclaimed) == (1, 0, 0, 0)
    if where == "process":
        until(lambda: not alive(run.pid), "the engine that was interrupted ends")
    else:
        assert alive(run.pid)
    assert "worker [" not in worker.said.partition(" ready ")[2]  # its supervisor has nothing to say of the consumer

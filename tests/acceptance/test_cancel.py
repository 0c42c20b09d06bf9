"""Cancelling with a real worker: what runs is interrupted, what is marked never starts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Acks, Cancelled, keys
from rq_lite.model.message import VERSION, Message, decode, encode
from tests.acceptance.conftest import APP, Lab, alive, children
from tests.conftest import DURABLE, Server, until

KEY = keys.of("work")


def put(lab: Lab, task: str, *ids: str) -> None:
    """Jobs whose argument is their id."""
    lab.put_raw(*(encode(Message(VERSION, each, f"{APP}:{task}", [each])) for each in ids))


def inflight(lab: Lab) -> list[str]:
    found = []
    for consumer in lab.broker.tends.consumers("work"):
        tags = sorted(lab.broker.takes.inflight("work", consumer))
        found += [decode(entry)[0].id for _, entry in lab.broker.takes.booked("work", consumer, tags)]
    return sorted(found)


def test_a_running_job_is_interrupted_and_its_neighbours_go_on(lab: Lab) -> None:
    put(lab, "last", "a")
    put(lab, "hold", "b")
    worker = lab.work("--greenlets", "2")
    lab.until_seen("begun", 2)
    assert operate.cancel(lab.broker, "work", "a") is Cancelled.MARKED
    until(lambda: lab.state().cancelled == 1, "it was interrupted")
    assert inflight(lab) == ["b"]
    put(lab, "do", "c")
    lab.until_seen("done", 1)  # the slot is free again
    lab.open_gate()
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all is done")
    assert worker.stop() == 0
    state = lab.state()
    assert (state.done, state.cancelled, state.dead, state.stale, state.reclaimed) == (2, 1, 0, 0, 0)
    assert lab.seen("done") == ["c", "b"]


def test_it_is_heard_although_all_slots_are_busy(lab: Lab) -> None:
    put(lab, "last", "a", "b", "c", "d")
    lab.work("--greenlets", "2", procs=2)
    lab.until_seen("begun", 4)
    for each in "abcd":
        operate.cancel(lab.broker, "work", each)
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all of them are interrupted")
    assert (lab.state().cancelled, lab.state().dead) == (4, 0)


def test_a_job_that_swallows_it_is_ended_with_its_process_and_nobody_is_charged(lab: Lab) -> None:
    put(lab, "deaf", "a")
    put(lab, "hold", "b")
    worker = lab.work("--greenlets", "2", "--grace", "4")
    lab.until_seen("begun", 2)
    (first,) = [pid for pid in children(worker.pid) if pid == lab.runs("begun")[0].pid]
    operate.cancel(lab.broker, "work", "a")
    until(lambda: len(lab.runs("swallowed")) >= 2, "it goes on getting it")
    until(lambda: not alive(first), "its process is killed")
    lab.until_seen("begun", 3)  # b, once more
    lab.open_gate()
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all has ended")
    state = lab.state()
    assert (state.cancelled, state.done, state.dead, state.failed, state.suspects) == (1, 1, 0, 0, 0)
    assert [run.what for run in lab.runs("begun")].count("a") == 1
    assert worker.stop() == 0
    assert "job a: cancelled, and ended with its consumer" in worker.said


@pytest.mark.parametrize("how", ["python", "c"])
def test_a_job_that_holds_the_loop_is_ended_with_its_process_and_nobody_is_charged(lab: Lab, how: str) -> None:
    """Its consumer hears nothing; and it has no time limit."""
    put(lab, "hold", "b", "c")
    worker = lab.work("--greenlets", "4", "--grace", "2")
    lab.until_seen("begun", 2)
    lab.put_raw(encode(Message(VERSION, "a", f"{APP}:hog_for_ever", [how])))
    (run,) = lab.until_seen("begun", 3)[2:]
    assert operate.cancel(lab.broker, "work", "a") is Cancelled.MARKED
    until(lambda: not alive(run.pid), "its process is killed")
    lab.until_seen("begun", 5)  # b and c, once more
    lab.open_gate()
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all has ended")
    state = lab.state()
    assert (state.cancelled, state.done, state.dead, state.failed, state.suspects) == (1, 2, 0, 0, 0)
    assert sorted(lab.seen("begun")) == sorted([how, *"bcbc"])
    assert worker.stop() == 0
    assert worker.said.count("job a: cancelled, and ended with its consumer") == 1
    assert "(out of memory?)" not in worker.said


def test_a_job_that_holds_the_loop_is_ended_although_redis_was_away(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab]
) -> None:
    server = private(*DURABLE)
    lab = lab_at(server)
    lab.put_raw(encode(Message(VERSION, "a", f"{APP}:hog", ["python"])))
    worker = lab.work("--grace", "0", "--stall", "1")
    (run,) = lab.until_seen("begun", 1)
    server.kill()
    worker.says("is stuck: its loop has not turned for ")  # from the thread that would have looked
    server.start(*DURABLE)
    assert alive(run.pid)
    assert operate.cancel(lab.broker, "work", "a") is Cancelled.MARKED
    until(lambda: not alive(run.pid), "its process is killed")
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "it has ended")
    assert (lab.state().cancelled, lab.state().dead, lab.state().failed) == (1, 0, 0)
    assert worker.stop() == 0
    assert "Traceback" not in worker.said


def test_what_is_marked_never_starts(lab: Lab) -> None:
    """Too far from both ends to be found; and other jobs are taken with it."""
    put(lab, "do", *(f"{n:05}" for n in range(4000)))
    assert operate.cancel(lab.broker, "work", "02000") is Cancelled.MARKED
    assert operate.cancel(lab.broker, "work", "02001") is Cancelled.MARKED
    assert operate.cancel(lab.broker, "work", "00000") is Cancelled.REMOVED
    lab.drain("--greenlets", "50")
    done = lab.seen("done")
    assert len(done) == len(set(done)) == 3997
    assert not {"00000", "02000", "02001"} & set(done)
    state = lab.state()
    assert (state.done, state.cancelled, state.put) == (3997, 3, 4000)
    assert lab.broker.read(("EXISTS", KEY.cancelled))[0] == 0


def test_a_job_whose_consumer_dies_while_it_is_cancelled_does_not_run_again(lab: Lab) -> None:
    put(lab, "last", "a")
    worker = lab.work("--greenlets", "1")
    (run,) = lab.until_seen("begun", 1)
    os.kill(run.pid, signal.SIGSTOP)  # it hears nothing
    operate.cancel(lab.broker, "work", "a")
    os.kill(run.pid, signal.SIGKILL)
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "it is dropped when its turn comes again")
    assert (lab.seen("begun"), lab.state().cancelled, lab.state().reclaimed) == (["a"], 1, 1)
    assert worker.stop() == 0


def test_a_suspect_that_was_marked_before_is_not_run_alone(lab: Lab) -> None:
    put(lab, "do", "x")
    link = lab.broker.link()
    for consumer in ("c", "d"):  # they die, one after the other
        lab.broker.takes.register("work", consumer)
        (taken,) = lab.broker.takes.exchange(consumer, [Acks("work", [])], 1, link)
        assert len(taken.jobs) == 1
        if consumer == "d":
            assert operate.cancel(lab.broker, "work", "x") is Cancelled.MARKED
        lab.broker.tends.reclaim("work", consumer, certain=True)
    link.close()
    assert lab.state().suspects == 1
    lab.drain()
    assert (lab.seen("done"), lab.state().cancelled, lab.state().suspects) == ([], 1, 0)


@pytest.mark.parametrize("moment", ["settle.before:drop", "settle.after:drop", "settle.before:raise"])
def test_the_connection_or_the_consumer_is_lost_while_a_job_is_dropped(lab: Lab, moment: str) -> None:
    put(lab, "last", "a")
    put(lab, "do", "b")
    lab.environment = {**lab.environment, "RQ_LITE_FAILPOINT": moment, "RQ_LITE_FAILPOINT_ONCE": str(lab.folder)}
    worker = lab.work("--greenlets", "2")
    lab.until_seen("begun", 1)
    lab.until_seen("done", 1)
    operate.cancel(lab.broker, "work", "a")
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "it has ended")
    worker.stop()
    state = lab.state()
    assert (state.cancelled, state.done, state.dead, state.stale) == (1, 1, 0, 0)
    assert (lab.folder / moment.partition(":")[0]).exists()
    assert lab.seen("begun") == ["a"]


def test_a_stop_gives_a_marked_job_back_and_the_next_worker_drops_it(lab: Lab) -> None:
    put(lab, "deaf", "a")
    worker = lab.work("--greenlets", "1", "--grace", "0")
    lab.until_seen("begun", 1)
    worker.signal(signal.SIGTERM)
    operate.cancel(lab.broker, "work", "a")
    worker.wait()
    lab.drain()
    assert (lab.seen("begun"), lab.state().cancelled) == (["a"], 1)

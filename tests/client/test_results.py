"""Jobs as futures: the side that waits, with a consumer by hand on the other side."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import gc
import json
import math
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest

import rq_lite
from rq_lite import BrokerUnavailable, Executor, Job, JobFailed, Queue, UsageError
from rq_lite.admin import operate
from rq_lite.broker import Broker, Link
from rq_lite.broker.producing import Producing
from rq_lite.client import job as job_module
from rq_lite.client import results
from rq_lite.client.task import Task
from rq_lite.model.message import decode
from rq_lite.model.outcome import Finished
from rq_lite.testing import inline
from tests.conftest import DEADLINE, until
from tests.steps import KEY, take


@pytest.fixture
def double(queue: Queue, broker: Broker, link: Link) -> Task[Any, Any]:
    operate.configure(broker, "q", maxsize=0)
    broker.takes.register("q", "c", link=link)

    @queue.task(name="double", result_ttl=60)
    def double(n: int) -> int:
        return 2 * n

    return double


class Hand:
    """A consumer: runs what waits."""

    def __init__(self, broker: Broker, link: Link) -> None:
        self.broker = broker
        self.link = link

    def take(self, want: int = 100) -> list[tuple[int, Any]]:
        reply = take(self.broker, self.link, want)
        return [(tag, decode(raw)[0]) for tag, raw in enumerate(reply.jobs, reply.tag + 1)]

    def end(self, tags: list[int], state: str = "done", detail: str = '"value":1') -> None:
        report = b"{}" if state == "failed" else b""
        ends = [(tag, Finished(state, detail.encode(), 60_000, report)) for tag in tags]
        assert self.broker.takes.finish("q", "c", ends, self.link) == 0

    def work(self) -> int:
        """Doubles everything that waits; how many."""
        jobs = self.take()
        for tag, message in jobs:
            self.end([tag], detail=f'"value":{2 * message.args[0]}')
        return len(jobs)


@pytest.fixture
def hand(broker: Broker, link: Link, double: Any) -> Hand:
    return Hand(broker, link)


def later(hand: Hand, count: int = 1) -> threading.Thread:
    """Does so many jobs once somebody waits for the first of them."""

    def run() -> None:
        until(lambda: hand.broker.read(("KEYS", KEY.job("*")))[0], "somebody waits")
        left = count
        while left > 0:
            left -= hand.work()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# -- one job


def test_a_result_is_waited_for(double: Any, hand: Hand) -> None:
    job = double.put(21)
    thread = later(hand)
    assert job.result(30) == 42
    thread.join()
    assert job.done()
    assert job.exception() is None
    assert not job.running()
    assert not job.cancelled()


def test_a_result_that_is_there_already_is_had_at_once(double: Any, hand: Hand) -> None:
    job = double.put(1)
    hand.work()
    assert job.result(0) == 2


def test_nothing_is_asked_of_redis_until_somebody_asks(double: Any, hand: Hand, broker: Broker) -> None:
    job = double.put(1)
    assert repr(job).startswith("Job(id=")
    assert job == double.job(job.id)
    assert len({job, double.job(job.id)}) == 1
    assert "_condition" not in vars(job)
    assert broker.read(("EXISTS", KEY.job(job.id)))[0] == 0


def test_an_error_comes_back_in_words(double: Any, hand: Hand) -> None:
    job = double.put(1)
    (tag,) = [tag for tag, _ in hand.take()]
    error = {"type": "KeyError", "message": "'x'", "traceback": "Traceback …"}
    hand.end([tag], "failed", f'"error":{json.dumps(error)}')
    with pytest.raises(JobFailed, match="KeyError: 'x'") as caught:
        job.result(30)
    assert (caught.value.type, caught.value.message, caught.value.traceback) == ("KeyError", "'x'", "Traceback …")
    assert caught.value.job_id == job.id
    assert job.exception() is caught.value


def test_a_purged_job_is_cancelled(double: Any, hand: Hand, broker: Broker) -> None:
    job, other = double.put(1), double.put(2)
    assert not job.done()
    assert operate.purge(broker, "q") == 2
    with pytest.raises(CancelledError):
        job.result(30)
    assert job.cancelled()
    assert other.cancelled()  # asked for only now


def test_it_takes_no_longer_than_one_is_ready_to_wait(double: Any, hand: Hand) -> None:
    job = double.put(1)
    with pytest.raises(TimeoutError):
        job.result(0.01)
    hand.work()
    assert job.result(30) == 2


def test_running_is_what_a_consumer_has(double: Any, hand: Hand) -> None:
    job = double.put(1)
    assert not job.running()
    ((tag, _),) = hand.take()
    assert job.running()
    hand.end([tag])
    assert not job.running()


def test_every_state_of_a_job_has_a_word(queue: Queue, double: Any, hand: Hand, broker: Broker) -> None:
    @queue.task(name="plain")
    def plain() -> None: ...

    for task in (double, plain):
        args = () if task is plain else (1,)
        job, later = task.put(*args), task.using(delay=60).put(*args)
        assert [(one.state(), one.exists()) for one in (job, later)] == [("waiting", True), ("scheduled", True)]
        ((tag, _),) = hand.take()
        assert job.state() == "running"
        hand.end([tag], "failed", '"error":{}')
        assert job.state() == "failed"
        assert later.cancel()
        assert later.state() == ("cancelled" if task is double else "unknown")


def test_a_job_that_is_done_is_known_as_long_as_its_result_is_kept(double: Any, hand: Hand, broker: Broker) -> None:
    job, stranger = double.put(1), double.job("0" * 11 + "-stranger")
    assert (stranger.state(), stranger.exists(), stranger.running()) == ("unknown", False, False)
    hand.work()
    assert (job.state(), double.job(job.id).state()) == ("done", "done")
    assert job.result(30) == 2
    broker.read(("DEL", KEY.result(job.id)))
    assert (job.state(), job.exists(), double.job(job.id).exists()) == ("done", True, False)


def test_what_is_no_result_leaves_the_state_unknown(double: Any, broker: Broker) -> None:
    for text in (b"no json", b'{"state":"frozen"}'):
        job = double.put(1)
        operate.purge(broker, "q")
        broker.read(("SET", KEY.result(job.id), text, "EX", 60))
        assert job.state() == "unknown"
        with pytest.raises(JobFailed):
            job.result(30)
        assert job.state() == ("unknown" if b"frozen" in text else "failed")


def test_inline_a_job_has_ended(double: Any) -> None:
    with inline():
        assert (double.put(1).state(), double.put(1).exists()) == ("done", True)
        with pytest.raises(UsageError, match="was not put within this block"):
            double.job("stranger").state()


def test_a_job_without_a_result_says_how_to_ask_for_one(queue: Queue) -> None:
    @queue.task(name="plain")
    def plain() -> None: ...

    job = plain.put()
    for ask in (job.result, job.exception, job.done, lambda: job.add_done_callback(print)):
        with pytest.raises(UsageError, match=r"result_ttl="):
            ask()
    with pytest.raises(UsageError, match=r"result_ttl="):
        rq_lite.wait([job])


def test_one_put_may_ask_for_a_result(queue: Queue, broker: Broker, link: Link) -> None:
    @queue.task(name="plain")
    def plain() -> None: ...

    job = plain.using(result_ttl=5).put()
    broker.takes.register("q", "c", link=link)
    hand = Hand(broker, link)
    hand.end([tag for tag, _ in hand.take()], detail='"value":null')
    assert job.result(30) is None


def test_a_callback_is_called_with_the_job(double: Any, hand: Hand) -> None:
    job = double.put(4)
    heard: Future[Any] = Future()
    job.add_done_callback(heard.set_result)
    hand.work()
    assert heard.result(30) is job
    job.add_done_callback(lambda same: heard.__dict__.setdefault("again", same))
    assert heard.__dict__["again"] is job


def test_by_its_id_from_another_process(double: Any, hand: Hand, queue: Queue) -> None:
    job = double.put(5)
    there = queue.job(job.id)
    pickled: Job = pickle.loads(pickle.dumps(job))
    assert pickled == job
    assert (pickled.args, pickled.task, pickled.result_ttl) == ((5,), "double", 60)
    hand.work()
    assert (there.result(30), pickled.result(30)) == (10, 10)


def test_several_handles_of_one_job_all_hear(double: Any, hand: Hand, queue: Queue) -> None:
    job = double.put(5)
    handles = [queue.job(job.id) for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(one.result, 30) for one in [job, *handles]]
        hand.work()
        assert [one.result() for one in waiting] == [10] * 4


def test_a_result_is_restored_as_the_annotation_says(queue: Queue, broker: Broker, link: Link) -> None:
    @queue.task(name="pair", result_ttl=60)
    def pair() -> tuple[int, bytes]: ...  # type: ignore[empty-body]

    broker.takes.register("q", "c", link=link)
    job, odd = pair.put(), pair.put()
    hand = Hand(broker, link)
    first, second = [tag for tag, _ in hand.take()]
    hand.end([first], detail='"value":[1,"aGk="]')
    hand.end([second], detail='"value":[1]')
    assert job.result(30) == (1, b"hi")
    with pytest.raises(JobFailed, match="cannot be read"):
        odd.result(30)


def test_large_results_arrive(double: Any, hand: Hand) -> None:
    jobs = [double.put(n) for n in range(4)]
    assert not jobs[0].done()
    hand.end([tag for tag, _ in hand.take()], detail='"value":' + json.dumps("x" * 400_000))
    assert [len(job.result(30)) for job in jobs] == [400_000] * 4


# -- several


def test_wait_and_as_completed_and_gather(double: Any, hand: Hand) -> None:
    jobs = [double.put(n) for n in range(5)]
    ((tag, _), *_) = hand.take(1)
    hand.end([tag])
    done, rest = rq_lite.wait(jobs, 30, return_when=concurrent.futures.FIRST_COMPLETED)
    assert (done, rest) == ({jobs[0]}, set(jobs[1:]))
    thread = later(hand, 4)
    assert {job.args[0] for job in rq_lite.as_completed(jobs, 30)} == set(range(5))
    thread.join()
    assert rq_lite.gather(*jobs) == [1, 2, 4, 6, 8]
    with pytest.raises(TimeoutError):
        rq_lite.gather(*jobs, double.put(9), timeout=0.01)


def test_gather_raises_the_first_error_or_returns_it(double: Any, hand: Hand) -> None:
    jobs = [double.put(n) for n in range(2)]
    first, second = [tag for tag, _ in hand.take()]
    hand.end([second], "failed", '"error":{"type":"E"}')
    with pytest.raises(JobFailed, match="E"):
        rq_lite.gather(*jobs)
    hand.end([first])
    value, error = rq_lite.gather(*jobs, return_exceptions=True)
    assert value == 1
    assert isinstance(error, JobFailed)


def test_the_standard_library_s_own_wait_works_too(double: Any, hand: Hand) -> None:
    jobs = [double.put(n) for n in range(3)]
    thread = later(hand, 3)
    assert {job.result() for job in concurrent.futures.as_completed(jobs, 30)} == {0, 2, 4}
    thread.join()


def test_many_wait_on_one_connection(double: Any, hand: Hand, broker: Broker) -> None:
    jobs = double.put_jobs((n,) for n in range(300))
    with ThreadPoolExecutor(300) as pool:
        waiting = [pool.submit(job.result, 60) for job in jobs]
        until(lambda: broker.read(("EXISTS", *(KEY.job(job.id) for job in jobs)))[0] == 300, "all wait")
        clients = broker.read(("CLIENT", "LIST"))[0].splitlines()
        assert sum(b" cmd=brpop " in line and b" flags=b" in line for line in clients) <= 1
        while hand.work():
            pass
        assert [one.result() for one in waiting] == [2 * n for n in range(300)]


def test_a_second_queue_is_heard_of_at_once(double: Any, hand: Hand, broker: Broker, link: Link) -> None:
    first = double.put(1)
    assert not first.done()
    until(lambda: broker.read(("CLIENT", "LIST"))[0].count(b"cmd=brpop"), "the reader waits")
    broker.puts.declare("other")
    broker.takes.register("other", "c", link=link)
    second = double.onto(Queue("other", broker=broker), None).put(2)
    assert not second.done()
    ((taken),) = broker.takes.exchange("c", [rq_lite.broker.Acks("other", [])], 1, link)
    broker.takes.finish("other", "c", [(taken.tag + 1, Finished("done", b'"value":4', 1000, b""))], link)
    assert second.result(30) == 4


class Someone:
    """Who waits."""

    def __init__(self, number: int, queue: str) -> None:
        self.id, self.queue = str(number), queue

    def hear(self, result: bytes) -> None: ...


def test_jobs_of_many_queues_are_watched_anew_together(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error all are due; those of one queue do not wait for the others."""
    reader = results.Reader(broker)
    monkeypatch.setattr(reader, "_run", lambda: None)
    waiting = [Someone(number, "ab"[number % 2]) for number in range(40)]
    for one in waiting:
        reader._enter(one)
    reader._all_are_due()
    found = reader._due(time.monotonic())
    assert {queue: len(ids) for queue, ids in found.items()} == {"a": 20, "b": 20}
    assert reader._due(time.monotonic()) == {}
    del waiting, one
    reader._all_are_due()
    assert (reader._due(time.monotonic()), reader._waiters) == ({}, {})  # nobody is there to hear of it


def test_a_reader_that_could_not_be_started_is_started_for_the_next(
    double: Any, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = double.put(1)
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError):
        job.result(30)
    hand.work()
    assert job.result(30) == 2


def test_a_callback_is_called_also_when_nobody_holds_its_job(queue: Queue, double: Any, hand: Hand) -> None:
    called: list[Job] = []
    queue.job(double.put(3).id).add_done_callback(called.append)
    gc.collect()
    hand.work()
    until(lambda: called, "it is called")
    assert called[0].result(0) == 6
    assert called[0] not in job_module.CALLING.values()


def test_in_asyncio(double: Any, hand: Hand) -> None:
    async def main() -> list[Any]:
        jobs = [double.put(n) for n in range(3)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(jobs[0], 0.01)
        thread = later(hand, 3)
        found = await asyncio.gather(*jobs, asyncio.wrap_future(jobs[0]))
        thread.join()
        return found

    assert asyncio.run(main()) == [0, 2, 4, 0]


# -- what may go wrong


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "AGAIN", 0.2)
    monkeypatch.setattr(results, "PACE", 0.05)


def test_a_push_that_is_lost_heals(double: Any, hand: Hand, broker: Broker, impatient: None) -> None:
    job = double.put(1)
    assert not job.done()
    broker.read(("DEL", KEY.job(job.id)))  # as if the push, or what is known of who waits, had gone
    hand.work()
    assert job.result(30) == 2


def test_a_connection_that_is_lost_heals(double: Any, hand: Hand, broker: Broker) -> None:
    jobs = [double.put(n) for n in range(3)]
    assert not any(job.done() for job in jobs)
    until(lambda: broker.read(("CLIENT", "LIST"))[0].count(b"cmd=brpop"), "the reader waits")
    broker.read(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    hand.link.close()
    hand.work()
    assert rq_lite.gather(*jobs, timeout=30) == [0, 2, 4]


def test_redis_away_is_waited_for(double: Any, hand: Hand, broker: Broker, proxy: Any) -> None:
    job = Job(id=double.put(3).id, queue="q", task="", broker=Broker(proxy.url), result_ttl=60)
    assert not job.done()
    proxy.refuse()
    hand.work()
    with pytest.raises(TimeoutError):
        job.result(0.1)
    proxy.calm()
    assert job.result(30) == 6


def test_redis_may_be_away_when_one_begins_to_wait(
    double: Any, hand: Hand, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, away = Broker.link, [BrokerUnavailable("it is away")]

    def refused(self: Broker) -> Link:
        if threading.current_thread().name == "rq-lite results" and away:
            raise away.pop()
        return link(self)

    monkeypatch.setattr(Broker, "link", refused)
    job = double.put(3)
    assert not job.done()
    hand.work()
    assert job.result(30) == 6
    assert not away


def test_a_result_that_is_kept_no_more(
    double: Any, hand: Hand, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = double.put(3)
    assert not job.done()
    monkeypatch.setattr(Producing, "kept", lambda *_: None)
    hand.end([tag for tag, _ in hand.take()], detail='"value":' + json.dumps("x" * 400_000))
    with pytest.raises(JobFailed, match="had expired"):
        job.result(30)


ODD = {
    "no JSON": (b"{", "BadResult"),
    "no text": (b"\xff", "BadResult"),
    "nothing": (b" ", "BadResult"),
    "no object": (b"[1]", "BadResult"),
    "a number": (b"5", "BadResult"),
    "no state": (b"{}", "BadResult"),
    "a state that is a number": (b'{"state":1}', "BadResult"),
    "an error that is text": (b'{"state":"failed","error":"no"}', "BadResult"),
    "an error without a word": (b'{"state":"failed"}', "Unknown"),
    "an error with a stack of bytes": (b'{"state":"failed","error":{"type":"E","traceback":"\xff"}}', "E"),
    "a value that is none": (b'{"state":"done","value":}', "BadResult"),
    "a value too deep": (b'{"state":"done","value":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "BadResult"),
    "a value of another type": (b'{"state":"done","value":{"many":"x"}}', "BadResult"),
    "a state of a newer worker": (b'{"state":"skipped","why":"it was too late"}', "UnknownState"),
    "a state of a newer worker, large": (b'{"state":"skipped","why":"%s"}' % (b"x" * 10**6), "UnknownState"),
    "a state with white space": (b'{ "state" : "skipped" }', "UnknownState"),
}


@dataclasses.dataclass
class Many:
    many: int | str

    def __post_init__(self) -> None:
        int(self.many).no_such_method()  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["inbox", "watch", "large"])
@pytest.mark.parametrize("name", ODD)
def test_what_is_no_result_ends_its_job_and_no_other(
    double: Any, hand: Hand, broker: Broker, way: str, name: str
) -> None:
    text, kind = ODD[name]
    job, other = double.put(3), double.put(4)
    job._returns = Many if "another type" in name else None
    if way == "inbox":
        assert not job.done()
    if way == "inbox":
        client = results.readers.of(broker).client
        broker.read(("LPUSH", KEY.inbox(client), job.id.encode() + b"\n" + text.replace(b"\n", b"")))
    else:
        broker.read(("SET", KEY.result(job.id), text, "EX", 60))
    if way == "large":
        results.readers.of(broker).watch([job])
        results.readers.of(broker)._tell("q", job.id, b"")
    with pytest.raises(JobFailed) as caught:
        job.result(30)
    assert caught.value.type == kind
    assert caught.value.job_id == job.id
    if kind == "UnknownState":
        assert "skipped" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not other.done()
    hand.work()
    assert other.result(30) == 8
    with pytest.raises(JobFailed):  # what comes later changes nothing
        job.result(30)


def test_how_far_a_job_is_may_be_written_otherwise(double: Any, hand: Hand, broker: Broker) -> None:
    job = double.put(3)
    assert not job.done()
    inbox = KEY.inbox(results.readers.of(broker).client)
    for text in (b'{ "state": "progress", "done": 5 }', b'{"done": 5, "state":"progress"}'):
        broker.read(("LPUSH", inbox, job.id.encode() + b"\n" + text))
        until(lambda: job.progress is not None, "the progress is heard of")
        assert job.progress.done == 5
        job._progress = None
    for text in (b'{"state":"progress","done":"x"}', b'{"state":"progress","done":' + b"[" * 10**5):
        broker.read(("LPUSH", inbox, job.id.encode() + b"\n" + text))
    assert not job.done()
    hand.work()
    assert job.result(30) == 6


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_stops_no_other(double: Any, hand: Hand, error: type[BaseException]) -> None:
    def callback(_: Any) -> None:
        raise error

    job, other = double.put(3), double.put(4)
    job.add_done_callback(callback)
    assert not other.done()
    hand.work()
    assert (job.result(30), other.result(30)) == (6, 8)


def test_a_traceback_may_be_any_bytes(double: Any) -> None:
    job = double.job("x")
    job.prepare()
    job.hear(b'{"state":"failed","error":{"type":"OSError","traceback":"caf\xe9"}}')
    failure = Future.exception(job)
    assert isinstance(failure, JobFailed)
    assert (failure.type, failure.traceback) == ("OSError", "caf\ufffd")


def test_the_reader_ends_when_nobody_waits_and_begins_anew(
    double: Any, hand: Hand, monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    monkeypatch.setattr(results, "LINGER", 0.0)
    monkeypatch.setattr(results, "LONGEST_BLOCK", 0.05)
    for n in (1, 2):
        job = double.put(n)
        assert not job.done()
        hand.work()
        assert job.result(30) == 2 * n
        until(lambda: results.readers.of(broker)._thread is None, "the thread has ended")


def test_after_a_fork_the_child_waits_by_itself(double: Any, hand: Hand) -> None:
    job = double.put(7)
    assert not job.done()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if job.result(30) == 14 else 1)
        except BaseException:
            os._exit(2)
    until(lambda: len(hand.broker.read(("HKEYS", KEY.job(job.id)))[0]) == 2, "the child waits, too")
    hand.work()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert job.result(30) == 14


# -- Executor


def test_submit_and_map(double: Any, hand: Hand, queue: Queue) -> None:
    with Executor(queue) as executor:
        jobs = [executor.submit(double, n) for n in range(3)]
        thread = later(hand, 13)
        assert [job.result(30) for job in jobs] == [0, 2, 4]
        assert list(executor.map(double, range(10), timeout=30)) == [2 * n for n in range(10)]
        thread.join()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(double, 1)
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.map(double, [1])


def test_map_is_lazy_and_bounded(double: Any, hand: Hand, queue: Queue) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(100):
            read.append(n)
            yield n

    found = Executor(queue).map(double, numbers(), chunksize=5, buffersize=20)
    assert len(read) == 20
    hand.work()
    assert [next(found) for _ in range(4)] == [0, 2, 4, 6]
    assert len(read) == 20
    assert next(found) == 8
    assert next(found) == 10
    assert len(read) == 25


def test_map_gives_up_after_its_time(double: Any, queue: Queue) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        list(Executor(queue).map(double, range(3), timeout=0.05))
    assert time.monotonic() - began < 30


def test_shutdown_waits_for_what_was_submitted(double: Any, hand: Hand, queue: Queue) -> None:
    executor = Executor(queue)
    jobs = [executor.submit(double, n) for n in range(600)]
    thread = later(hand, 600)
    executor.shutdown()
    thread.join()
    assert all(job.done() for job in jobs)
    executor.shutdown()


def test_what_is_not_wanted_any_more_is_cancelled(double: Any, hand: Hand, queue: Queue) -> None:
    executor = Executor(queue)
    jobs = [executor.submit(double, n) for n in range(3)]
    found = executor.map(double, range(10), chunksize=5)
    assert queue.qsize() == 13
    thread = later(hand, 13)
    assert next(found) == 0
    thread.join()
    assert all(job.done() for job in jobs)
    found = executor.map(double, range(10), chunksize=5)
    jobs = [executor.submit(double, n) for n in range(3)]
    found.close()  # type: ignore[attr-defined]
    assert queue.qsize() == 13  # a generator that was not begun has nothing to clean up
    executor.shutdown(cancel_futures=True)
    assert queue.qsize() == 0
    assert all(job.cancelled() for job in jobs)


def test_what_runs_is_not_cancelled_with_the_rest(double: Any, hand: Hand, queue: Queue, broker: Broker) -> None:
    executor = Executor(queue)
    running, waiting = executor.submit(double, 1), executor.submit(double, 2)
    found = executor.map(double, [3, 4])
    ((tag, _), *_) = hand.take(1)
    executor.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    with pytest.raises(CancelledError):
        next(found)
    assert running.running()
    assert broker.read(("EXISTS", KEY.cancelled), ("LLEN", KEY.calls("c"))) == [0, 0]
    assert not running.cancel(interrupt=False)
    hand.end([tag])
    assert running.result(30) == 1


def test_a_map_that_is_left_cancels_the_rest(double: Any, hand: Hand, queue: Queue) -> None:
    found = Executor(queue).map(double, range(10), chunksize=5)
    ((tag, _),) = hand.take(1)
    hand.end([tag], detail='"value":0')
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    assert queue.qsize() == 0


def test_plain_functions_need_a_name_in_a_module(queue: Queue) -> None:
    executor = Executor(queue)

    def nested() -> None: ...

    for fn in (lambda: None, nested, max, "text", object()):
        if fn is not max:
            with pytest.raises(UsageError, match="submitted"):
                executor.submit(fn)  # type: ignore[arg-type]
    assert executor.submit(math.factorial, 3).task == "math:factorial"
    assert executor.submit(max, 1, 2).task == "builtins:max"
    assert executor.submit(os.path.join, "a", "b").task == "posixpath:join"


def test_a_plain_function_can_be_registered(queue: Queue) -> None:
    task = queue.task(math.factorial)
    assert (task.name, task(3)) == ("math:factorial", 6)


def test_options_that_cannot_be_are_refused(queue: Queue, double: Any) -> None:
    with pytest.raises(UsageError, match="result_ttl"):
        Executor(queue, result_ttl=0)
    with pytest.raises(UsageError, match="chunksize"):
        Executor(queue).map(double, [1], chunksize=0)
    with pytest.raises(UsageError, match="buffersize"):
        Executor(queue).map(double, [1], buffersize=0)
    with pytest.raises(UsageError, match="to wait for"):
        rq_lite.wait([1])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="one argument"):

        @queue.task(on_success=queue.task(pair))
        def unused() -> None: ...


def pair(a: int, b: int) -> None: ...


def test_a_job_that_was_cancelled_is_so_also_while_another_thread_settles_it(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = queue.task(name="t", result_ttl=60)(lambda x: x)
    job = task.put(1)
    assert not job.done()
    reached, go_on = threading.Event(), threading.Event()
    settle = job._read

    def slowly(result: bytes) -> Any:
        reached.set()
        assert go_on.wait(DEADLINE)
        return settle(result)

    monkeypatch.setattr(job, "_read", slowly)
    reader = threading.Thread(target=job.hear, args=(b'{"state":"cancelled"}',))
    reader.start()
    assert reached.wait(DEADLINE)
    threading.Timer(0.05, go_on.set).start()
    assert job.cancel()
    assert job.cancelled()
    reader.join()

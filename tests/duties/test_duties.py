"""What a supervisor's thread does about consumers that have died."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker, Death, Link, keys
from rq_lite.duties.duties import Duties
from rq_lite.duties.reclaim import ConsumerEnd, Reclaimer
from rq_lite.model.message import decode
from rq_lite.model.notice import Notice, read
from rq_lite.model.retry import RetryPolicy
from rq_lite.process.identity import machine, start_of
from tests.conftest import until
from tests.faults.proxy import Proxy
from tests.steps import KEY, at_maxmemory, counter, entry, put, take


@pytest.fixture
def gone() -> str:
    """The id of a consumer whose process has ended, on this machine."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return f"host.{machine()}:{process.pid}:{start_of(process.pid)}:{os.urandom(8).hex()}"


@pytest.fixture
def duties(broker: Broker, link: Link, gone: str) -> Iterator[Duties]:
    """Of a worker that knows queue "q", where the consumer has left two jobs."""
    broker.puts.declare("q", 1000, 0)
    broker.takes.register("q", gone, link=link)
    put(broker, 1, 2)
    take(broker, link, 2, consumer=gone)
    made = Duties(broker, "w", {}, None)
    yield made
    made.stop()


def waiting_again(broker: Broker) -> dict[int, int]:
    """The jobs that wait: number to crashes."""
    found = [decode(raw) for raw in broker.read(("LRANGE", KEY.pending, 0, -1))[0]]
    return {int(message.id): crashes for message, _, crashes, _ in found}


def until_announced(broker: Broker) -> None:
    """Whatever the thread does first has been done."""
    until(lambda: broker.read(("EXISTS", keys.worker("w")))[0], "the worker has announced itself")


def test_jobs_of_a_worker_that_is_gone_are_reclaimed_at_once_and_charged_no_crash(
    broker: Broker, duties: Duties
) -> None:
    duties.start(["q"])
    until(lambda: counter(broker, "reclaimed") == 2, "both jobs wait again")
    assert [raw[: raw.index(b"{")] for raw in broker.read(("LRANGE", KEY.pending, 0, -1))[0]] == [b"0.0*1"] * 2


def test_a_task_s_own_limit_of_crashes_counts_and_the_log_names_what_is_buried(
    broker: Broker, duties: Duties, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    duties.born(gone)
    duties.start(["q"])
    until_announced(broker)
    tasks = {"t": RetryPolicy(0, max_crashes=1)}
    duties.died(ConsumerEnd(gone, Death("was killed by signal 9"), tasks=tasks))
    until(lambda: counter(broker, "failed") == 2, "both are buried")
    for number in (1, 2):
        line = f"job {number:08} t: its consumer died while it ran, crash 1; buried as poison"
        until(lambda line=line: line in caplog.messages, "it is named")  # type: ignore[misc]


def test_an_own_consumer_that_died_is_left_to_whoever_knows_who_is_to_blame(
    broker: Broker, duties: Duties, gone: str
) -> None:
    duties.born(gone)
    duties.start(["q"])
    until_announced(broker)
    assert counter(broker, "reclaimed") == 0
    duties.died(ConsumerEnd(gone, Death("was killed by signal 11", "all"), ("q", [2])))
    until(lambda: counter(broker, "reclaimed") == 2, "both jobs wait again")
    assert waiting_again(broker) == {1: 0, 2: 1}


def test_the_end_of_an_outage_is_said_once(broker: Broker, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    broker.puts.declare("q", 1000, 0)
    with closing(Broker(proxy.url, settings=broker.settings)) as away:
        duties = Duties(away, "w", {}, None)
        duties.start(["q"])
        until_announced(broker)
        for outage in (1, 2):
            with proxy.reset():
                until(lambda: duties._away, "a duty has failed")
                assert caplog.messages.count("Redis answers again") == outage - 1
            until(lambda: not duties._away, "a lease was renewed")
        duties.stop()
    assert caplog.messages.count("Redis answers again") == 2


def test_between_the_dead_there_is_time_for_the_living(broker: Broker) -> None:
    """However many have died, each with a few jobs only."""
    broker.puts.declare("q", 1000, 0)
    dead = [f"dead{number}" for number in range(3)]
    for number, consumer in enumerate(dead):
        with closing(broker.link()) as link:
            broker.takes.register("q", consumer, link=link)
            put(broker, number)
            take(broker, link, 1, consumer=consumer)
    broker.read(("ZADD", KEY.consumers, *[word for consumer in dead for word in (1, consumer)]))
    times: list[int] = []
    reclaimer = Reclaimer(broker, between=lambda: times.append(counter(broker, "reclaimed")))
    for _ in range(2):
        reclaimer.reclaim_expired(["q"])
    assert {1, 2, 3} <= set(times)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_job_that_its_consumer_was_killed_for_leaves_a_notice_for_hooks(
    broker: Broker, link: Link, wanted: bool
) -> None:
    broker.puts.declare("q", 1000, 0)
    broker.takes.register("q", "c", link=link)
    put(broker, 1, 2, 3)
    broker.puts.put("q", [b"1.1" + entry(4)])
    take(broker, link, 4)
    operate.cancel(broker, "q", "00000003")
    reclaimer = Reclaimer(broker, lambda: None)
    reclaimer.for_hooks.wanted = wanted
    tasks = {"t": RetryPolicy(1, backoff=0)}
    end = ConsumerEnd("c", Death("hard limit: 5 s", "none", "in f"), None, [("q", 1), ("q", 3), ("q", 4)], tasks)
    reclaimer.reclaim_dead(end, ["q"])
    assert (counter(broker, "cancelled"), counter(broker, "retried"), counter(broker, "failed")) == (1, 1, 1)
    error = "JobTimeout: hard limit: 5 s"
    expected = [
        (Notice(id="00000001", task="t", attempt=1, error=error, traceback="in f", next="on_retry"), entry(1)),
        (Notice(id="00000004", task="t", attempt=3, error=error, traceback="in f", next="on_bury"), b"1.1" + entry(4)),
    ]
    assert [read(left) for left in broker.tends.notices("q", link)] == (expected if wanted else [])
    assert reclaimer.for_hooks.left


def test_without_room_for_a_notice_its_job_ends_all_the_same(
    broker: Broker, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    broker.puts.declare("q", 1000, 0)
    broker.takes.register("q", "c", link=link)
    put(broker, 1)
    take(broker, link, 1)
    reclaimer = Reclaimer(broker, lambda: None)
    reclaimer.for_hooks.wanted = True
    with at_maxmemory(broker):
        reclaimer.reclaim_dead(ConsumerEnd("c", Death("hard limit", "none"), None, [("q", 1)]), ["q"])
    assert counter(broker, "failed") == 1
    assert "job 00000001: no hook is called for this: Redis is at its maxmemory" in caplog.text


def test_an_error_in_one_role_stops_no_other(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    turns: list[str] = []

    def fails() -> None:
        turns.append("fails")
        raise ValueError("of one role")

    duties = Duties(broker, "w", {}, None, chores=[(0.01, fails), (0.01, lambda: turns.append("goes on"))])
    duties.start(["q"])
    until(lambda: min(turns.count("fails"), turns.count("goes on")) > 2, "both have had turns")
    until_announced(broker)
    duties.stop()
    assert "a duty failed; the others go on" in caplog.text
    assert "of one role" in caplog.text


def test_a_worker_says_once_that_a_queue_has_a_newer_format(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """It is not taken for one that is paused, nor for work that nobody does."""
    for name in ("newer", "q"):
        broker.puts.declare(name, 1000, 0)
        broker.puts.put(name, [b"{}"])
    broker.read(("HSET", "rq:{newer}:meta", "format", 3), ("LPUSH", "rq:{newer}:suspects", "{}"))
    duties = Duties(broker, "w", {}, None)
    duties._queues[:] = ["newer", "q"]
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            duties._leases.renew()
    (said,) = [line.message for line in caplog.records]
    assert said.startswith("queue 'newer' has a newer format: ")
    assert said.endswith("nothing is taken from it here, other queues are served")
    assert duties.suspects == 0


def test_a_queue_of_a_newer_format_does_not_keep_a_burst_from_its_end(broker: Broker) -> None:
    broker.puts.declare("newer", 1000, 0)
    broker.puts.put("newer", [b"{}"])
    ended: list[bool] = []
    duties = Duties(broker, "w", {}, lambda: ended.append(True))
    duties._queues[:] = ["newer"]
    duties._look_whether_drained()
    assert not ended
    broker.read(("HSET", "rq:{newer}:meta", "format", 3))
    duties._leases.renew()
    duties._look_whether_drained()
    assert ended

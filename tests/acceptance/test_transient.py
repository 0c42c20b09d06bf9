"""Trouble between us and Redis: when it is over producers and workers go on; nothing is lost, put or run twice."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from rq_lite.broker import REDIS_ERRORS, Broker, address, is_transient
from rq_lite.broker.address import ANSWER
from rq_lite.errors import BrokerOutOfMemory, BrokerUnavailable
from rq_lite.settings import Settings
from tests.acceptance.conftest import Lab
from tests.acceptance.flow import Flow, put_through_lost_replies, until_counted
from tests.conftest import DEADLINE, DURABLE, Server, each_server, until
from tests.faults.mode import Way
from tests.faults.proxy import Proxy
from tests.faults.replication import REPLICATED, follow, free_ports, until_replicated
from tests.steps import at_maxmemory, entry, put, take, threads, waiting

HEALED = 30.0  # seconds: more than the time between two audits of a consumer (AUDIT)
A_FEW = 3  # connections per second and process
# What only these requests have in them, of all that consumers and producers send.
EXCHANGE, PUT = "{work}:drained", "{work}:producer:"
Trouble = Callable[[], AbstractContextManager[None]]


# -- the way to Redis


@pytest.mark.parametrize(
    "trouble",
    [
        Proxy.close,
        Proxy.reset,
        lambda proxy: proxy.half_close("requests"),
        lambda proxy: proxy.half_close("replies"),
        lambda proxy: proxy.swallow_replies(),
        lambda proxy: proxy.swallow_requests(hang_up=True),
    ],
    ids=["close", "reset", "no requests", "half a close", "lost replies", "lost requests"],
)
def test_connections_end_again_and_again(
    lab: Lab, proxy: Proxy, trouble: Callable[[Proxy], AbstractContextManager[None]]
) -> None:
    flow = Flow(lab, proxy.url)
    for _ in range(6):
        before = proxy.counters.accepted
        with trouble(proxy):
            until_counted(proxy, "accepted", before + 3)
        flow.goes_on()
    flow.ends_well()


def test_nobody_listens_for_a_while(lab: Lab, proxy: Proxy) -> None:
    flow = Flow(lab, proxy.url)
    with proxy.refuse():
        flow.worker.says("refused")
    flow.goes_on()
    flow.ends_well()


@pytest.mark.parametrize("trouble", [lambda proxy: proxy.delay(0.02), Proxy.dribble], ids=["delay", "dribble"])
def test_slow_ways_are_no_trouble(
    lab: Lab, proxy: Proxy, trouble: Callable[[Proxy], AbstractContextManager[None]]
) -> None:
    flow = Flow(lab, proxy.url)
    with trouble(proxy):
        flow.goes_on()
        flow.goes_on()
    flow.ends_well()
    assert "Redis" not in flow.worker.said


@pytest.mark.parametrize("batch", ["1", "20"])
def test_windows_of_lost_replies_neither_lose_nor_double_a_put(lab: Lab, proxy: Proxy, batch: str) -> None:
    put = put_through_lost_replies(lab, proxy, 24, 20, "--batch", batch, "--rate", "400/s")
    assert lab.arguments() == list(range(put))


@pytest.mark.parametrize("wrong", ["nobody answers", "a replica answers"])
def test_a_long_outage_is_no_storm_of_connections(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab], proxy_to: Callable[..., Proxy], wrong: str
) -> None:
    """A bounded number of attempts, and how long they took: a slow machine takes longer, never shorter."""
    port, nobody = free_ports()
    server = private("--port", str(port), *REPLICATED)
    proxy = proxy_to(server)
    flow = Flow(lab_at(server), proxy.url)
    with proxy.close() if wrong == "nobody answers" else as_replica(server, nobody):
        before = proxy.counters.accepted + 15
        until_counted(proxy, "accepted", before)
        began = time.monotonic()
        until_counted(proxy, "accepted", before + 40)
        took = time.monotonic() - began
    # A supervisor, a consumer, a producer.
    assert 40 / took < 3 * A_FEW
    assert proxy.counters.peak < 40
    flow.goes_on()
    flow.ends_well()


@contextmanager
def as_replica(server: Server, port: int) -> Iterator[None]:
    """It takes no writes meanwhile; nobody listens at the port of its primary."""
    follow(server, port)
    yield
    server.broker().read(("REPLICAOF", "NO", "ONE"))


# -- silence: nobody waits for longer than the links' own time, 5 s


def test_in_a_black_hole_everybody_gives_up_after_a_while(lab: Lab, proxy: Proxy) -> None:
    flow = Flow(lab, proxy.url)
    impatient = Broker(proxy.url, settings=Settings(url=proxy.url, patience=0.0)).open()
    with proxy.freeze():
        since = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="Timeout") as caught:
            impatient.puts.put("other", [entry(1)])
        until(lambda: "Timeout" in flow.worker.said, "the worker gave up", 2 * ANSWER - (time.monotonic() - since))
    assert caught.value.outcome == "unknown"
    impatient.close()
    flow.goes_on()
    flow.ends_well()


@pytest.mark.parametrize("way", ["requests", "replies"])
def test_silence_after_something_was_lost_ends_with_a_timeout(lab: Lab, proxy: Proxy, way: Way) -> None:
    flow = Flow(lab, proxy.url)
    for lost, needle in enumerate((EXCHANGE, PUT), 1):
        with proxy.swallow_requests(needle) if way == "requests" else proxy.swallow_replies(needle, hang_up=False):
            until_counted(proxy, "swallowed", lost)
    flow.worker.says("Timeout")
    flow.goes_on()
    flow.ends_well()


def test_redis_stands_still_for_longer_than_a_timeout(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab]
) -> None:
    server = private()
    flow = Flow(lab_at(server), server.url)
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        flow.worker.says("Timeout")
    finally:
        server.process.send_signal(signal.SIGCONT)
    flow.goes_on()
    flow.ends_well()


def test_what_arrives_late_strands_no_job(lab: Lab, proxy: Proxy) -> None:
    """A connection stalls, its consumer goes on with a new one; then the old one's take arrives after all."""
    lab.put("hold", "first")
    worker = lab.work("--greenlets", "2", "--url", proxy.url)
    lab.until_seen("begun", 1)
    with proxy.freeze(present=True):
        lab.open_gate()
        lab.until_seen("done", 1)  # and its exchange, which has room for two more, is held up
        lab.close_gate()
        until(lambda: lab.state().done == 1, "acked over a new connection")
        lab.put("hold", "second", "third")
        lab.until_seen("begun", 3)
        lab.put("do", "fourth", "fifth")
    until(lambda: proxy.counters.held == 0, "what was held up has arrived")
    lab.open_gate()
    until(lambda: len(lab.seen("done")) >= 5, "5 jobs done", HEALED)
    assert worker.stop() == 0
    assert lab.state().inflight == 0


def test_a_put_that_arrives_late_is_not_done_twice(
    broker: Broker, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer has repeated it meanwhile over another connection, and gone on."""
    monkeypatch.setattr(address, "ANSWER", 0.3)
    broker.puts.declare("q")
    through = Broker(proxy.url, settings=Settings(url=proxy.url)).open()
    with proxy.freeze(present=True):
        put(through, 1)
        put(through, 2)
    until(lambda: proxy.counters.held == 0, "what was held up has arrived")
    assert waiting(broker) == [1, 2]
    through.close()


# -- every byte


@pytest.mark.parametrize("way", ["requests", "replies"])
def test_an_exchange_that_is_cut_anywhere_is_done_or_not_done(broker: Broker, proxy: Proxy, way: Way) -> None:
    broker.puts.declare("q")
    broker.takes.register("q", "c")
    through = Broker(proxy.url, settings=broker.settings)
    link = through.link()
    size = length_of_an_exchange(broker, through, proxy, way)
    for offset in range(size + 1):
        put(broker, offset)
        proxy.cut(offset, way)
        with pytest.raises(REDIS_ERRORS) as caught:
            take(through, link, 1)
        assert is_transient(caught.value)
        link.close()
        owned = through.takes.inflight("q", "c", link)
        assert len(owned) + len(waiting(broker)) == 1
        # Cut behind its last byte, or in its reply, it was done.
        assert len(owned) == (way == "replies" or offset == size)
        (tag,) = owned or (0,)
        take(through, link, 1 - len(owned), [tag] if owned else [])
        take(through, link, 0, list(through.takes.inflight("q", "c", link)))
    assert proxy.counters.cut == size + 1
    link.close()
    through.close()


def length_of_an_exchange(broker: Broker, through: Broker, proxy: Proxy, way: Way) -> int:
    """In bytes on the wire, when it takes one job."""
    link = through.link()
    take(through, link, 1)
    put(broker, 0)
    before = getattr(proxy.counters, way)
    taken = take(through, link, 1)
    length: int = getattr(proxy.counters, way) - before
    take(through, link, 0, [taken.tag + 1])
    link.close()
    return length


@pytest.mark.parametrize("way", ["requests", "replies"])
def test_a_put_that_is_cut_anywhere_is_done_once(
    broker: Broker, proxy: Proxy, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)  # no pause before each of so many repetitions
    broker.puts.declare("q", 0)
    through = Broker(proxy.url, settings=Settings(url=proxy.url)).open()
    put(through, 0)
    before = getattr(proxy.counters, way)
    put(through, 1)
    size = getattr(proxy.counters, way) - before
    for offset in range(size + 1):
        proxy.cut(offset, way)
        assert put(through, 2 + offset).accepted == 1
    assert proxy.counters.cut == size + 1
    assert waiting(broker) == list(range(size + 3))
    through.close()


@pytest.mark.parametrize("way", ["requests", "replies"])
def test_a_worker_whose_exchanges_are_cut_runs_every_job_once(lab: Lab, proxy: Proxy, way: Way, long: bool) -> None:
    flow = Flow(lab, proxy.url)
    step = 8 if long else 32
    for cut, offset in enumerate(range(0, 500 if way == "requests" else 120, step), 1):
        proxy.cut(offset, way, needle=EXCHANGE)
        until_counted(proxy, "cut", cut)
    flow.goes_on()
    flow.ends_well()


# -- Redis itself


def kill_clients(server: Server, lab: Lab) -> None:
    lab.broker.read(("CLIENT", "KILL", "TYPE", "normal"))


def forget_scripts(server: Server, lab: Lab) -> None:
    lab.broker.read(("SCRIPT", "FLUSH"))


def restart(server: Server, lab: Lab) -> None:
    server.kill()
    server.start(*DURABLE)


@pytest.mark.parametrize(("trouble", "times"), [(kill_clients, 10), (forget_scripts, 20), (restart, 4)])
def test_jobs_flow_on(
    private: Callable[..., Server],
    lab_at: Callable[[Server], Lab],
    trouble: Callable[[Server, Lab], None],
    times: int,
) -> None:
    server = private(*DURABLE)
    lab = lab_at(server)
    flow = Flow(lab, server.url)
    for _ in range(times):
        trouble(server, lab)
        flow.goes_on(10)
    flow.ends_well()


def test_a_pause_of_redis_is_waited_for(private: Callable[..., Server], lab_at: Callable[[Server], Lab]) -> None:
    server = private()
    lab = lab_at(server)
    flow = Flow(lab, server.url)
    lab.broker.read(("CLIENT", "PAUSE", 1500, "ALL"))
    flow.goes_on()
    flow.ends_well()
    assert "Redis:" not in flow.worker.said


@each_server
def test_a_full_redis_refuses_puts_and_is_drained(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab], program: str
) -> None:
    lab = lab_at(private(program=program))
    lab.put("do", *range(300))
    lab.put("fail", *range(20), retries=1)
    with at_maxmemory(lab.broker):
        worker = lab.work("--greenlets", "3")
        lab.until_seen("done", 1)
        with pytest.raises(BrokerOutOfMemory):
            lab.put("do", "more")
        until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "everything is drained")
        assert worker.stop() == 0
    assert Counter(lab.seen("done")) == Counter(map(str, range(300)))
    assert len(lab.dead()) == 20
    lab.put("do", "more")
    assert lab.arguments() == ["more"]


@each_server
def test_a_replica_takes_over(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab], proxy_to: Callable[..., Proxy], program: str
) -> None:
    """The old server answers READONLY and UNBLOCKED; then the address leads to the new one."""
    ports = free_ports()
    old, new = (private("--port", str(port), *REPLICATED, program=program) for port in ports)
    lab, lab_after, proxy = lab_at(old), lab_at(new), proxy_to(old)
    lab.put("hold", *range(5))
    worker = lab.work("--greenlets", "5", "--url", proxy.url)
    lab.until_seen("begun", 5)
    producer = lab.producer("do", "--count", "60", "--maxsize", "20", "--url", proxy.url)
    lab.until_blocked(1)
    follow(new, ports[0])
    until_replicated(old, new)
    new.broker().read(("REPLICAOF", "NO", "ONE"))
    follow(old, ports[1])
    lab.open_gate()
    worker.says("read only replica")
    proxy.retarget(new.url)
    assert producer.wait(60) == 0, producer.communicate()[1]
    until(lambda: lab_after.broker.tends.unfinished("work")[0] == 0, "everything is drained")
    assert worker.stop() == 0
    assert Counter(lab.seen("done")) == Counter(map(str, range(60))) + Counter(map(str, range(5)))
    assert "Traceback" not in worker.said


@each_server
def test_a_put_to_a_replica_waits_until_it_takes_over(private: Callable[..., Server], program: str) -> None:
    port, nobody = free_ports()
    server = private("--port", str(port), *REPLICATED, program=program)
    direct, patient = server.broker(), Broker(server.url, settings=Settings(url=server.url))
    with closing(direct), closing(patient), threads() as pool:
        direct.puts.declare("q")
        follow(server, nobody)
        future = pool.submit(put, patient, 1)
        until(lambda: failed_scripts(direct) >= 3 or future.done(), "the put is tried again")
        assert not future.done(), future.result()
        direct.read(("REPLICAOF", "NO", "ONE"))
        assert future.result(DEADLINE).accepted == 1
        assert waiting(direct) == [1]


def failed_scripts(broker: Broker) -> int:
    text = broker.read(("INFO", "commandstats"))[0].decode()
    return sum(int(count) for count in re.findall(r"cmdstat_eval\w*:.*failed_calls=(\d+)", text))


def test_a_consumer_that_dies_while_redis_is_away_is_replaced_and_its_jobs_run_again(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab]
) -> None:
    server = private(*DURABLE)
    lab = lab_at(server)
    lab.put("hold", 1)
    worker = lab.work()
    (run,) = lab.until_seen("begun", 1)
    server.kill()
    os.kill(run.pid, signal.SIGKILL)
    worker.says("; trying again")
    lab.open_gate()
    server.start(*DURABLE)
    assert [run.what for run in lab.until_seen("done", 1)] == ["1"]
    assert worker.said.count("was killed by signal 9") == 1
    assert worker.stop() == 0
    assert (lab.state().reclaimed, lab.state().inflight) == (1, 0)


def test_the_first_put_of_a_process_waits_for_redis_like_any_other(
    private: Callable[..., Server],
) -> None:
    server = private(*DURABLE)
    server.broker().puts.declare("q")
    server.kill()
    first = Broker(server.url, settings=Settings(url=server.url))
    with closing(first), threads() as pool:
        future = pool.submit(put, first, 1)
        with pytest.raises(BrokerUnavailable):
            server.broker().open()
        server.start(*DURABLE)
        assert future.result(DEADLINE).accepted == 1


@pytest.mark.parametrize("sent", [False, True])
def test_a_producer_that_gives_up_says_what_it_knows(broker: Broker, proxy: Proxy, sent: bool) -> None:
    broker.puts.declare("q")
    through = Broker(proxy.url, settings=Settings(url=proxy.url, patience=0.3)).open()
    put(through, 0)  # Redis knows the script from now on
    through.close()  # else the request may have gone out over a connection that is open
    with proxy.swallow_replies(hang_up=True) if sent else proxy.refuse(), pytest.raises(BrokerUnavailable) as caught:
        put(through, 1)
    known = ("unknown", "; whether it was put is not known") if sent else ("not put", "; nothing was put")
    assert (caught.value.outcome, str(caught.value)[-len(known[1]) :]) == known
    assert waiting(broker) == ([0, 1] if sent else [0])
    through.close()

"""T13: a replica takes over, behind one address (as a fixed name or a load balancer has it), or watched by sentinels.

An orderly takeover behind one address: tests/acceptance/test_transient.py.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Lab
from tests.acceptance.flow import Flow
from tests.chaos.conftest import Tell
from tests.conftest import DEADLINE, Server, until
from tests.faults.proxy import Proxy
from tests.faults.replication import REPLICATED, Watched, follow, free_ports, progress, until_replicated

RATE = 500  # jobs put per second
BACK = 15.0  # seconds until consumers take from the new primary


class Pair:
    """A primary with a replica, and jobs that flow through a proxy."""

    def __init__(self, private: Callable[..., Server], lab_at: Callable[[Server], Lab], proxy: Callable[..., Proxy]):
        self._private = private
        self._ports = free_ports()
        self.primary, self.replica = (private("--port", str(port), *REPLICATED) for port in self._ports)
        follow(self.replica, self._ports[0])
        until_replicated(self.primary, self.replica)
        self.proxy = proxy(self.primary)
        self.lab, self._after = lab_at(self.primary), lab_at(self.replica)
        self.flow = Flow(self.lab, self.proxy.url)
        self.unreplicated = 0  # bytes that the replica did not have, at most
        self.back = 0.0  # seconds until jobs were done again, at most

    def fail_over(self, trouble: Callable[[Server], None]) -> None:
        sent, got = progress(self.primary, "master_repl_offset"), progress(self.replica, "slave_repl_offset")
        self.unreplicated = max(self.unreplicated, (sent or 0) - (got or 0))
        trouble(self.primary)
        began = time.monotonic()
        self.replica.broker().read(("REPLICAOF", "NO", "ONE"))
        self.proxy.retarget(self.replica.url)
        self.flow.goes_on()
        self.back = max(self.back, time.monotonic() - began)

    def swap(self) -> None:
        """The old primary follows the new one; the next time it will be the other way round."""
        self.primary, self.replica = self.replica, self.primary
        self._ports.reverse()
        follow(self.replica, self._ports[0])
        until_replicated(self.primary, self.replica)

    def end(self, drained: Lab) -> tuple[int, int]:
        """How many jobs were lost, of those put; how many ran twice."""
        return ended(self.flow, drained)

    def lab_of(self, server: Server) -> Lab:
        return self.lab if server.url == self.lab.environment["RQ_LITE_URL"] else self._after


@pytest.fixture
def pair(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab], proxy_to: Callable[..., Proxy]
) -> Iterator[Pair]:
    made = Pair(private, lab_at, proxy_to)
    yield made
    for server in (made.primary, made.replica):
        if server.process is not None and server.process.poll() is None:
            server.process.send_signal(signal.SIGCONT)


def test_a_primary_is_killed_and_its_replica_takes_over(pair: Pair, long: bool, tell: Tell) -> None:
    rounds = 5 if long else 1
    for _ in range(rounds):
        pair.flow.goes_on(200)
        pair.fail_over(Server.kill)
        pair.replica, pair.primary = pair.primary, pair.replica
        pair._ports.reverse()
        pair.replica.start("--port", str(pair._ports[1]), *REPLICATED)
        follow(pair.replica, pair._ports[0])
        until_replicated(pair.primary, pair.replica)
    lost, again = pair.end(pair.lab_of(pair.primary))
    tell(
        f"T13 primary killed {rounds} times: {lost} jobs lost ({pair.unreplicated} bytes were not replicated a moment "
        f"before), {again} ran twice, jobs done again after at most {pair.back:.1f} s"
    )
    assert lost <= RATE
    assert pair.back < BACK
    assert pair.flow.worker.said.count("read only") < 5


def test_a_primary_that_stood_still_comes_back_as_a_replica(pair: Pair, long: bool, tell: Tell) -> None:
    """Split brain: it still believes to be the primary when it wakes up."""
    rounds = 3 if long else 1
    for _ in range(rounds):
        pair.flow.goes_on(200)
        old = pair.primary
        pair.fail_over(stop)
        time.sleep(15.0 if long else 1.0)  # the length of the standstill is the fault
        stop(old, signal.SIGCONT)
        assert progress(old, "master_repl_offset") is not None
        pair.flow.goes_on(100)
        pair.swap()
    lost, again = pair.end(pair.lab_of(pair.primary))
    tell(
        f"T13 primary stopped for {15 if long else 1} s, {rounds} times: {lost} jobs lost ({pair.unreplicated} bytes "
        f"were not replicated a moment before), {again} ran twice, jobs done again after at most {pair.back:.1f} s"
    )
    assert lost <= RATE
    assert pair.back < BACK
    assert pair.flow.worker.said.count("read only") < 5


@pytest.fixture
def watched(private: Callable[..., Server], tmp_path: Path) -> Iterator[Watched]:
    made = Watched(private, tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize(
    "how", ["killed", pytest.param("stopped", marks=pytest.mark.long), pytest.param("told", marks=pytest.mark.long)]
)
def test_sentinels_make_the_replica_the_primary(
    watched: Watched, lab_at: Callable[[Any], Lab], long: bool, tell: Tell, how: str
) -> None:
    """Nobody tells workers and producers: they ask the sentinels. "told": an operator does, all servers live."""
    lab = lab_at(watched)
    flow = Flow(lab, watched.url)
    rounds, back = 3 if long else 1, 0.0
    for _ in range(rounds):
        flow.goes_on(100)
        watched.until_settled()
        old = watched.primary
        if how == "told":
            watched.ask("FAILOVER", "watched")
        elif how == "killed":
            old.kill()
        else:
            stop(old)
        watched.until_taken_over(old)
        began = time.monotonic()
        flow.goes_on()
        back = max(back, time.monotonic() - began)
        if how == "killed":
            old.start("--port", str(watched.port_of(old)), *REPLICATED)
        elif how == "stopped":
            stop(old, signal.SIGCONT)
        watched.until_settled()
    lost, again = ended(flow, lab)
    tell(
        f"T13 three sentinels, primary {how} {rounds} times: {lost} jobs lost, {again} ran twice, jobs done again "
        f"{back:.1f} s after the sentinels had decided, at most"
    )
    assert lost <= RATE
    assert back < BACK


def ended(flow: Flow, lab: Lab) -> tuple[int, int]:
    """Once everything is drained: how many jobs were lost, of those put; how many ran twice."""
    flow.producer.send_signal(signal.SIGINT)
    said = flow.producer.communicate(timeout=DEADLINE)[1]
    assert flow.producer.returncode == 130, said
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "everything is drained")
    assert flow.worker.stop() == 0
    assert "Traceback" not in flow.worker.said + said
    done = Counter(map(int, lab.seen("done")))
    return len({*range(max(done))} - {*done}), sum(done.values()) - len(done)


def stop(server: Server, number: int = signal.SIGSTOP) -> None:
    assert server.process is not None
    server.process.send_signal(number)


def test_a_result_from_before_settles_no_delivery_from_after(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab], proxy_to: Callable[..., Proxy]
) -> None:
    """The new primary never heard of the last deliveries, and gives their tags to other jobs."""
    ports = free_ports()
    old, new = (private("--port", str(port), *REPLICATED) for port in ports)
    before, after, proxy = lab_at(old), lab_at(new), proxy_to(old)
    before.broker.puts.declare("work")
    follow(new, ports[0])
    until_replicated(old, new)
    new.broker().read(("REPLICAOF", "NO", "ONE"))
    before.put("hold", *range(5))
    worker = before.work("--greenlets", "10", "--url", proxy.url)
    before.until_seen("begun", 5)
    old.kill()
    proxy.retarget(new.url)
    after.put("last", *range(5, 10))
    before.until_seen("begun", 10)
    before.open_gate()
    before.until_seen("done", 5)
    after.put("do", "more")
    until(lambda: after.state().done >= 1 and "more" in after.seen("done"), "a later result has arrived")
    assert (after.state().inflight, after.state().done) == (5, 1)
    assert worker.process.poll() is None
    worker.process.kill()
    worker.wait()
    heir = after.work("--grace", "0")
    assert {run.what for run in after.until_seen("begun", 15)[10:]} == {*map(str, range(5, 10))}
    assert heir.stop() == 0

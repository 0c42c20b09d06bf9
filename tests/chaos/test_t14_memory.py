"""T14: Redis is full while producers and workers run; Redis that drops keys when it is full."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker
from rq_lite.errors import BrokerOutOfMemory
from rq_lite.model.message import VERSION, Message, encode, new_id
from tests.acceptance.conftest import APP, Lab
from tests.chaos.conftest import Tell
from tests.conftest import Server, each_server, until

ROOM = 1_000_000  # bytes until it is full
FILLING = "x" * 2000
Private = Callable[..., Server]


def memory(broker: Broker) -> int:
    info: bytes = broker.read(("INFO", "memory"))[0]
    return int(info.partition(b"used_memory:")[2].split()[0])


def fill(broker: Broker, name: object) -> int:
    """Put jobs until Redis refuses; how many were put. Each put that was answered is there."""
    for count in range(10_000):
        try:
            broker.puts.put(
                "work", [encode(Message(VERSION, new_id(), f"{APP}:row", [f"{name}-{count}-{FILLING}", 0]))]
            )
        except BrokerOutOfMemory:
            return count
    raise AssertionError("it was never full")


@each_server
def test_a_redis_that_fills_up_is_drained_and_goes_on(
    private: Private, lab_at: Callable[[Server], Lab], program: str, long: bool, tell: Tell
) -> None:
    lab = lab_at(private(program=program))
    lab.broker.puts.declare("work", 0)
    operate.pause(lab.broker, "work")
    worker = lab.work("--greenlets", "20")
    worker.says("ready")
    total, longest = 0, 0.0
    for round_ in range(10 if long else 2):
        lab.broker.read(("CONFIG", "SET", "maxmemory", memory(lab.broker) + ROOM))
        producer = lab.producer("number", "--count", "1000000", "--batch", "20")
        count = fill(lab.broker, round_)
        said = producer.communicate(timeout=60)[1]
        assert producer.returncode == 3, said
        assert "maxmemory" in said
        assert "Traceback" not in said
        since = time.monotonic()
        # Even to end a pause needs no memory.
        operate.resume(lab.broker, "work")
        until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "everything is drained")
        longest = max(longest, time.monotonic() - since)
        total += count
        lab.put("do", f"after {round_}")
        until(lambda: lab.seen("done")[-1].startswith("after"), "puts work again")
        operate.pause(lab.broker, "work")
    assert worker.stop() == 0
    rows = Counter(what for what in lab.seen("done") if FILLING in what)
    assert (sum(rows.values()), set(rows.values())) == (total, {1})
    assert lab.state().done == lab.state().put
    assert (lab.state().stale, lab.state().dead) == (0, 0)
    tell(
        f"T14 full {round_ + 1} times (two producers refused each time): {lab.state().put:,} jobs "
        f"drained at maxmemory within {longest:.1f} s, each ran once"
    )


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
def test_a_redis_that_drops_keys_is_warned_of(private: Private, lab_at: Callable[[Server], Lab], policy: str) -> None:
    lab = lab_at(private("--maxmemory-policy", policy))
    lab.put("do", 1)
    worker = lab.drain()
    status = lab.commands.run("status").stdout
    for said in (worker.said, status, lab.commands.run("status", "--json").stdout):
        assert (f"maxmemory-policy is {policy}: a Redis that is full" in said) == (policy != "noeviction")
    assert worker.said.count("maxmemory-policy") == (policy != "noeviction")

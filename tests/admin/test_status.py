"""The read side: its numbers, and that it costs the same for any length of queue."""

from __future__ import annotations

import pytest

from rq_lite.admin import operate, status
from rq_lite.broker import Broker, Link, keys
from rq_lite.broker.base import ms_of
from tests.conftest import until
from tests.steps import KEY, bury, entry, everything, now_ms, put, take


@pytest.fixture(autouse=True)
def declared(broker: Broker) -> None:
    broker.puts.declare("q", 100, 0)


def state(broker: Broker) -> status.QueueState:
    return status.states(broker, ["q"])["q"]


def test_every_number_of_a_queue_that_was_used(broker: Broker, link: Link) -> None:
    broker.takes.register("q", "c", link=link)
    put(broker, *range(20))
    taken = take(broker, link, 7)
    tags = [taken.tag + 1 + index for index in range(7)]
    take(broker, link, 0, acks=[tags[0], 999])
    bury(broker, "q", "c", [(tags[1], b"{}")], link)
    broker.takes.retry("q", "c", [(tags[2], 60_000)], link)
    broker.takes.park("q", "c", [(tags[3], "mod:missing")], link)
    found = state(broker)
    assert (found.pending, found.scheduled, found.inflight, found.dead) == (13, 2, 3, 1)
    assert (found.maxsize, found.maxbytes, found.full) == (100, 0, 0.15)
    assert found.bytes == 15 * len(entry(0)) + len("1.0")
    assert (found.put, found.done, found.failed, found.retried, found.stale, found.parked) == (20, 1, 1, 1, 1, 1)
    assert (found.reclaimed, found.purged, found.dropped) == (0, 0, 0)
    assert (found.consumers, found.paused) == (1, False)
    assert found.last_seen is not None
    assert found.last_seen < 60
    ((unknown),) = found.unknown_tasks
    assert (unknown.task, unknown.worker) == ("mod:missing", "c")
    assert [line.split(":")[0] for line in found.warnings] == ["unknown task mod"]


def test_a_queue_of_which_nothing_is_known_is_all_zero(broker: Broker) -> None:
    found = status.states(broker, ["never"])["never"]
    assert (found.pending, found.inflight, found.consumers, found.maxsize) == (0, 0, 0, 0)
    assert (found.full, found.last_seen, found.oldest_waiting) == (None, None, None)
    assert found.warnings == []


def test_many_queues_are_read_at_once_each_with_its_own_numbers(broker: Broker) -> None:
    for number in range(1, 6):
        broker.puts.declare(f"q{number}", number * 10)
        broker.puts.put(f"q{number}", [entry(i) for i in range(number)])
    names = status.queues(broker)
    assert names == ["q", "q1", "q2", "q3", "q4", "q5"]
    assert [(s.pending, s.maxsize) for s in status.states(broker, names[1:]).values()] == [
        (number, number * 10) for number in range(1, 6)
    ]


def test_fullness_is_that_of_the_tighter_bound(broker: Broker) -> None:
    put(broker, *range(10))
    operate.configure(broker, "q", maxbytes=20 * len(entry(0)))
    assert state(broker).full == 0.5
    operate.configure(broker, "q", maxsize=0, maxbytes=0)
    assert state(broker).full is None
    assert "unbounded" in state(broker).warnings[0]


def test_consumers_whose_lease_is_over_do_not_count(broker: Broker) -> None:
    broker.takes.register("q", "c")
    broker.read(("ZADD", KEY.consumers, now_ms(broker) - 1, "dead"))
    assert state(broker).consumers == 1
    assert status.signs_of_life(broker, "q")[0] == 1


def test_warnings_say_what_to_look_at(broker: Broker) -> None:
    assert state(broker).warnings == []
    put(broker, 1)
    assert state(broker).warnings == ["jobs wait and no consumer runs"]
    operate.pause(broker, "q")
    assert state(broker).warnings == ["paused: nothing is taken", "jobs wait and no consumer runs"]


def test_the_oldest_job_tells_how_long_it_has_waited(broker: Broker) -> None:
    old = entry(1).replace(b'"00000001"', b'"%011x-0123456789abcdef"' % (now_ms(broker) - 90_000), 1)
    broker.puts.put("q", [old, entry(2)])
    waited = state(broker).oldest_waiting
    assert waited is not None
    assert 90 <= waited < 150


@pytest.mark.parametrize("garbage", [b"", b"\xff\x00", b"{", b'{"v":1,"id":"\xff","task":"t"}', b'{"v":9}'])
def test_garbage_at_the_head_spoils_no_numbers(broker: Broker, garbage: bytes) -> None:
    broker.puts.put("q", [garbage])
    assert (state(broker).pending, state(broker).oldest_waiting) == (1, None)


def test_looking_changes_nothing(broker: Broker, link: Link) -> None:
    broker.takes.register("q", "c", link=link)
    put(broker, 1, 2)
    broker.tends.announce("w", {"host": "h", "since": 1}, 60)
    before = everything(broker)
    state(broker)
    status.queues(broker)
    status.workers(broker)
    broker.puts.size("q")
    status.signs_of_life(broker, "q")
    assert everything(broker) == before


def commands_of(broker: Broker) -> dict[str, int]:
    """How often each command was sent for one look at everything."""
    broker.read(("CONFIG", "RESETSTAT"))
    status.states(broker, ["q"])
    broker.puts.size("q")
    status.signs_of_life(broker, "q")
    return sent(broker)


def sent(broker: Broker) -> dict[str, int]:
    """How often Redis has done each command since CONFIG RESETSTAT."""
    found = {}
    for line in broker.read(("INFO", "commandstats"))[0].decode().splitlines():
        if line.startswith("cmdstat_"):
            name, _, numbers = line.removeprefix("cmdstat_").partition(":")
            found[name] = int(numbers.partition("calls=")[2].partition(",")[0])
    return {name: calls for name, calls in found.items() if not name.startswith(("config", "info"))}


def test_a_long_queue_costs_as_many_commands_as_a_short_one(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=0)
    broker.takes.register("q", "c", link=link)
    put(broker, 1)
    commands_of(broker)  # Redis knows the scripts from here on
    short = commands_of(broker)
    for start in range(0, 5000, 1000):
        put(broker, *range(start, start + 1000))
        put(broker, *range(start, start + 100), delay=60_000)
    assert commands_of(broker) == short
    assert set(short) <= {
        "time",
        "llen",
        "zcard",
        "hgetall",
        "lrange",
        "zrange",
        "type",
        "hget",
        "hmget",
        "hlen",
        "evalsha",
    }


def test_workers_are_listed_while_they_announce_themselves(broker: Broker) -> None:
    assert status.workers(broker) == []
    since = now_ms(broker) // 1000 - 100
    broker.tends.announce("b", {"host": "b", "pid": 2, "queues": "q,r", "procs": 2, "slots": 5, "since": since}, 60)
    broker.tends.announce("a", {"host": "a", "pid": 1, "since": "odd"}, 60)
    first, second = status.workers(broker)
    assert (first.host, first.pid, first.queues, first.procs, first.since) == ("a", "1", [], "?", None)
    assert (second.host, second.queues, second.slots) == ("b", ["q", "r"], "5")
    assert second.since is not None
    assert 100 <= second.since < 160
    broker.tends.unannounce("a")
    assert [worker.host for worker in status.workers(broker)] == ["b"]


def listed(broker: Broker) -> list[bytes]:
    found: list[bytes] = broker.read(("ZRANGE", keys.WORKERS, 0, -1))[0]
    return found


def test_the_list_of_workers_goes_with_them(broker: Broker) -> None:
    broker.tends.announce("long", {"host": "b"}, 60)
    broker.tends.announce("short", {"host": "c"}, 0.05)
    clock, ttl, end = broker.read(("TIME",), ("PTTL", keys.WORKERS), ("ZSCORE", keys.WORKERS, "long"))
    assert 50_000 < ttl <= 60_000  # as long as the last of them
    assert 50_000 < float(end) - ms_of(clock) <= 60_000
    until(lambda: [worker.host for worker in status.workers(broker)] == ["b"], "one has fallen silent")
    assert listed(broker) == [b"short", b"long"]  # a look does not write
    broker.tends.announce("long", {"host": "b"}, 60)
    assert listed(broker) == [b"long"]
    broker.tends.unannounce("long")
    assert broker.read(("EXISTS", keys.WORKERS))[0] == 0


def test_a_worker_whose_word_is_gone_is_not_shown_though_it_is_listed(broker: Broker) -> None:
    broker.tends.announce("w", {"host": "h"}, 60)
    broker.read(("DEL", keys.worker("w")))
    assert (status.workers(broker), listed(broker)) == ([], [b"w"])


def test_a_look_for_workers_costs_the_same_beside_any_number_of_other_keys(broker: Broker) -> None:
    broker.tends.announce("box.0123456789ab:7:1:x", {"host": "box"}, 60)
    broker.tends.announce("box.ba9876543210:7:1:x", {"host": "twin"}, 60)
    broker.read(("MSET", *[word for i in range(1000) for word in (f"other:{i}", "x")]), ("CONFIG", "RESETSTAT"))
    assert [worker.host for worker in status.workers(broker, ".0123456789ab:")] == ["box"]
    assert sent(broker) == {"time": 1, "zrange": 1, "hgetall": 1}
    broker.read(("FLUSHALL",))


def test_the_rate_is_computed_while_leases_are_renewed(broker: Broker, link: Link) -> None:
    broker.takes.register("q", "c", link=link)
    broker.read(("HSET", KEY.meta, "done", 500, "rate_done", 100, "rate_at", now_ms(broker) - 4000))
    broker.tends.renew("q", ["c"])
    assert 50 < state(broker).jobs_per_second <= 100
    broker.read(("HSET", KEY.meta, "rate_at", now_ms(broker) - 60_000))
    assert state(broker).jobs_per_second == 0.0


@pytest.mark.parametrize("value", ["", "many", "nan", "inf", "1e300", "9" * 400, "-" + "9" * 5000, b"\xff"])
def test_numbers_that_somebody_else_wrote_are_none(broker: Broker, value: str | bytes) -> None:
    fields = (
        "inflight",
        "done",
        "put",
        "rate",
        "rate_at",
        "seen",
        "maxsize",
        "maxbytes",
        "bytes",
        "unknown:t",
        "parked",
    )
    for field in fields:
        broker.read(("HSET", KEY.meta, field, value))
    broker.tends.announce("w", {"host": "h"}, 60)
    broker.read(("HSET", keys.worker("w"), "since", value, "stuck", value))
    found = state(broker)
    assert (found.inflight, found.done, found.put, found.jobs_per_second, found.full) == (0, 0, 0, 0.0, None)
    assert status.signs_of_life(broker, "q")[0] == 0
    assert [worker.stuck for worker in status.workers(broker)] == [0]

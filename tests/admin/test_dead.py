"""The dead set: what reading it shows; what putting back, dropping and trimming do."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rq_lite.admin import dead, operate, status
from rq_lite.admin.dead import Buried, Filter, Requeue
from rq_lite.broker import Acks, Broker, Code, Link, keys
from rq_lite.model.outcome import Finished
from tests.conftest import Server
from tests.steps import (
    KEY,
    at_maxmemory,
    counter,
    entry,
    everything,
    length,
    now_ms,
    number_of,
    put,
    put_by_hand,
    started_waiting,
    threads,
    took,
    waiting,
)

SIZE = len(entry(0))
GARBAGE = b"\x00 no \xff job \n\x00"
REPORT = {
    "id": "00000001", "task": "m:t", "error": "ValueError: No Room", "traceback": "File 1", "attempts": 3,
    "crashes": 1, "consumer": "c", "seconds": 1.5,
}  # fmt: skip


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    """The queue "q" of bound 10, and its consumer "c"."""
    broker.puts.declare("q", 10, 0)
    broker.takes.register("q", "c", link=link)


def bury(broker: Broker, link: Link, *entries: bytes, report: bytes = b"{}", queue: str = "q") -> list[int]:
    """Entries taken and buried, each by itself; their tags."""
    tags = []
    for raw in entries:
        broker.read(("RPUSH", keys.of(queue).pending, raw), ("HINCRBY", keys.of(queue).meta, "bytes", len(raw)))
        tags.append(broker.takes.exchange("c", [Acks(queue, [])], 1, link)[0].tag + 1)
        ends = [(tags[-1], Finished("failed", report=report))]
        assert broker.takes.finish(queue, "c", ends, link) == 0
    return tags


def aged(broker: Broker, tag: int, seconds: float) -> None:
    """As if it had been buried so long ago."""
    broker.read(("ZADD", KEY.dead_index, now_ms(broker) - round(seconds * 1000), tag))


def found(broker: Broker, **wanted: Any) -> list[int]:
    """The tags of the jobs that the filter fits, in the order of reading."""
    return [job.tag for job in dead.buried(broker, "q", Filter(**wanted))]


def only(broker: Broker) -> Buried:
    (job,) = dead.buried(broker, "q")
    return job


def headers(broker: Broker) -> list[bytes]:
    """The entries in the queue, the next to be taken first."""
    entries: list[bytes] = broker.read(("LRANGE", KEY.pending, 0, -1))[0]
    return entries[::-1]


# -- reading


def test_everything_that_was_reported_is_there(broker: Broker, link: Link) -> None:
    before = now_ms(broker) / 1000
    (tag,) = bury(broker, link, entry(1), report=json.dumps(REPORT).encode())
    job = only(broker)
    assert before <= job.buried_at <= now_ms(broker) / 1000
    assert msgspec.structs.asdict(job) == {
        **REPORT, "queue": "q", "tag": tag, "buried_at": job.buried_at, "entry": entry(1),
    }  # fmt: skip


@pytest.mark.parametrize(
    "report", [b"", b"no JSON", b"\xff\x00", b"[1]", b'{"id":7,"task":[],"error":null,"attempts":"x"}', b"[" * 9000]
)
def test_a_report_that_is_none_hides_no_job(broker: Broker, link: Link, report: bytes) -> None:
    (tag,) = bury(broker, link, b"2.1" + entry(5), report=report)
    job = only(broker)
    assert (job.tag, job.id, job.task, job.entry) == (tag, "00000005", "t", b"2.1" + entry(5))
    assert (job.attempts, job.crashes, job.seconds) == (0, 0, 0)


def test_a_report_with_odd_bytes_and_endless_numbers_is_read(broker: Broker, link: Link) -> None:
    numbers = b'"attempts":%s,"crashes":-3,"seconds":1e300' % (b"9" * 400)
    bury(broker, link, GARBAGE, report=b'{"error":"a\xffb","id":null,%s}' % numbers)
    job = only(broker)
    assert (job.error, job.attempts, job.crashes, job.seconds) == ("a\ufffdb", 0, 0, 0)
    assert (job.id, job.task, job.entry) == (None, None, GARBAGE)


def test_many_are_read_in_pages_newest_first_and_each_once(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead, "STEP", 3)
    tags = bury(broker, link, *map(entry, range(20)))
    for position, tag in enumerate(tags):
        aged(broker, tag, 100 - position // 8)  # eight of a millisecond, for several pages
    same = {tag: 100 - position // 8 for position, tag in enumerate(tags)}
    order = found(broker)
    assert sorted(order) == tags
    assert [same[tag] for tag in order] == sorted(same.values())


def test_what_is_buried_or_dropped_while_one_reads_disturbs_nothing(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead, "STEP", 2)
    tags = bury(broker, link, *map(entry, range(8)))
    for position, tag in enumerate(tags):
        aged(broker, tag, 100 - position)
    reading = dead.buried(broker, "q")
    seen = [next(reading).tag]
    bury(broker, link, *map(entry, range(20, 25)))
    operate.forget(broker, "q", [tags[0], tags[7]])
    assert seen + [job.tag for job in reading] == tags[:0:-1]


def test_large_jobs_are_not_read_all_at_once(broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.core.portion = 250
    tags = bury(broker, link, *(b"x" * size for size in (100, 100, 1000, 10, 200, 300)))
    sizes: list[int] = []
    call = Link.call

    def watched(self: Link, *command: Any) -> Any:
        reply = call(self, *command)
        if command[0] in ("HMGET", "EVALSHA"):
            sizes.append(sum(len(part) for part in reply if isinstance(part, bytes)))
        return reply

    monkeypatch.setattr(Link, "call", watched)
    assert sorted(found(broker)) == tags
    assert len(sizes) >= 4
    assert max(sizes) <= 250


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, {1, 2, 3}),
        ({"ids": frozenset(["00000001"])}, {1, 2}),
        ({"ids": frozenset(["tag:2", "tag:3", "tag:9"])}, {2, 3}),
        ({"task": "m:t"}, {1}),
        ({"task": "m"}, set()),
        ({"error": "no room"}, {1}),
        ({"error": "STRASSE"}, {2}),
        ({"error": ""}, {1, 2, 3}),
        ({"older_than": 150.0}, {3}),
        ({"newer_than": 150.0}, {1, 2}),
        ({"older_than": 50.0, "newer_than": 150.0}, {2}),
        ({"older_than": 1e300}, set()),
        ({"newer_than": 1e300}, {1, 2, 3}),
        ({"ids": frozenset(["00000001"]), "task": "u"}, {2}),
    ],
)
def test_filters(broker: Broker, link: Link, wanted: dict[str, Any], expected: set[int]) -> None:
    reports = [REPORT, {"id": "00000001", "task": "u", "error": "straße"}, {"error": "x"}]
    for number, report in enumerate(reports, 1):
        bury(broker, link, GARBAGE, report=json.dumps(report).encode())
        aged(broker, number, 100 * (number - 1))
    assert set(found(broker, **wanted)) == expected


# -- requeue


def test_a_requeued_job_waits_at_the_end_as_on_its_first_day(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, b"2.1" + entry(1), entry(2), b"1.0{\x00}", GARBAGE)
    put(broker, 9)
    reply = operate.requeue(broker, "q", tags)
    assert (reply.code, reply.seen, reply.moved, reply.full, reply.size) == (Code.OK, 4, 4, 0, 5)
    assert headers(broker) == [entry(9), entry(1), entry(2), b"{\x00}", GARBAGE]
    assert counter(broker, "bytes") == sum(map(len, headers(broker))) == reply.bytes
    assert (counter(broker, "requeued"), counter(broker, "failed")) == (4, 4)
    assert broker.read(("EXISTS", KEY.dead, KEY.dead_index))[0] == 0
    assert length(broker, KEY.bell) == 5
    assert broker.tends.unfinished("q")[0] == 5


def test_poison_that_is_requeued_runs_as_any_other(broker: Broker, link: Link) -> None:
    (tag,) = bury(broker, link, b"0.3" + entry(1))
    operate.requeue(broker, "q", [tag])
    assert took(broker, link, 1) == [1]


def test_as_many_as_fit_are_requeued_in_their_order(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, *map(entry, range(1, 6)))
    put(broker, *range(10, 18))
    reply = operate.requeue(broker, "q", tags)
    assert (reply.seen, reply.moved, reply.full, reply.size, reply.maxsize) == (2, 2, 1, 10, 10)
    assert waiting(broker)[-2:] == [1, 2]
    assert sorted(found(broker)) == tags[2:]
    before = everything(broker)
    assert operate.requeue(broker, "q", tags[2:])[1:5] == (0, 0, 0, 1)
    assert everything(broker) == before


def test_the_bound_in_bytes_counts_what_is_put_back(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, b"1.0" + entry(1), b"x" * 5 * SIZE, entry(2), entry(3))
    operate.configure(broker, "q", maxbytes=3 * SIZE)
    put(broker, 9)
    reply = operate.requeue(broker, "q", tags)
    # The one that can never fit holds up nobody.
    assert (reply.seen, reply.moved, reply.oversized, reply.full) == (3, 2, 1, 1)
    assert (reply.bytes, reply.maxbytes) == (3 * SIZE, 3 * SIZE)
    assert sorted(found(broker)) == [tags[1], tags[3]]


def test_scheduled_jobs_count_against_a_requeue(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, entry(1))
    put(broker, *range(10), delay=3_600_000)
    assert operate.requeue(broker, "q", tags)[1:5] == (0, 0, 0, 1)


def test_a_tag_twice_or_of_nobody_moves_nothing_twice(broker: Broker, link: Link) -> None:
    (tag,) = bury(broker, link, entry(1))
    assert operate.requeue(broker, "q", [tag, tag, 999])[1:5] == (3, 1, 0, 0)
    assert operate.requeue(broker, "q", [tag])[1:5] == (1, 0, 0, 0)
    assert waiting(broker) == [1]
    assert counter(broker, "requeued") == 1


def test_a_queue_without_a_bound_is_said_to_be_undeclared(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, entry(1))
    broker.read(("HDEL", KEY.meta, "maxsize"))
    before = everything(broker)
    assert operate.requeue(broker, "q", tags).code is Code.UNDECLARED
    assert everything(broker) == before
    Requeue("q", tags).run(broker)  # which declares it
    assert waiting(broker) == [1]


def test_a_script_moves_a_megabyte_or_two_and_leaves_the_rest_for_the_next_call(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, *(b"%d" % number * 400_000 for number in range(4)))
    reply = operate.requeue(broker, "q", tags)
    assert (reply.seen, reply.moved, reply.full) == (3, 3, 0)
    assert broker.read(("HEXISTS", KEY.meta, "wanted"))[0] == 0
    step = Requeue("q", tags)
    step.run(broker)
    assert (step.moved, step.missing, step.left) == (1, 3, [])


def test_thousands_are_requeued_and_forgotten_in_batches(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=1500)
    fill = [("HSET", KEY.dead, tag, b"{}\n" + entry(tag)) for tag in range(1, 2501)]
    broker.read(*fill, *(("ZADD", KEY.dead_index, tag, tag) for tag in range(1, 2501)))
    step = Requeue("q", range(1, 2501))
    step.run(broker)
    assert (step.moved, step.left, step.last.full) == (1500, list(range(1501, 2501)), 1)
    assert waiting(broker) == list(range(1, 1501))
    assert dead.count(broker, "q") == 1000
    assert dead.forget(broker, "q", list(range(1, 2501))) == 1000
    assert dead.count(broker, "q") == 0


def test_requeuing_at_maxmemory_goes_on(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, *map(entry, range(4)))
    operate.configure(broker, "q", maxsize=2)
    with at_maxmemory(broker):
        assert operate.requeue(broker, "q", tags)[1:5] == (2, 2, 0, 1)
        operate.configure(broker, "q")  # nobody waits for room: the script's first write is a note that somebody does
        assert operate.requeue(broker, "q", tags[2:])[1:5] == (0, 0, 0, 1)
        step = Requeue("q", tags[2:])
        step.run(broker)
        assert operate.forget(broker, "q", tags[2:3]) == 1
        assert broker.tends.trim("q") == 0
    assert waiting(broker) == [0, 1]
    assert len(step.left) == 2


# -- waiting for room


def test_a_requeue_waits_for_room_as_a_producer_does(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, *map(entry, range(1, 6)))
    put(broker, *range(10, 20))
    step = Requeue("q", tags)
    with threads() as pool:
        over = started_waiting(broker, pool, step.run, broker, 30.0)
        assert took(broker, link, 10) == list(range(10, 20))
        over.result(30)
    assert (step.moved, step.left) == (5, [])
    assert waiting(broker) == [1, 2, 3, 4, 5]


def test_without_a_wait_or_after_it_the_rest_is_left(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, entry(1))
    put(broker, *range(10))
    for wait in (0.0, 0.01):
        step = Requeue("q", tags)
        step.run(broker, wait)
        assert (step.left, step.last.full, step.moved) == (tags, 1, 0)
    assert found(broker) == tags


def test_a_woken_requeue_rings_on_where_room_remains(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, entry(1), entry(2))
    operate.requeue(broker, "q", tags[:1])
    assert length(broker, KEY.room) == 0
    operate.requeue(broker, "q", tags[1:], woken=True)
    assert length(broker, KEY.room) == 1


def test_a_requeue_and_a_producer_that_wait_both_get_their_room(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, entry(1))
    put(broker, *range(10, 20))
    step = Requeue("q", tags)
    with threads() as pool:
        over = started_waiting(broker, pool, step.run, broker, 30.0)
        assert put_by_hand(broker, 1, [99])[1] == 0
        producer = started_waiting(broker, pool, broker.puts.wait_room, "q", 30.0)
        took(broker, link, 10)
        over.result(30)
        assert producer.result(30)
    assert waiting(broker) == [1]


# -- forget, trim


def test_what_is_forgotten_is_gone_and_counted_as_purged(broker: Broker, link: Link) -> None:
    tags = bury(broker, link, entry(1), entry(2), entry(3))
    assert operate.forget(broker, "q", [*tags[:2], tags[0], 999]) == 2
    assert found(broker) == tags[2:]
    assert broker.read(("ZCARD", KEY.dead_index), ("HLEN", KEY.dead)) == [1, 1]
    assert (counter(broker, "purged"), counter(broker, "dropped")) == (2, 0)
    assert operate.forget(broker, "q", tags[:2]) == 0


def test_the_caps_hold_although_nothing_is_buried(server: Server, broker: Broker, link: Link) -> None:
    tags = bury(broker, link, *map(entry, range(6)))
    for position, tag in enumerate(tags):
        aged(broker, tag, 6000 - 1000 * position)
    narrow = server.broker(dead_max=4, dead_age=4500)
    assert (narrow.tends.trim("q"), narrow.tends.trim("q")) == (2, 0)
    assert found(broker) == tags[:1:-1]
    narrow.close()
    narrower = server.broker(dead_max=1)
    assert narrower.tends.trim("q") == 3
    narrower.close()
    assert found(broker) == tags[5:]
    assert counter(broker, "dropped") == 5
    (warning,) = status.states(broker, ["q"])["q"].warnings
    assert warning == "dead jobs that were dropped over the caps (dead_max, dead_age): 5"


def test_two_queues_with_the_same_tags_and_ids_do_not_mix(broker: Broker, link: Link) -> None:
    broker.puts.declare("r", 10, 0)
    broker.takes.register("r", "c", link=link)
    assert bury(broker, link, entry(1)) == bury(broker, link, entry(1), queue="r") == [1]
    operate.requeue(broker, "r", [1])
    assert [number_of(job.entry) for job in dead.buried(broker, "q")] == [1]
    assert list(dead.buried(broker, "r")) == []

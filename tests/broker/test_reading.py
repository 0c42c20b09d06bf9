"""Answers of bounded size, and a Redis that cuts larger ones off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from rq_lite.admin import dead, jobs, status
from rq_lite.broker import REDIS_ERRORS, Acks, Broker, Code, Link, keys
from rq_lite.broker.deliveries import Deliveries
from rq_lite.broker.scheduling import Planned
from rq_lite.client.queue import Queue
from rq_lite.consumer.consumer import Consumer, Order
from rq_lite.consumer.slots import Slot
from rq_lite.model.message import VERSION, Message, encode, marked
from rq_lite.model.outcome import Finished, Outcome
from rq_lite.model.states import State
from rq_lite.settings import Settings
from tests.consumer.test_consumer import board
from tests.steps import KEY, bury, counter, owned, take


def large(number: int, size: int) -> bytes:
    """An entry of so many bytes."""
    empty = encode(Message(VERSION, f"{number:08}", "t", [""]))
    return encode(Message(VERSION, f"{number:08}", "t", ["x" * (size - len(empty))]))


@pytest.fixture
def limit(broker: Broker) -> Iterator[Callable[[str], None]]:
    """Sets how much may wait for one client."""

    def to(size: str) -> None:
        broker.read(("CONFIG", "SET", "client-output-buffer-limit", f"normal {size} 0 0"))

    yield to
    to("0")


# -- a take


@pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
def test_a_take_brings_no_more_than_an_answer_may_hold_and_says_that_there_is_more(
    broker: Broker, link: Link, order: str
) -> None:
    broker.puts.declare("q", 100, 0, order)
    broker.takes.register("q", "c", link=link)
    entries = [large(n, 100) for n in range(10)]
    if order == "priority":
        entries = [marked(entry, "x", priority=float(n // 3)) for n, entry in enumerate(entries)]
    broker.puts.put("q", entries)
    broker.core.portion = 350
    got: list[bytes] = []
    first = counter(broker, "tag")  # priority queues number what waits, too
    while len(got) < 10:
        reply = take(broker, link, 10 - len(got))
        assert reply.tag == first + len(got)
        assert len(reply.jobs) == min(3, 10 - len(got))
        got += reply.jobs
        assert reply.code is (Code.OK if len(got) == 10 else Code.PART)
        assert counter(broker, "bytes") == sum(map(len, entries)) - sum(map(len, got))
        assert counter(broker, "inflight") == len(got)
    assert got == (entries[::-1] if order == "lifo" else entries)
    assert owned(broker, "q", "c", link) == dict(enumerate(got, first + 1))


@pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
def test_large_jobs_among_small_ones_go_back_exactly_as_they_were(broker: Broker, link: Link, order: str) -> None:
    """Their average tells nothing of them: they are popped, and put back."""
    broker.puts.declare("q", 1000, 0, order)
    broker.takes.register("q", "c", link=link)
    big, small = [large(n, 300) for n in range(5)], [large(n, 80) for n in range(5, 500)]
    if order == "priority":
        big = [marked(entry, "x", priority=-1.5) for entry in big]
    waits = [*big, *small] if order != "lifo" else [*small[::-1], *big[::-1]]
    broker.puts.put("q", waits)
    broker.core.portion = 1300
    reply = take(broker, link, 10)
    assert (reply.code, reply.jobs) == (Code.PART, big[:4])
    reply = take(broker, link, 10)
    assert (reply.code, reply.jobs) == (Code.OK, [big[4], *small[:9]])
    rest = big[4:] + small
    got = len(reply.jobs)
    while got < len(rest):
        reply = take(broker, link, 1000)
        assert reply.jobs == rest[got : got + len(reply.jobs)] != []
        got += len(reply.jobs)
    assert counter(broker, "bytes") == 0


def test_what_a_small_job_costs_does_not_hang_on_what_is_scheduled(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 1000)
    broker.takes.register("q", "c", link=link)
    broker.core.portion = 2000
    broker.puts.put("q", [large(n, 100) for n in range(100)], delay=60_000)
    broker.puts.put("q", [large(n, 100) for n in range(10)])
    assert len(take(broker, link, 10).jobs) == 10


def test_several_queues_share_what_an_answer_may_hold(broker: Broker, link: Link) -> None:
    for name in ("a", "b", "c"):
        broker.puts.declare(name, 100)
        broker.takes.register(name, "c", link=link)
        broker.puts.put(name, [large(1, 100), large(2, 100)])
    broker.core.portion = 350
    replies = broker.takes.exchange("c", [Acks(name, []) for name in "abc"], 10, link)
    assert [len(reply.jobs) for reply in replies] == [2, 1, 0]
    assert [reply.code for reply in replies] == [Code.OK, Code.PART, Code.OK]
    broker.core.portion = 250
    replies = broker.takes.exchange("c", [Acks(name, []) for name in "bc"], 10, link)
    assert [len(reply.jobs) for reply in replies] == [1, 1]
    broker.core.portion = 150
    replies = broker.takes.exchange("c", [Acks(name, []) for name in "cba"], 10, link)
    assert [reply.jobs for reply in replies] == [[large(2, 100)], [], []]
    assert [len(owned(broker, name, "c", link)) for name in "abc"] == [2, 2, 2]


def test_what_does_not_fit_beside_an_earlier_queues_jobs_stays_where_it_is(broker: Broker, link: Link) -> None:
    for name, size in (("a", 100), ("b", 300)):
        broker.puts.declare(name, 100)
        broker.takes.register(name, "c", link=link)
        broker.puts.put(name, [large(1, size)])
    broker.core.portion = 350
    a, b = broker.takes.exchange("c", [Acks("a", []), Acks("b", [])], 10, link)
    assert (a.code, a.jobs) == (Code.OK, [large(1, 100)])
    assert (b.code, b.jobs) == (Code.PART, [])
    assert owned(broker, "b", "c", link) == {}
    assert broker.puts.size("b")[0] == 1
    (b,) = broker.takes.exchange("c", [Acks("b", [])], 10, link)
    assert (b.tag, b.jobs) == (0, [large(1, 300)])


def test_a_job_that_is_larger_than_an_answer_comes_in_pieces(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 100)
    broker.takes.register("q", "c", link=link)
    entries = [large(1, 100), large(2, 1000), large(3, 100)]
    broker.puts.put("q", entries)
    for size in (99, 100, 250, 999):
        broker.core.portion = size
        got = [take(broker, link, 3) for _ in range(3)]
        assert [reply.jobs for reply in got] == [[entry] for entry in entries]
        assert [reply.code for reply in got] == [Code.PART, Code.PART, Code.OK]
        tags = [reply.tag + 1 for reply in got]
        assert broker.takes.booked("q", "c", tags, link) == list(zip(tags, entries, strict=True))
        broker.takes.give_back("q", "c", tags, link=link)


def test_a_queue_that_gives_nothing_beside_a_large_job_is_not_asked_for_one(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue, size in (("a", 1000), ("b", 100)):
        broker.puts.declare(queue, 100, 0)
        broker.takes.register(queue, "c", link=link)
        broker.puts.put(queue, [large(0, size)])
    broker.core.portion = 500
    read, asked = broker.reads.values, list[str]()

    def values(name: str, fields: Sequence[Any], link: Link | None = None) -> Iterator[bytes | None]:
        asked.append(name)
        return read(name, fields, link)

    monkeypatch.setattr(broker.reads, "values", values)
    replies = broker.takes.exchange("c", [Acks("a", []), Acks("b", [])], 10, link)
    assert [len(reply.jobs) for reply in replies] == [1, 0]
    assert asked == [keys.of("a").inflight("c")]


def test_a_large_job_is_whole_though_answers_become_smaller_while_it_is_read(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = large(0, 2000)
    broker.puts.declare("q", 100, 0)
    broker.takes.register("q", "c", link=link)
    broker.puts.put("q", [entry])
    broker.core.portion = 500
    run = broker.core.run

    def smaller(name: str, *rest: Any, **options: Any) -> list[Any]:
        reply = run(name, *rest, **options)
        if name == "piece":
            broker.core.portion = 300  # what another greenlet has found out meanwhile
        return reply

    monkeypatch.setattr(broker.core, "run", smaller)
    assert take(broker, link, 1).jobs == [entry]


def test_a_suspect_that_is_larger_than_an_answer_comes_in_pieces(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 100)
    broker.takes.register("q", "c", link=link)
    entry = b"0.2" + large(1, 1000)
    broker.read(("LPUSH", KEY.suspects, entry), ("HSET", KEY.meta, "suspects", 1))
    broker.core.portion = 300
    assert broker.takes.isolate("q", "c", link) == (Code.OK, 1, entry)


# -- a Redis that cuts


def worked_off(broker: Broker, count: int) -> list[bytes]:
    """What a consumer with 40 slots has run until so many were done."""
    ran: list[bytes] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        ran.append(entry)
        if len(ran) == count:
            consumer.stop()
        return None

    consumer = Consumer(broker, "c", Order({"q": 1.0}, strict=True), board(40), run, grace=5.0)
    consumer.run()
    return ran


def test_a_consumer_takes_large_jobs_from_a_redis_that_cuts_large_answers(
    broker: Broker, limit: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    broker.puts.declare("q")
    entries = [large(n, 100_000) for n in range(40)]
    for entry in entries:
        broker.puts.put("q", [entry])
    limit("1mb")
    assert worked_off(broker, 40) == entries
    assert "Redis" not in caplog.text
    assert broker.tends.unfinished("q")[0] == 0


def test_a_consumer_that_is_cut_asks_for_less_and_says_why(
    broker: Broker, limit: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    broker.puts.declare("q")
    entries = [large(n, 1_500_000 if n == 7 else 60_000) for n in range(20)]
    for entry in entries:
        broker.puts.put("q", [entry])
    limit("200kb")
    assert sorted(worked_off(broker, 20)) == sorted(entries)
    assert broker.tends.unfinished("q")[0] == 0
    assert caplog.text.count("client-output-buffer-limit (204,800 bytes for normal clients)") == 1
    assert broker.core.portion == 102_400


def test_a_redis_that_does_not_tell_its_limit_is_asked_for_half(
    broker: Broker, limit: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    broker.read(("ACL", "SETUSER", "hosted", "on", ">x", "~*", "&*", "+@all", "-config"))
    url = broker.url.replace("unix://", "unix://hosted:x@")
    try:
        with closing(Broker(url, settings=Settings(url=url, patience=0.1))) as hosted:
            hosted.puts.declare("q")
            hosted.puts.put("q", [large(n, 60_000) for n in range(20)])
            limit("200kb")
            assert len(worked_off(hosted, 20)) == 20
            assert hosted.core.portion == 125_000
    finally:
        broker.read(("ACL", "DELUSER", "hosted"))
    assert "client-output-buffer-limit (it does not say what that is)" in caplog.text


def test_a_lost_connection_alone_changes_nothing(broker: Broker, link: Link) -> None:
    broker.puts.declare("q")
    broker.takes.register("q", "c", link=link)
    broker.puts.put("q", [large(n, 100) for n in range(3)])
    take(broker, link, 3)
    call = link.call
    failed: list[object] = []

    def cut(*command: object) -> object:
        if command[0] == "HMGET" and not failed:
            failed.append(command)
            link.drop()
        return call(*command)

    link.call = cut  # type: ignore[method-assign]
    with pytest.raises(REDIS_ERRORS):
        broker.takes.booked("q", "c", [1, 2, 3], link)
    assert len(broker.takes.booked("q", "c", [1, 2, 3], link)) == 3
    assert broker.core.portion == 500_000


def test_gets_of_large_items_go_on_where_redis_cuts(
    queue: Queue, broker: Broker, limit: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    limit("200kb")
    for number in range(8):
        queue.put(f"{number}" * 60_000)
    queue.put("x" * 900_000)
    ahead = Queue("q", maxsize=10, ahead=8)
    got = []
    for _ in range(9):
        got.append(ahead.get(timeout=20)[0])
        ahead.task_done()
    assert got == [*"01234567x"]
    assert "client-output-buffer-limit" in caplog.text


# -- what commands read


def test_pages_of_large_jobs_are_read_in_bounded_answers(
    broker: Broker, link: Link, limit: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    sizes = [60_000, 60_000, 1_000_000, 60_000, 60_000]
    for order in ("fifo", "priority"):
        broker.read(("DEL", KEY.pending, KEY.meta, KEY.scheduled))
        limit("0")
        broker.puts.declare("q", 100, 0, order)
        broker.takes.register("q", "c", link=link)
        entries = [large(n, size) for n, size in enumerate(sizes)]
        broker.puts.put("q", entries)
        broker.puts.put("q", entries, delay=60_000)
        broker.core.portion = 500_000
        limit("200kb")
        for place in (State.PENDING, State.SCHEDULED):
            found = jobs.page(broker, "q", place, 0, 100)
            assert [job.entry for job in found] == entries
        assert [job.entry for job in jobs.page(broker, "q", State.PENDING, 1, 2)] == entries[1:3]
        assert [job.entry for job in jobs.page(broker, "q", State.PENDING, 4, 9)] == entries[4:]
        assert status.states(broker, ["q"])["q"].pending == 5
    assert "client-output-buffer-limit" in caplog.text


def test_the_head_of_a_queue_tells_how_long_it_waits_however_large_it_is(broker: Broker) -> None:
    broker.puts.declare("q", 100)
    broker.puts.put("q", [encode(Message(VERSION, "00000000001-00", "t", ["x" * 900_000]))])
    assert (status.states(broker, ["q"])["q"].oldest_waiting or 0) > 1e6


def test_dead_jobs_and_results_and_schedules_are_read_in_bounded_answers(
    broker: Broker, link: Link, limit: Callable[[str], None]
) -> None:
    broker.puts.declare("q", 100)
    broker.takes.register("q", "c", link=link)
    entries = [large(n, size) for n, size in enumerate([60_000, 60_000, 1_000_000, 60_000, 60_000])]
    broker.puts.put("q", [*entries, marked(large(5, 100), "00000005", tracked=True), large(6, 100)])
    tags = list(range(1, 8))
    while len(broker.takes.inflight("q", "c", link)) < 7:
        take(broker, link, 7)
    bury(broker, "q", "c", [(tag, b'{"error":"x"}') for tag in tags[:5]], link)
    text = b'"value":"' + b"r" * 900_000 + b'"'
    broker.takes.finish("q", "c", [(6, Finished("done", text, 60_000, b""))], link)
    for n in range(6):
        broker.plans.plan(f"s{n}", b"", b"d" * 60_000, n + 1)
    limit("200kb")
    assert {job.entry for job in dead.buried(broker, "q")} == set(entries)
    assert broker.puts.watch("q", "me", ["00000005"]) == [b"+"]
    assert broker.puts.result("q", "00000005") == b'{"state":"done",' + text + b"}"
    assert broker.puts.result("q", "none") is None
    expected = [Planned(f"s{n}", b"d" * 60_000, n + 1) for n in range(6)]
    assert broker.plans.all_planned() == expected
    assert broker.plans.due()[1] == expected
    requeue = dead.Requeue("q", tags[:5])
    requeue.run(broker)
    assert requeue.moved == 5


def test_marks_and_feeds_of_any_number_are_read_in_steps(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rq_lite.broker.consuming.MARKS", 3)
    broker.puts.declare("q", 100)
    for number in range(10):
        broker.read(("ZADD", KEY.cancelled, number + 1, f"job{number}"))
    assert broker.takes.marks("q", b"", link) == {f"job{n}" for n in range(10)}
    assert broker.takes.marks("q", b"4", link) == {f"job{n}" for n in range(4, 10)}
    assert broker.takes.marks("q", b"10", link) == set()
    broker.read(*(("HSET", KEY.feed("f"), f"file{number}", number) for number in range(2500)))
    assert broker.puts.feed("q", "f") == {f"file{n}": str(n) for n in range(2500)}

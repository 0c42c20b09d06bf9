"""Cancelling: what waits goes at once, what does not is marked; whoever takes a marked job drops it."""

from __future__ import annotations

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker, Cancelled, Code, Link
from rq_lite.model.message import VERSION, Message, encode, marked
from tests.conftest import until
from tests.steps import (
    KEY,
    at_maxmemory,
    blocked,
    bury,
    cancel,
    counter,
    drop,
    entry,
    everything,
    number_of,
    owned,
    put,
    put_by_hand,
    reclaim,
    started_waiting,
    suspects,
    take,
    threads,
    took,
    waiting,
)


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 0, 0)
    broker.takes.register("q", "c", link=link)


def marks(broker: Broker) -> list[bytes]:
    found: list[bytes] = broker.read(("ZRANGE", KEY.cancelled, 0, -1))[0]
    return found


def calls(broker: Broker, consumer: str = "c") -> list[bytes]:
    found: list[bytes] = broker.read(("LRANGE", KEY.calls(consumer), 0, -1))[0]
    return found


# -- what waits


def test_a_waiting_job_is_removed_and_counted(broker: Broker, link: Link) -> None:
    put(broker, 1, 2, 3)
    assert cancel(broker, 2) is Cancelled.REMOVED
    assert waiting(broker) == [1, 3]
    assert (counter(broker, "cancelled"), counter(broker, "bytes")) == (1, 2 * len(entry(0)))
    assert (marks(broker), calls(broker)) == ([], [])
    assert took(broker, link, 5) == [1, 3]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_scheduled_job_is_removed_and_counted(broker: Broker, number: int) -> None:
    for each in (1, 2, 3):
        put(broker, each, delay=60_000 * each)
    assert cancel(broker, number) is Cancelled.REMOVED
    left = [number_of(raw.partition(b"|")[2]) for raw in broker.read(("ZRANGE", KEY.scheduled, 0, -1))[0]]
    assert left == [one for one in (1, 2, 3) if one != number]
    assert counter(broker, "bytes") == 2 * len(entry(0))


def test_a_parked_job_is_parked_no_more(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    broker.takes.park("q", "c", [(1, "t")], link)
    assert cancel(broker, 1) is Cancelled.REMOVED
    assert broker.tends.unfinished("q") == (0, 0)


def test_a_suspect_is_removed(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    for _ in range(2):
        take(broker, link, 2)
        reclaim(broker, certain=True)
        broker.takes.register("q", "c", link=link)
    assert [number for number, _ in suspects(broker)] == [1, 2]
    assert cancel(broker, 2) is Cancelled.REMOVED
    assert [number for number, _ in suspects(broker)] == [1]
    assert counter(broker, "suspects") == 1
    assert broker.tends.unfinished("q")[0] == 1


def test_a_retried_job_is_removed_with_its_header(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    broker.takes.retry("q", "c", [(1, 60_000)], link)
    assert cancel(broker, 1) is Cancelled.REMOVED
    assert counter(broker, "bytes") == 0


def test_only_the_id_itself_counts_not_another_job_that_mentions_it(broker: Broker, link: Link) -> None:
    foreign = b'{"args":[{"id":"00000001"}],"v":1,"task":"t","id":"00000002"}'
    mentions = encode(Message(VERSION, "00000003", "t", ["00000001", {"id": "00000001"}]))
    broker.puts.put("q", [foreign, mentions, entry(1)])
    assert cancel(broker, 1) is Cancelled.REMOVED
    assert waiting(broker) == [2, 3]
    assert cancel(broker, 2) is Cancelled.REMOVED
    assert waiting(broker) == [3]


@pytest.mark.parametrize("job_id", ['a "quoted" one', "größe", "back\\slash", "[a-z]%d+", "tab\t"])
def test_ids_that_somebody_made_up(broker: Broker, job_id: str) -> None:
    broker.puts.put("q", [entry(1), encode(Message(VERSION, job_id, "t"))])
    assert operate.cancel(broker, "q", job_id) is Cancelled.REMOVED
    assert waiting(broker) == [1]


def test_what_is_no_job_is_passed_over(broker: Broker) -> None:
    broker.puts.put("q", [b'garbage "00000001"', b'{"00000001"', b"\x00" * 2000, entry(1)])
    assert cancel(broker, 1) is Cancelled.REMOVED
    assert broker.read(("LLEN", KEY.pending))[0] == 3


def test_who_waits_for_room_or_for_the_end_hears_of_it(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", 1)
    put(broker, 1, 2)
    assert counter(broker, "wanted") == 1
    with threads() as pool:
        ends = [
            started_waiting(broker, pool, call, "q", 2) for call in (broker.puts.wait_room, broker.tends.wait_drained)
        ]
        assert cancel(broker, 1) is Cancelled.REMOVED
        assert [end.result() for end in ends] == [True, True]


# -- what does not wait


def test_a_job_that_runs_is_marked_and_every_living_consumer_is_called(broker: Broker, link: Link) -> None:
    broker.takes.register("q", "d", link=link)
    broker.read(("ZADD", KEY.consumers, 1, "long gone"))
    put(broker, 1)
    take(broker, link, 1)
    assert cancel(broker, 1) is Cancelled.MARKED
    assert marks(broker) == calls(broker) == calls(broker, "d") == [b"00000001"]
    assert calls(broker, "long gone") == []
    assert broker.takes.wait_call(["q"], "c", link) == ("q", "00000001")
    assert owned(broker, "q", "c", link) == {1: entry(1)}


def test_a_call_wakes_who_waits_for_it(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    other = broker.link()
    with threads() as pool:
        before = blocked(broker)
        call = pool.submit(broker.takes.wait_call, ["other", "q"], "c", other)
        until(lambda: blocked(broker) > before, "it waits")
        cancel(broker, 1)
        assert call.result() == ("q", "00000001")
    other.close()


def test_one_that_tells_where_it_runs_has_only_that_consumer_called(broker: Broker, link: Link) -> None:
    broker.takes.register("q", "d", link=link)
    broker.puts.put("q", [marked(entry(1), "00000001", tracked=True)])
    taken = take(broker, link, 1)
    key = KEY.job("00000001")
    broker.read(("HSET", key, "consumer", "c", "tag", taken.tag + 1), ("PEXPIRE", key, 60_000))
    assert cancel(broker, 1) is Cancelled.INTERRUPTING
    assert (calls(broker), calls(broker, "d")) == ([b"00000001"], [])


def test_who_waits_for_a_tracked_job_hears_that_it_was_cancelled(broker: Broker, link: Link) -> None:
    for number in (1, 2):
        job = encode(Message(VERSION, f"{number:08}", "t", result_ttl=60))
        broker.puts.put("q", [marked(job, f"{number:08}", tracked=True)])
    assert broker.puts.watch("q", "me", ["00000001", "00000002"]) == [b"", b""]
    assert cancel(broker, 2) is Cancelled.REMOVED
    taken = take(broker, link, 1)
    assert cancel(broker, 1) is Cancelled.INTERRUPTING
    assert drop(broker, "q", "c", [(taken.tag + 1, "00000001")], link) == 0
    told = broker.read(("LRANGE", KEY.inbox("me"), 0, -1))[0]
    assert told == [b'00000001\n{"state":"cancelled"}', b'00000002\n{"state":"cancelled"}']
    assert broker.puts.result("q", "00000001") == broker.puts.result("q", "00000002") == b'{"state":"cancelled"}'
    assert cancel(broker, 1) is Cancelled.UNKNOWN
    assert drop(broker, "q", "c", [(taken.tag + 1, "00000001")], link) == 1
    assert broker.read(("LLEN", KEY.inbox("me")))[0] == 2  # one ending each


def test_what_has_ended_or_never_was_leaves_no_mark(broker: Broker, link: Link) -> None:
    assert cancel(broker, 9) is Cancelled.UNKNOWN
    put(broker, 1, 2)
    take(broker, link, 1)
    take(broker, link, 0, acks=[1])
    assert cancel(broker, 1) is Cancelled.UNKNOWN
    assert cancel(broker, 2) is Cancelled.REMOVED
    assert cancel(broker, 2) is Cancelled.UNKNOWN
    assert (marks(broker), counter(broker, "cancelled")) == ([], 1)


def test_a_mark_is_told_with_the_next_take_and_never_twice_the_same(broker: Broker, link: Link) -> None:
    put(broker, *range(10))
    assert take(broker, link, 5).cancels == b""
    cancel(broker, 0)
    first = take(broker, link, 1).cancels
    assert broker.takes.marks("q", b"", link) == {"00000000"}
    # Redis' clock steps back: what is marked now counts as later all the same.
    ahead = str(int(first) + 3_600_000).encode()
    broker.read(("HSET", KEY.meta, "cancels", ahead))
    cancel(broker, 1)
    second = take(broker, link, 1).cancels
    assert int(second) > int(ahead)
    assert broker.takes.marks("q", ahead, link) == {"00000001"}
    assert broker.takes.marked("q", ["00000000", "00000001", "00000002"], link) == {"00000000", "00000001"}
    assert broker.takes.marked("q", [], link) == set()


def test_marks_are_capped_by_number_and_age(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    for first in range(0, 10_050, 1050):
        pairs = [part for n in range(first, first + 1050) for part in (2_000_000_000_000 + n, f"x{n}")]
        broker.read(("ZADD", KEY.cancelled, *pairs))
    broker.read(("ZADD", KEY.cancelled, 1, "old"))
    broker.tends.trim("q")
    assert broker.read(("ZCARD", KEY.cancelled))[0] == 10_000
    assert broker.read(("ZSCORE", KEY.cancelled, "old"))[0] is None
    assert cancel(broker, 1) is Cancelled.MARKED
    assert broker.read(("ZCARD", KEY.cancelled))[0] <= 10_001


@pytest.mark.parametrize("where", ["middle", "end", "scheduled"])
def test_the_cost_does_not_grow_with_the_queue(broker: Broker, where: str) -> None:
    for first in range(0, 30_000, 1000):
        put(broker, *range(first, first + 1000), delay=60_000 if where == "scheduled" else 0)
    number, expected = {
        "middle": (15_000, Cancelled.MARKED),
        "end": (29_500, Cancelled.REMOVED),
        "scheduled": (29_900, Cancelled.REMOVED),
    }[where]
    broker.read(("CONFIG", "RESETSTAT"))
    assert cancel(broker, number) is expected
    info = broker.read(("INFO", "commandstats"))[0].decode()
    seen = {line.partition(":")[0]: int(line.partition("calls=")[2].split(",")[0]) for line in info.splitlines()[1:]}
    reads = sum(seen.get(f"cmdstat_{name}", 0) for name in ("lrange", "zrange", "zrevrange"))
    assert 2 <= reads < 60


# -- dropping


def test_a_dropped_delivery_is_gone_and_its_mark_too(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 2)
    cancel(broker, 1)
    assert drop(broker, "q", "c", [(1, "00000001")], link) == 0
    assert owned(broker, "q", "c", link) == {2: entry(2)}
    assert (counter(broker, "cancelled"), counter(broker, "inflight")) == (1, 1)
    assert marks(broker) == []


def test_dropping_the_last_wakes_who_waits_for_the_end(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    with threads() as pool:
        end = started_waiting(broker, pool, broker.tends.wait_drained, "q", 2)
        drop(broker, "q", "c", [(1, "00000001")], link)
        assert end.result() is True


def test_a_drop_that_arrives_again_changes_nothing_and_is_stale(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 2)
    drop(broker, "q", "c", [(1, "00000001")], link)
    before = everything(broker)
    assert drop(broker, "q", "c", [(1, "00000001")], link) == 1
    after = everything(broker)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {KEY.meta.encode()}
    assert (counter(broker, "cancelled"), counter(broker, "stale")) == (1, 1)


def test_a_drop_after_a_reclaim_is_stale_and_the_mark_holds_for_who_takes_it_next(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    cancel(broker, 1)
    reclaim(broker, certain=True)
    assert drop(broker, "q", "c", [(1, "00000001")], link) == 1
    assert marks(broker) == [b"00000001"]
    assert waiting(broker) == [1]
    broker.takes.register("q", "d", link=link)
    taken = take(broker, link, 1, consumer="d")
    assert taken.cancels == broker.takes.cancels("q", link)
    assert drop(broker, "q", "d", [(taken.tag + 1, "00000001")], link) == 0
    assert broker.tends.unfinished("q")[0] == 0


def test_cancelling_again_after_a_reclaim_removes_it(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    assert cancel(broker, 1) is Cancelled.MARKED
    reclaim(broker, certain=True)
    assert cancel(broker, 1) is Cancelled.REMOVED
    assert marks(broker) == []


def test_a_mark_for_a_job_that_gets_done_all_the_same_counts_nothing(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 2)
    cancel(broker, 1)
    assert take(broker, link, 0, acks=[1]).stale == 0
    assert (counter(broker, "done"), counter(broker, "cancelled")) == (1, 0)
    assert cancel(broker, 1) is Cancelled.MARKED  # nobody can tell that it is done: another one still runs


def test_a_requeued_job_is_wanted_again(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 2)
    cancel(broker, 1)
    cancel(broker, 2)
    bury(broker, "q", "c", [(1, b"{}")], link)
    assert operate.requeue(broker, "q", [1]).moved == 1
    assert marks(broker) == [b"00000002"]
    assert broker.takes.marked("q", ["00000001"]) == set()


def test_cancelling_goes_on_at_maxmemory(broker: Broker, link: Link) -> None:
    put(broker, 1, 2, 3)
    take(broker, link, 2)
    with at_maxmemory(broker):
        assert cancel(broker, 3) is Cancelled.REMOVED
        assert cancel(broker, 1) is Cancelled.MARKED
        assert drop(broker, "q", "c", [(1, "00000001")], link) == 0


def test_a_cancel_repeated_after_a_lost_answer_does_no_more(broker: Broker, link: Link) -> None:
    put_by_hand(broker, 1, [1, 2])
    broker.takes.exchange("c", [Acks("q", [])], 1, link)
    assert cancel(broker, 1) is cancel(broker, 1) is Cancelled.MARKED
    assert len(marks(broker)) == 1
    assert cancel(broker, 2) is Cancelled.REMOVED
    assert cancel(broker, 2) is Cancelled.MARKED  # harmless: nobody will ever take it
    assert counter(broker, "cancelled") == 1
    assert take(broker, link, 5).code is Code.OK

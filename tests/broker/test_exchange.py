"""Taking and acking in one step, the lease, and the tokens that wake others."""

from __future__ import annotations

import msgspec
import pytest

from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker, Code, Link, keys
from tests.conftest import Server, until
from tests.steps import KEY, counter, entry, everything, length, number_of, owned, put, take, took, waiting


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 100, 0)
    broker.takes.register("q", "c", link=link)


# -- taking


def test_a_take_gets_the_oldest_and_no_more_than_it_wants(broker: Broker, link: Link) -> None:
    put(broker, 1, 2, 3, 4)
    assert took(broker, link, 3) == [1, 2, 3]
    assert waiting(broker) == [4]


def test_delivery_tags_count_up_and_lead_to_the_entries(broker: Broker, link: Link) -> None:
    put(broker, 1, 2, 3)
    first = take(broker, link, 2)
    second = take(broker, link, 2)
    assert (first.tag, second.tag) == (0, 2)
    assert owned(broker, "q", "c", link) == {1: entry(1), 2: entry(2), 3: entry(3)}
    assert counter(broker, "inflight") == 3


def test_an_empty_entry_that_was_pushed_by_hand_can_be_taken_too(broker: Broker, link: Link) -> None:
    broker.read(("LPUSH", KEY.pending, b""))
    assert take(broker, link, 2).jobs == [b""]
    assert owned(broker, "q", "c", link) == {1: b""}


def test_two_consumers_get_different_jobs_and_tags(broker: Broker, link: Link) -> None:
    broker.takes.register("q", "d", link=link)
    put(broker, 1, 2)
    mine, other = take(broker, link, 1), take(broker, link, 1, consumer="d")
    assert mine.jobs != other.jobs
    assert (mine.tag, other.tag) == (0, 1)
    assert owned(broker, "q", "d", link) == {2: other.jobs[0]}


def test_a_take_from_an_empty_queue_is_empty_and_clears_the_bell(broker: Broker, link: Link) -> None:
    broker.takes.ring("q", link)
    assert take(broker, link, 5) == (Code.OK, 0, 0, [], b"", -1)
    assert length(broker, KEY.bell) == 0


def test_the_bytes_of_taken_jobs_are_no_longer_counted(broker: Broker, link: Link) -> None:
    put(broker, *range(20))
    took(broker, link, 5)
    assert counter(broker, "bytes") == 15 * len(entry(0))
    took(broker, link, 50)
    assert counter(broker, "bytes") == 0


def test_several_queues_are_served_in_their_order_with_one_want(broker: Broker, link: Link) -> None:
    for name in ("a", "b"):
        broker.puts.declare(name, 100)
        broker.takes.register(name, "c", link=link)
        broker.puts.put(name, [entry(1), entry(2), entry(3)])
    replies = broker.takes.exchange("c", [Acks("b", []), Acks("a", [])], 4, link)
    assert [len(reply.jobs) for reply in replies] == [3, 1]
    assert number_of(replies[1].jobs[0]) == 1
    (b, a) = broker.takes.exchange("c", [Acks("b", [1, 2]), Acks("a", [1])], 0, link)
    assert (b.stale, a.stale) == (0, 0)
    assert set(owned(broker, "b", "c", link)) == {3}
    assert owned(broker, "a", "c", link) == {}


# -- acking


def test_an_ack_removes_the_delivery_and_is_counted(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 2)
    assert take(broker, link, 0, acks=[1]).stale == 0
    assert owned(broker, "q", "c", link) == {2: entry(2)}
    assert (counter(broker, "done"), counter(broker, "inflight")) == (1, 1)


def test_an_ack_of_what_is_not_ours_changes_nothing_but_is_counted(broker: Broker, link: Link) -> None:
    broker.takes.register("q", "d", link=link)
    put(broker, 1, 2)
    take(broker, link, 1)
    take(broker, link, 1, consumer="d")
    assert take(broker, link, 0, acks=[2, 77]).stale == 2
    assert counter(broker, "stale") == 2
    assert counter(broker, "done") == 0
    assert set(owned(broker, "q", "d", link)) == {2}


def test_the_same_ack_again_is_stale(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    take(broker, link, 0, acks=[1])
    assert take(broker, link, 0, acks=[1]).stale == 1
    assert (counter(broker, "done"), counter(broker, "inflight")) == (1, 0)


def test_a_thousand_acks_and_a_thousand_jobs_go_through_one_call(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=0)
    for start in (0, 1000):
        put(broker, *range(start, start + 1000))
    first = take(broker, link, 1000)
    second = take(broker, link, 1000, acks=range(1, 1001))
    assert [number_of(raw) for raw in first.jobs + second.jobs] == list(range(2000))
    assert (second.stale, second.tag) == (0, 1000)
    assert (counter(broker, "done"), counter(broker, "inflight")) == (1000, 1000)
    assert set(owned(broker, "q", "c", link)) == set(range(1001, 2001))


def test_five_thousand_deliveries_of_one_consumer_are_kept_and_acked(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=0)
    for start in range(0, 5000, 1000):
        put(broker, *range(start, start + 1000))
    tags = list(range(1, 5001))
    got = [raw for _ in range(5) for raw in take(broker, link, 1000).jobs]
    booked = owned(broker, "q", "c", link)
    assert [booked[tag] for tag in tags] == got == [entry(number) for number in range(5000)]
    assert take(broker, link, 0, acks=tags).stale == 0  # in one call, as after a long outage
    assert counter(broker, "done") == 5000
    assert owned(broker, "q", "c", link) == {}


# -- leases and pauses


def test_who_is_not_registered_takes_nothing(broker: Broker, link: Link) -> None:
    put(broker, 1)
    assert take(broker, link, 1, consumer="stranger") == (Code.NOLEASE, 0, 0, [], b"", -1)
    assert waiting(broker) == [1]


def test_whose_lease_is_over_takes_nothing_but_still_acks(server: Server, broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 1)
    brief = Broker(server.url, settings=msgspec.structs.replace(broker.settings, lease=1.0))
    brief.takes.register("q", "c")
    until(lambda: broker.tends.consumers("q")["c"] <= 0, "the lease is over")
    reply = take(broker, link, 1, acks=[1])
    brief.close()
    assert (reply.code, reply.stale, reply.jobs) == (Code.NOLEASE, 0, [])
    assert waiting(broker) == [2]
    assert counter(broker, "done") == 1
    broker.takes.register("q", "c", link=link)
    assert took(broker, link, 1) == [2]


def test_a_lease_is_prolonged_only_for_whom_is_listed(broker: Broker) -> None:
    broker.read(("ZADD", KEY.consumers, 1, "c"))
    assert broker.tends.consumers("q")["c"] < 0
    assert broker.tends.renew("q", ["c", "stranger"]).leases == 1
    assert list(broker.tends.consumers("q")) == ["c"]
    assert 0 < broker.tends.consumers("q")["c"] <= broker.settings.lease


def test_a_paused_queue_gives_nothing_and_still_settles(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 1)
    operate.pause(broker, "q")
    reply = take(broker, link, 5, acks=[1])
    assert (reply.code, reply.stale, reply.jobs) == (Code.OK, 0, [])
    assert counter(broker, "done") == 1
    assert put(broker, 3).accepted == 1
    operate.resume(broker, "q")
    assert took(broker, link, 5) == [2, 3]


def test_settling_nothing_and_wanting_nothing_changes_nothing(broker: Broker, link: Link) -> None:
    put(broker, 1)
    before = everything(broker)
    take(broker, link, 0)
    assert everything(broker) == before


# -- tokens


def test_a_take_that_leaves_jobs_behind_rings_on(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    broker.read(("DEL", KEY.bell))
    take(broker, link, 1)
    assert length(broker, KEY.bell) == 1


def test_a_take_that_empties_the_queue_clears_the_bell(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 2)
    assert length(broker, KEY.bell) == 0


def test_waiting_for_the_bell_names_the_queue_that_rang(broker: Broker, link: Link) -> None:
    broker.puts.declare("other", 10)
    broker.puts.put("other", [entry(1)])
    assert broker.takes.wait_bell(["q", "other"], 2.0, link) == "other"
    assert broker.takes.wait_bell(["q", "other"], 0.01, link) is None


def test_room_is_rung_when_as_many_fit_as_were_wanted_and_not_before(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=20)
    broker.read(("DEL", KEY.room))
    put(broker, *range(20))
    put(broker, *range(20, 40))  # refused: wants a quarter of the queue
    for left in (4, 3, 2, 1):
        take(broker, link, 1)
        assert length(broker, KEY.room) == 0, f"{left} too early"
    take(broker, link, 1)
    assert length(broker, KEY.room) == 1
    take(broker, link, 1)
    assert length(broker, KEY.room) == 1


def test_the_least_that_anybody_wants_counts(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=20)
    broker.read(("DEL", KEY.room))
    put(broker, *range(20))
    put(broker, *range(20, 40))
    put(broker, 40)
    put(broker, *range(20, 40))
    take(broker, link, 1)
    assert length(broker, KEY.room) == 1


def test_nobody_is_rung_where_nobody_waits(broker: Broker, link: Link) -> None:
    put(broker, *range(20))
    take(broker, link, 20)
    assert length(broker, KEY.room) == 0


def test_a_producer_that_was_woken_rings_on_while_there_is_room(broker: Broker) -> None:
    put(broker, 1, woken=True)
    assert length(broker, KEY.room) == 1


def test_a_producer_that_fills_the_queue_does_not_ring_on(broker: Broker, link: Link) -> None:
    put(broker, *range(100), woken=True)
    assert length(broker, KEY.room) == 0
    take(broker, link, 1)  # but whoever waits behind it hears of the next room
    assert length(broker, KEY.room) == 1


def test_room_for_bytes_is_rung_when_they_are_taken(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=0, maxbytes=2 * len(entry(0)))
    broker.read(("DEL", KEY.room))
    put(broker, 1, 2)
    assert put(broker, 3).accepted == 0
    take(broker, link, 1)
    assert length(broker, KEY.room) == 1
    assert put(broker, 3).accepted == 1


def test_the_last_ack_says_that_the_queue_is_drained(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 2)
    take(broker, link, 0, acks=[1])
    assert length(broker, KEY.drained) == 0
    take(broker, link, 0, acks=[2])
    assert length(broker, KEY.drained) == 1


def test_keys_of_a_queue_lie_in_one_slot() -> None:
    names = [value for value in vars(keys.of("q")).values() if value.startswith("rq:")]
    assert len(names) == 19
    assert all(name.startswith("rq:{q}:") for name in names)


def test_an_empty_queue_rings_even_who_wants_more_than_fits(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=20)
    broker.read(("DEL", KEY.room))
    put(broker, *range(20))
    put(broker, *range(20, 40))  # wants five
    broker.puts.declare("q", 3)
    take(broker, link, 19)
    assert length(broker, KEY.room) == 0
    take(broker, link, 1)
    assert length(broker, KEY.room) == 1


def test_bytes_that_were_pushed_by_hand_are_not_owed(broker: Broker, link: Link) -> None:
    """They were never counted, so taking them makes no more room than there is."""
    operate.configure(broker, "q", maxsize=0, maxbytes=2 * len(entry(0)))
    broker.read(*(("LPUSH", keys.of("q").pending, entry(number)) for number in range(6)))
    took(broker, link, 5)
    assert put(broker, 6, 7, 8).accepted == 2

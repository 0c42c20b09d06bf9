"""What a put does to a queue, and what it leaves alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import pytest
from redis.exceptions import AuthenticationError, BusyLoadingError, OutOfMemoryError, ResponseError

from rq_lite.admin import operate, status
from rq_lite.broker import Broker, Code, Feed, Link, base, keys
from rq_lite.broker import link as connection
from rq_lite.broker.address import Address
from rq_lite.client.queue import LifoQueue, Queue
from rq_lite.errors import BrokerOutOfMemory, BrokerUnavailable, PayloadTooLarge
from rq_lite.model.put_options import Options
from rq_lite.settings import Settings
from tests.conftest import DEADLINE, Server, until
from tests.steps import (
    KEY,
    at_maxmemory,
    bury,
    counter,
    entry,
    everything,
    length,
    now_ms,
    number_of,
    put,
    put_by_hand,
    reclaim,
    take,
    took,
    waiting,
)

SIZE = len(entry(0))


def state(broker: Broker) -> status.QueueState:
    return status.states(broker, ["q"])["q"]


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    """The queue "q" of bound 10, and its consumer "c"."""
    broker.puts.declare("q", 10, 0)
    broker.takes.register("q", "c", link=link)


# -- order and bounds


def test_jobs_are_taken_in_the_order_in_which_they_were_put(broker: Broker, link: Link) -> None:
    put(broker, 1, 2, 3)
    put(broker, 4)
    put(broker, 5, 6)
    assert took(broker, link, 10) == [1, 2, 3, 4, 5, 6]


def test_a_batch_is_accepted_from_its_beginning_as_far_as_the_bound_allows(broker: Broker) -> None:
    put(broker, *range(7))
    reply = put(broker, *range(7, 14))
    assert reply[:4] == (Code.OK, 3, 10, 10)
    assert waiting(broker) == list(range(10))
    assert counter(broker, "put") == 10


def test_a_full_queue_accepts_nothing(broker: Broker) -> None:
    put(broker, *range(10))
    before = waiting(broker)
    assert put(broker, 10).accepted == 0
    assert waiting(broker) == before


def test_the_bound_in_bytes_counts_the_encoded_jobs(broker: Broker) -> None:
    operate.configure(broker, "q", maxbytes=3 * SIZE + 5)
    reply = put(broker, 1, 2, 3, 4, 5)
    assert reply.accepted == 3
    assert reply.bytes == counter(broker, "bytes") == 3 * SIZE
    assert put(broker, 6).accepted == 0
    assert waiting(broker) == [1, 2, 3]


def test_bytes_that_were_miscounted_do_not_outlast_an_empty_queue(broker: Broker) -> None:
    broker.puts.declare("q", 10, 2 * SIZE)
    broker.read(("HSET", KEY.meta, "bytes", 100 * SIZE))  # as after an entry that was removed by hand
    assert put(broker, 1).accepted == 1
    assert state(broker).bytes == SIZE


def test_a_queue_without_bounds_takes_what_comes(broker: Broker) -> None:
    operate.configure(broker, "q", maxsize=0, maxbytes=0)
    for start in range(0, 3000, 1000):
        assert put(broker, *range(start, start + 1000)).accepted == 1000
    assert waiting(broker) == list(range(3000))


def test_a_lowered_bound_drops_nothing_and_admits_nothing(broker: Broker) -> None:
    put(broker, *range(8))
    operate.configure(broker, "q", maxsize=5)
    assert put(broker, 9).accepted == 0
    assert waiting(broker) == list(range(8))


# -- puts of running jobs


@pytest.mark.parametrize("maxbytes", [0, 3 * SIZE])
def test_what_a_job_puts_into_a_queue_of_its_own_worker_goes_beyond_the_bound(broker: Broker, maxbytes: int) -> None:
    operate.configure(broker, "q", maxbytes=maxbytes)
    fit = put(broker, *range(10)).accepted
    assert put(broker, *range(fit, 2000), origin="over app:feed").accepted == 2000 - fit
    assert waiting(broker) == list(range(2000))
    assert put(broker, 0).accepted == 0


def test_headroom_is_how_far_such_puts_may_go(broker: Broker) -> None:
    broker.puts.declare("q", 10, 0, headroom=3)
    assert put(broker, *range(20), origin="over app:feed").accepted == 13
    assert put(broker, 20, origin="over app:feed").accepted == 0
    operate.configure(broker, "q", headroom=4)
    assert put(broker, 13, 14, origin="over app:feed").accepted == 1
    operate.configure(broker, "q", headroom=-1)
    assert put(broker, *range(14, 100), origin="over app:feed").accepted == 86


def test_an_operators_headroom_stands_until_a_program_names_another(broker: Broker) -> None:
    broker.puts.declare("q", 10, 0, headroom=3)
    operate.configure(broker, "q", headroom=0)
    broker.puts.declare("q", 10, 0, headroom=3)
    assert put(broker, *range(20), origin="over app:feed").accepted == 10
    broker.puts.declare("q", 10, 0, headroom=5)
    assert put(broker, *range(10, 20), origin="over app:feed").accepted == 5


def test_a_program_that_names_headroom_starts_after_an_operator_has_removed_it(broker: Broker) -> None:
    broker.puts.declare("q", 10, 0, headroom=3)
    operate.configure(broker, "q", headroom=-1)
    broker.puts.declare("q", 10, 0, headroom=3)
    assert put(broker, *range(20), origin="over app:feed").accepted == 20


def test_a_put_that_headroom_refuses_waits_for_nothing(broker: Broker) -> None:
    broker.puts.declare("q", 10, 0, headroom=3)
    put(broker, *range(20), origin="over app:feed")
    assert broker.read(("HGET", KEY.meta, "wanted"))[0] is None
    put(broker, 20)
    assert broker.read(("HGET", KEY.meta, "wanted"))[0] == b"1"


def test_by_whom_a_queue_is_over_its_bound_is_known_until_it_is_so_the_next_time(broker: Broker, link: Link) -> None:
    put(broker, *range(8))
    put(broker, 8, 9, origin="over app:below")
    put(broker, *range(10, 15), origin="over app:feed")
    put(broker, *range(15, 18), origin="over app:other task")
    assert (state(broker).over, state(broker).over_by) == (8, {"app:feed": 5, "app:other task": 3})
    take(broker, link, 10)
    assert (state(broker).over, state(broker).over_by) == (0, {})
    put(broker, *range(5), origin="over app:later")
    assert (state(broker).over, state(broker).over_by) == (3, {"app:later": 5})
    operate.configure(broker, "q", maxsize=0, maxbytes=SIZE)
    assert (state(broker).over, state(broker).over_bytes) == (0, state(broker).bytes - SIZE)


def test_jobs_that_wait_for_room_are_counted_until_they_have_it(broker: Broker, link: Link) -> None:
    put(broker, *range(10))
    put(broker, 10, origin="wait first 0 0")
    put(broker, 11, origin="wait first 1 0")
    put(broker, 12, origin="wait second 0 0")
    assert state(broker).blocked_jobs == 3
    put(broker, 12)  # a producer's
    take(broker, link, 2)
    put(broker, 10, origin="wait first 1 1")
    assert state(broker).blocked_jobs == 2
    put(broker, 11, origin="wait first 0 1")
    assert state(broker).blocked_jobs == 1
    broker.read(("HSET", KEY.blocked, "second", f"1 {now_ms(broker) - 1}"), ("HSET", KEY.blocked, "hostile", "x"))
    assert state(broker).blocked_jobs == 0  # its process has gone


def test_many_producers_never_exceed_the_bound(broker: Broker) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: put(broker, *range(number, number + 3)), range(0, 60, 3)))
    assert sum(reply.accepted for reply in replies) == 10
    assert length(broker, KEY.pending) == 10


def test_a_job_larger_than_maxbytes_is_refused_for_good(queue: Queue, broker: Broker) -> None:
    operate.configure(broker, "q", maxbytes=SIZE - 1)
    with pytest.raises(PayloadTooLarge, match="never fits its maxbytes"):
        queue.sender.put_entries([entry(1)], Options(wait=None))
    assert waiting(broker) == []


# -- the same put again


def test_a_put_that_is_repeated_answers_the_same_and_adds_nothing(broker: Broker) -> None:
    first = put_by_hand(broker, 1, [1, 2])
    assert put_by_hand(broker, 1, [1, 2]) == first
    assert waiting(broker) == [1, 2]
    assert counter(broker, "put") == 2


def test_a_put_accepted_in_part_is_repeated_with_the_same_part(broker: Broker, link: Link) -> None:
    assert put_by_hand(broker, 1, range(12))[1] == 10
    took(broker, link, 5)  # there is room now, and still the repeated put adds nothing
    assert put_by_hand(broker, 1, range(12))[1] == 10
    assert waiting(broker) == [5, 6, 7, 8, 9]


def test_a_put_that_is_repeated_after_its_job_was_taken_adds_nothing(broker: Broker, link: Link) -> None:
    put_by_hand(broker, 1, [1])
    assert took(broker, link, 1) == [1]
    assert put_by_hand(broker, 1, [1])[:2] == [Code.OK, 1]
    assert waiting(broker) == []


def test_an_older_put_is_stale_and_adds_nothing(broker: Broker) -> None:
    put_by_hand(broker, 10, [1])  # as text, 9 would come after 10
    before = everything(broker)
    assert put_by_hand(broker, 9, [2]) == [Code.STALE]
    assert everything(broker) == before


def test_a_put_is_remembered_for_a_while_only(broker: Broker) -> None:
    put_by_hand(broker, 1, [1])
    assert 0 < broker.read(("PTTL", KEY.producer("p")))[0] <= 60_000


def test_a_put_repeats_itself_when_the_answer_is_lost(server: Server) -> None:
    """The connection is cut when Redis has done its work: nothing is put twice, and nobody notices."""
    broker = Broker(server.url, settings=Settings(url=server.url)).open()
    with broker.core.links.lend() as link:
        call, cuts = link.call, [1]

        def cut(*command: Any) -> Any:
            reply = call(*command)
            if cuts and command[0] == "EVALSHA":
                cuts.pop()
                raise ConnectionResetError("cut")
            return reply

        link.call = cut  # type: ignore[method-assign]
    broker.read(("PING",))
    put(broker, 1)  # loads the script, on the same link
    cuts.append(1)
    assert put(broker, 2).accepted == 1
    assert not cuts
    assert waiting(broker) == [1, 2]
    broker.close()


def test_a_put_that_its_feed_refused_is_not_put_late_once_the_feed_is_back(broker: Broker) -> None:
    mark = ("at", "", "20")
    assert broker.puts.mark_feed("q", "f", [("at", "", "10")]) == 1
    assert put_by_hand(broker, 1, [11], again=True, feed=mark)[:2] == [Code.MOVED, b"10"]
    assert broker.puts.mark_feed("q", "f", [("at", "10", "")]) == 1
    assert put_by_hand(broker, 1, [11], feed=mark)[:2] == [Code.OK, 0]
    assert waiting(broker) == []


@pytest.mark.parametrize("refuse", ["full", "closed", "unknown"])
def test_what_was_refused_is_not_put_by_a_request_that_comes_late(broker: Broker, refuse: str) -> None:
    """Its sender has sent it again, heard that nothing was put, and may put it anew."""
    if refuse == "full":
        put(broker, *range(10))
    elif refuse == "closed":
        operate.shutdown(broker, "q")
    else:
        broker.read(("DEL", KEY.meta))
    refused = {"full": [Code.OK, 0], "closed": [Code.CLOSED], "unknown": [Code.UNDECLARED]}
    assert put_by_hand(broker, 1, [11], again=True)[:2] == refused[refuse]
    broker.puts.declare("q", 10, 0)
    operate.reopen(broker, "q")
    operate.purge(broker, "q")
    assert put_by_hand(broker, 1, [11])[:2] == [Code.OK, 0]
    assert put_by_hand(broker, 2, [12])[:2] == [Code.OK, 1]
    assert waiting(broker) == [12]


def test_a_purge_that_comes_late_leaves_what_was_put_since(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sender gave it up, and sent it again."""
    put(broker, 1)
    run, sent = broker.core.run, []

    def late(name: str, keys_: tuple[str, ...], *args: Any, **link: Any) -> list[Any]:
        if name == "purge":
            sent.append(name)
            if len(sent) == 1:
                args = (args[0], args[1] - 60_000)
        return run(name, keys_, *args, **link)

    monkeypatch.setattr(broker.core, "run", late)
    assert operate.purge(broker, "q") == 1
    assert len(sent) == 2  # the first was refused
    assert waiting(broker) == []


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        ([ConnectionResetError("cut")], "unknown"),
        ([ConnectionResetError("cut"), AuthenticationError("invalid username-password pair")], "unknown"),
        ([ConnectionResetError("cut"), ResponseError("NOPERM this user has no permissions")], "unknown"),
        (
            [ConnectionResetError("cut"), OutOfMemoryError("command not allowed")],
            "unknown",
        ),
        ([BusyLoadingError("Redis is loading the dataset in memory")], "not put"),
        ([AuthenticationError("Authentication required.")], "not put"),
    ],
)
def test_when_it_gives_up_a_put_says_what_is_known_of_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, errors: list[Exception], outcome: str
) -> None:
    """Once an answer was lost, what is answered to the next try does not tell whether the first one was done."""
    monkeypatch.setattr(base, "pauses", lambda: iter([0.0, 0.0, 10.0]))
    left = iter([*errors, errors[-1], errors[-1]])
    with broker.core.links.lend() as link:
        link.call("PING")

        def fail(*_: Any) -> Any:
            raise next(left)

        link.call = fail  # type: ignore[method-assign]
    with pytest.raises(BrokerUnavailable) as caught:
        put(broker, 1, patience=1.0)
    assert caught.value.outcome == outcome
    broker.core.links.close()


@pytest.mark.parametrize("kind", [Queue, LifoQueue])
@pytest.mark.parametrize("options", [{}, {"result_ttl": 60}])
def test_without_a_first_connection_nothing_was_put(kind: type[Queue], options: dict[str, Any]) -> None:
    define: Any = kind("q", broker=Broker(settings=Settings(url="redis://127.0.0.1:1", patience=0.1))).task
    with pytest.raises(BrokerUnavailable, match=r"cannot be reached: .*; nothing was put$") as caught:
        define(name="t", **options)(print).put(1)
    assert (caught.value.outcome, caught.value.put) == ("not put", 0)


def test_many_who_wait_for_a_redis_that_is_away_wait_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one after the other, each with a patience of its own."""
    connects = []

    def refuse(self: Address, connection: Any) -> None:
        connects.append(connection)
        raise ConnectionRefusedError

    monkeypatch.setattr(Address, "connect", refuse)
    monkeypatch.setattr(base, "pauses", lambda: repeat(0.2))
    broker = Broker(settings=Settings(url="redis://127.0.0.1:1", patience=1.0))
    with ThreadPoolExecutor(8) as pool:
        errors = [future.exception(DEADLINE) for future in [pool.submit(put, broker, 1) for _ in range(8)]]
    assert {getattr(error, "outcome", None) for error in errors} == {"not put"}
    assert len(connects) < 20  # who is first, five times; who comes after it, once: not five times each


def test_patience_holds_for_who_waits_for_a_connection(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ANSWER", 0.01)
    broker.core.links = connection.Links(broker.core.address, most=1)
    with broker.core.links.lend(), pytest.raises(BrokerUnavailable, match="all 1 connections wait for it") as caught:
        put(broker, 1, patience=0.01)
    assert caught.value.outcome == "not put"
    put(broker, 2, patience=0.01)
    assert waiting(broker) == [2]
    broker.core.links.close()


def test_a_fork_while_a_first_connection_is_made_makes_its_own(server: Server) -> None:
    """Whoever holds the lock is not there."""
    made = server.broker()
    with made.core._opening:
        child = os.fork()
        if not child:
            try:
                made.open().close()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


# -- a queue that Redis does not know


def test_a_queue_without_a_bound_accepts_nothing(broker: Broker) -> None:
    broker.read(("FLUSHALL",))
    assert put(broker, 1).code is Code.UNDECLARED
    assert everything(broker) == {}


def test_a_queue_declares_itself_again_when_redis_was_emptied(queue: Queue, broker: Broker) -> None:
    queue.sender.put_entries([entry(1)], Options())
    broker.read(("FLUSHALL",))
    queue.sender.put_entries([entry(2)], Options())
    assert waiting(broker) == [2]
    assert counter(broker, "maxsize") == 10
    assert broker.read(("SMEMBERS", keys.QUEUES))[0] == [b"q"]


# -- delays


def test_a_delayed_job_is_scheduled_and_counts_against_the_bound(broker: Broker) -> None:
    before = now_ms(broker)
    put(broker, 1, delay=60_000)
    ((member, score),) = [broker.read(("ZRANGE", KEY.scheduled, 0, -1, "WITHSCORES"))[0]]
    assert number_of(member.partition(b"|")[2]) == 1
    assert before + 60_000 <= int(score) <= now_ms(broker) + 60_000
    assert put(broker, *range(2, 20)).accepted == 9
    assert length(broker, KEY.bell) == 9  # a delayed job wakes nobody


def test_equal_delayed_jobs_stay_two(broker: Broker) -> None:
    put(broker, 1, 1, delay=60_000)
    put(broker, 1, delay=60_000)
    assert broker.read(("ZCARD", KEY.scheduled))[0] == 3


def test_delayed_jobs_of_one_put_come_out_in_their_order(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=200)
    put(broker, *range(120), delay=1)  # their numbers have one, two and three digits
    until(lambda: broker.tends.promote("q")[0] or length(broker, KEY.pending), "the jobs are due")
    assert took(broker, link, 200) == list(range(120))


def test_a_delayed_put_that_is_repeated_adds_nothing(broker: Broker) -> None:
    put_by_hand(broker, 1, [1, 2], delay=60_000)
    put_by_hand(broker, 1, [1, 2], delay=60_000)
    assert broker.read(("ZCARD", KEY.scheduled))[0] == 2


# -- feeds


def test_a_feed_moves_with_the_jobs(broker: Broker) -> None:
    assert put(broker, 1, 2, feed=Feed("f", "at", "", ["10", "20"])).accepted == 2
    assert broker.puts.feed("q", "f") == {"at": "20"}


def test_a_feed_moves_as_far_as_jobs_were_accepted(broker: Broker) -> None:
    put(broker, *range(8))
    assert put(broker, 8, 9, 10, 11, feed=Feed("f", "at", "", ["1", "2", "3", "4"])).accepted == 2
    assert broker.puts.feed("q", "f") == {"at": "2"}


def test_a_feed_stays_where_it_is_when_nothing_was_accepted(broker: Broker) -> None:
    put(broker, *range(10))
    assert put(broker, 10, feed=Feed("f", "at", "", ["1"])).accepted == 0
    assert broker.puts.feed("q", "f") == {}


@pytest.mark.parametrize("expected", ["", "19", "200"])
def test_a_feed_that_was_moved_leaves_everything_untouched(broker: Broker, expected: str) -> None:
    put(broker, 1, feed=Feed("f", "at", "", ["20"]))
    before = everything(broker)
    assert put(broker, 2, feed=Feed("f", "at", expected, ["30"])).code is Code.MOVED
    assert everything(broker) == before


def test_a_feed_mark_is_set_read_and_forgotten(broker: Broker) -> None:
    assert broker.puts.mark_feed("q", "f", [("a", "", "1"), ("b", "", "2")]) == 2
    assert broker.puts.feed("q", "f") == {"a": "1", "b": "2"}
    assert broker.puts.mark_feed("q", "f", [("a", "1", ""), ("b", "2", "3"), ("c", "", "")]) == 3
    assert broker.puts.feed("q", "f") == {"b": "3"}
    many = [(str(i), "", "x") for i in range(1000)]
    assert broker.puts.mark_feed("q", "f", many) == 1000
    assert len(broker.puts.feed("q", "f")) == 1001


def test_a_feed_mark_that_another_has_moved_is_left_alone(broker: Broker) -> None:
    broker.puts.mark_feed("q", "f", [("a", "", "1"), ("b", "", "2")])
    moves = [("a", "", "9"), ("a", "0", ""), ("b", "2", "3"), ("c", "1", "9"), ("c", "1", "")]
    assert broker.puts.mark_feed("q", "f", moves) == 1
    assert broker.puts.feed("q", "f") == {"a": "1", "b": "3"}


# -- the bell


def test_the_bell_has_a_token_for_each_new_job_up_to_a_cap(broker: Broker) -> None:
    operate.configure(broker, "q", maxsize=500)
    put(broker, 1, 2, 3)
    assert length(broker, KEY.bell) == 3
    put(broker, *range(4, 300))
    assert length(broker, KEY.bell) == 64


# -- maxmemory


def test_at_maxmemory_a_put_says_so_and_puts_nothing(broker: Broker) -> None:
    put(broker, 1)
    before = everything(broker)
    with at_maxmemory(broker):
        for options in ({}, {"delay": 1000}, {"feed": Feed("f", "at", "", ["1"])}):
            with pytest.raises(BrokerOutOfMemory, match="nothing more was put"):
                put(broker, 2, **options)
    assert everything(broker) == before


def test_at_maxmemory_the_queue_drains(broker: Broker, link: Link) -> None:
    """Everything that a worker does with jobs goes on, so that there is room again one day."""
    put(broker, *range(10))
    with at_maxmemory(broker):
        broker.takes.register("q", "d", link=link)
        assert broker.tends.renew("q", ["c", "d"]).leases == 2
        first = take(broker, link, 8)
        tags = [first.tag + 1 + index for index in range(len(first.jobs))]
        assert take(broker, link, 0, acks=tags[:1]).stale == 0
        assert bury(broker, "q", "c", [(tags[1], b"{}")], link) == 0
        assert broker.takes.retry("q", "c", [(tags[2], 1)], link) == 0
        assert broker.takes.park("q", "c", [(tags[3], "t")], link) == 0
        assert broker.takes.give_back("q", "c", tags[4:6]) == 0
        assert reclaim(broker, certain=True) == (2, 0)
        until(lambda: broker.tends.promote("q")[0], "the retried job is due")
        assert broker.tends.unfinished("q") == (8, 1)
        operate.configure(broker, "q", maxsize=20)
        operate.resume(broker, "q")
        assert operate.purge(broker, "q") == 8
    assert counter(broker, "done") == counter(broker, "failed") == 1


def test_at_maxmemory_a_worker_can_start_on_a_queue_that_is_known(queue: Queue, broker: Broker) -> None:
    with at_maxmemory(broker):
        assert queue.declare() == (10, 0)
        assert broker.puts.declare("q") == (10, 0)
        broker.tends.announce("w", {"host": "h"}, 60)
    assert broker.read(("HGETALL", keys.worker("w")))[0] == [b"host", b"h"]

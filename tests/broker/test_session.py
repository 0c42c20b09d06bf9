"""The contract of a session, with both of its owners: the greenlets of a consumer, and threads that `get`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pytest
import redis

from rq_lite import Queue
from rq_lite.broker import Acks, Broker, Code, Death, Taken, session
from rq_lite.broker.deliveries import Deliveries
from rq_lite.broker.session import Session
from rq_lite.client import leases
from rq_lite.consumer.consumer import Consumer, Order
from rq_lite.model.outcome import Outcome, Retried
from rq_lite.process.board import Board, new_file, size
from tests.conftest import Server
from tests.faults.proxy import Proxy
from tests.steps import KEY, counter, entry, put, script_digest, waiting

SLOTS = 8


class Driver(Protocol):
    """An owner and its session, one step at a time."""

    session: Session

    def leave(self) -> None: ...

    def here(self) -> list[int]:
        """The tags of what has come and has not ended."""

    def end(self, tag: int, outcome: Outcome = None) -> None: ...


class Greenlets:
    """A consumer whose slots do not begin: what comes waits for them."""

    def __init__(self, broker: Broker, queue: Queue) -> None:
        self._consumer = Consumer(
            broker, "greenlets", Order({"q": 1.0}, strict=True), Board(new_file(size(SLOTS)), SLOTS),
            lambda slot, entry: None, grace=1.0, declare=lambda _: queue.declare() and None,
        )  # fmt: skip
        self.session = self._consumer._session

    def leave(self) -> None:
        self.session.close()

    def here(self) -> list[int]:
        return sorted(self._consumer.held(self.session.deliveries["q"]))

    def end(self, tag: int, outcome: Outcome = None) -> None:
        slots = self._consumer._slots
        (one,) = [one for one in slots._waiting if one[1] == tag]
        slots._waiting.remove(one)
        self._consumer._finished(one[0], tag, outcome)


class Threads:
    """A getter without a thread that waits."""

    def __init__(self, broker: Broker, queue: Queue) -> None:
        self._getter = leases.getter_of(broker, "q", queue.declare)
        self._getter._talk.acquire()  # the duties' thread has to wait
        self.session = self._getter._session

    def leave(self) -> None:
        self._getter._talk.release()
        leases.leave()

    def here(self) -> list[int]:
        return sorted(self._getter._shelf.held(self.session.deliveries["q"]))

    def end(self, tag: int, outcome: Outcome = None) -> None:
        (one,) = [one for one in self._getter._shelf._all() if one.tag == tag]
        if outcome is None:
            self._getter._done(one)
        elif self._getter._shelf.drop(one):
            self._getter._of.outcomes.append((tag, outcome))
        if one in self._getter._shelf.ready:
            self._getter._shelf.ready.remove(one)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.url)
    yield proxy
    proxy.end()


@pytest.fixture(params=[Greenlets, Threads], ids=["greenlets", "threads"])
def driver(request: pytest.FixtureRequest, queue: Queue, broker: Broker, proxy: Proxy) -> Iterator[Driver]:
    """By way of the proxy; the queue holds the jobs 1 to 6."""
    through = Broker(proxy.url, settings=broker.settings)
    put(broker, *range(1, 7))
    driver: Driver = request.param(through, Queue("q", maxsize=10, broker=through))
    yield driver
    driver.leave()
    through.close()


def exchange(driver: Driver, want: int) -> tuple[int, bool]:
    return driver.session.exchange([driver.session.deliveries["q"]], want)


def settled(broker: Broker) -> tuple[int, int, int]:
    """How many are done, in flight, and were refused."""
    return counter(broker, "done"), counter(broker, "inflight"), counter(broker, "stale")


def test_what_has_ended_is_settled_with_the_next_take(driver: Driver, broker: Broker) -> None:
    assert exchange(driver, 2) == (2, True)
    assert driver.here() == [1, 2]
    driver.end(1)
    assert exchange(driver, 1) == (1, True)
    assert (driver.here(), settled(broker)) == ([2, 3], (1, 2, 0))


def test_after_an_error_the_next_look_comes_soon(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was on its way may take effect after the reconcile."""
    monkeypatch.setattr(session, "SOON", -1.0)
    exchange(driver, 1)
    driver.session.reconcile()
    assert not driver.session.audit_due
    driver.session.reconcile(lost=True)
    assert driver.session.audit_due


def test_what_ends_while_an_exchange_is_under_way_is_acked_by_the_next(
    driver: Driver, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exchange(driver, 2) == (2, True)
    driver.end(1)
    takes = driver.session._broker.takes
    ask = takes.exchange

    def meanwhile(*arguments: Any) -> Sequence[Taken]:
        replies = ask(*arguments)
        driver.end(2)
        return replies

    monkeypatch.setattr(takes, "exchange", meanwhile)
    exchange(driver, 0)
    monkeypatch.undo()
    assert settled(broker) == (1, 1, 0)
    exchange(driver, 0)
    assert settled(broker) == (2, 0, 0)


def test_jobs_of_an_answer_that_was_lost_begin_with_the_next_request(
    driver: Driver, broker: Broker, proxy: Proxy
) -> None:
    exchange(driver, 1)
    with proxy.swallow_replies(script_digest(broker, "exchange")), pytest.raises((redis.RedisError, OSError)):
        exchange(driver, 2)
    driver.session.close()
    assert (driver.here(), counter(broker, "inflight")) == ([1], 3)
    exchange(driver, 1)
    assert (driver.here(), settled(broker)) == ([1, 2, 3, 4], (0, 4, 0))


def test_a_result_whose_answer_was_lost_is_told_once(driver: Driver, broker: Broker, proxy: Proxy) -> None:
    exchange(driver, 2)
    driver.end(1)
    with proxy.swallow_replies(script_digest(broker, "exchange")), pytest.raises((redis.RedisError, OSError)):
        exchange(driver, 0)
    driver.session.close()
    driver.end(2)
    exchange(driver, 0)
    assert settled(broker) == (2, 0, 0)


def test_an_outcome_whose_answer_was_lost_is_told_once(driver: Driver, broker: Broker, proxy: Proxy) -> None:
    exchange(driver, 2)
    for tag in (1, 2):
        driver.end(tag, Retried(60_000))
    with proxy.swallow_replies(script_digest(broker, "retry")), pytest.raises((redis.RedisError, OSError)):
        driver.session.settle()
    driver.session.close()
    driver.session.settle()
    assert (counter(broker, "retried"), settled(broker)) == (2, (0, 0, 0))


def test_a_request_that_never_arrived_is_made_up_for(driver: Driver, broker: Broker, proxy: Proxy) -> None:
    exchange(driver, 1)
    driver.end(1)
    with proxy.swallow_requests(script_digest(broker, "exchange")), pytest.raises((redis.RedisError, OSError)):
        exchange(driver, 1)
    driver.session.close()
    exchange(driver, 1)
    assert (driver.here(), settled(broker)) == ([2], (1, 1, 0))


def test_what_an_interruption_kept_from_its_owner_begins_with_the_next_request(
    driver: Driver, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(of: Deliveries, taken: Taken) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(driver.session._owner, "took", interrupted)
        with pytest.raises(KeyboardInterrupt):
            exchange(driver, 2)
    assert driver.here() == []
    exchange(driver, 0)
    assert driver.here() == [1, 2]


def test_a_result_after_the_lease_is_refused_and_counted(
    driver: Driver, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    exchange(driver, 2)
    assert broker.tends.reclaim("q", driver.session.consumer, certain=True)
    driver.end(1)
    assert exchange(driver, 1) == (0, False), "there is no lease"
    assert settled(broker) == (0, 0, 1)
    assert "queue 'q': 1 result came too late, after a reclaim" in caplog.text
    assert exchange(driver, 1) == (1, True), "it has a new one"
    assert driver.session.audit_due, "what has not begun is looked at soon"
    driver.session.reconcile()
    assert driver.here()[-1] == 3
    driver.end(3)
    exchange(driver, 0)
    assert settled(broker) == (1, 0, 1)


def test_what_has_not_begun_and_is_no_longer_owned_does_not_begin(driver: Driver, broker: Broker) -> None:
    exchange(driver, 2)
    broker.tends.reclaim("q", driver.session.consumer, certain=True)
    driver.session.reconcile()
    assert driver.here() == []


def test_after_redis_has_lost_its_data_the_queue_is_known_again(
    driver: Driver, broker: Broker, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    exchange(driver, 2)
    broker.read(("FLUSHALL",))
    assert exchange(driver, 2) == (0, False)
    assert (queue.maxsize, set(broker.tends.consumers("q"))) == (10, {driver.session.consumer})
    put(broker, 7)
    assert exchange(driver, 1)[0] == 1
    assert driver.here() == [1], "the deliveries from before are void: their tags are given again"
    assert "Redis has lost its data, including 2 jobs running here" in caplog.text
    driver.end(1)
    exchange(driver, 0)
    assert settled(broker) == (1, 0, 0)


def test_what_redis_has_forgotten_in_a_failover_is_told_to_nobody(
    driver: Driver, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    exchange(driver, 2)
    driver.end(1)
    broker.read(("DEL", KEY.inflight(driver.session.consumer)))  # a replica that has not heard of the take
    driver.session.unsure = True
    exchange(driver, 0)
    assert (driver.here(), settled(broker)[0], settled(broker)[2]) == ([], 0, 0)
    assert "Redis knows nothing of 1 job running here" in caplog.text


def test_a_delayed_take_is_found_without_an_error(driver: Driver, broker: Broker) -> None:
    exchange(driver, 1)
    with contextlib.closing(broker.link()) as late:
        broker.takes.exchange(driver.session.consumer, [], 0, late)
        from_before = broker.takes.exchange(driver.session.consumer, [acks_of(driver)], 2, late)
    assert from_before[0].code is Code.OK
    driver.session.reconcile()
    assert (driver.here(), settled(broker)) == ([1, 2, 3], (0, 3, 0))


def acks_of(driver: Driver) -> Acks:
    return Acks("q", driver.session.deliveries["q"].acks)


@pytest.mark.parametrize("lost", [False, True])
def test_what_goes_back_waits_first_and_uncharged(driver: Driver, broker: Broker, proxy: Proxy, lost: bool) -> None:
    exchange(driver, 3)
    of = driver.session.deliveries["q"]
    digest = script_digest(broker, "give_back")
    for tag in (2, 3):
        driver.end(tag)
    of.acks.clear()  # they have not ended: they go back
    fails = pytest.raises((redis.RedisError, OSError)) if lost else contextlib.nullcontext()
    with proxy.swallow_replies(digest) if lost else contextlib.nullcontext(), fails:
        driver.session.give_back(of, [2, 3])
    driver.session.close()
    exchange(driver, 0)
    driver.session.reconcile()
    assert (driver.here(), of.leaving, waiting(broker)[:2]) == ([1], set(), [2, 3])
    assert settled(broker) == (0, 1, 0)


def test_a_suspect_is_taken_alone(driver: Driver, broker: Broker) -> None:
    with contextlib.closing(broker.link()) as link:
        for _ in range(2):
            broker.takes.register("q", "dead", link=link)
            broker.takes.exchange("dead", [Acks("q", [])], 1, link)
            broker.tends.reclaim("q", "dead", certain=True, death=Death("killed", charged="all"))
    assert driver.session.isolate(driver.session.deliveries["q"])
    assert len(driver.here()) == 1
    assert not driver.session.isolate(driver.session.deliveries["q"]), "there is no other"


def test_tags_that_begin_again_are_seen_after_an_answer_was_lost(driver: Driver, broker: Broker, proxy: Proxy) -> None:
    """What was adopted has tags, too: its end must not settle the job that has the same tag now."""
    with proxy.swallow_replies(script_digest(broker, "exchange")), pytest.raises((redis.RedisError, OSError)):
        exchange(driver, 1)
    driver.session.close()
    driver.session.reconcile(lost=True)
    assert driver.here() == [1]
    broker.read(("FLUSHALL",))
    assert exchange(driver, 1) == (0, False)
    put(broker, 7)
    exchange(driver, 1)
    assert driver.here() == [1]
    assert settled(broker) == (0, 1, 0)
    driver.end(1)
    exchange(driver, 0)
    assert settled(broker) == (1, 0, 0)


def test_a_suspect_after_redis_has_lost_its_data_is_taken_once(driver: Driver, broker: Broker) -> None:
    exchange(driver, 5)
    broker.read(("FLUSHALL",))
    of = driver.session.deliveries["q"]
    assert driver.session.isolate(of), "there is a new lease"
    broker.read(("RPUSH", KEY.suspects, b"0.2" + entry(8)), ("HSET", KEY.meta, "suspects", 1))
    assert driver.session.isolate(of)
    put(broker, 7)
    exchange(driver, 1)
    driver.session.reconcile()
    assert (driver.here(), settled(broker)) == ([1, 2], (0, 2, 0))


def test_at_a_stop_what_goes_back_begins_nothing(driver: Driver, broker: Broker) -> None:
    """An answer that was lost may have brought jobs; a consumer that ends leaves them to others."""
    exchange(driver, 1)
    of = driver.session.deliveries["q"]
    with contextlib.closing(broker.link()) as late:
        broker.takes.exchange(driver.session.consumer, [Acks("q", [])], 2, late)
    driver.end(1)
    of.acks.clear()
    driver.session.unsure = True
    driver.session.give_back(of, [1], looking=False)
    assert (driver.here(), of.leaving, counter(broker, "inflight")) == ([], set(), 2)


def test_the_end_leaves_nothing(driver: Driver, broker: Broker) -> None:
    exchange(driver, 2)
    driver.session.forget()
    assert (broker.tends.consumers("q"), settled(broker), len(waiting(broker))) == ({}, (0, 0, 0), 6)

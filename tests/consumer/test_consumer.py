"""A consumer in this process, on a real Redis whose connection fails where the test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Generic, TypeVar

import gevent
import pytest
import redis

from rq_lite.admin import operate, status
from rq_lite.broker import Acks, Broker, Cancelled, Link, Taken, session
from rq_lite.broker.consuming import Consuming
from rq_lite.broker.deliveries import Deliveries
from rq_lite.consumer import consumer as module
from rq_lite.consumer.consumer import Consumer, Order, SuspectConsumer
from rq_lite.consumer.slots import Interrupted, Slot
from rq_lite.model.message import VERSION, Message, encode
from rq_lite.model.outcome import Outcome, Retried
from rq_lite.process.board import NEVER, SECOND, Board, new_file, size
from tests.steps import KEY

NEVER_ENDS = 1000.0  # seconds


def board(slots: int) -> Board:
    return Board(new_file(size(slots)), slots)


T = TypeVar("T", bound=Consuming)


class Changed(Broker, Generic[T]):
    """The same Redis, of which a test changes what consumers do with it."""

    takes: T

    def __init__(self, like: Broker, takes: type[T]) -> None:
        super().__init__(like.url, settings=like.settings)
        self.takes = takes(self.core, self.reads, self.puts)


class CutAtRegister(Consuming):
    """The connection is lost at the first registration."""

    cut = False

    def register(self, queue: str, consumer: str, *, link: Link | None = None) -> None:
        if not self.cut:
            self.cut = True
            raise redis.ConnectionError("cut")
        super().register(queue, consumer, link=link)


def test_a_connection_lost_at_the_start_is_a_transient_error(broker: Broker) -> None:
    broken = Changed(broker, CutAtRegister)
    broken.puts.declare("q")
    broken.puts.put("q", [b"{job}"])
    ran: list[bytes] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        ran.append(entry)
        consumer.stop()
        return None

    order = Order({"q": 1.0}, strict=True)
    consumer = Consumer(broken, "c", order, board(2), run, grace=1.0)
    consumer.run()
    broken.close()
    assert broken.takes.cut
    assert ran == [b"{job}"]
    assert broker.tends.unfinished("q")[0] == 0


def test_what_is_cancelled_while_it_waits_for_a_slot_never_starts(broker: Broker) -> None:
    """Taken, and called off before a slot has begun with it: another job of the same take does that."""
    broker.puts.declare("q")
    entries = [encode(Message(VERSION, each, "t")) for each in ("a", "b", "c")]
    broker.puts.put("q", entries)
    ran: list[bytes] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        ran.append(entry)
        if entry == entries[0]:
            assert operate.cancel(broker, "q", "b") is Cancelled.MARKED
            lane = slot.lane
            assert lane is not None
            consumer._cancelling.interrupt(lane, ["b"])  # as when the call is heard
            consumer._cancelling.interrupt(lane, ["b"])
        if entry == entries[2]:
            consumer.stop()
        return None

    consumer = Consumer(broker, "c", Order({"q": 1.0}, strict=True), board(3), run, grace=1.0)
    consumer.run()
    assert ran == [entries[0], entries[2]]
    assert status.states(broker, ["q"])["q"].cancelled == 1
    assert broker.tends.unfinished("q")[0] == 0
    assert broker.read(("EXISTS", "rq:{q}:cancelled"))[0] == 0


class Counted(Consuming):
    """How often the consumer has asked for jobs."""

    exchanges = 0

    def exchange(self, consumer: str, lanes: Sequence[Acks], want: int, link: Link) -> list[Taken]:
        self.exchanges += 1
        return super().exchange(consumer, lanes, want, link)

    def wait_call(self, queues: Sequence[str], consumer: str, link: Link) -> tuple[str, str] | None:
        gevent.sleep(0.1)  # sockets are not patched here, and would block the loop
        return None


def test_jobs_that_come_without_having_been_asked_for_are_no_reason_to_hurry(broker: Broker) -> None:
    """A take that was held up on its way is done when all slots are busy: there are more jobs than slots."""
    counted = Changed(broker, Counted)
    counted.puts.declare("q")
    counted.puts.put("q", [b"{1}", b"{2}", b"{3}"])
    ran: list[bytes] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        ran.append(entry)
        if entry == b"{1}":
            with closing(broker.link()) as late:
                broker.takes.exchange("c", [Acks("q", [])], 2, late)
            consumer._session._audit_at = 0.0
            consumer._news.set()
            gevent.sleep(0.5)
        if len(ran) == 3:
            consumer.stop()
        return None

    consumer = Consumer(counted, "c", Order({"q": 1.0}, strict=True), board(1), run, grace=1.0)
    consumer.run()
    counted.close()
    assert sorted(ran) == [b"{1}", b"{2}", b"{3}"]
    assert broker.tends.unfinished("q")[0] == 0
    assert counted.takes.exchanges < 20


class Listening(Counted):
    """At whose bells the consumer has waited."""

    def __init__(self, *sides: Any) -> None:
        super().__init__(*sides)
        self.bells: list[list[str]] = []

    def wait_bell(self, queues: Sequence[str], seconds: float, link: Link) -> str | None:
        self.bells.append(list(queues))
        gevent.sleep(0.05)
        return None


def test_of_a_queue_of_a_newer_format_nothing_is_taken_and_the_others_are_served(broker: Broker) -> None:
    listening = Changed(broker, Listening)
    for name in ("newer", "q"):
        listening.puts.declare(name)
        listening.puts.put(name, [b"{%s}" % name.encode()])
    broker.read(("HSET", "rq:{newer}:meta", "format", 3))
    ran: list[bytes] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        ran.append(entry)
        if entry == b"{later}":
            consumer.stop()
        else:
            gevent.spawn_later(0.5, listening.puts.put, "q", [b"{later}"])
        return None

    consumer = Consumer(listening, "c", Order({"newer": 1.0, "q": 1.0}, strict=True), board(3), run, grace=1.0)
    consumer.run()
    listening.close()
    assert ran == [b"{q}", b"{later}"]
    assert broker.tends.unfinished("newer") == (1, 0)
    assert listening.takes.bells
    assert all(bells == ["q"] for bells in listening.takes.bells), "its tokens are for consumers that know it"
    assert broker.read(("LLEN", "rq:{newer}:bell"))[0] == 1
    assert listening.takes.exchanges < 40


class NeverRegisters(Consuming):
    """The connection is lost at every registration; somebody stops the consumer at the second."""

    consumer: Consumer
    tries = 0

    def register(self, queue: str, consumer: str, *, link: Link | None = None) -> None:
        self.tries += 1
        if self.tries == 2:
            self.consumer.stop()
        assert self.tries < 10, "it does not stop"
        raise redis.ConnectionError("cut")


def test_who_never_got_through_can_be_stopped(broker: Broker) -> None:
    broken = Changed(broker, NeverRegisters)
    broken.takes.consumer = Consumer(
        broken, "c", Order({"q": 1.0}, strict=True), board(2), lambda slot, entry: None, grace=1000.0
    )
    broken.takes.consumer.run()
    broken.close()
    assert broken.takes.tries == 2


class Unheard(Consuming):
    """No call and no bell comes; sockets are not patched here, and would block the loop."""

    def wait_call(self, queues: Sequence[str], consumer: str, link: Link) -> tuple[str, str] | None:
        gevent.sleep(0.1)
        return None

    def wait_bell(self, queues: Sequence[str], seconds: float, link: Link) -> str | None:
        gevent.sleep(0.1)
        return None


class GoesAway(Changed[Unheard]):
    """Redis, until it is away."""

    away = False
    tries = 0

    def __init__(self, like: Broker, takes: type[Unheard] = Unheard) -> None:
        super().__init__(like, takes)
        run, one = self.core.run, self.core.one

        def tried_run(*args: Any, **options: Any) -> list[Any]:
            self._meanwhile()
            return run(*args, **options)

        def tried_one(command: tuple[Any, ...], link: Link | None) -> Any:
            self._meanwhile()
            return one(command, link)

        self.core.run, self.core.one = tried_run, tried_one  # type: ignore[method-assign]

    def _meanwhile(self) -> None:
        if self.away:
            self.tries += 1
            assert self.tries < 20, "it does not stop"
            raise redis.ConnectionError("away")


@pytest.fixture
def consumer_that(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[GoesAway, Consumer]]:
    """One job is put, and a consumer runs it; an audit is always due."""
    monkeypatch.setattr(session, "AUDIT", 0.001)

    def make(run: Callable[[GoesAway, Consumer], None], grace: float) -> tuple[GoesAway, Consumer]:
        broken = GoesAway(broker)
        broken.puts.declare("q")
        broken.puts.put("q", [b"{job}"])

        def once(slot: Slot[Deliveries], entry: bytes) -> Outcome:
            run(broken, consumer)
            return None

        consumer = Consumer(broken, "c", Order({"q": 1.0}, strict=True), board(2), once, grace=grace)
        return broken, consumer

    return make


def test_a_stop_does_not_wait_for_a_redis_that_is_away(
    consumer_that: Callable[..., tuple[GoesAway, Consumer]], broker: Broker
) -> None:
    def run(broken: GoesAway, consumer: Consumer) -> None:
        broken.away = True
        consumer.stop()

    broken, consumer = consumer_that(run, grace=1000.0)
    consumer.run()
    broken.close()
    assert len(broker.takes.inflight("q", "c")) == 1  # to be reclaimed


def test_with_redis_away_jobs_have_their_grace_time_and_are_told(
    consumer_that: Callable[..., tuple[GoesAway, Consumer]],
) -> None:
    told = []

    def run(broken: GoesAway, consumer: Consumer) -> None:
        broken.away = True
        consumer.stop()
        began = time.monotonic()
        try:
            gevent.sleep(1000)
        finally:
            told.append(time.monotonic() - began)

    broken, consumer = consumer_that(run, grace=0.2)
    consumer.run()
    broken.close()
    (seconds,) = told
    assert seconds >= 0.2


def stop_after_a_try(broken: GoesAway, consumer: Consumer) -> None:
    while not broken.tries:
        gevent.sleep(0.001)
    consumer.stop()


@pytest.mark.parametrize("told", ["while it pauses", "before"])
def test_a_stop_waits_for_no_pause_between_tries(
    consumer_that: Callable[..., tuple[GoesAway, Consumer]], monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """Whether it is told before its first failed exchange or while it pauses after one: deadlines alone count."""
    monkeypatch.setattr(module, "pauses", lambda: iter([NEVER_ENDS] * 10))

    def run(broken: GoesAway, consumer: Consumer) -> None:
        broken.away = True
        if told == "before":
            consumer.stop()
        else:
            gevent.spawn(stop_after_a_try, broken, consumer)
        gevent.sleep(NEVER_ENDS)

    broken, consumer = consumer_that(run, grace=0.1)
    with gevent.Timeout(20):
        consumer.run()
    broken.close()
    assert broken.tries


def test_results_of_which_redis_cannot_hear_hold_up_a_stop_no_longer_than_the_last_tries(
    consumer_that: Callable[..., tuple[GoesAway, Consumer]], monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    monkeypatch.setattr(module, "pauses", lambda: iter([NEVER_ENDS] * 10))
    monkeypatch.setattr(module, "LAST", 0.1)

    def run(broken: GoesAway, consumer: Consumer) -> None:
        broken.away = True
        gevent.spawn(stop_after_a_try, broken, consumer)

    broken, consumer = consumer_that(run, grace=0.1)
    with gevent.Timeout(20):
        consumer.run()
    broken.close()
    assert len(broker.takes.inflight("q", "c")) == 1  # to be reclaimed


class PutMeanwhile(Unheard):
    """When the first job is acked, and that exchange takes nothing, another is put before the answer arrives."""

    listening = False
    token = False
    put = False

    def wait_bell(self, queues: Sequence[str], seconds: float, link: Link) -> str | None:
        self.listening = True
        while not self.token:
            gevent.sleep(0.001)
        self.token = False
        return "q"

    def exchange(self, consumer: str, queues: Sequence[Acks], want: int, link: Link) -> list[Taken]:
        found = super().exchange(consumer, queues, want, link)
        if queues[0].acks and not self.put:
            assert not found[0].jobs
            self.put = self.token = True
            self._puts.put("q", [b"{2}"])
            while self.token:  # the greenlet that listens hears of it first
                gevent.sleep(0.001)
        return found


def test_a_job_that_is_put_while_an_exchange_finds_nothing_is_taken_at_once(broker: Broker) -> None:
    ran: list[bytes] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        ran.append(entry)
        while not changed.takes.listening:
            gevent.sleep(0.001)
        if len(ran) == 2:
            consumer.stop()
        return None

    changed = Changed(broker, PutMeanwhile)
    changed.puts.declare("q")
    changed.puts.put("q", [b"{1}"])
    consumer = Consumer(changed, "c", Order({"q": 1.0}, strict=True), board(2), run, grace=1.0)
    with gevent.Timeout(10):
        consumer.run()
    changed.close()
    assert ran == [b"{1}", b"{2}"]


class LosesTheBell(Unheard):
    """Who listens loses its connection, once."""

    lost = False

    def wait_bell(self, queues: Sequence[str], seconds: float, link: Link) -> str | None:
        gevent.sleep(0.01)
        if not self.lost:
            self.lost = True
            raise redis.TimeoutError("nobody answers")
        return None


def test_when_who_listens_is_cut_off_the_exchange_connects_anew(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own connection may be as dead, and it would take as long again to find that out."""
    deaf = Changed(broker, LosesTheBell)
    deaf.puts.declare("q")
    closed: list[bool] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        consumer.stop()
        return None

    consumer = Consumer(deaf, "c", Order({"q": 1.0}, strict=True), board(2), run, grace=1.0)
    close = consumer._session.link.close

    def told() -> None:
        closed.append(deaf.takes.lost)
        close()
        if len(closed) == 1:
            broker.puts.put("q", [b"{job}"])

    consumer._session.link.close = told  # type: ignore[method-assign]
    with caplog.at_level("DEBUG", logger="rq_lite.consumer"):
        consumer.run()
    deaf.close()
    assert closed[0]
    assert [record.message for record in caplog.records] == ["Redis: nobody answers", "Redis answers again"]
    assert broker.tends.unfinished("q")[0] == 0


def test_the_end_of_many_runs_is_told_before_the_consumer_ends(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of more than fit into one step."""
    monkeypatch.setattr(session, "MOST", 2)
    there = GoesAway(broker)
    there.puts.declare("q")
    there.puts.put("q", [b"{%d}" % number for number in range(5)])
    begun: list[bytes] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        begun.append(entry)
        if len(begun) == 5:
            consumer.stop()
        while len(begun) < 5:
            gevent.sleep(0.01)
        return Retried(60_000)

    consumer = Consumer(there, "c", Order({"q": 1.0}, strict=True), board(5), run, grace=10.0)
    consumer.run()
    there.close()
    assert broker.takes.inflight("q", "c") == set()
    assert status.states(broker, ["q"])["q"].retried == 5


class CalledOnce(Unheard):
    """A call that came before the job was requeued, which took its mark."""

    called = False

    def wait_call(self, queues: Sequence[str], consumer: str, link: Link) -> tuple[str, str] | None:
        gevent.sleep(0.01)
        self.called, first = True, not self.called
        return ("q", "x") if first else None


def test_an_old_call_does_not_cancel_a_job_that_was_requeued(broker: Broker) -> None:
    old = Changed(broker, CalledOnce)
    old.puts.declare("q")
    old.puts.put("q", [encode(Message(VERSION, "x", "t"))])

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        slot.deadline = time.monotonic_ns() + 60 * SECOND
        while not old.takes.called:
            gevent.sleep(0.01)
        gevent.sleep(0.1)
        slot.deadline = NEVER
        consumer.stop()
        return None

    consumer = Consumer(old, "c", Order({"q": 1.0}, strict=True), board(1), run, grace=10.0)
    consumer.run()
    old.close()
    state = status.states(broker, ["q"])["q"]
    assert (state.done, state.cancelled) == (1, 0)


def test_a_busy_consumer_looks_for_marks_of_which_it_heard_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes nothing that could tell it, and the call was lost."""
    monkeypatch.setattr(session, "AUDIT", 0.1)
    monkeypatch.setattr(module, "AUDIT", 0.1)
    quiet = Changed(broker, Unheard)
    quiet.puts.declare("q")
    quiet.puts.put("q", [encode(Message(VERSION, "x", "t"))])
    ended: list[type[BaseException]] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        slot.deadline = time.monotonic_ns() + 60 * SECOND
        broker.read(("ZADD", KEY.cancelled, 1, "x"), ("HSET", KEY.meta, "cancels", 1))
        try:
            gevent.sleep(30)
        except BaseException as error:
            ended.append(type(error))
        consumer.stop()
        return None

    consumer = Consumer(quiet, "c", Order({"q": 1.0}, strict=True), board(1), run, grace=1.0)
    consumer.run()
    quiet.close()
    assert ended == [Interrupted]


def test_a_consumer_of_suspects_passes_over_a_queue_of_a_newer_format(broker: Broker) -> None:
    for name in ("newer", "q"):
        broker.puts.declare(name)
    broker.read(("HSET", "rq:{newer}:meta", "format", 3))
    broker.read(("RPUSH", KEY.suspects, b"0.2{job}"), ("HSET", KEY.meta, "suspects", 1))
    ran: list[bytes] = []

    def run(slot: Slot[Deliveries], entry: bytes) -> Outcome:
        ran.append(entry)
        return None

    quiet = Changed(broker, Unheard)
    order = Order({"newer": 1.0, "q": 1.0}, strict=True)
    SuspectConsumer(quiet, "c", order, board(1), run, grace=1.0).run()
    quiet.close()
    assert ran == [b"0.2{job}"]
    assert broker.tends.unfinished("q")[0] == 0

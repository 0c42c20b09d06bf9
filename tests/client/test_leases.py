"""What is leased by a process whose threads, forks and Redis come in between."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from rq_lite import Queue
from rq_lite.broker import Broker
from rq_lite.client import leases
from rq_lite.client.get import Getter
from rq_lite.client.shelf import Delivery
from rq_lite.errors import BrokerUnavailable, Empty
from rq_lite.model.message import VERSION, Message, encode
from rq_lite.process.reentry import interrupts
from rq_lite.settings import Settings
from tests.conftest import OLDEST, Server, until
from tests.steps import counter, threads


def test_an_item_is_chosen_and_settled_in_one_step(
    queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two threads that have got nothing themselves could choose the same one of the process."""
    queue.put("a")
    queue.get()
    getter = queue.items.getter
    done = getter._done

    def settle(held: Delivery) -> None:
        assert interrupts(getter._guard)
        done(held)

    monkeypatch.setattr(getter, "_done", settle)
    with threads() as pool:
        pool.submit(queue.task_done).result(30)
    assert counter(broker, "done") == 1


@pytest.mark.parametrize("how", ["give back", "bury"])
def test_what_goes_back_is_not_found_again_by_a_look_at_what_is_owned(queue: Queue, broker: Broker, how: str) -> None:
    queue.put("a")
    held = queue.items.take(None)
    getter = held.getter
    with threads() as pool:
        with getter._talk:  # an exchange of another thread is under way
            back = getter.give_back if how == "give back" else partial(getter.bury, error=OSError())
            future = pool.submit(back, held)
            getter._session._audit_at = 0.0
            getter._exchange(0)
            assert getter.ready == 0
        future.result(30)
    assert getter.ready == 0
    assert broker.puts.size("q")[0] == (how == "give back")
    assert broker.takes.inflight("q", getter._consumer) == set()


def give_back(queue: Queue, held: Delivery) -> None:
    held.getter.give_back(held)


def bury(queue: Queue, held: Delivery) -> None:
    held.getter.bury(held, OSError())


def close(queue: Queue, held: Delivery) -> None:
    queue.close()


@pytest.mark.parametrize("let_go", [give_back, bury, close])
def test_what_goes_back_over_a_broken_connection_is_not_found_again(
    queue: Queue, broker: Broker, let_go: Callable[[Queue, Delivery], None]
) -> None:
    """The request was never done when the look finds the item still owned: it must not be for the next `get` here."""
    queue.put("a")
    held = queue.items.take(None)
    getter = held.getter
    getter._session.link.drop()
    let_go(queue, held)
    assert getter.ready == 0
    assert broker.puts.size("q")[0] == (let_go is not bury)
    assert broker.takes.inflight("q", getter._consumer) == set()


def test_what_was_taken_ahead_goes_back_once_over_a_broken_connection(broker: Broker) -> None:
    hasty = Queue("q", maxsize=10, broker=broker, ahead=2)
    for item in range(3):
        hasty.put(item)
    assert hasty.get() == 0
    getter = hasty.items.getter
    assert getter.ready == 2
    getter._session.link.drop()
    getter._return_spare()
    assert (getter.ready, broker.puts.size("q")[0]) == (0, 2)


def test_task_done_settles_nothing_of_a_thread_that_has_ended(queue: Queue, broker: Broker) -> None:
    """Though its number is that of a thread which came later."""
    for item in "ab":
        queue.put(item)
    got: list[str] = []
    first = threading.Thread(target=lambda: got.append(queue.get()))
    first.start()
    first.join(30)

    def get_and_settle() -> None:
        if threading.get_ident() == first.ident:
            got.append(queue.get())
            queue.task_done()

    while len(got) < 2:  # the system gives the number to one of the next threads, as a rule to the very next
        later = threading.Thread(target=get_and_settle)
        later.start()
        later.join(30)
    leases.leave()
    assert queue.get(timeout=10) == "a"
    assert counter(broker, "done") == 1


def test_brokers_with_other_settings_share_nothing(broker: Broker) -> None:
    """Else what has no signature would be read, or what needs none be buried."""
    strict = Broker(broker.url, settings=msgspec.structs.replace(broker.settings, secret="s" * 32))
    plain, signed = Queue("plain", broker=broker), Queue("signed", broker=strict)
    plain.put(1)
    assert plain.get() == 1
    plain.task_done()
    signed.put("a")
    broker.puts.put("signed", [encode(Message(VERSION, "x", "", ["unsigned"]))])
    assert signed.get(timeout=10) == "a"
    with pytest.raises(Empty):
        signed.get(timeout=0.1)
    assert (broker.puts.size("signed")[0], len(broker.takes.inflight("signed", signed.items.getter._consumer))) == (
        0,
        1,
    )
    signed.close()
    assert broker.puts.size("signed")[0] == 1
    plain.put(2)
    assert plain.get(timeout=10) == 2
    leases.leave()
    strict.close()


def test_brokers_with_the_same_settings_are_one_consumer_and_each_can_close(broker: Broker) -> None:
    twin = Broker(broker.url, settings=broker.settings)
    one, other = Queue("one", broker=broker), Queue("other", broker=twin)
    for queue in (one, other):
        queue.put(1)
        assert queue.get() == 1
    assert one.items.getter._consumer == other.items.getter._consumer
    other.close()
    assert (broker.puts.size("one")[0], broker.puts.size("other")[0]) == (0, 1)
    leases.leave()
    twin.close()


def test_at_the_end_redis_is_waited_for_once(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many queues there are."""
    for name in "abc":
        queue = Queue(name, broker=broker)
        queue.put(1)
        queue.get()
    asked: list[str] = []

    def away(getter: Getter, patience: float | None = None) -> None:
        asked.append(getter.queue)
        raise BrokerUnavailable("gone")

    monkeypatch.setattr(Getter, "give_all_back", away)
    leases.leave()
    assert len(asked) == 1


class Cut(BaseException):
    """As a signal handler may raise it."""


@pytest.mark.parametrize("error", [BrokerUnavailable("gone"), Cut()])
def test_a_get_that_is_cut_short_after_it_has_chosen_leaves_its_item_to_the_next(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    queue = Queue("q", maxsize=10, broker=broker)
    for item in "abc":
        queue.put(item)
    getter = queue.items.getter
    take, back = getter._take, broker.takes.give_back
    monkeypatch.setattr(getter, "_take", lambda _: take(2))  # more than was asked for, as when a lost answer is found

    def fail(*_: object, **__: object) -> None:
        monkeypatch.setattr(broker.takes, "give_back", back)
        raise error

    monkeypatch.setattr(broker.takes, "give_back", fail)
    got = []
    with contextlib.suppress(Cut):
        got.append(queue.get())
    assert got == ([] if isinstance(error, Cut) else ["a"])
    if not got:
        assert queue.get() == "a"
    queue.task_done()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


def test_a_fork_has_nothing_of_what_its_parent_has_got(queue: Queue, broker: Broker) -> None:
    queue.put("a")
    with queue.lease() as item:
        (held,) = next(iter(queue.items.getter._shelf._held.values()))
        child = os.fork()
        if not child:
            try:
                held.getter.give_back(held)
                held.getter.settle(held)
                with pytest.raises(ValueError, match="too many times"):
                    queue.task_done()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert (item, broker.puts.size("q")[0]) == ("a", 0)
    assert (counter(broker, "done"), counter(broker, "stale")) == (1, 0)


def test_the_end_does_not_wait_for_a_redis_that_is_gone(tmp_path: Path) -> None:
    server = Server(OLDEST, tmp_path).start()
    ever = Broker(server.url, settings=Settings(url=server.url, patience=10_000.0))
    for name in ("q", "r"):
        queue = Queue(name, broker=ever)
        queue.put(1)
        queue.get()
        queue.task_done()
    server.kill()
    leases.leave()
    ever.close()


def test_what_could_not_go_back_at_a_close_is_not_kept_for_ever(
    queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away when the queue was closed; the next reconcile finds the items, and they go back then."""
    for item in "abc":
        queue.put(item)
    queue.get()
    queue.get()
    getter = queue.items.getter

    def away(*_: object) -> None:
        raise BrokerUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(getter._session, "exchange", away)
        getter._of.acks.append(999)
        with pytest.raises(BrokerUnavailable):
            queue.close()
    getter._session._audit_at = 0.0
    until(lambda: broker.puts.size("q")[0] == 3, "they went back")

"""A queue that no program uses any more is deleted, and only such a one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

from rq_lite.admin import operate, status
from rq_lite.broker import Broker, Death, Feed, Link, keys
from rq_lite.cli import cli
from rq_lite.errors import BrokerUnsuitable
from tests.conftest import Server
from tests.steps import KEY, bury, everything, put, take

Fill = Callable[[Broker, Link], object]


@pytest.fixture
def link(broker: Broker) -> Iterator[Link]:
    broker.puts.declare("q", 100, 0)
    link = broker.link()
    yield link
    link.close()


def dead(broker: Broker, link: Link) -> None:
    in_flight(broker, link)
    bury(broker, "q", "c", [(1, b"{}")], link)
    leave(broker)


def suspected(broker: Broker, link: Link) -> None:
    broker.puts.put("q", [b"0.1" + b'{"v":1,"id":"1","task":"t"}'])
    broker.takes.register("q", "c", link=link)
    take(broker, link, 1)
    broker.tends.reclaim("q", "c", certain=True, death=Death("d"))


def in_flight(broker: Broker, link: Link) -> None:
    put(broker, 1)
    broker.takes.register("q", "c", link=link)
    take(broker, link, 1)


def abandoned(broker: Broker, link: Link) -> None:
    in_flight(broker, link)
    leave(broker)


def leave(broker: Broker) -> None:
    """The lease of the consumer ends."""
    broker.read(("ZADD", KEY.consumers, 1, "c"))


def planned(broker: Broker, _: Link) -> None:
    broker.plans.plan("nightly", b"", b'{"every":1000,"queue":"q","task":"t"}', 2_000_000_000_000)


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (lambda broker, _: put(broker, 1, 2), "2 waiting"),
        (lambda broker, _: put(broker, 1, delay=60_000), "1 scheduled"),
        (suspected, "1 waiting to run alone"),
        (in_flight, "1 in flight, consumers that serve it: 1"),
        (abandoned, "1 in flight"),
        (dead, "1 in the dead set"),
        (lambda broker, link: broker.takes.register("q", "c", link=link), "consumers that serve it: 1"),
        (planned, "the schedule nightly"),
    ],
)
def test_a_queue_that_is_used_is_not_deleted_and_the_command_says_why(
    broker: Broker, link: Link, server: Server, fill: Fill, said: str
) -> None:
    fill(broker, link)
    before = everything(broker)
    result = CliRunner().invoke(cli, ["queue", "delete", "q", "--url", server.url])
    assert result.exit_code == 1
    assert str(result.exception).startswith(f"queue 'q' is not deleted: {said}. Stop what uses it; ")
    assert everything(broker) == before


def test_nothing_of_a_deleted_queue_is_left_but_what_expires(broker: Broker, link: Link, server: Server) -> None:
    put(broker, 1, feed=Feed("f", "position", "", ["1:2"]))
    broker.puts.declare("q:feed")  # of another queue, though its name looks like a feed's
    broker.takes.register("q", "c", link=link)
    take(broker, link, 1)
    take(broker, link, 0, acks=[1])
    leave(broker)
    operate.pause(broker, "q")
    operate.configure(broker, "q", maxsize=7)
    broker.plans.plan("other", b"", b'{"every":1000,"queue":"r","task":"t"}', 2_000_000_000_000)
    result = CliRunner().invoke(cli, ["queue", "delete", "q", "--url", server.url])
    assert (result.exit_code, result.stdout) == (0, "queue 'q' is deleted\n")
    assert status.queues(broker) == ["q:feed"]
    left = [name for name in everything(broker) if name.startswith(KEY.prefix.encode())]
    assert left
    assert all(broker.read(("PTTL", name))[0] > 0 for name in left)
    broker.puts.declare("q", 100, 0)
    put(broker, 2)
    assert status.states(broker, ["q"])["q"].pending == 1


def test_a_program_that_still_uses_a_deleted_queue_makes_it_again(broker: Broker, link: Link) -> None:
    assert operate.delete(broker, "q") == []
    assert broker.read(("EXISTS", KEY.meta, keys.QUEUES))[0] == 0
    assert broker.puts.declare("q", 5, 0) == (5, 0)
    assert status.queues(broker) == ["q"]


def test_a_queue_of_a_newer_format_is_left_alone(broker: Broker, link: Link) -> None:
    broker.read(("HSET", KEY.meta, "format", 3))
    with pytest.raises(BrokerUnsuitable, match="newer format"):
        operate.delete(broker, "q")
    assert status.queues(broker) == ["q"]


def test_an_unknown_queue_is_said_to_be_unknown(broker: Broker, link: Link, server: Server) -> None:
    result = CliRunner().invoke(cli, ["queue", "delete", "nope", "--url", server.url])
    assert result.exit_code != 0
    assert "unknown queue 'nope'; known queues: q" in str(result.exception)

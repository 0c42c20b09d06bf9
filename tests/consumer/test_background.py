"""Work beside the jobs of a consumer: it begins when it is asked for, and survives errors of Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import pytest

from rq_lite.broker import Broker, Link
from rq_lite.consumer import background
from rq_lite.consumer.background import Background


def turn() -> None:
    """Let the other greenlets go on until all of them wait."""
    for _ in range(10):
        gevent.idle()


def doing(*steps: Callable[[Link], bool]) -> tuple[Callable[[Link], bool], list[Link]]:
    """Work that has these steps, and the links with which it was called."""
    links: list[Link] = []
    left: Iterator[Callable[[Link], bool]] = iter(steps)

    def work(link: Link) -> bool:
        links.append(link)
        return next(left)(link)

    return work, links


def test_there_is_nothing_until_it_begins(broker: Broker) -> None:
    work, links = doing(lambda _: False, lambda _: False)
    one = Background(broker, work)
    turn()
    assert links == []
    one.begin()
    one.begin()
    turn()
    assert len(links) == 1
    one.begin()
    turn()
    assert len(links) == 2


def test_it_goes_on_while_there_is_more(broker: Broker) -> None:
    work, links = doing(lambda _: True, lambda _: True, lambda _: False)
    Background(broker, work).begin()
    turn()
    assert len(links) == 3


def test_what_begins_while_it_works_is_not_lost(broker: Broker) -> None:
    def begins(_: Link) -> bool:
        one.begin()
        return False

    work, links = doing(begins, lambda _: False)
    one = Background(broker, work)
    one.begin()
    turn()
    assert len(links) == 2


def test_after_an_error_of_redis_it_tries_again_on_a_new_connection(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PAUSE", 0.0)
    connections: list[int] = []

    def fails(link: Link) -> bool:
        connections.append(link.call("CLIENT", "ID"))
        link.call("NO-SUCH-COMMAND")
        return False

    def works(link: Link) -> bool:
        connections.append(link.call("CLIENT", "ID"))
        return False

    work, links = doing(fails, works)
    Background(broker, work).begin()
    turn()
    links[0].close()  # in a consumer it lives as long as the process
    first, second = connections
    assert first != second

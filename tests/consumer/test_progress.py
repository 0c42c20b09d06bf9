"""How far a job is: written while it runs, heard by who waits, gone with its run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rq_lite.broker import Broker, Link
from rq_lite.client.job import Job
from rq_lite.model.message import VERSION, Message, encode, marked
from tests.steps import KEY, drop, everything, put, take


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 0, 0)
    broker.takes.register("q", "c", link=link)


def say(broker: Broker, link: Link, number: int, tag: int, detail: bytes, consumer: str = "c") -> None:
    head = b'"consumer":"%s","tag":%d' % (consumer.encode(), tag)
    broker.takes.progress("q", consumer, f"{number:08}", tag, head, detail, link)


def shown(broker: Broker) -> dict[str, Any]:
    flat = broker.read(("HGETALL", KEY.progress))[0]
    return {flat[i].decode(): json.loads(flat[i + 1]) for i in range(0, len(flat), 2)}


def test_it_is_written_for_status_and_for_who_asks(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    say(broker, link, 1, 1, b'"done":3,"total":10,"note":"x"')
    (found,) = shown(broker).values()
    assert found.pop("at") > 0
    assert found == {"consumer": "c", "tag": 1, "done": 3, "total": 10, "note": "x"}
    progress = Job(id="00000001", queue="q", task="t", broker=broker).progress
    assert progress is not None
    assert (progress.done, progress.total, progress.note) == (3, 10, "x")
    assert Job(id="00000002", queue="q", task="t", broker=broker).progress is None


def test_who_waits_hears_of_it_and_then_of_the_end(broker: Broker, link: Link) -> None:
    job = encode(Message(VERSION, "00000001", "t", result_ttl=60))
    broker.puts.put("q", [marked(job, "00000001", tracked=True)])
    take(broker, link, 1)
    broker.puts.watch("q", "me", ["00000001"])
    say(broker, link, 1, 1, b'"done":3')
    assert broker.read(("LRANGE", KEY.inbox("me"), 0, -1))[0] == [b'00000001\n{"state":"progress","done":3}']
    drop(broker, "q", "c", [(1, "00000001")], link)
    assert broker.read(("LINDEX", KEY.inbox("me"), 0))[0] == b'00000001\n{"state":"cancelled"}'


def test_the_end_of_a_run_takes_back_what_it_said(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    before = everything(broker)
    say(broker, link, 1, 1, b'"done":3')
    say(broker, link, 1, 1, b"")
    assert everything(broker) == before
    say(broker, link, 1, 1, b"")
    assert everything(broker) == before


def test_nothing_is_written_for_what_is_not_ours_any_more(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    take(broker, link, 0, acks=[1])
    before = everything(broker)
    say(broker, link, 1, 1, b'"done":3')
    assert everything(broker) == before


def test_the_end_of_an_earlier_run_leaves_a_later_one_alone(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    say(broker, link, 1, 1, b'"done":9')
    broker.takes.give_back("q", "c", [1])
    broker.takes.register("q", "d", link=link)
    take(broker, link, 1, consumer="d")
    say(broker, link, 1, 2, b'"done":1', consumer="d")
    say(broker, link, 1, 1, b"")
    assert shown(broker)["00000001"]["done"] == 1
    assert broker.puts.progress_of("q", "00000001") is not None


def test_status_shows_twenty_at_most_and_who_is_silent_makes_room(broker: Broker, link: Link) -> None:
    put(broker, *range(30))
    take(broker, link, 30)
    for number in range(25):
        say(broker, link, number, number + 1, b'"done":1')
    assert len(shown(broker)) == 20
    assert broker.puts.progress_of("q", "00000024") is not None
    broker.read(("HSET", KEY.progress, "00000003", b'{"tag":4,"done":1,"at":1}'))
    say(broker, link, 29, 30, b'"done":1')
    assert len(shown(broker)) == 20
    assert "00000029" in shown(broker)
    assert "00000003" not in shown(broker)

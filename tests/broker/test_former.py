"""A Redis with keys that an older rq_lite has left says so once, at the start; one that RQ uses says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from rq_lite import Settings
from rq_lite.broker import Broker, Code, former
from tests.admin.test_status import sent
from tests.conftest import Server
from tests.steps import put

QUEUES, SCHEDULES = ("SADD", "rq:queues", "pages", "rows"), ("HSET", "rq:schedules", "nightly", "{}")
DUE = ("ZADD", "rq:schedules:due", 1, "nightly")
RQS = ("SADD", "rq:queues", "rq:queue:default", "rq:queue:pages")


@pytest.fixture(autouse=True)
def emptied(broker: Broker) -> Iterator[None]:
    yield
    broker.read(("FLUSHALL",))


def told(server: Server, caplog: pytest.LogCaptureFixture, **options: Any) -> list[str]:
    """What is logged when a broker connects, and puts."""
    caplog.clear()
    with closing(Broker(server.url, settings=Settings(url=server.url, patience=0.1), **options)) as made:
        made.open()
        made.puts.declare("q")
        assert put(made, 1).code is Code.OK
    return [record.getMessage() for record in caplog.records]


def test_an_empty_redis_and_one_with_our_keys_say_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    assert told(server, caplog) == []
    assert told(server, caplog) == []


@pytest.mark.parametrize(
    ("there", "shown", "commands"),
    [
        ([QUEUES], "rq:queues with pages rows", "DEL rq:queues"),
        ([SCHEDULES], "rq:schedules", "DEL rq:schedules"),
        (
            [QUEUES, SCHEDULES, DUE],
            "rq:queues with pages rows, rq:schedules, rq:schedules:due",
            "DEL rq:queues rq:schedules rq:schedules:due",
        ),
        ([QUEUES, RQS], "rq:queues with pages rows", "SREM rq:queues pages rows"),
        (
            [QUEUES, RQS, DUE],
            "rq:queues with pages rows, rq:schedules:due",
            "SREM rq:queues pages rows; DEL rq:schedules:due",
        ),
    ],
)
def test_old_keys_are_named_with_what_to_do(
    server: Server,
    broker: Broker,
    caplog: pytest.LogCaptureFixture,
    there: list[tuple[Any, ...]],
    shown: str,
    commands: str,
) -> None:
    broker.read(*there)
    (line,) = told(server, caplog)
    assert line == (
        f"Redis at {server.url} holds keys of an rq_lite before 0.1.0, which this version does not read: {shown}. Let "
        f"the old workers finish, stop them, delete these keys (redis-cli: {commands}) and add the schedules again"
    )
    assert told(server, caplog, quiet=True) == []
    broker.read(*(tuple(command.split()) for command in commands.split("; ")))
    assert told(server, caplog) == []
    assert broker.read(("EXISTS", "rq:queues"))[0] == (RQS in there)


def test_many_old_queues_are_counted(server: Server, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.read(("SADD", "rq:queues", *[f"q{number:03}" for number in range(500)], *RQS[2:]))
    (line,) = told(server, caplog)
    assert f"q{former.NAMED - 1:03} (and 490 more)" in line
    assert f"q{former.NAMED:03}" not in line


@pytest.mark.parametrize(
    "there",
    [
        [RQS],
        [("SADD", "rq:queues", *[f"rq:queue:{number}" for number in range(3000)])],
        [("SADD", "rq:queues", "no name \x1b[2J", b"\xff")],
        [("SET", "rq:queues", "another program's"), ("HSET", "rq:worker:w", "host", "h")],
        [("ZADD", "rq:scheduler:scheduled_jobs", 1, "job"), ("SADD", "rq:workers", "rq:worker:w")],
    ],
)
def test_what_is_not_ours_is_no_reason_to_warn(
    server: Server, broker: Broker, caplog: pytest.LogCaptureFixture, there: list[tuple[Any, ...]]
) -> None:
    broker.read(*there)
    assert told(server, caplog) == []


def test_a_user_who_may_not_look_begins_all_the_same(
    server: Server, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.read(QUEUES, ("ACL", "SETUSER", "narrow", "reset", "on", ">pw", "~rq:{*", "~rq-lite:*", "+@all"))
    narrow = Server(server.program, server.folder)
    narrow.url = f"unix://narrow:pw@{server.socket}"
    assert told(narrow, caplog) == []
    broker.read(("ACL", "DELUSER", "narrow"))


def test_the_look_costs_once_and_no_job(server: Server, broker: Broker) -> None:
    with closing(server.broker()) as made:
        broker.read(("CONFIG", "RESETSTAT"))
        made.open()
        assert {name: count for name, count in sent(broker).items() if name != "client"} == {"sscan": 1, "exists": 3}
        made.puts.declare("q")
        for number in range(5):
            put(made, number)
        found = sent(broker)
    assert (found["sscan"], found["exists"], found["evalsha"]) == (1, 3, 6)

"""Whatever way a signed job takes through Redis, it comes out as it was put."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from rq_lite.broker import Broker, Link, dead
from rq_lite.broker.codec import VERSION, Message, decode, encode, marked
from rq_lite.broker.signing import Refused
from tests.conftest import Server, until
from tests.redis.steps import KEY, reclaim, take

TEXT = encode(Message(VERSION, "id-1", "t", ["x"]))


@pytest.fixture
def broker(server: Server, broker: Broker) -> Iterator[Broker]:
    signing = server.broker(secret="a secret for these tests", park=0).open()
    signing.declare("q", 10)
    signing.register("q", "c")
    yield signing
    signing.close()


def put(broker: Broker, *, tracked: bool = False) -> bytes:
    entry = marked(broker.seal("q", TEXT), "id-1", priority=2.5, tracked=True) if tracked else broker.seal("q", TEXT)
    assert broker.put("q", [entry]).accepted == 1
    return entry


def took(broker: Broker, link: Link) -> tuple[int, bytes]:
    """The delivery tag and the entry of the next job, once it can be taken."""

    def look() -> tuple[int, bytes] | None:
        broker.promote("q", 100)
        reply = take(broker, link, 1)
        return (reply.tag + 1, reply.jobs[0]) if reply.jobs else None

    found: tuple[int, bytes] = until(look, "a job is there")
    return found


@pytest.mark.parametrize("tracked", [False, True], ids=["plain", "marked"])
def test_through_every_transition(broker: Broker, link: Link, tracked: bool) -> None:
    first = put(broker, tracked=tracked)
    tag, entry = took(broker, link)
    assert entry == first
    broker.give_back("q", "c", [tag])
    tag, entry = took(broker, link)
    assert entry == first
    broker.retry("q", "c", [(tag, 1)])
    tag, entry = took(broker, link)
    check(broker, entry, 1, 0)
    broker.park("q", "c", [(tag, "t")], link)
    tag, entry = took(broker, link)
    check(broker, entry, 1, 0)
    assert reclaim(broker, certain=True) == (1, 0)
    broker.register("q", "c")
    tag, entry = took(broker, link)
    check(broker, entry, 1, 1)
    assert reclaim(broker, certain=True) == (1, 0)
    broker.register("q", "c")
    _, tag, entry = broker.isolate("q", "c", link)
    check(broker, entry, 1, 2)
    assert reclaim(broker, certain=True) == (1, 0)
    (job,) = dead.buried(broker, "q")
    assert (job.id, job.task) == ("id-1", "t")
    report = msgspec.json.decode(broker.read(("HGET", KEY.dead, job.tag))[0].partition(b"\n")[0])
    assert (report["id"], report["task"]) == ("id-1", "t"), "the script has read it, too"
    check(broker, job.entry, 1, 3)
    broker.requeue("q", [job.tag])
    broker.register("q", "c")
    tag, entry = took(broker, link)
    assert entry == first if not tracked else entry.removeprefix(b"0.0") == first.removeprefix(b"0.0")
    broker.bury("q", "c", [(tag, b"{}")])
    assert [job.id for job in dead.buried(broker, "q")] == ["id-1"], "no report says it, but the job"


def check(broker: Broker, entry: bytes, attempts: int, crashes: int) -> None:
    opened = broker.opened("q", entry)
    assert decode(opened) == decode(entry) == (decode(TEXT)[0], attempts, crashes)
    assert opened.endswith(TEXT)
    assert entry[-64:] == broker.seal("q", TEXT)[-64:]


def test_a_job_that_is_moved_to_another_queue_is_refused(broker: Broker, link: Link) -> None:
    broker.declare("other", 10)
    broker.register("other", "c")
    put(broker)
    broker.read(("RPOPLPUSH", KEY.pending, KEY.pending.replace("{q}", "{other}")))
    assert take(broker, link, 1).jobs == []
    (entry,) = broker.read(("LRANGE", KEY.pending.replace("{q}", "{other}"), 0, -1))[0]
    with pytest.raises(Refused, match="for another queue"):
        broker.opened("other", entry)


def test_a_delayed_put_is_signed(broker: Broker, link: Link) -> None:
    broker.put("q", [broker.seal("q", TEXT)], delay=1)
    assert broker.opened("q", took(broker, link)[1]) == TEXT

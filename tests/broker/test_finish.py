"""Jobs of which somebody wants to hear: how they end, and everything on the way that may go wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker, Death, Link, keys
from rq_lite.model.message import VERSION, Message, decode, entry_of
from rq_lite.model.outcome import Finished
from rq_lite.model.retry import Report
from tests.conftest import until
from tests.steps import (
    KEY,
    at_maxmemory,
    bury,
    counter,
    everything,
    length,
    number_of,
    owned,
    put,
    suspects,
    take,
    waiting,
)

NEXT = keys.of("next")


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 1000, 0)
    broker.takes.register("q", "c", link=link)


def tracked(number: int, *, callbacks: bool = False, ttl: float | None = 60.0) -> bytes:
    then = {"done": ["next", "t"]} if callbacks else {}
    return entry_of(Message(VERSION, f"{number:08}", "t", result_ttl=ttl, then=then), "q")


def taken(broker: Broker, link: Link, *entries: bytes) -> list[int]:
    """Put and taken: the delivery tags."""
    broker.puts.put("q", entries)
    reply = take(broker, link, len(entries))
    assert len(reply.jobs) == len(entries)
    return list(range(reply.tag + 1, reply.tag + 1 + len(entries)))


def done(value: str = "1", ttl: int = 60_000, puts: Any = ()) -> Finished:
    return Finished("done", b'"value":' + value.encode(), ttl, b"", puts)


def failed(puts: Any = ()) -> Finished:
    return Finished("failed", b'"error":{"type":"E"}', 60_000, b'{"error":"E"}', puts)


def result(broker: Broker, number: int) -> Any:
    found = broker.puts.result("q", f"{number:08}")
    return None if found is None else json.loads(found)


def inbox(broker: Broker, client: str = "me") -> list[tuple[str, Any]]:
    """What was pushed, oldest first: id and result."""
    notes = reversed(broker.read(("LRANGE", KEY.inbox(client), 0, -1))[0])
    parts = [note.decode().rpartition("\n") for note in notes]
    return [(job_id, json.loads(text) if text else None) for job_id, _, text in parts]


def about(broker: Broker, number: int) -> dict[str, str]:
    flat = broker.read(("HGETALL", KEY.job(f"{number:08}")))[0]
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}


# -- taking


def test_a_tracked_job_says_who_has_it_and_a_plain_one_leaves_no_trace(broker: Broker, link: Link) -> None:
    put(broker, 7)
    tag = take(broker, link, 1).tag + 1
    assert broker.read(("EXISTS", KEY.job("00000007")))[0] == 0
    (tag,) = taken(broker, link, tracked(1))
    assert about(broker, 1).items() >= {("consumer", "c"), ("tag", str(tag))}
    assert broker.read(("PTTL", KEY.job("00000001")))[0] > 0
    assert broker.puts.is_running("q", "00000001")
    broker.takes.give_back("q", "c", [tag])
    assert not broker.puts.is_running("q", "00000001")


def test_a_suspect_says_who_has_it(broker: Broker, link: Link) -> None:
    broker.puts.put("q", [b"0.1" + tracked(1).removeprefix(b"0.0")])
    take(broker, link, 1)
    broker.tends.reclaim("q", "c", certain=True)
    broker.takes.register("q", "c", link=link)
    _, tag, _ = broker.takes.isolate("q", "c", link)
    assert about(broker, 1)["tag"] == str(tag)
    assert broker.puts.is_running("q", "00000001")


# -- finish


def test_the_result_is_kept_and_pushed_to_all_who_watch(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1))
    assert [broker.puts.watch("q", client, ["00000001"]) for client in ("me", "you")] == [[b""], [b""]]
    assert broker.takes.finish("q", "c", [(tag, done('"x"'))], link) == 0
    expected = {"state": "done", "value": "x"}
    assert result(broker, 1) == expected
    assert inbox(broker, "me") == inbox(broker, "you") == [("00000001", expected)]
    assert 0 < broker.read(("PTTL", KEY.result("00000001")))[0] <= 60_000
    assert 0 < broker.read(("PTTL", KEY.inbox("me")))[0] <= 60_000
    assert about(broker, 1) == {}
    assert (counter(broker, "done"), counter(broker, "inflight"), length(broker, KEY.drained)) == (1, 0, 1)
    assert owned(broker, "q", "c", link) == {}


def test_who_asks_after_the_end_hears_at_once(broker: Broker, link: Link) -> None:
    tags = taken(broker, link, tracked(1), tracked(2))
    broker.takes.finish("q", "c", [(tags[0], done())], link)
    assert broker.puts.watch("q", "me", ["00000001", "00000002"]) == [b'{"state":"done","value":1}', b""]
    assert inbox(broker) == []


def test_large_results_are_not_pushed_and_not_sent_by_the_hundred(broker: Broker, link: Link) -> None:
    tags = taken(broker, link, *map(tracked, range(4)))
    ids = [f"{number:08}" for number in range(4)]
    broker.puts.watch("q", "me", ids)
    large = json.dumps("x" * 400_000)
    broker.takes.finish("q", "c", [(tag, done(large)) for tag in tags], link)
    assert inbox(broker) == [(one, None) for one in ids]
    assert [len(found) > 400_000 or found for found in broker.puts.watch("q", "me", ids)] == [True, b"+", b"+", b"+"]


def test_without_a_ttl_nothing_is_kept_but_those_who_wait_hear_of_it(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1, ttl=None, callbacks=True))
    broker.puts.watch("q", "me", ["00000001"])
    broker.takes.finish("q", "c", [(tag, Finished("done", b"", 0, b""))], link)
    assert result(broker, 1) is None
    assert inbox(broker) == [("00000001", {"state": "done"})]


def test_a_failed_job_is_buried_in_the_same_step(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1))
    broker.puts.watch("q", "me", ["00000001"])
    broker.takes.finish("q", "c", [(tag, failed())], link)
    assert result(broker, 1) == {"state": "failed", "error": {"type": "E"}}
    assert broker.read(("HGET", KEY.dead, tag))[0] == b'{"error":"E"}\n' + tracked(1)
    assert (counter(broker, "failed"), counter(broker, "done")) == (1, 0)


def test_callbacks_wait_in_their_queues_from_the_same_step_on_whatever_the_bound(broker: Broker, link: Link) -> None:
    broker.puts.declare("next", 1, 0)
    callback = entry_of(Message(VERSION, "callback", "t", [1]), "q")
    tags = taken(broker, link, tracked(1, callbacks=True), tracked(2, callbacks=True))
    ends = [(tags[0], done(puts=[("next", callback), ("q", callback)])), (tags[1], failed(puts=[("next", callback)]))]
    assert broker.takes.finish("q", "c", ends, link) == 0
    assert broker.read(("LRANGE", NEXT.pending, 0, -1))[0] == [callback] * 2
    assert broker.read(("LRANGE", KEY.pending, 0, -1))[0] == [callback]
    assert [int(n) for n in broker.read(("HMGET", NEXT.meta, "put", "bytes"))[0]] == [2, 2 * len(callback)]
    assert length(broker, NEXT.bell) == 2
    assert broker.tends.unfinished("q")[0] == 1
    assert length(broker, KEY.drained) == 0


def test_a_queue_of_callbacks_that_nobody_has_used_is_made_known(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1, callbacks=True))
    broker.takes.finish("q", "c", [(tag, done(puts=[("next", tracked(5))]))], link)
    assert broker.read(("SISMEMBER", keys.QUEUES, "next"), ("HGET", NEXT.meta, "tracked")) == [1, b"1"]


def test_a_repeated_finish_changes_nothing(broker: Broker, link: Link) -> None:
    tags = taken(broker, link, tracked(1), tracked(2))
    broker.puts.watch("q", "me", ["00000001"])
    ends = [(tags[0], done(puts=[("next", tracked(5))])), (tags[1], failed())]
    broker.takes.finish("q", "c", ends, link)
    before = everything(broker)
    assert broker.takes.finish("q", "c", ends, link) == 2
    after = everything(broker)
    assert {key for key in after if before.get(key) != after[key]} == {KEY.meta.encode()}
    assert counter(broker, "stale") == 2


def test_who_lost_the_job_ends_nothing(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1))
    broker.puts.watch("q", "me", ["00000001"])
    broker.tends.reclaim("q", "c", certain=True)
    assert broker.takes.finish("q", "c", [(tag, done(puts=[("next", tracked(5))]))], link) == 1
    assert (result(broker, 1), inbox(broker), length(broker, NEXT.pending)) == (None, [], 0)
    assert about(broker, 1)["watch:me"] == "1"  # the next run is waited for


def test_a_retried_job_is_still_waited_for(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1))
    broker.puts.watch("q", "me", ["00000001"])
    broker.takes.retry("q", "c", [(tag, 1)], link)
    until(lambda: broker.tends.promote("q")[0], "it is due")
    reply = take(broker, link, 1)
    assert reply.jobs == [b"1.0" + tracked(1).removeprefix(b"0.0")]
    broker.takes.finish("q", "c", [(reply.tag + 1, done())], link)
    assert [state for _, state in inbox(broker)] == [{"state": "done", "value": 1}]


def test_at_maxmemory_jobs_still_end(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1))
    broker.puts.declare("next")
    with at_maxmemory(broker):
        assert broker.puts.watch("q", "me", ["00000001"]) == [b""]
        assert broker.takes.finish("q", "c", [(tag, done(puts=[("next", tracked(5))]))], link) == 0
    assert (len(inbox(broker)), length(broker, NEXT.pending)) == (1, 1)


def test_an_inbox_that_nobody_empties_has_a_cap_and_an_end(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1))
    broker.puts.watch("q", "me", ["00000001"])
    link.pipe([("LPUSH", KEY.inbox("me"), *[b"x"] * 1000)] * 101)
    broker.takes.finish("q", "c", [(tag, done())], link)
    assert length(broker, KEY.inbox("me")) == 100_000
    assert broker.read(("PTTL", KEY.inbox("me")))[0] > 0


def test_to_watch_does_not_shorten_what_is_known_of_a_job(broker: Broker, link: Link) -> None:
    taken(broker, link, tracked(1))
    long = broker.read(("PTTL", KEY.job("00000001")))[0]
    broker.puts.watch("q", "me", ["00000001", "unheard"])
    assert broker.read(("PTTL", KEY.job("00000001")))[0] > long - 60_000
    assert 0 < broker.read(("PTTL", KEY.job("unheard")))[0] <= 3_600_000


# -- what cannot be read, or must not be


def unread(broker: Broker, link: Link, entry: bytes, error: str) -> int:
    """The entry, taken and buried with this error while somebody waits for job 1; its delivery tag."""
    (tag,) = taken(broker, link, entry)
    broker.puts.watch("q", "me", ["00000001"])
    assert broker.takes.finish("q", "c", [(tag, Report(None, None, error).buried())]) == 0
    return tag


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("refused: not signed: at all", "Refused", "not signed: at all"),
        ("not a job: version 9", "Undecodable", "version 9"),
        ("UnpicklingError: no pickle", "UnpicklingError", "no pickle"),
    ],
)
def test_who_waits_hears_of_what_is_buried_unread(
    broker: Broker, link: Link, error: str, kind: str, message: str
) -> None:
    tag = unread(broker, link, tracked(1, callbacks=True), error)
    expected = {"state": "failed", "error": {"type": kind, "message": message, "traceback": ""}}
    assert result(broker, 1) == expected
    assert inbox(broker) == [("00000001", expected)]
    assert 0 < broker.read(("PTTL", KEY.result("00000001")))[0] <= 60_000
    assert about(broker, 1) == {}
    assert broker.read(("HGET", KEY.dead, tag))[0].endswith(b"\n" + tracked(1, callbacks=True))
    assert length(broker, NEXT.pending) == 0, "nobody vouches for its callbacks"


@pytest.mark.parametrize("body", [b"{ no JSON", b"{" * 300 + b"}"])
def test_the_end_of_what_nobody_can_read_is_kept_for_an_hour(broker: Broker, link: Link, body: bytes) -> None:
    """How long it was to be kept stands in what cannot be read; who asks only after the end is to hear of it."""
    unread(broker, link, b"0.0#00000001" + body, "not a job: not JSON")
    assert result(broker, 1)["error"]["type"] == "Undecodable"
    assert 3_500_000 < broker.read(("PTTL", KEY.result("00000001")))[0] <= 3_600_000


def test_a_burial_that_came_too_late_tells_nobody(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1))
    broker.puts.watch("q", "me", ["00000001"])
    broker.takes.give_back("q", "c", [tag])
    assert bury(broker, "q", "c", [(tag, b'{"error":"refused: x"}')]) == 1
    assert (result(broker, 1), inbox(broker)) == (None, [])


def test_what_nobody_waits_for_is_buried_without_a_trace(broker: Broker, link: Link) -> None:
    put(broker, 1)
    tag = take(broker, link, 1).tag + 1
    bury(broker, "q", "c", [(tag, b"a report that nobody reads")])
    assert broker.read(("KEYS", KEY.result("*")), ("KEYS", KEY.job("*"))) == [[], []]


# -- other ends


def died(broker: Broker, link: Link, times: int, raw: bytes) -> None:
    broker.puts.put("q", [raw])
    for number in range(times):
        assert take(broker, link, 1).jobs if number < 2 else broker.takes.isolate("q", "c", link)[1]
        broker.tends.reclaim("q", "c", certain=True, death=Death("killed by signal 9", "all", "stack"))
        broker.takes.register("q", "c", link=link)


def test_poison_is_told_to_who_waits(broker: Broker, link: Link) -> None:
    broker.puts.watch("q", "me", ["00000001"])
    died(broker, link, 3, tracked(1))
    error = result(broker, 1)["error"]
    assert error["type"] == "poison"
    assert error["message"] == "3 consumers died while it ran; the last: killed by signal 9"
    assert error["traceback"].endswith("stack")
    assert inbox(broker) == [("00000001", result(broker, 1))]
    assert counter(broker, "failed") == 1


def test_poison_with_callbacks_waits_for_who_puts_them(broker: Broker, link: Link) -> None:
    died(broker, link, 3, tracked(1, callbacks=True))
    assert suspects(broker) == [(1, (0, 3))]
    assert (counter(broker, "failed"), result(broker, 1)) == (0, None)
    assert broker.tends.unfinished("q")[0] == 1


def test_purge_tells_who_waits(broker: Broker, link: Link) -> None:
    broker.puts.expect_tracked("q")
    broker.puts.watch("q", "me", ["00000001", "00000002", "00000003"])
    died(broker, link, 2, tracked(3))
    operate.configure(broker, "q", maxsize=0)
    for first in (1000, 2000, 3000):
        put(broker, *range(first, first + 830))
    broker.puts.put("q", [tracked(1)])
    broker.puts.put("q", [tracked(2)], delay=60_000)
    put(broker, *range(10, 20), delay=60_000)
    assert operate.purge(broker, "q") == 2490 + 10 + 3
    assert sorted(inbox(broker)) == [(f"{n:08}", {"state": "cancelled"}) for n in (1, 2, 3)]
    assert result(broker, 2) == {"state": "cancelled"}
    assert [counter(broker, name) for name in ("bytes", "suspects", "parked", "purged")] == [0, 0, 0, 2503]
    assert (waiting(broker), broker.tends.unfinished("q")[0], length(broker, KEY.bell)) == ([], 0, 0)


def test_a_requeued_job_is_asked_for_anew(broker: Broker, link: Link) -> None:
    (tag,) = taken(broker, link, tracked(1))
    broker.takes.finish("q", "c", [(tag, failed())], link)
    operate.requeue(broker, "q", [tag])
    assert result(broker, 1) is None
    assert broker.puts.watch("q", "me", ["00000001"]) == [b""]
    reply = take(broker, link, 1)
    assert reply.jobs == [tracked(1)]
    broker.takes.finish("q", "c", [(reply.tag + 1, done())], link)
    assert inbox(broker) == [("00000001", {"state": "done", "value": 1})]


def test_a_job_without_its_mark_ends_all_the_same(broker: Broker, link: Link) -> None:
    """Put by hand: it says that it wants a result, but the scripts cannot see it."""
    raw = tracked(1).removeprefix(b"0.0#00000001")
    (tag,) = taken(broker, link, raw)
    assert decode(raw)[0].result_ttl == 60
    assert broker.takes.finish("q", "c", [(tag, done(puts=[("next", raw)]))], link) == 0
    assert number_of(broker.read(("LINDEX", NEXT.pending, 0))[0]) == 1
    assert counter(broker, "done") == 1

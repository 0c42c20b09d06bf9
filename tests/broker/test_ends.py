"""Two events of a job, each in one place: `released`, whenever it is no longer in flight, and `ended`, once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker, Cancelled, Death, Link, scripts
from rq_lite.model.message import VERSION, Message, entry_of
from rq_lite.model.outcome import Finished, cancelled
from rq_lite.model.states import EDGES, State
from tests.conftest import until
from tests.steps import KEY, bury, counter, now_ms, put, take

ID = "00000001"
ENTRY = entry_of(Message(VERSION, ID, "t", result_ttl=60.0), "q")
OVER = (State.GONE, State.DEAD)
OTHER = "00000002"
COUNTERS = ("done", "failed", "cancelled", "purged", "expired", "overflowed", "replaced")


class Way(NamedTuple):
    """How an entry leaves a place: `verb` and both places as in EDGES."""

    verb: str
    came: State
    went: State
    leave: Callable[[Broker, Link], Any]
    ended: Any = None  # with which result; None: it has not
    crashes: int = 0  # before
    script: str = ""  # where it is not called as the verb is
    past: bool = False  # the job has expired when it leaves
    # Another job of its key is there: the one that it is to replace, in this place; or one that is to replace it.
    other: State | None = None


@pytest.fixture
def link(broker: Broker) -> Iterator[Link]:
    broker.puts.declare("q")
    broker.puts.expect_tracked("q")
    link = broker.link()
    broker.takes.register("q", "c", link=link)
    yield link
    link.close()


DONE = {"state": "done", "value": 1}
GONE = {"state": "cancelled"}
FAILED = {"state": "failed", "error": {"type": "E"}}
POISON = {"state": "failed", "error": {"type": "poison"}}
DEATH = Death("killed", "all")


def finish(end: Finished) -> Callable[[Broker, Link], Any]:
    return lambda broker, link: broker.takes.finish("q", "c", [(1, end)], link)


def reclaim(broker: Broker, link: Link) -> Any:
    return broker.tends.reclaim("q", "c", certain=True, death=DEATH)


def crashed(broker: Broker, link: Link) -> Any:
    return broker.takes.crashed("q", "c", [(1, "how", "where", 3)], link)


def give_back(broker: Broker, link: Link) -> Any:
    return broker.takes.give_back("q", "c", [1], link=link)


def cancel(broker: Broker, link: Link) -> Any:
    assert operate.cancel(broker, "q", ID) is Cancelled.REMOVED


def purge(broker: Broker, link: Link) -> Any:
    assert operate.purge(broker, "q") == 1


def shutdown(broker: Broker, link: Link) -> Any:
    assert operate.shutdown(broker, "q", immediate=True) == 1


def promote(broker: Broker, link: Link) -> Any:
    return until(lambda: broker.tends.promote("q")[0], "it is due")


def take_nothing(broker: Broker, link: Link) -> Any:
    assert take(broker, link, 1).jobs == []


def isolate_nothing(broker: Broker, link: Link) -> Any:
    assert broker.takes.isolate("q", "c", link)[1] == 0


def push_out(broker: Broker, link: Link) -> Any:
    """Another job is put into the full queue; then that is done."""
    operate.configure(broker, "q", maxsize=1)
    broker.read(("HSET", KEY.meta, "full", "drop-old"))
    assert put(broker, 2).accepted == 1
    reply = take(broker, link, 1)
    broker.takes.exchange("c", [Acks("q", [reply.tag + 1])], 0, link)
    broker.read(("HSET", KEY.meta, "done", 0))


def retry(broker: Broker, link: Link) -> Any:
    return broker.takes.retry("q", "c", [(1, 1)], link)


def newer(broker: Broker, link: Link) -> Any:
    """Another job of the key takes the place of this one."""
    assert broker.puts.put("q", [b"r 0 " + keyed("00000003")], marked=True).words == [f"r{ID}"]


def follow_up(broker: Broker, link: Link) -> Any:
    """A job of the key follows from another run."""
    put(broker, 5)
    tag = take(broker, link, 1).tag + 1
    end = Finished("done", ttl=0, puts=[("q", b"r 0 " + keyed("00000003"))])
    assert broker.takes.finish("q", "c", [(tag, end)], link) == 0
    broker.read(("HSET", KEY.meta, "done", 0))


def cancel_other(broker: Broker, link: Link) -> Any:
    assert operate.cancel(broker, "q", OTHER) is Cancelled.REMOVED


def push_out_expired(broker: Broker, link: Link) -> Any:
    """The job at the head of the full queue has expired, so that a put ends it."""
    (head,) = broker.read(("LRANGE", KEY.pending, 0, -1))[0]
    broker.read(("LSET", KEY.pending, 0, head.replace(b"{", b"?1{", 1)))
    operate.configure(broker, "q", maxsize=1)
    assert put(broker, 4).accepted == 0, "the one that takes its place has the room"


def keyed(job_id: str, crashes: int = 0) -> bytes:
    """The entry of a unique job that keeps a result."""
    entry = entry_of(Message(VERSION, job_id, "t", result_ttl=60.0, unique="e:t:k"), "q")
    return entry.replace(b"0.0", b"0.%d" % crashes, 1)


EXPIRED, DROPPED, REPLACED = {"state": "expired"}, {"state": "dropped"}, {"state": "replaced"}
PENDING, SCHEDULED, SUSPECT, INFLIGHT = State.PENDING, State.SCHEDULED, State.SUSPECT, State.INFLIGHT
REPLACING = State.REPLACING
WAYS = (
    Way("take", PENDING, INFLIGHT, lambda broker, link: take(broker, link, 1), script="exchange"),
    Way("isolate", SUSPECT, INFLIGHT, lambda broker, link: broker.takes.isolate("q", "c", link), crashes=2),
    Way("take", PENDING, State.GONE, take_nothing, EXPIRED, script="exchange", past=True),
    Way("isolate", SUSPECT, State.GONE, isolate_nothing, EXPIRED, crashes=2, past=True),
    Way(
        "retry",
        INFLIGHT,
        State.GONE,
        lambda broker, link: broker.takes.retry("q", "c", [(1, 1)], link),
        EXPIRED,
        past=True,
    ),
    Way("put", PENDING, State.GONE, push_out, DROPPED),
    Way("put", PENDING, State.GONE, push_out, EXPIRED, past=True),
    Way("promote", SCHEDULED, PENDING, promote),
    Way("promote", SCHEDULED, SUSPECT, promote, crashes=2),
    Way("finish", INFLIGHT, State.GONE, finish(Finished("done", b'"value":1')), DONE),
    Way("finish", INFLIGHT, State.GONE, finish(cancelled(ID)), GONE),
    Way("finish", INFLIGHT, State.DEAD, finish(Finished("failed", b'"error":{"type":"E"}', report=b"{}")), FAILED),
    Way("retry", INFLIGHT, SCHEDULED, lambda broker, link: broker.takes.retry("q", "c", [(1, 1)], link)),
    Way("park", INFLIGHT, SCHEDULED, lambda broker, link: broker.takes.park("q", "c", [(1, "t")], link)),
    Way("give_back", INFLIGHT, PENDING, give_back),
    Way("give_back", INFLIGHT, SUSPECT, give_back, crashes=2),
    Way("crashed", INFLIGHT, PENDING, crashed),
    Way("crashed", INFLIGHT, SUSPECT, crashed, crashes=1),
    Way("crashed", INFLIGHT, State.DEAD, crashed, POISON, crashes=2),
    Way("reclaim", INFLIGHT, PENDING, reclaim),
    Way("reclaim", INFLIGHT, SUSPECT, reclaim, crashes=1),
    Way("reclaim", INFLIGHT, State.DEAD, reclaim, POISON, crashes=2),
    # One gives way to another of its key.
    Way(
        "take",
        PENDING,
        State.GONE,
        lambda broker, link: take(broker, link, 1),
        REPLACED,
        script="exchange",
        other=REPLACING,
    ),
    Way(
        "isolate",
        SUSPECT,
        State.GONE,
        lambda broker, link: broker.takes.isolate("q", "c", link),
        REPLACED,
        2,
        other=REPLACING,
    ),
    Way("put", SCHEDULED, State.GONE, newer, REPLACED, other=SCHEDULED),
    Way("finish", SCHEDULED, State.GONE, follow_up, REPLACED, other=SCHEDULED),
    Way("finish", REPLACING, State.GONE, follow_up, REPLACED, other=INFLIGHT),
    Way("retry", INFLIGHT, State.GONE, retry, REPLACED, other=REPLACING),
    Way("give_back", INFLIGHT, State.GONE, give_back, REPLACED, other=REPLACING),
    Way("crashed", INFLIGHT, State.GONE, crashed, REPLACED, other=REPLACING),
    Way("reclaim", INFLIGHT, State.GONE, reclaim, REPLACED, other=REPLACING),
    # And what becomes of that.
    Way("take", REPLACING, INFLIGHT, lambda broker, link: take(broker, link, 1), script="exchange", other=PENDING),
    Way("isolate", REPLACING, INFLIGHT, lambda broker, link: broker.takes.isolate("q", "c", link), other=SUSPECT),
    Way("put", REPLACING, PENDING, push_out_expired, other=PENDING),
    Way("put", REPLACING, State.GONE, newer, REPLACED, other=PENDING),
    Way("finish", REPLACING, PENDING, finish(Finished("done", b'"value":1')), other=INFLIGHT),
    Way("retry", REPLACING, PENDING, retry, other=INFLIGHT),
    Way("give_back", REPLACING, PENDING, give_back, other=INFLIGHT),
    Way("crashed", REPLACING, PENDING, crashed, other=INFLIGHT),
    Way("reclaim", REPLACING, PENDING, reclaim, other=INFLIGHT),
    Way("cancel", REPLACING, State.GONE, cancel, GONE, other=INFLIGHT),
    Way("cancel", REPLACING, PENDING, cancel_other, other=PENDING),
    Way("purge", REPLACING, State.GONE, purge, GONE, other=INFLIGHT),
    Way("purge", REPLACING, State.GONE, shutdown, GONE, script="shutdown", other=INFLIGHT),
    *(
        Way(verb, came, State.GONE, leave, GONE, crashes=2 * (came is SUSPECT), script=script)
        for verb, leave, script in (("cancel", cancel, ""), ("purge", purge, ""), ("purge", shutdown, "shutdown"))
        for came in (PENDING, SCHEDULED, SUSPECT)
    ),
)
NOT_HERE = {
    ("ack", INFLIGHT, State.GONE),  # of entries that are not tracked, as what sends it sees to
    ("forget", State.DEAD, State.GONE),  # a buried job has ended
    ("trim", State.DEAD, State.GONE),
    ("requeue", State.DEAD, State.PENDING),  # its next life
}


def test_every_way_that_an_entry_leaves_a_place_is_among_these() -> None:
    ways = {(way.verb, way.came, way.went) for way in WAYS}
    assert ways | NOT_HERE == {edge for edge in EDGES if edge[1] is not None}
    assert all(bool(way.ended) == (way.went in OVER) for way in WAYS)


def let_wait(broker: Broker, link: Link, way: Way) -> None:
    """The tracked job, where it leaves from; its delivery tag is 1 in flight. A process watches it."""
    head, json_ = b"0.%d#%s" % (way.crashes, ID.encode()), ENTRY[ENTRY.index(b"{") :]
    raw = head + (b"" if not way.past else b"?%d" % (10**14 if way.came is INFLIGHT else 1)) + json_
    assert broker.puts.watch("q", "me", [ID]) == [b""]
    if way.came is SCHEDULED:
        broker.puts.put("q", [raw], delay=1 if way.verb == "promote" else 60_000)
    elif way.came is SUSPECT:
        broker.read(("LPUSH", KEY.suspects, raw), ("HINCRBY", KEY.meta, "suspects", 1))
    else:
        broker.puts.put("q", [raw])
    if way.past:
        broker.read(("HSET", KEY.meta, "marked", 1))
    if way.came is INFLIGHT:
        assert take(broker, link, 1).tag == 0
        assert about(broker).items() >= {("consumer", "c"), ("tag", "1"), ("watch:me", "1")}
        if way.past:
            broker.read(("HSET", KEY.inflight("c"), 1, head + b"?1" + json_))


def let_wait_for_its_key(broker: Broker, link: Link, way: Way) -> None:
    """The job, and the other one of its key; the one that holds the lock is where the other leaves from, with tag 1."""
    assert broker.puts.watch("q", "me", [ID]) == [b""]
    place = way.other if way.came is REPLACING else way.came
    ids = (OTHER, ID) if way.came is REPLACING else (ID, OTHER)
    assert broker.puts.put("q", [keyed(ids[0])], delay=60_000 * (place is SCHEDULED), marked=True).accepted == 1
    if place is INFLIGHT:
        assert take(broker, link, 1).tag == 0
    elif place is SUSPECT:
        broker.read(("DEL", KEY.pending), ("LPUSH", KEY.suspects, keyed(ids[0], 2)), ("HSET", KEY.meta, "suspects", 1))
    if place is not way.other or way.came is REPLACING:
        assert broker.puts.put("q", [b"r 0 " + keyed(ids[1])], marked=True).words == [f"r{ids[0]}"]


def about(broker: Broker) -> dict[str, str]:
    flat = broker.read(("HGETALL", KEY.job(ID)))[0]
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}


def told(broker: Broker) -> list[Any]:
    return [json.loads(note.partition(b"\n")[2]) for note in broker.read(("LRANGE", KEY.inbox("me"), 0, -1))[0]]


def without_words(result: dict[str, Any]) -> dict[str, Any]:
    error = result.get("error")
    return result if error is None else {**result, "error": {"type": error["type"]}}


@pytest.mark.parametrize(
    "way",
    WAYS,
    ids=lambda way: (
        f"{way.script or way.verb}-{way.came.value}-{way.went.value}{'-past' * way.past}{'-other' * bool(way.other)}"
    ),
)
def test_what_a_tracked_job_is_owed_happens_once(broker: Broker, link: Link, way: Way) -> None:
    (let_wait if way.other is None else let_wait_for_its_key)(broker, link, way)
    before = sum(counter(broker, name) for name in COUNTERS)
    way.leave(broker, link)
    has = about(broker)
    if not way.ended:
        assert told(broker) == []
        assert broker.puts.result("q", ID) is None
        assert has.pop("watch:me") == "1", "whoever watches it still does"
        assert has.keys() == ({"consumer", "tag", "started"} if way.went is INFLIGHT else set())
        assert broker.puts.is_running("q", ID) == (way.went is INFLIGHT)
        return
    assert [without_words(result) for result in told(broker)] == [way.ended]
    assert without_words(json.loads(broker.puts.result("q", ID) or b"")) == way.ended
    assert has == {}
    assert sum(counter(broker, name) for name in COUNTERS) == before + 1
    alive = 0 if way.other is None else 2 if (way.came, way.ended) == (REPLACING, REPLACED) else 1
    assert broker.tends.unfinished("q")[0] == alive
    if way.other is None:
        again(broker, link)
    else:
        operate.purge(broker, "q")
        before = sum(counter(broker, name) for name in COUNTERS) - 1
    assert len(told(broker)) == 1, "it is over once, whatever comes late"
    assert sum(counter(broker, name) for name in COUNTERS) == before + 1


def again(broker: Broker, link: Link) -> None:
    """Whatever may still come for what was delivery 1, and for what may wait."""
    for end in (Finished("done", b'"value":2'), Finished("failed", report=b"{}"), cancelled(ID)):
        assert broker.takes.finish("q", "c", [(1, end)], link) == 1
    broker.takes.crashed("q", "c", [(1, "how", "where", 3)], link)
    broker.takes.exchange("c", [Acks("q", [1])], 0, link)
    reclaim(broker, link)
    assert operate.cancel(broker, "q", ID) is Cancelled.UNKNOWN
    operate.purge(broker, "q")
    operate.shutdown(broker, "q", immediate=True)


@pytest.mark.parametrize("leave", ["forget", "trim"])
def test_a_buried_job_has_ended_and_does_not_end_again(broker: Broker, link: Link, leave: str) -> None:
    let_wait(broker, link, next(way for way in WAYS if way.went is State.DEAD))
    bury(broker, "q", "c", [(1, b"{}")], link)
    assert len(told(broker)) == 1
    broker.read(("ZADD", KEY.dead_index, now_ms(broker) - 10**11, 1))
    assert (operate.forget(broker, "q", [1]) if leave == "forget" else broker.tends.trim("q")) == 1
    assert len(told(broker)) == 1
    assert broker.puts.result("q", ID) is not None


# -- what is written


PLACES = {"pending": PENDING, "scheduled": SCHEDULED, "suspects": SUSPECT, "inflight": INFLIGHT, "latest": REPLACING}
WHOLE = ("DEL", "UNLINK")  # take several keys
REMOVING = re.compile(
    rf"'({'|'.join(WHOLE)}|HDEL|[LR]POP|LREM|LTRIM|LMOVE|RPOPLPUSH|ZREM\w*|ZPOP\w+|RENAME)', ([^\n]*)"
)


def text_of(name: str) -> str:
    """The script with what it uses of the library."""
    return scripts.uncommented(scripts.with_library((scripts.FOLDER / f"{name}.lua").read_text()))


def places_left(text: str, listed: Sequence[str] = ()) -> set[State]:
    """From where a script takes entries away; `listed` are its KEYS."""
    found: set[str] = set()
    for command, rest in REMOVING.findall(text):
        words = re.findall(r"(?:KEYS\[)?\w+", rest)
        for word in words if command in WHOLE else words[:1]:
            if word.startswith("KEYS["):
                found.add(listed[int(word[5:]) - 1].partition(":")[0])
            elif word == "key":  # of a function that is called with several
                found.update(re.findall(r"\bremove\((\w+)\)", text))
            else:
                found.add(word)
    return {PLACES[word] for word in found & PLACES.keys()}


def left_by(name: str) -> set[State]:
    if name == "fire":  # it shares `admitted` with finish, but a schedule's jobs replace nothing
        return set()
    return places_left(text_of(name), re.findall(r"[a-z:<>{}-]+", re.sub(r"[\d\[\]]", "", scripts.head(name)["KEYS"])))


def calls(text: str, function: str) -> bool:
    return re.search(rf"(?<!function )\b{function}\(", text) is not None


def goes(name: str) -> set[State | None]:
    """Where the entries go that this script takes from somewhere, as EDGES says."""
    verbs = {"exchange": ("take", "ack"), "shutdown": ("purge",)}.get(name, (name,))
    return {went for verb, came, went in EDGES if verb in verbs and came in left_by(name)}


def test_the_look_for_what_takes_entries_away_sees_it() -> None:
    text = "local function ended(key)\nredis.call('ZREM', scheduled, 1)\nredis.call('UNLINK', bell, suspects)"
    assert places_left(text) == {SCHEDULED, SUSPECT}
    assert places_left("redis.call('HDEL', KEYS[2], tag)", ["meta", "inflight:<consumer>"]) == {INFLIGHT}
    assert not calls(text, "ended")
    assert calls(text + "\nended(meta)", "ended")


def test_the_scripts_that_take_entries_away_are_those_of_the_edges() -> None:
    expected: dict[str, set[State]] = {
        "exchange": {PENDING, INFLIGHT, REPLACING},
        "shutdown": {*PLACES.values()} - {INFLIGHT},
    }
    for verb, came, _ in EDGES:
        if came in PLACES.values() and verb not in ("take", "ack"):
            expected.setdefault(verb, set()).add(State(came))
    assert {name: left for name in scripts.names() if (left := left_by(name))} == expected


@pytest.mark.parametrize("name", scripts.names())
def test_what_takes_an_entry_away_calls_what_it_owes(name: str) -> None:
    left = left_by(name)
    if INFLIGHT in left and name != "exchange":  # it acks unread: what is tracked does not go there
        assert calls(text_of(name), "released")
    assert goes(name) or not left, f"{name} takes entries away, and EDGES does not say where they go"
    if goes(name) & {*OVER} and name != "exchange":
        assert calls(text_of(name), "ended") or calls(text_of(name), "yield"), "only one that gives way ends there"


def test_each_event_is_one_function_and_costs_plain_jobs_nothing(broker: Broker, link: Link) -> None:
    library = (scripts.FOLDER / "lib.lua").read_text()
    assert [library.count(f"local function {name}(") for name in ("released", "ended")] == [1, 1]
    for name in scripts.names():
        text = (scripts.FOLDER / f"{name}.lua").read_text()
        assert "'result:' .. id, result" not in text, "an end of its own"
    broker.puts.put("q", [ENTRY.removeprefix(b"0.0#" + ID.encode())] * 3)
    take(broker, link, 3)
    broker.read(("CONFIG", "RESETSTAT"))
    broker.takes.give_back("q", "c", [1], link=link)
    broker.takes.finish("q", "c", [(2, Finished("failed", report=b"{}")), (3, cancelled("x"))], link)
    stats = broker.read(("INFO", "commandstats"))[0].decode()
    assert not re.search(r"cmdstat_(set|hkeys|pexpire|get):", stats)
    assert broker.read(("KEYS", "*:job:*"), ("KEYS", "*:result:*")) == [[], []]

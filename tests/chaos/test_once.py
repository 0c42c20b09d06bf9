"""The judge of unique jobs and follow-ups notices what is wrong: in keys written by hand, and in forged histories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rq_lite.broker import Broker, Link
from rq_lite.chaos.once import breaches
from rq_lite.chaos.rest import look
from rq_lite.model.message import VERSION, Message, entry_of
from tests.chaos.forged import Forged, kinds
from tests.steps import KEY, take

NAME = "t:k"


def entry(job: str, mode: str = "e", name: str = NAME, **more: Any) -> bytes:
    return entry_of(Message(VERSION, job, "t", unique=f"{mode}:{name}", **more), "q")


def put(broker: Broker, *entries: bytes, delay: int = 0) -> None:
    broker.puts.put("q", entries, marked=True, delay=delay)


def found(broker: Broker, never_taken: Callable[[str], bool] = lambda _: False) -> list[str]:
    """The kinds of breaches in a look at the queue."""
    return [text.split(":")[0] for text in breaches(look(broker, "q"), never_taken)]


@pytest.fixture
def link(broker: Broker) -> Iterator[Link]:
    broker.puts.declare("q", maxsize=0)
    made = broker.link()
    broker.takes.register("q", "c", link=made)
    yield made
    made.close()


# -- looks at a real Redis


def test_jobs_in_every_place_are_seen_with_their_locks(broker: Broker, link: Link) -> None:
    put(broker, entry("1"), entry("2", "s", "t:2"), entry("3", "e", "t:3"))
    taken = take(broker, link, 3)
    broker.takes.retry("q", "c", [(taken.tag + 3, 60_000)], link)
    put(broker, entry("4", name="t:4"), entry("5", "s", "t:5"), entry("6", "s", "t:2"))
    put(broker, entry("7", name="t:7"), delay=60_000)
    broker.read(("RPUSH", KEY.suspects, b"0.2" + entry("8", name="t:8")[3:]), ("SET", KEY.unique("t:8"), "e|8"))
    broker.read(("HINCRBY", KEY.meta, "put", 1))
    seen = look(broker, "q")
    assert sorted((one.job, one.mode, one.place, one.charged) for one in seen.marked) == [
        ("1", "e", "inflight", False), ("2", "s", "inflight", False), ("3", "e", "scheduled", True),
        ("4", "e", "pending", False), ("5", "s", "pending", False), ("6", "s", "pending", False),
        ("7", "e", "scheduled", False), ("8", "e", "suspects", True),
    ]  # fmt: skip
    assert (seen.alive, seen.counters["put"], len(seen.locks)) == (8, 8, 7)
    assert found(broker, lambda job: job in "4567") == []


def test_a_queue_by_priority_is_read_too(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", order="priority")
    raw = entry("1")
    put(broker, b"0.0@5" + raw[3:])
    assert [(one.job, one.place) for one in look(broker, "q").marked] == [("1", "pending")]
    assert found(broker) == []


def test_two_of_a_key_are_found_in_whatever_places(broker: Broker, link: Link) -> None:
    put(broker, entry("1"))
    take(broker, link, 1)
    broker.read(("LPUSH", KEY.pending, entry("2")), ("HINCRBY", KEY.meta, "put", 1))
    assert found(broker) == ["I13 TWO OF A KEY", "I14 JOB WITHOUT ITS LOCK"]


def test_two_of_a_key_that_wait_for_their_start_are_found_if_neither_was_taken(broker: Broker, link: Link) -> None:
    put(broker, entry("1", "s"))
    broker.read(("LPUSH", KEY.pending, entry("2", "s")), ("HINCRBY", KEY.meta, "put", 1))
    assert found(broker, lambda _: True) == ["I13 TWO OF A KEY", "I14 JOB WITHOUT ITS LOCK"]
    assert found(broker, lambda job: job == "1") == found(broker) == [], "the other one may have been given back"


@pytest.mark.parametrize("lock", ["e|other", "s|other", "e|other|123|456"])
def test_a_lock_without_its_job_is_found(broker: Broker, link: Link, lock: str) -> None:
    broker.read(("SET", KEY.unique(NAME), lock))
    assert found(broker) == ["I14 LOCK WITHOUT ITS JOB"]


def test_a_lock_whose_job_is_the_newer_payload_behind_it_is_fine(broker: Broker, link: Link) -> None:
    # The job that is counted is the one behind the lock.
    broker.read(("SET", KEY.unique(NAME), "e|2|0"), ("HINCRBY", KEY.meta, "put", 1))
    broker.read(("HSET", KEY.prefix + "latest", NAME, b"0|" + entry("2")))
    assert found(broker) == []
    broker.read(("HSET", KEY.prefix + "latest", NAME, b"17|" + entry("3")))
    assert found(broker) == ["I14 LOCK WITHOUT ITS JOB"]
    broker.read(("DEL", KEY.prefix + "latest"))


def test_a_lock_until_the_start_that_a_taken_job_still_has_is_found(broker: Broker, link: Link) -> None:
    put(broker, entry("1", "s"))
    take(broker, link, 1)
    assert found(broker) == []
    broker.read(("SET", KEY.unique(NAME), "s|1"))
    assert found(broker) == ["I14 LOCK WITHOUT ITS JOB"]


def test_locks_for_a_time_are_not_judged(broker: Broker, link: Link) -> None:
    broker.read(("SET", KEY.unique(NAME), "t|gone", "PX", 60_000))
    assert found(broker) == []


@pytest.mark.parametrize("lock", [None, "e|other", "t|other"])
def test_a_job_without_its_lock_is_found(broker: Broker, link: Link, lock: str | None) -> None:
    put(broker, entry("1"))
    broker.read(("DEL", KEY.unique(NAME)) if lock is None else ("SET", KEY.unique(NAME), lock))
    assert "I14 JOB WITHOUT ITS LOCK" in found(broker)
    broker.read(("DEL", KEY.unique(NAME)))


@pytest.mark.parametrize(("done", "said"), [(1, "I15 ENDED TWICE"), (-1, "I15 NOT ENDED")])
def test_a_job_that_ended_twice_or_not_at_all_is_counted(broker: Broker, link: Link, done: int, said: str) -> None:
    put(broker, entry("1"), entry("2", name="t:2"))
    taken = take(broker, link, 1)
    broker.takes.exchange("c", [], 0, link)
    broker.read(("HDEL", KEY.inflight("c"), taken.tag + 1), ("DEL", KEY.unique(NAME)))
    broker.read(("HINCRBY", KEY.meta, "done", 1))
    assert found(broker) == []
    broker.read(("HINCRBY", KEY.meta, "done", done))
    assert found(broker) == [said]


# -- histories


@pytest.fixture
def forged() -> Forged:
    return Forged()


def lead(forged: Forged, consumer: str, tag: int, job: str, following: str, attempt: int = 1) -> None:
    """A run that names a job which is to follow."""
    forged.take(consumer, {tag: job})
    forged.begin(consumer, tag, job)
    forged.say(consumer, "then", queue="q", job=job, attempt=attempt, following=following)
    forged.end(consumer, tag, job)


def follow(forged: Forged, tag: int, job: str, of: str, attempt: int = 1) -> None:
    forged.take("c9", {tag: job})
    forged.begin("c9", tag, job)
    forged.say("c9", "followed", job=job, of=of, attempt=attempt)
    forged.end("c9", tag, job)
    forged.ack("c9", tag)


def test_a_job_that_was_kept_out_was_not_put(forged: Forged) -> None:
    forged.put("a", "b", kept_out=["a"])
    forged.work("c1", 1, "b")
    forged.rest(put=1, done=1)
    found = forged.check(drained=True)
    assert (kinds(found), found.put) == ([], 1)


def test_a_job_that_runs_though_its_put_was_kept_out_is_invented(forged: Forged) -> None:
    forged.put("a", kept_out=["a"])
    forged.work("c1", 1, "a")
    forged.rest(put=0, done=1)
    assert "I3 INVENTED" in kinds(forged.check(drained=True))


def test_a_breach_in_a_look_is_told_once(forged: Forged) -> None:
    forged.look()
    for _ in range(2):
        forged.look(locks={"k": "e|a"})
    forged.rest(put=0, done=0)
    found = forged.check()
    assert (kinds(found), len(found.violations)) == (["I14 LOCK WITHOUT ITS JOB"], 1)
    assert "(queue 'q')" in found.violations[0]


def test_until_their_start_two_of_a_key_are_judged_by_what_was_taken_before_any_fault(forged: Forged) -> None:
    forged.put("a", "b")
    forged.look([("k", "s", job, "pending", False) for job in "ab"], {"k": "s|b"}, alive=2, put=2)
    forged.take("c1", {1: "a"})
    forged.settle("c1", "give_back", 1)
    forged.work("c1", 2, "a")
    forged.work("c1", 3, "b")
    forged.rest(put=2, done=2)
    assert kinds(forged.check(drained=True)) == ["I13 TWO OF A KEY", "I14 JOB WITHOUT ITS LOCK"]


@pytest.mark.parametrize("before", ["taken", "fault"])
def test_one_of_two_may_have_been_taken_and_given_back(forged: Forged, before: str) -> None:
    forged.put("a", "b")
    if before == "taken":
        forged.take("c1", {1: "a"})
        forged.settle("c1", "give_back", 1)
    else:
        forged.fault(inflight=1)
    forged.look([("k", "s", job, "pending", False) for job in "ab"], {"k": "s|b"}, alive=2, put=2)
    forged.work("c1", 2, "a")
    forged.work("c1", 3, "b")
    forged.rest(put=2, done=2)
    assert kinds(forged.check(drained=True)) == []


@pytest.mark.parametrize("answered", [True, False])
def test_one_job_follows_an_accepted_run(forged: Forged, answered: bool) -> None:
    forged.put("a")
    lead(forged, "c1", 1, "a", "f")
    forged.finish("c1", 1, puts=["f"], stale=0 if answered else None)
    follow(forged, 2, "f", "a")
    forged.rest(put=2, done=2)
    assert kinds(forged.check(drained=True)) == []


def test_a_run_that_was_not_accepted_and_the_next_one_that_was(forged: Forged) -> None:
    forged.put("a")
    lead(forged, "c1", 1, "a", "f1")
    forged.fault(inflight=1)
    lead(forged, "c2", 2, "a", "f2", attempt=2)
    forged.finish("c1", 1, puts=["f1"], stale=1)
    forged.finish("c2", 2, puts=["f2"])
    follow(forged, 3, "f2", "a", attempt=2)
    forged.rest(put=2, done=2)
    assert kinds(forged.check(drained=True)) == []


@pytest.mark.parametrize("asked", [True, False])
def test_a_job_that_follows_a_run_that_was_not_accepted(forged: Forged, asked: bool) -> None:
    forged.put("a")
    lead(forged, "c1", 1, "a", "f1")
    forged.fault(inflight=1)
    lead(forged, "c2", 2, "a", "f2", attempt=2)
    if asked:
        forged.finish("c1", 1, puts=["f1"], stale=1)
    forged.finish("c2", 2, puts=["f1", "f2"])
    follow(forged, 3, "f1", "a")
    follow(forged, 4, "f2", "a", attempt=2)
    forged.rest(put=3, done=3)
    assert kinds(forged.check(drained=True)) == ["I16 FOLLOWS NOTHING"]


def test_an_accepted_run_that_no_job_follows(forged: Forged) -> None:
    forged.put("a")
    lead(forged, "c1", 1, "a", "f")
    forged.finish("c1", 1)
    forged.rest(put=1, done=1)
    assert kinds(forged.check(drained=True)) == ["I16 NOT FOLLOWED"]


def test_a_job_that_says_that_it_follows_another_run(forged: Forged) -> None:
    forged.put("a")
    lead(forged, "c1", 1, "a", "f", attempt=2)
    forged.finish("c1", 1, puts=["f"])
    follow(forged, 2, "f", "a", attempt=1)
    forged.rest(put=2, done=2)
    assert kinds(forged.check(drained=True)) == ["I16 FOLLOWS ANOTHER"]


def test_a_job_that_follows_what_no_run_has_named(forged: Forged) -> None:
    forged.put("a", "f")
    forged.work("c1", 1, "a")
    follow(forged, 2, "f", "a")
    forged.rest(put=2, done=2)
    assert kinds(forged.check(drained=True)) == ["I16 FOLLOWS NOTHING"]

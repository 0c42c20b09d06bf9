"""Unique jobs, jobs that expire, and queues that drop: from the put to the end, on every server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from rq_lite import (
    BadArgument,
    Duplicate,
    JobDropped,
    JobExpired,
    LifoQueue,
    PriorityQueue,
    Queue,
    QueueFull,
    UsageError,
)
from rq_lite.admin import jobs, operate, status
from rq_lite.broker import Broker, keys
from rq_lite.broker.base import Clock
from rq_lite.cli import cli
from rq_lite.model.message import decode
from rq_lite.model.outcome import cancelled
from rq_lite.model.states import State
from rq_lite.testing import inline, recorded
from tests.steps import Consumer, counter

KEY = keys.of("q")


def mail(user: Any, text: str = "") -> None:
    """The task of these tests."""


def locks(broker: Broker) -> list[bytes]:
    found: list[bytes] = broker.read(("KEYS", KEY.unique("*")))[0]
    return found


# -- until its end


def test_a_second_put_of_a_key_returns_the_job_that_is_there(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    task = queue.task(name="t", unique="{user}")(mail)
    first, second, other = task.put(1, "a"), task.put(1, text="b"), task.put(user=2)
    assert (second.id, second.duplicate, first.duplicate) == (first.id, True, False)
    assert other.id != first.id
    assert queue.qsize() == 2
    tag = consumer.one()
    assert task.put(1).id == first.id  # while it runs, too
    consumer.finish(tag)
    again = task.put(1)
    assert (again.id != first.id, again.duplicate) == (True, False)
    assert (counter(broker, "put"), counter(broker, "duplicates")) == (3, 2)
    assert len(locks(broker)) == 2


def test_two_tasks_never_share_a_lock(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    names = [("a", "b:c"), ("a:b", "c"), ("a", "b%3Ac"), ("a" * 150, "c"), ("a" * 151, "c")]
    for name, key in names:
        queue.task(name=name, unique="{user}")(mail).put(key)
    assert queue.qsize() == len(names) == len(locks(broker))


@pytest.mark.parametrize("how", ["done", "failed", "cancelled", "purged", "shut down"])
def test_a_lock_falls_with_its_job(queue: Queue, broker: Broker, consumer: Consumer, how: str) -> None:
    task = queue.task(name="t", unique="{user}")(mail)
    job = task.put(1)
    if how == "purged":
        operate.purge(broker, "q")
    elif how == "shut down":
        queue.shutdown(immediate=True)
        operate.reopen(broker, "q")
    elif how == "cancelled":
        assert job.cancel()
    else:
        consumer.finish(consumer.one(), how)
    assert locks(broker) == []
    assert not task.put(1).duplicate


def test_a_buried_job_that_has_expired_stays_dead(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    queue.task(name="t")(mail).using(expires=3600).put(1)
    tag = consumer.one()
    consumer.finish(tag, "failed")
    report, _, entry = broker.read(("HGET", KEY.dead, tag))[0].partition(b"\n")
    past = entry.partition(b"?")[0] + b"?1" + entry[entry.index(b"{") :]
    broker.read(("HSET", KEY.dead, tag, report + b"\n" + past))
    step = operate.requeue(broker, "q", [tag])
    assert (step.moved, step.expired, queue.qsize()) == (0, 1, 0)


@pytest.mark.parametrize("how", ["retry", "give back", "reclaim", "park"])
def test_a_lock_stays_while_its_job_has_not_ended(queue: Queue, broker: Broker, consumer: Consumer, how: str) -> None:
    task = queue.task(name="t", unique="{user}")(mail)
    job = task.put(1)
    tag = consumer.one()
    if how == "retry":
        broker.takes.retry("q", "c", [(tag, 0)], consumer.link)
    elif how == "give back":
        broker.takes.give_back("q", "c", [tag], link=consumer.link)
    elif how == "park":
        broker.takes.park("q", "c", [(tag, "t")], consumer.link)
        (member,) = broker.read(("ZRANGE", KEY.scheduled, 0, -1))[0]
        broker.read(("ZADD", KEY.scheduled, 0, member))
    else:
        broker.tends.reclaim("q", "c", certain=True)
        broker.takes.register("q", "c", link=consumer.link)
    assert task.put(1).id == job.id
    broker.tends.promote("q")
    consumer.finish(consumer.one())
    assert locks(broker) == []


def test_raise_says_which_job_is_there(queue: Queue, consumer: Consumer) -> None:
    task = queue.task(name="t", unique="{user}", on_conflict="raise", result_ttl=60)(mail)
    job = task.put(1)
    with pytest.raises(Duplicate, match=r"task t with the same key \(unique='\{user\}'\) is there already") as raised:
        task.put(1)
    assert raised.value.job == job
    with pytest.raises(Duplicate, match="2 jobs of task t were there already; the others were put") as raised:
        task.put_many([1, 2, 1, 3])
    assert raised.value.put == 4
    assert queue.qsize() == 3


def test_of_many_only_the_first_of_a_key_is_put(queue: Queue, consumer: Consumer) -> None:
    task = queue.task(name="t", unique="{user}")(mail)
    assert task.put_many([1, 2, 1, 2, 3]) == 3
    assert [message.args for _, message in consumer.take()] == [[1], [2], [3]]
    made = task.put_jobs([(3,), (4,), (4,)])
    assert [job.duplicate for job in made] == [True, False, True]
    assert made[1].id == made[2].id


def test_a_buried_job_has_ended_and_a_requeue_asks_for_the_lock_again(
    queue: Queue, broker: Broker, consumer: Consumer
) -> None:
    task = queue.task(name="t", unique="{user}")(mail)
    for _ in range(2):
        task.put(1)
        consumer.finish(consumer.one(), "failed")
    tags = [int(tag) for tag in broker.read(("HKEYS", KEY.dead))[0]]
    step = operate.requeue(broker, "q", tags)
    assert (step.moved, step.taken) == (1, 1)
    assert task.put(1).duplicate
    left = [int(tag) for tag in broker.read(("HKEYS", KEY.dead))[0]]
    assert operate.requeue(broker, "q", left).taken == 1
    consumer.finish(consumer.one())
    assert operate.requeue(broker, "q", left).moved == 1
    assert len(locks(broker)) == 1


def test_a_put_whose_answer_was_lost_gets_the_same_verdicts(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    task = queue.task(name="t", unique="{user}")(mail)
    held = task.put(1)
    entries = [task.encoded((user,), {}, f"id-{user}") for user in (1, 2, 2)]
    with broker.core.links.lend() as link:
        name = link.producer
    first = broker.puts.put("q", entries, marked=True)
    with broker.core.links.lend() as link:
        assert link.producer == name
        link.sequence -= 1
    again = broker.puts.put("q", entries, marked=True)
    assert first.verdicts == again.verdicts == f"d{held.id},p,did-2".encode()
    assert first.accepted == again.accepted == 3
    assert queue.qsize() == 2


# -- until its start, for a time, for ever


def test_until_start_lets_the_next_in_once_it_was_taken(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    task = queue.task(name="t", unique="{user}", until="start")(mail)
    first = task.put(1)
    assert task.put(1).id == first.id
    tag = consumer.one()
    second = task.put(1)
    assert (second.duplicate, task.put(1).id) == (False, second.id)
    broker.takes.give_back("q", "c", [tag], link=consumer.link)  # takes no lock again
    assert [message.id for _, message in consumer.take()] == [first.id, second.id]
    assert locks(broker) == []


def test_for_a_time_the_key_stays_locked_whatever_becomes_of_the_job(
    queue: Queue, broker: Broker, consumer: Consumer
) -> None:
    task = queue.task(name="t", unique="{user}", until=timedelta(hours=1))(mail)
    first = task.put(1)
    tag, message = consumer.take()[0]
    assert (message.unique, broker.takes.booked("q", "c", [tag])[0][1][:1]) == (None, b"{")  # it is a plain one
    consumer.finish(tag)
    assert task.put(1).id == first.id
    (lock,) = locks(broker)
    assert 3_590_000 < broker.read(("PTTL", lock))[0] <= 3_600_000
    assert task.forget("1")
    assert not task.forget("1")
    assert not task.put(1).duplicate


def test_for_ever_means_until_it_is_forgotten(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    task = queue.task(name="t", unique="{user}", until="forever")(mail)
    assert task.put_many(range(5)) == 5
    operate.purge(broker, "q")
    assert task.put_many(range(6)) == 1
    assert task.put(0).duplicate
    with pytest.raises(Duplicate) as raised:
        task.using(on_conflict="raise").put(0)
    assert raised.value.job is None
    assert broker.read(("HLEN", KEY.seen)) == [6]
    assert (task.forget("0"), task.forget("0"), task.put(0).duplicate) == (True, False, False)
    assert queue.forget_all() == 6
    assert task.put_many(range(6)) == 6


def test_what_is_refused_for_lack_of_room_leaves_no_lock(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    for until in ("end", "start", "forever", 60):
        task = queue.task(name=f"t{until}", unique="{user}", until=until)(mail)
        operate.configure(broker, "q", maxsize=1)
        with pytest.raises(QueueFull) as raised:
            task.using(wait=0.0).put_many([1, 1, 2])
        assert raised.value.put == 2
        operate.configure(broker, "q", maxsize=10)
        assert task.put_many([1, 2]) == 1
        operate.purge(broker, "q")


# -- ids of one's own


def test_an_id_of_ones_own_is_there_once(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    task = queue.task(name="t", result_ttl=60)(mail)
    job = task.using(id="order 17/ü").put(1)
    assert job.id == "order 17/ü"
    again = queue.task(name="other")(mail).using(id="order 17/ü").put(2)
    assert (again.id, again.duplicate) == (job.id, True)
    tag = consumer.one()
    assert job.running()
    consumer.finish(tag)
    assert job.state() == "done"
    assert not task.using(id="order 17/ü").put(1).duplicate


@pytest.mark.parametrize("value", ["", "x" * 151, "a\nb", 17, b"a"])
def test_an_id_that_cannot_be_one_is_refused(queue: Queue, value: Any) -> None:
    with pytest.raises(UsageError, match="id must be 1 to 150 characters"):
        queue.task(name="t")(mail).using(id=value)


# -- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unique": "all"}, r"names no parameter.*using\(id="),
        ({"unique": "{nobody}"}, "names nobody; its parameters are user, text"),
        ({"unique": "{}"}, "name the parameters"),
        ({"unique": "{0}"}, "name the parameters"),
        ({"unique": "{user"}, "cannot be read"),
        ({"unique": 5}, "must be a template"),
        ({"unique": "{user}", "until": "never"}, 'must be "end", "start", "forever"'),
        ({"unique": "{user}", "until": 0}, "above 0 seconds"),
        ({"unique": "{user}", "on_conflict": "fight"}, "must be one of skip, replace, raise"),
        ({"unique": "{user}", "until": "forever", "every": 60, "args": [1]}, 'unique until "end" or "start" only'),
    ],
)
def test_what_cannot_be_unique_is_refused_at_definition(queue: Queue, options: dict[str, Any], said: str) -> None:
    define: Any = queue.task
    with pytest.raises(UsageError, match=said):
        _ = define(name="t", **options)(mail).schedule


def test_arguments_that_make_no_key_are_refused_at_the_put(queue: Queue, consumer: Consumer) -> None:
    task = queue.task(name="t", unique="{user.id}")(mail)
    with pytest.raises(BadArgument, match=r"unique='\{user.id\}' makes no key of these arguments: AttributeError"):
        task.put(1)
    with pytest.raises(BadArgument, match="its key has 1,000,000 characters, at most 10,000 are allowed"):
        queue.task(name="u", unique="{text}")(mail).put(1, "x" * 1_000_000)
    with pytest.raises(UsageError, match="either an id of its own or a key"):
        task.using(id="x")
    assert queue.qsize() == 0


# -- expiry


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are put as if it was 1970."""
    monkeypatch.setattr(Clock, "now", lambda self, read: 1000)


def test_a_job_that_was_not_begun_in_time_ends_as_expired(
    queue: Queue, broker: Broker, consumer: Consumer, long_ago: None
) -> None:
    task = queue.task(name="t", result_ttl=60)(mail)
    job, plain = task.using(expires=60).put(1), queue.task(name="plain")(mail).using(expires=60)
    for user in range(3):
        plain.put(user)
    task.put(2)
    assert [message.args for _, message in consumer.take()] == [[2]]
    assert job.state() == "expired"
    with pytest.raises(JobExpired, match="it was not begun in time"):
        job.result(30)
    assert (counter(broker, "expired"), counter(broker, "bytes"), queue.qsize()) == (4, 0, 0)
    assert status.states(broker, ["q"])["q"].expired == 4


def test_a_job_that_has_time_is_run(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    task = queue.task(name="t")(mail)
    task.using(expires=3600).put(1)
    task.using(expires=datetime.now(UTC) + timedelta(hours=1)).put(2)
    taken = consumer.take()
    assert [message.args for _, message in taken] == [[1], [2]]
    for tag, _ in taken:
        consumer.finish(tag)
    assert (counter(broker, "expired"), counter(broker, "done")) == (0, 2)


def test_one_that_failed_and_has_expired_meanwhile_is_not_tried_again(
    queue: Queue, broker: Broker, consumer: Consumer
) -> None:
    job = queue.task(name="t", result_ttl=60)(mail).using(expires=3600).put(1)
    tag = consumer.one()
    entry = broker.read(("HGET", KEY.inflight("c"), tag))[0]
    head, brace, rest = entry.partition(b"{")
    assert broker.read(("HSET", KEY.inflight("c"), tag, head.partition(b"?")[0] + b"?1" + brace + rest)) == [0]
    broker.takes.retry("q", "c", [(tag, 60_000)], consumer.link)
    assert job.state() == "expired"
    assert (counter(broker, "retried"), counter(broker, "expired"), counter(broker, "inflight")) == (0, 1, 0)


def test_an_expired_job_with_callbacks_is_left_to_a_consumer(
    queue: Queue, broker: Broker, consumer: Consumer, long_ago: None
) -> None:
    told = queue.task(name="told")(lambda ended: None)
    queue.task(name="t", on_failure=told)(mail).using(expires=60).put(1)
    tag = consumer.one()
    ((_, entry),) = broker.takes.booked("q", "c", [tag])
    assert b"?0{" in entry
    assert decode(entry)[0].args == [1]


def test_an_expired_head_makes_room_in_a_full_queue(
    queue: Queue, broker: Broker, consumer: Consumer, long_ago: None
) -> None:
    operate.configure(broker, "q", maxsize=3)
    task = queue.task(name="t")(mail)
    for user in range(3):
        task.using(expires=60).put(user)
    task.using(wait=0.0).put_many(range(3))
    assert [message.args for _, message in consumer.take()] == [[0], [1], [2]]
    assert counter(broker, "expired") == 3


@pytest.mark.parametrize("kind", [Queue, LifoQueue, PriorityQueue])
def test_a_purge_of_expired_jobs_leaves_the_others_in_their_order(
    queue: Queue, broker: Broker, consumer: Consumer, monkeypatch: pytest.MonkeyPatch, kind: type[Queue]
) -> None:
    queue = kind("q", maxsize=0, broker=broker)
    queue.sender.declare()
    monkeypatch.setattr(operate, "LOOKS", 3)
    told = queue.task(name="told")(lambda ended: None)
    task = queue.task(name="t", result_ttl=60, unique="{user}")(mail)
    kept = queue.task(name="kept", on_failure=told)(mail)
    with monkeypatch.context() as patch:
        patch.setattr(Clock, "now", lambda self, read: 1000)
        late = [task.using(expires=60).put(number) for number in range(5)]
        task.put_many(range(10, 14))
        late += [task.using(expires=60).put(number) for number in range(20, 25)]
        kept.using(expires=60).put(30)
        task.put_many(range(40, 44))
    later = task.using(delay=60, expires=600).put(50)
    ((member, due),) = broker.reads.window(KEY.scheduled, 0, 2)
    past = member.partition(b"?")[0] + b"?1" + member[member.index(b"{") :]
    broker.read(("ZREM", KEY.scheduled, member), ("ZADD", KEY.scheduled, due, past))
    broker.read(("HINCRBY", KEY.meta, "bytes", len(past) - len(member)))
    assert operate.purge_expired(broker, "q") == len(late) + 1
    assert {job.state() for job in [*late, later]} == {"expired"}
    left = [*range(10, 14), 30, *range(40, 44)]
    assert [message.args[0] for _, message in consumer.take()] == (left[::-1] if kind is LifoQueue else left)
    assert (counter(broker, "expired"), counter(broker, "bytes"), len(locks(broker))) == (11, 0, 8)
    said = CliRunner().invoke(cli, ["queue", "purge", "q", "--expired", "--url", broker.url])
    assert (said.output, said.exit_code) == ("queue 'q': 0 expired jobs dropped\n", 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"expires": 0}, "above 0 seconds"),
        ({"expires": -1}, "above 0 seconds"),
        ({"expires": "soon"}, "above 0 seconds"),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "is in the past"),
        ({"expires": datetime(2120, 1, 1)}, "say the zone"),
        ({"expires": 5, "delay": 6}, "would expire before they are due"),
        ({"expires": 5, "at": datetime(2120, 1, 1, tzinfo=UTC)}, "would expire before they are due"),
    ],
)
def test_an_expiry_that_cannot_be_right_is_refused(queue: Queue, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        queue.task(name="t")(mail).using(**options)


# -- overflow


def full_queue(broker: Broker, full: str, kind: type[Queue] = Queue) -> Queue:
    queue = kind("q", maxsize=3, full=full, broker=broker)
    queue.sender.declare()
    return queue


def test_a_queue_that_raises_does_so_at_once(broker: Broker, consumer: Consumer) -> None:
    queue = full_queue(broker, "raise")
    task = queue.task(name="t")(mail)
    task.put_many(range(3))
    with pytest.raises(QueueFull):
        task.put(4)
    assert status.states(broker, ["q"])["q"].when_full == "raise"


def test_drop_new_drops_what_finds_no_room(broker: Broker, consumer: Consumer) -> None:
    queue = full_queue(broker, "drop-new")
    task = queue.task(name="t", result_ttl=60)(mail)
    task.put_many(range(2))
    kept, dropped, plain = task.put(2), task.put(3), queue.task(name="plain")(mail).put(4)
    assert [kept.state(), dropped.state(), plain.state()] == ["waiting", "dropped", "dropped"]
    with pytest.raises(JobDropped, match="its queue was full"):
        dropped.result(30)
    assert [message.args for _, message in consumer.take()] == [[0], [1], [2]]
    assert (counter(broker, "overflowed"), counter(broker, "put")) == (2, 5)
    assert status.states(broker, ["q"])["q"].overflowed == 2


@pytest.mark.parametrize("count", [1, 3, 5])
def test_drop_old_drops_what_has_waited_longest(broker: Broker, consumer: Consumer, count: int) -> None:
    queue = full_queue(broker, "drop-old")
    task = queue.task(name="t", unique="{user}", result_ttl=60)(mail)
    old = task.put_jobs([(user,) for user in range(3)])
    assert task.put_many(range(10, 10 + count)) == count
    left = [message.args[0] for _, message in consumer.take()]
    assert left == [*range(3), *range(10, 10 + count)][-3:]
    assert [job.state() for job in old] == ["dropped"] * min(3, count) + ["running"] * max(0, 3 - count)
    assert (counter(broker, "overflowed"), len(locks(broker))) == (count, 3)


def test_drop_old_drops_nothing_for_a_job_that_never_fits(broker: Broker, consumer: Consumer) -> None:
    queue = full_queue(broker, "drop-old")
    operate.configure(broker, "q", maxbytes=2000)
    task = queue.task(name="t")(mail)
    task.put_many(range(3))
    with pytest.raises(Exception, match="never fits its maxbytes"):
        task.put(1, "x" * 3000)
    assert queue.qsize() == 3


def test_what_a_queue_does_when_it_is_full_is_one_of_four(broker: Broker) -> None:
    with pytest.raises(UsageError, match="full must be one of wait, raise, drop-new, drop-old, not 'explode'"):
        Queue("q", full="explode", broker=broker)


def test_the_marks_of_such_jobs_keep_older_versions_away(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    queue.task(name="t")(mail).put(1)
    assert counter(broker, "format") == 0
    queue.task(name="u", unique="{user}")(mail).put(1)
    assert counter(broker, "format") == 2
    assert [job.id for job in jobs.listed(broker, "q", State.PENDING)]
    consumer.finish(consumer.one())
    broker.takes.finish("q", "c", [(consumer.one(), cancelled("x"))], consumer.link)
    assert locks(broker) == []


# -- without Redis


def test_recorded_puts_keep_to_locks_too(broker: Broker) -> None:
    queue = Queue("q", broker=broker)
    ends = queue.task(name="end", unique="{user}")(mail)
    ever = queue.task(name="ever", unique="{user}", until="forever")(mail)
    hour = queue.task(name="hour", unique="{user}", until=3600, on_conflict="raise")(mail)
    with recorded() as puts:
        first = ends.put(1)
        assert (ends.put(1).id, ever.put_many([1, 2, 1]), hour.put(1).duplicate) == (first.id, 2, False)
        with pytest.raises(Duplicate):
            hour.put(1)
        ends.using(expires=60).put(2)
    assert [job.task for job in puts] == ["end", "ever", "ever", "hour", "end"]


def test_inline_jobs_end_and_let_the_next_in(broker: Broker) -> None:
    queue, inner = Queue("q", broker=broker), []

    @queue.task(name="outer", unique="{user}")
    def outer(user: int) -> None:
        inner.append(outer.put(user).duplicate)

    @queue.task(name="ever", unique="{user}", until="forever")
    def ever(user: int) -> None:
        pass

    with inline() as ran:
        outer.put(1)
        outer.put(1)
        ever.put(1)
        ever.put(1)
    assert [one.job.task for one in ran] == ["outer", "outer", "ever"]
    assert inner == [True, True]

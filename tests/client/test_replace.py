"""Unique jobs that replace each other: the newest payload of a key is the one that runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rq_lite import JobReplaced, PriorityQueue, Queue, UsageError
from rq_lite.admin import jobs, operate, status
from rq_lite.broker import Acks, Broker, Death, keys
from rq_lite.client.task import Task
from rq_lite.model.message import decode
from rq_lite.model.outcome import Finished
from rq_lite.model.states import State
from rq_lite.testing import inline, recorded
from tests.conftest import until
from tests.steps import Consumer, counter, now_ms

KEY = keys.of("q")


def mail(user: Any, text: str = "") -> None:
    """The task of these tests."""


def then(end: Any) -> None:
    """Its callback."""


@pytest.fixture
def task(queue: Queue, consumer: Consumer) -> Task[Any, Any]:
    return queue.task(name="t", unique="{user}", on_conflict="replace", result_ttl=60)(mail)


def texts(consumer: Consumer) -> list[str]:
    return [message.args[1] for _, message in consumer.take()]


def due_in(broker: Broker) -> float:
    """Seconds until the only scheduled job is due."""
    ((_, due),) = broker.reads.window(KEY.scheduled, 0, 2)
    return (float(due) - now_ms(broker)) / 1000


def let_be_due(broker: Broker) -> None:
    (member,) = broker.read(("ZRANGE", KEY.scheduled, 0, -1))[0]
    broker.read(("ZADD", KEY.scheduled, 0, member))
    assert broker.tends.promote("q")[0] == 1


def unlocked(broker: Broker) -> bool:
    return broker.read(("KEYS", KEY.unique("*")), ("HLEN", KEY.latest)) == [[], 0]


# -- the one that is there waits


def test_the_newest_payload_runs_in_the_place_of_the_first(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    first = task.put(1, "a")
    other = task.put(2, "other")
    second, third = task.put(1, "b"), task.put(1, "c")
    assert (second.duplicate, third.duplicate, task.queue.qsize()) == (False, False, 2)
    assert [job.state() for job in (first, second, third)] == ["waiting", "replaced", "waiting"]
    assert broker.tends.unfinished("q") == (3, 0)
    taken = consumer.take()
    assert [message.args[1] for _, message in taken] == ["c", "other"]
    assert [job.state() for job in (first, third, other)] == ["replaced", "running", "running"]
    with pytest.raises(JobReplaced, match="a newer job of its key was put in its place"):
        first.result(30)
    for tag, _ in taken:
        consumer.finish(tag)
    assert third.state() == "done"
    assert unlocked(broker)
    assert broker.tends.unfinished("q") == (0, 0)
    assert [counter(broker, name) for name in ("put", "replaced", "done", "duplicates")] == [4, 2, 2, 0]


def test_it_needs_no_room(task: Task[Any, Any], broker: Broker, consumer: Consumer) -> None:
    task.put_many(range(10))
    job = task.put_nowait(3, "newer")  # the queue is full
    assert [(found.id, found.state) for found in jobs.listed(broker, "q", State.REPLACING)] == [
        (job.id, State.REPLACING)
    ]
    assert status.states(broker, ["q"])["q"].replacing == 1
    taken = consumer.take()
    assert [message.id for _, message in taken if message.args[0] == 3] == [job.id]
    assert status.states(broker, ["q"])["q"].replacing == 0


def test_what_an_answer_has_no_room_for_waits_on_with_the_newest_payload(broker: Broker, consumer: Consumer) -> None:
    queue = PriorityQueue("p", maxsize=0, broker=broker)
    queue.sender.declare()
    broker.takes.register("p", "c", link=consumer.link)
    task = queue.task(name="t", unique="{user}", on_conflict="replace")(mail)
    large, found = "x" * 300_000, []
    for user in range(3):
        task.put(user, "old")
    for user in range(3):
        task.put(user, large)
    while queue.qsize():
        (got,) = broker.takes.exchange("c", [Acks("p", [])], 3, consumer.link)
        found += [decode(raw)[0] for raw in got.jobs]
    assert [(message.args[0], len(message.args[1])) for message in found] == [(user, len(large)) for user in range(3)]
    assert int(broker.read(("HGET", keys.of("p").meta, "bytes"))[0]) == 0


def test_its_bytes_count(task: Task[Any, Any], broker: Broker, consumer: Consumer) -> None:
    operate.configure(broker, "q", maxbytes=3000)
    task.put(1, "a")
    task.put(1, "x" * 2500)
    plain = task.queue.task(name="plain")(mail)
    with pytest.raises(Exception, match="is full"):
        plain.put_nowait(2, "y" * 500)
    consumer.take()
    plain.put_nowait(2, "y" * 500)


# -- it runs


@pytest.mark.parametrize("how", ["done", "failed", "cancelled"])
def test_a_newer_one_waits_for_the_end_of_a_run(
    task: Task[Any, Any], broker: Broker, consumer: Consumer, how: str
) -> None:
    first = task.put(1, "a")
    tag = consumer.one()
    second, third = task.put(1, "b"), task.put(1, "c")
    assert consumer.take() == []
    assert [job.state() for job in (first, second, third)] == ["running", "replaced", "waiting"]
    consumer.finish(tag, how)
    assert first.state() == how
    assert texts(consumer) == ["c"]
    assert counter(broker, "replaced") == 1


@pytest.mark.parametrize("how", ["retry", "give back", "reclaim", "crashed"])
def test_one_that_comes_back_gives_way(task: Task[Any, Any], broker: Broker, consumer: Consumer, how: str) -> None:
    first = task.put(1, "a")
    tag = consumer.one()
    second = task.put(1, "b")
    if how == "retry":
        broker.takes.retry("q", "c", [(tag, 60_000)], consumer.link)
    elif how == "give back":
        broker.takes.give_back("q", "c", [tag], link=consumer.link)
    elif how == "crashed":
        broker.takes.crashed("q", "c", [(tag, "how", "where", 3)], consumer.link)
    else:
        broker.tends.reclaim("q", "c", certain=True)
        broker.takes.register("q", "c", link=consumer.link)
    assert first.state() == "replaced"
    ((again, message),) = consumer.take()
    assert message.id == second.id
    consumer.finish(again)
    assert unlocked(broker)
    assert counter(broker, "retried") == 0


def test_it_inherits_the_crashes_of_its_key(task: Task[Any, Any], broker: Broker, consumer: Consumer) -> None:
    task.put(1, "a")
    tag = consumer.one()
    task.put(1, "b")
    broker.takes.crashed("q", "c", [(tag, "how", "where", 3)], consumer.link)
    tag = consumer.one()
    last = task.put(1, "c")
    broker.takes.crashed("q", "c", [(tag, "how", "where", 3)], consumer.link)
    (suspect,) = jobs.listed(broker, "q", State.SUSPECT)
    assert (suspect.id, suspect.crashes) == (last.id, 2)


def test_it_inherits_the_deaths_of_workers(task: Task[Any, Any], broker: Broker, consumer: Consumer) -> None:
    task.put(1, "a")
    consumer.one()
    second = task.put(1, "b")
    broker.tends.reclaim("q", "c", certain=True, death=Death("killed", worker=True))
    (waiting,) = jobs.listed(broker, "q", State.PENDING)
    assert (waiting.id, waiting.crashes, waiting.worker_deaths) == (second.id, 0, 1)


def test_after_a_poison_was_buried_the_newer_one_begins_with_none(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    task.put(1, "a")
    tag = consumer.one()
    last = task.put(1, "b")
    broker.takes.crashed("q", "c", [(tag, "how", "where", 1)], consumer.link)
    (waiting,) = jobs.listed(broker, "q", State.PENDING)
    assert (waiting.id, waiting.crashes) == (last.id, 0)


def test_a_poison_that_waits_for_its_callbacks_does_not_bury_the_newer_one(
    queue: Queue, broker: Broker, consumer: Consumer
) -> None:
    callback = queue.task(name="then")(then)
    task = queue.task(name="t", unique="{user}", on_conflict="replace", on_failure=callback, result_ttl=60)(mail)
    first = task.put(1, "a")
    tag = consumer.one()
    second = task.put(1, "b")
    for _ in range(2):  # its consumer also dies while it is to put the callbacks
        broker.takes.crashed("q", "c", [(tag, "how", "where", 1)], consumer.link)
        assert [job.state() for job in (first, second)] == ["waiting", "waiting"]
        tag = broker.takes.isolate("q", "c", consumer.link)[1] or consumer.one()
    broker.takes.give_back("q", "c", [tag], link=consumer.link)
    third = task.put(1, "c")
    _, tag, raw = broker.takes.isolate("q", "c", consumer.link)
    assert raw is not None
    message, _, crashes, _ = decode(raw)
    assert (message.id, crashes) == (first.id, 2)
    consumer.finish(tag, "failed")
    assert [job.state() for job in (first, second, third)] == ["failed", "replaced", "waiting"]
    (waiting,) = jobs.listed(broker, "q", State.PENDING)
    assert (waiting.id, waiting.crashes) == (third.id, 0)


def test_until_start_the_one_that_runs_is_left_alone(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    task = queue.task(name="t", unique="{user}", until="start", on_conflict="replace", result_ttl=60)(mail)
    first = task.put(1, "a")
    tag = consumer.one()
    second, third = task.put(1, "b"), task.put(1, "c")
    broker.takes.give_back("q", "c", [tag], link=consumer.link)
    assert [job.state() for job in (first, second, third)] == ["waiting", "waiting", "waiting"]
    assert sorted(texts(consumer)) == ["a", "c"]
    assert second.state() == "replaced"
    assert unlocked(broker)


def test_the_end_of_a_run_lets_the_newer_one_wait_behind_all_others_and_wakes_a_consumer(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    task.put(1, "a")
    tag = consumer.one()
    task.put(1, "b"), task.put(2, "other")
    broker.read(("DEL", KEY.bell))
    consumer.finish(tag)
    assert broker.read(("LLEN", KEY.bell)) == [1]
    assert texts(consumer) == ["other", "b"]


def test_a_newer_one_that_is_scheduled_by_the_end_of_a_run_sounds_the_alarm(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    task.put(1, "a")
    tag = consumer.one()
    task.using(delay=60).put(1, "b")
    broker.read(("DEL", KEY.alarm))
    consumer.finish(tag)
    assert broker.read(("LLEN", KEY.alarm)) == [1]


def test_a_follow_up_replaces_as_well(task: Task[Any, Any], broker: Broker, consumer: Consumer) -> None:
    plain = task.queue.task(name="plain")(mail)
    plain.put(1)
    tag = consumer.one()
    first = task.put(1, "a")
    ups = [("q", task.encoded((1, text), {}, text)) for text in ("b", "c")]
    broker.takes.finish("q", "c", [(tag, Finished("done", b"", 0, puts=ups))], consumer.link)
    assert [counter(broker, name) for name in ("put", "replaced", "latest")] == [4, 1, 1]
    assert texts(consumer) == ["c"]
    assert first.state() == "replaced"


# -- it is scheduled: debounce


def test_a_scheduled_one_gives_way_at_once(task: Task[Any, Any], broker: Broker, consumer: Consumer) -> None:
    later = task.using(delay=60)
    first, second = later.put(1, "a"), later.using(delay=600).put(1, "b")
    assert (first.state(), second.state()) == ("replaced", "scheduled")
    assert 590 < due_in(broker) <= 600
    third = task.put(1, "c")
    assert second.state() == "replaced"
    assert texts(consumer) == ["c"]
    assert third.state() == "running"
    assert counter(broker, "bytes") == 0


def test_one_that_waits_for_another_attempt_gives_way_at_once(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    first = task.put(1, "a")
    broker.takes.retry("q", "c", [(consumer.one(), 60_000)], consumer.link)
    task.put(1, "b")
    assert first.state() == "replaced"
    assert texts(consumer) == ["b"]


def test_max_wait_bounds_how_long_a_burst_puts_off(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    search = queue.task(name="t", unique="{user}", on_conflict="replace", max_wait=90)(mail).using(delay=60)
    search.put(1, "a")
    assert 55 < due_in(broker) <= 60
    with_more = search.using(delay=timedelta(seconds=85), max_wait=3600)
    with_more.put(1, "b")
    assert 80 < due_in(broker) <= 85
    search.using(delay=80).put(1, "c")
    lock = broker.read(("GET", KEY.unique("t:1")))[0].decode().split("|")
    assert 85 < (int(lock[3]) - now_ms(broker)) / 1000 <= 90, "the first one's, whatever came later"
    broker.read(("SET", KEY.unique("t:1"), "|".join([*lock[:3], str(now_ms(broker) + 5000)])))
    search.put(1, "d")
    assert 0 < due_in(broker) <= 5
    let_be_due(broker)
    tag = consumer.one()
    assert broker.read(("GET", KEY.unique("t:1")))[0].count(b"|") == 1, "the next burst has a time of its own"
    search.put(1, "e")
    consumer.finish(tag)
    assert 55 < due_in(broker) <= 60
    let_be_due(broker)
    assert texts(consumer) == ["e"]


def test_only_a_put_that_is_due_later_begins_a_burst(task: Task[Any, Any], broker: Broker, consumer: Consumer) -> None:
    bounded = task.using(max_wait=90)
    bounded.put(1, "a"), bounded.put(1, "b")
    assert broker.read(("GET", KEY.unique("t:1")))[0].count(b"|") == 1
    task.using(max_wait=90, delay=60).put(1, "c")
    assert 85 < (int(broker.read(("GET", KEY.unique("t:1")))[0].rpartition(b"|")[2]) - now_ms(broker)) / 1000 <= 90


def test_after_a_run_the_newer_one_has_its_delay(task: Task[Any, Any], broker: Broker, consumer: Consumer) -> None:
    task.put(1, "a")
    tag = consumer.one()
    task.using(delay=60).put(1, "b")
    consumer.finish(tag)
    assert texts(consumer) == []
    assert due_in(broker) > 50


# -- how a newer one ends


def test_a_newer_one_that_was_cancelled_leaves_the_first_in_its_place(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    first, second = task.put(1, "a"), task.put(1, "b")
    assert second.cancel()
    assert (first.state(), second.state()) == ("waiting", "cancelled")
    assert texts(consumer) == ["a"]
    assert [counter(broker, name) for name in ("latest", "latest_bytes", "cancelled")] == [0, 0, 1]


def test_one_that_is_too_far_to_be_found_is_dropped_at_its_turn(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    task.put(1, "a")
    second = task.put(1, "b")
    broker.read(("HSET", KEY.meta, "latest", 1001))  # more than a cancel searches
    assert second.cancel()
    broker.read(("HSET", KEY.meta, "latest", 1))
    assert second.state() == "waiting"
    assert texts(consumer) == ["a"]
    assert second.state() == "cancelled"


def test_to_cancel_the_first_does_not_lose_the_newer_one(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    first = task.put(1, "a")
    task.put(1, "b")
    assert first.cancel()
    assert texts(consumer) == ["b"]


def test_a_newer_one_that_has_expired_leaves_the_first_in_its_place(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    task.put(1, "a")
    second = task.using(expires=0.01).put(1, "b")
    until(lambda: now_ms(broker) > expiry(broker), "it has expired")
    assert texts(consumer) == ["a"]
    assert second.state() == "expired"
    assert counter(broker, "expired") == 1


def test_a_newer_one_that_has_expired_takes_the_place_if_a_consumer_has_to_put_its_callbacks(
    queue: Queue, broker: Broker, consumer: Consumer
) -> None:
    callback = queue.task(name="then")(then)
    task = queue.task(name="t", unique="{user}", on_conflict="replace", on_failure=callback, result_ttl=60)(mail)
    first = task.put(1, "a")
    task.using(expires=0.01).put(1, "b")
    until(lambda: now_ms(broker) > expiry(broker), "it has expired")
    assert texts(consumer) == ["b"]
    assert (first.state(), counter(broker, "expired")) == ("replaced", 0)


def expiry(broker: Broker) -> int:
    """When the job that is to replace another expires, ms."""
    (kept,) = broker.read(("HVALS", KEY.latest))[0]
    return int(kept.partition(b"?")[2].partition(b"{")[0])


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("how", ["purge", "shutdown"])
def test_a_place_that_is_emptied_is_empty(
    task: Task[Any, Any], broker: Broker, consumer: Consumer, how: str, runs: bool
) -> None:
    first = task.put(1, "a")
    tags = [tag for tag, _ in consumer.take()] if runs else []
    second = task.put(1, "b")
    if how == "purge":
        assert operate.purge(broker, "q") == 2 - runs
    else:
        task.queue.shutdown(immediate=True)
    assert (first.state(), second.state()) == ("running" if runs else "cancelled", "cancelled")
    for tag in tags:
        consumer.finish(tag)
    assert unlocked(broker)
    assert (counter(broker, "purged"), broker.tends.unfinished("q")) == (2 - runs, (0, 0))


def test_a_queue_that_drops_its_oldest_drops_both(broker: Broker, consumer: Consumer) -> None:
    queue = Queue("q", maxsize=2, full="drop-old", broker=broker)
    queue.sender.declare()
    task = queue.task(name="t", unique="{user}", on_conflict="replace", result_ttl=60)(mail)
    old = [task.put(1, "a"), task.put(1, "b")]
    task.put(2), task.put(3)
    assert [job.state() for job in old] == ["dropped", "dropped"]
    assert (counter(broker, "overflowed"), queue.qsize()) == (2, 2)


def test_a_buried_one_is_not_put_back_over_a_newer_one(
    task: Task[Any, Any], broker: Broker, consumer: Consumer
) -> None:
    task.put(1, "a")
    tag = consumer.one()
    consumer.finish(tag, "failed")
    task.put(1, "b")
    step = operate.requeue(broker, "q", [tag])
    assert (step.moved, step.taken) == (0, 1)


def test_a_put_whose_answer_was_lost_replaces_once(task: Task[Any, Any], broker: Broker, consumer: Consumer) -> None:
    task.put(1, "a")
    entry = task.encoded((1, "b"), {}, "newer")
    first = broker.puts.put("q", [entry], marked=True)
    with broker.core.links.lend() as link:
        link.sequence -= 1
    again = broker.puts.put("q", [entry], marked=True)
    assert first.verdicts == again.verdicts
    assert first.words[0][0] == "r"
    assert counter(broker, "put") == 2
    third = broker.puts.put("q", [task.encoded((1, "c"), {}, "newer")], marked=True)
    assert third.words == ["dnewer"], "nothing replaces itself"


def test_a_put_that_skips_gets_the_newest(task: Task[Any, Any], consumer: Consumer) -> None:
    task.put(1, "a")
    second = task.put(1, "b")
    skipped = task.using(on_conflict="skip").put(1, "c")
    assert (skipped.id, skipped.duplicate) == (second.id, True)


def test_callbacks_of_a_job_that_was_replaced_are_not_put(queue: Queue, broker: Broker, consumer: Consumer) -> None:
    done = queue.task(name="then")(then)
    task = queue.task(name="t", unique="{user}", on_conflict="replace", on_done=done)(mail)
    task.put(1, "a"), task.put(1, "b")
    assert [message.task for _, message in consumer.take()] == ["t"]


@pytest.mark.parametrize("how", ["take", "retry", "isolate"])
def test_a_join_is_woken_when_the_last_job_has_expired(
    task: Task[Any, Any], broker: Broker, consumer: Consumer, how: str
) -> None:
    job = task.using(expires=3600).put(1, "a")
    entry = broker.read(("LINDEX", KEY.pending, 0))[0]
    past = entry.replace(f"?{decode(entry)[0].expires}".encode(), b"?1", 1)
    if how == "take":
        broker.read(("LSET", KEY.pending, 0, past))
        assert consumer.take() == []
    elif how == "retry":
        tag = consumer.one()
        broker.read(("HSET", KEY.inflight("c"), tag, past))
        broker.takes.retry("q", "c", [(tag, 0)], consumer.link)
    else:
        broker.read(("DEL", KEY.pending), ("LPUSH", KEY.suspects, past), ("HSET", KEY.meta, "suspects", 1))
        assert broker.takes.isolate("q", "c", consumer.link)[1] == 0
    assert job.state() == "expired"
    assert broker.read(("LLEN", KEY.drained)) == [1]


# -- what does not go together


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"until": "forever"}, 'on_conflict="replace" needs until="end" or "start"'),
        ({"until": 60}, 'on_conflict="replace" needs until="end" or "start"'),
        ({"on_conflict": "skip", "max_wait": 5}, 'max_wait= belongs to on_conflict="replace"'),
        ({"max_wait": 0}, "max_wait must be above 0 seconds"),
        ({"on_conflict": "override"}, "on_conflict must be one of skip, replace, raise, not 'override'"),
    ],
)
def test_what_does_not_go_with_replace_is_refused_at_definition(
    queue: Queue, options: dict[str, Any], said: str
) -> None:
    define: Any = queue.task
    with pytest.raises(UsageError, match=said):
        define(**{"name": "t", "unique": "{user}", "on_conflict": "replace", **options})(mail)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"id": "x", "unique": None}, "nothing replaces itself"),
        ({"max_wait": 5, "delay": 6}, "max_wait=5 is less than delay=6"),
        ({"max_wait": 5, "at": datetime(2100, 1, 1, tzinfo=UTC)}, "goes with delay=, not with at="),
    ],
)
def test_what_does_not_go_with_replace_is_refused_by_using(
    task: Task[Any, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        task.using(**options)


# -- without Redis


def test_recorded_puts_keep_the_newest(broker: Broker) -> None:
    task = Queue("q", broker=broker).task(name="t", unique="{user}", on_conflict="replace")(mail)
    with recorded() as puts:
        task.put(1, "a"), task.put(2, "b"), task.put(1, "c")
    assert [put.args for put in puts] == [(2, "b"), (1, "c")]


def test_recorded_puts_of_one_batch_keep_the_newest(broker: Broker) -> None:
    task = Queue("q", broker=broker).task(name="t", unique="{user}", on_conflict="replace")(mail)
    with recorded() as puts:
        task.put_jobs([(1, "a"), (2, "b"), (1, "c")])
    assert [put.args for put in puts] == [(2, "b"), (1, "c")]


def test_inline_jobs_of_one_batch_replace_each_other(broker: Broker) -> None:
    ran: list[str] = []
    queue = Queue("q", broker=broker)
    newest: Task[Any, Any] = queue.task(name="t", unique="{user}", on_conflict="replace", result_ttl=60)(
        lambda user, text: ran.append(text)
    )
    with inline():
        jobs = newest.put_jobs([(1, "a"), (2, "b"), (1, "c")])
        assert [job.state() for job in jobs] == ["replaced", "done", "done"]
    assert ran == ["b", "c"]


def test_inline_jobs_that_wait_behind_another_are_replaced(broker: Broker) -> None:
    queue = Queue("q", broker=broker)
    ran: list[str] = []
    states: list[str] = []

    def note(user: int, text: str) -> None:
        ran.append(text)
        if text == "a":
            states.extend(job.state() for job in [newest.put(user, "b"), newest.put(user, "c")])

    newest: Task[Any, Any] = queue.task(name="t", unique="{user}", on_conflict="replace", result_ttl=60)(note)
    with inline():
        newest.put(1, "a")
    assert ran == ["a", "c"]
    assert states == ["replaced", "done"]  # to ask is to wait for it

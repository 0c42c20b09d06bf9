"""Queue and Task as a producer uses them."""

from __future__ import annotations

import io
import os
import queue as stdlib
import sys
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from rq_lite.admin import operate, status
from rq_lite.broker import REDIS_ERRORS, Broker, Link, base, keys
from rq_lite.client import origin
from rq_lite.client.defaults import DEFAULT, defaults
from rq_lite.client.job import Job
from rq_lite.client.origin import Elsewhere, Feeding, origin_of
from rq_lite.client.queue import Queue
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.errors import BadArgument, BrokerOutOfMemory, PayloadTooLarge, QueueFull, UsageError
from rq_lite.model.message import Message, decode, made_at
from rq_lite.model.put_options import Options
from tests.conftest import DEADLINE, until
from tests.steps import KEY, counter, length, now_ms, put, started_waiting, take

AnyTask = Task[..., Any]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


@pytest.fixture
def task(queue: Queue) -> AnyTask:
    """`add(x, y=0)`; its queue has room for 10."""

    @queue.task
    def add(x: Any, y: Any = 0) -> Any:
        return x + y

    return add


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are full ones, however slowly items come on a busy machine."""
    monkeypatch.setattr("rq_lite.client.batches.SLOW", float("inf"))


def serving(monkeypatch: pytest.MonkeyPatch, broker: Broker, queue: str) -> None:
    """From now on puts are those of a running job, whose worker serves this queue."""
    monkeypatch.setattr(defaults, "_brokers", {DEFAULT: broker})
    monkeypatch.setattr(defaults, "serves", {queue})


def messages(broker: Broker) -> list[Message]:
    return [decode(raw)[0] for raw in reversed(broker.read(("LRANGE", KEY.pending, 0, -1))[0])]


def numbers(broker: Broker) -> list[Any]:
    """The first argument of each job that waits, the next to be taken first."""
    return [message.args[0] for message in messages(broker)]


# -- put


def test_put_returns_the_job_that_was_put(task: AnyTask, broker: Broker) -> None:
    job = task.put(1, y=2)
    (message,) = messages(broker)
    assert job == Job(id=message.id, queue="q", task=task.name, args=(1,), kwargs={"y": 2})
    assert (message.task, message.args, message.kwargs) == (task.name, [1], {"y": 2})
    assert (message.timeout, message.retries) == (None, None)
    assert made_at(job.id) is not None


def test_jobs_have_different_ids(task: AnyTask) -> None:
    ids = {task.put(1).id for _ in range(10)}
    assert len(ids) == 10


def test_put_waits_until_a_take_makes_room(task: AnyTask, broker: Broker, link: Link, pool: ThreadPoolExecutor) -> None:
    broker.takes.register("q", "c", link=link)
    task.put_many(range(10))
    future = started_waiting(broker, pool, task.put, 10)
    assert not future.done()
    take(broker, link, 1)
    assert future.result(DEADLINE).args == (10,)
    assert numbers(broker) == list(range(1, 11))


def test_many_producers_that_wait_all_get_in(
    task: AnyTask, broker: Broker, link: Link, pool: ThreadPoolExecutor
) -> None:
    broker.takes.register("q", "c", link=link)
    task.put_many(range(10))
    futures = [started_waiting(broker, pool, task.put, 10 + i) for i in range(6)]
    take(broker, link, 10)
    assert {future.result(DEADLINE).args[0] for future in futures} == set(range(10, 16))
    assert sorted(numbers(broker)) == list(range(10, 16))


def test_put_nowait_raises_at_once(task: AnyTask, broker: Broker) -> None:
    task.put_many(range(10))
    with pytest.raises(QueueFull):
        task.put_nowait(10)
    assert numbers(broker) == list(range(10))


def test_a_wait_of_zero_raises_at_once(task: AnyTask) -> None:
    task.put_many(range(10))
    with pytest.raises(stdlib.Full):
        task.using(wait=0).put(10)


def test_a_wait_that_is_over_raises(task: AnyTask) -> None:
    task.put_many(range(10))
    with pytest.raises(QueueFull):
        task.using(wait=0.05).put(10)


def test_the_error_of_a_full_queue_says_how_full_and_that_nobody_consumes(task: AnyTask) -> None:
    task.put_many(range(10))
    with pytest.raises(QueueFull) as caught:
        task.put_nowait(10)
    error = caught.value
    assert (error.queue, error.size, error.maxsize, error.consumers, error.last_seen) == ("q", 10, 10, 0, None)
    assert "10 jobs waiting, bound 10; 0 consumers alive, none was ever seen" in str(error)


def test_the_error_of_a_full_queue_counts_who_consumes(task: AnyTask, broker: Broker) -> None:
    broker.takes.register("q", "c")
    task.put_many(range(10))
    with pytest.raises(QueueFull) as caught:
        task.put_nowait(10)
    assert caught.value.consumers == 1
    assert caught.value.last_seen is not None
    assert "1 consumer alive, last seen 0 s ago" in str(caught.value)


def test_the_error_of_put_many_says_how_many_were_put(task: AnyTask, broker: Broker) -> None:
    with pytest.raises(QueueFull) as caught:
        task.using(wait=0).put_many(range(25))
    assert caught.value.put == 10
    assert numbers(broker) == list(range(10))


@pytest.mark.parametrize("room", [1000, 750])
def test_whatever_ends_put_many_says_how_many_were_put(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """After several batches, of which the last may not fit whole: that the next step fails says nothing of them."""
    queue = Queue("q", maxsize=room, broker=broker)
    queue.declare()
    add = queue.task(name="add")(print)
    put = broker.puts.put

    def fail(*args: Any, **options: Any) -> Any:
        if broker.puts.size("q")[0] == room:
            raise BrokerOutOfMemory("full")
        return put(*args, **options)

    monkeypatch.setattr(broker.puts, "put", fail)
    monkeypatch.setattr(broker.puts, "wait_room", lambda *_: True)
    with pytest.raises(BrokerOutOfMemory) as caught:
        add.put_many(range(1500))
    assert caught.value.put == broker.puts.size("q")[0] == room


def test_a_put_many_within_another_counts_for_itself(broker: Broker) -> None:
    queue = Queue("q", maxsize=0, broker=broker)

    def items() -> Iterator[int]:
        yield from range(2)
        error = QueueFull("another", size=3, maxsize=3, consumers=0, last_seen=None)
        error.put = 3
        raise error

    with pytest.raises(QueueFull) as caught:
        queue.put_many(items())
    assert caught.value.put == broker.puts.size("q")[0] == 2


def test_an_argument_that_is_none_says_how_many_before_it_were_put(task: AnyTask, broker: Broker) -> None:
    operate.configure(broker, "q", maxsize=0)
    with pytest.raises(BadArgument) as caught:
        task.put_many([*range(505), object(), 506])
    assert caught.value.put == broker.puts.size("q")[0] == 505


@pytest.mark.usefixtures("whole")
def test_what_a_job_puts_into_a_queue_of_its_own_worker_neither_waits_nor_is_refused(
    task: AnyTask, broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    serving(monkeypatch, broker, "q")
    monkeypatch.setattr(origin, "warned", {})
    assert task.put_many(range(95)) == 95
    task.put_nowait(95)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(": ")[0] for line in said] == ["queue 'q' holds 95 jobs, 9 times its bound of 10"]
    for number in range(96, 170):
        task.put(number)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in said[1:]] == ["queue 'q' holds 160 jobs"]
    operate.configure(broker, "q", headroom=160)
    with pytest.raises(QueueFull, match=r"170 jobs waiting.*in a job whose own worker serves this queue") as caught:
        task.using(wait=None).put_many(range(3))
    assert caught.value.put == 0
    monkeypatch.setattr(defaults, "serves", None)
    with pytest.raises(QueueFull, match=r"ever seen$"):
        task.put_nowait(170)


def test_a_job_waits_for_room_in_a_queue_that_its_worker_does_not_serve(
    task: AnyTask, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving(monkeypatch, broker, "another")
    task.put_many(range(10))
    with pytest.raises(QueueFull, match=r"ever seen$"):
        task.put_nowait(10)
    with pytest.raises(QueueFull, match=r"each may wait for the other$"):
        task.using(wait=0.05).put(10)
    with ThreadPoolExecutor(20) as pool:
        puts = [pool.submit(task.using(wait=60).put, number) for number in range(20)]
        until(lambda: status.states(broker, ["q"])["q"].blocked_jobs == 20, "all wait")
        operate.configure(broker, "q", maxsize=0)
        for put in puts:
            put.result()
    until(lambda: status.states(broker, ["q"])["q"].blocked_jobs == 0, "none waits")
    assert broker.puts.size("q")[0] == 30


def test_connections_that_waited_for_room_in_many_queues_are_closed(broker: Broker) -> None:
    def clients() -> int:
        return len(broker.read(("CLIENT", "LIST"))[0].splitlines())

    for number in range(40):
        assert not broker.puts.wait_room(f"q{number}", 0.01)
    assert clients() <= base.KEPT + 5


def test_a_queue_of_the_same_name_in_another_redis_is_another(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    serving(monkeypatch, broker, "q")
    for url, kind in ((broker.url, Feeding), (f"{broker.url}?db=1", Elsewhere)):
        with closing(Broker(url)) as other:
            assert type(origin_of(Queue("q", broker=other).sender)) is kind


def test_what_is_refused_is_not_put(task: AnyTask, broker: Broker) -> None:
    with pytest.raises(BadArgument, match="argument 'x'"):
        task.put(object())
    with pytest.raises(BadArgument, match="missing a required argument: 'x'"):
        task.put()
    with pytest.raises(PayloadTooLarge, match="max_payload is 1,000,000"):
        task.put("x" * 1_000_001)
    with pytest.raises(BadArgument, match="argument 'x'"):
        task.put("\ud800")
    assert messages(broker) == []


# -- put_many


@pytest.mark.usefixtures("whole")
def test_put_many_reads_no_further_than_a_batch_ahead(
    server: Any, task: AnyTask, broker: Broker, link: Link, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = server.broker(batch=4)
    monkeypatch.setattr(task.queue.sender, "chosen_broker", small)
    broker.takes.register("q", "c", link=link)
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for read in range(1, 101):
            yield read - 1

    future = started_waiting(broker, pool, task.put_many, items())
    assert length(broker, KEY.pending) == 10
    assert read == 12
    tag = 0
    while not future.done() or length(broker, KEY.pending):
        taken = take(broker, link, 5, acks=range(tag - 4, tag + 1) if tag else ())
        tag = taken.tag + len(taken.jobs) if taken.jobs else 0
    assert future.result() == 100
    assert counter(broker, "put") == 100
    small.close()


def test_put_many_puts_in_order_whatever_the_batches(
    server: Any, task: AnyTask, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = server.broker(batch=7)
    monkeypatch.setattr(task.queue.sender, "chosen_broker", small)
    operate.configure(broker, "q", maxsize=0)
    assert task.put_many(range(100)) == 100
    assert numbers(broker) == list(range(100))
    small.close()


def test_lines_of_a_text_file_come_without_their_ends(task: AnyTask, broker: Broker, tmp_path: Path) -> None:
    file = tmp_path / "urls.txt"
    file.write_bytes(b"one\r\n two \n\nlast")
    with file.open(newline="") as lines:
        assert task.put_many(lines) == 4
    assert task.put_many(io.StringIO("five\n")) == 1
    assert numbers(broker) == ["one", " two ", "", "last", "five"]


def test_a_tuple_is_several_arguments_and_nothing_else_is(task: AnyTask, broker: Broker) -> None:
    assert task.put_many([(1, 2), [1, 2], {"a": 1}, (3,)]) == 4
    assert [message.args for message in messages(broker)] == [[1, 2], [[1, 2]], [{"a": 1}], [3]]


def test_what_came_before_an_error_is_put(task: AnyTask, broker: Broker) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        task.put_many(items())
    assert numbers(broker) == [0, 1, 2]


def test_what_came_before_a_bad_item_is_put(task: AnyTask, broker: Broker) -> None:
    with pytest.raises(BadArgument):
        task.put_many([1, 2, object(), 3])
    assert numbers(broker) == [1, 2]


def test_put_many_of_nothing_is_nothing(task: AnyTask) -> None:
    assert task.put_many([]) == 0


# -- options


def test_options_go_with_the_job_and_leave_the_task_as_it_was(task: AnyTask, broker: Broker) -> None:
    changed = task.using(timeout=5, retries=2)
    changed.put(1)
    task.put(2)
    first, second = messages(broker)
    assert (first.timeout, first.retries) == (5, 2)
    assert (second.timeout, second.retries) == (None, None)
    assert registry.tasks[task.name] is task


def test_a_delay_schedules(task: AnyTask, broker: Broker) -> None:
    task.using(delay=60).put(1)
    assert broker.read(("LLEN", KEY.pending), ("ZCARD", KEY.scheduled)) == [0, 1]
    assert task.queue.qsize() == 1


def test_a_delay_may_be_a_timedelta(task: AnyTask, broker: Broker) -> None:
    before = now_ms(broker)
    task.using(delay=timedelta(minutes=2)).put(1)
    (_, due) = broker.read(("ZRANGE", KEY.scheduled, 0, -1, "WITHSCORES"))[0]
    assert before + 120_000 <= int(due) <= now_ms(broker) + 120_000


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-5))])
def test_a_moment_schedules_to_the_millisecond_and_never_too_early(
    task: AnyTask, broker: Broker, zone: timezone
) -> None:
    at = datetime(2200, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC).astimezone(zone)
    task.using(at=at).put(1)
    ((_, due),) = [broker.read(("ZRANGE", KEY.scheduled, 0, 0, "WITHSCORES"))[0]]
    assert int(due) == 7258215845679


@pytest.mark.parametrize(
    "options",
    [
        {"delay": 0},
        {"delay": -5.0},
        {"at": datetime(2001, 1, 1, tzinfo=UTC)},
        {"at": datetime(1901, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
def test_what_is_due_in_the_past_is_put_now(task: AnyTask, broker: Broker, options: dict[str, Any]) -> None:
    task.using(**options).put(1)
    assert broker.read(("LLEN", KEY.pending), ("ZCARD", KEY.scheduled)) == [1, 0]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"delay": float("nan")}, "delay must be a number of seconds, up to 100 years .or a timedelta., not nan"),
        ({"delay": float("inf")}, "delay must be a number of seconds, up to 100 years .or a timedelta., not inf"),
        ({"at": datetime(2026, 1, 1)}, "at=2026-01-01 00:00:00 is a different moment in each time zone: say the zone"),
        ({"at": 17.0}, "at must be a datetime, not 17.0"),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC), "delay": 1}, "either delay= or at=, not both"),
        ({"wait": -0.1}, "wait must be 0 or more"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"timeout": None}, "timeout=None is for the task's definition"),
        ({"retries": -1}, "retries must be 0 or more"),
    ],
)
def test_options_that_cannot_be_are_refused(task: AnyTask, options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        task.using(**options)


# -- the whole queue


def test_join_returns_when_the_last_job_is_acked(
    task: AnyTask, broker: Broker, link: Link, pool: ThreadPoolExecutor
) -> None:
    broker.takes.register("q", "c", link=link)
    task.put(1)
    task.put(2)
    take(broker, link, 2)
    future = started_waiting(broker, pool, task.queue.join)
    take(broker, link, 0, acks=[1])
    assert not future.done()
    take(broker, link, 0, acks=[2])
    assert future.result(DEADLINE) is True


def test_join_gives_up_after_its_time(task: AnyTask) -> None:
    task.put(1)
    assert task.queue.join(timeout=0.05) is False
    assert task.queue.join(timeout=0) is False


def test_join_of_an_empty_queue_returns_at_once(queue: Queue) -> None:
    assert queue.join(timeout=0) is True


def test_join_does_not_ask_again_and_again_while_jobs_are_parked(
    task: AnyTask, broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.takes.register("q", "c", link=link)
    task.put(1)
    take(broker, link, 1)
    broker.takes.park("q", "c", [(1, "t")], link)
    asked = 0
    ask = broker.tends.unfinished

    def counted(name: str) -> tuple[int, int]:
        nonlocal asked
        asked += 1
        return ask(name)

    monkeypatch.setattr(broker.tends, "unfinished", counted)
    assert task.queue.join(timeout=0.2) is False
    assert asked < 10


def test_size_and_fullness(task: AnyTask, broker: Broker) -> None:
    queue = task.queue
    assert (queue.qsize(), queue.empty(), queue.full()) == (0, True, False)
    task.put_many(range(9))
    task.using(delay=60).put(9)
    assert (queue.qsize(), queue.empty(), queue.full()) == (10, False, True)
    operate.configure(broker, "q", maxsize=11)
    assert not queue.full()
    operate.configure(broker, "q", maxsize=0, maxbytes=10)
    assert queue.full()


def test_a_queue_that_is_full_of_bytes_says_so(task: AnyTask, broker: Broker) -> None:
    task.put(1)
    operate.configure(broker, "q", maxsize=0, maxbytes=200)
    with pytest.raises(QueueFull, match=r"is full: 1 job waiting, \d+ bytes, maxbytes 200; ") as caught:
        task.put_nowait("x" * 60)
    assert 0 < caught.value.bytes < caught.value.maxbytes == 200


def test_clear_drops_what_waits(task: AnyTask) -> None:
    task.put_many(range(5))
    assert task.queue.clear() == 5
    assert task.queue.empty()


def test_two_queues_of_one_name_are_the_same_queue(task: AnyTask, queue: Queue) -> None:
    task.put(1)
    assert Queue("q").qsize() == 1
    assert registry.queues["q"] is queue


def test_a_queue_with_a_broker_of_its_own_uses_it(server: Any, queue: Queue, broker: Broker) -> None:
    own = server.broker()
    assert Queue("other", broker=own).broker is own
    assert queue.broker is broker
    own.close()


# -- bounds


def test_an_operators_bound_stands_until_the_program_names_another(broker: Broker, queue: Queue) -> None:
    operate.configure(broker, "q", maxsize=50)
    assert queue.declare() == (50, 0)
    assert Queue("q", maxsize=10).declare() == (50, 0)
    assert Queue("q").declare() == (50, 0)
    assert Queue("q", maxsize=20).declare() == (20, 0)


@pytest.mark.usefixtures("queue")
def test_a_queue_that_nobody_bounds_has_the_settings_bound(broker: Broker) -> None:
    assert Queue("free").declare() == (broker.settings.maxsize, 0)
    assert Queue("free", maxsize=0, maxbytes=100).declare() == (0, 100)


@pytest.mark.parametrize("name", ["", "a b", "a{b}", "é", "x" * 201, "a\n", None])
def test_names_that_no_key_can_hold_are_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="1 to 200 letters"):
        Queue(name)


def test_a_maxsize_below_zero_is_no_bound(queue: Queue) -> None:
    assert Queue("free", -1).declare() == (0, 0)
    queue.maxsize = -5
    assert queue.maxsize == 0
    with pytest.raises(UsageError, match="maxbytes must be 0 or more"):
        Queue("q", maxbytes=-1)


def test_a_bound_that_is_no_whole_number_harms_nobody(queue: Queue, broker: Broker) -> None:
    for forged, bound in (("2.5", 2), ("nan", 0), ("x", 0), ("inf", 0)):
        broker.read(("HSET", KEY.meta, "maxsize", forged))
        assert status.states(broker, ["q"])["q"].maxsize == bound
        assert queue.maxsize == bound


@pytest.mark.usefixtures("queue")
def test_declare_lists_the_queue(broker: Broker) -> None:
    assert broker.read(("SMEMBERS", keys.QUEUES))[0] == [b"q"]


# -- tasks


def test_both_forms_of_the_decorator_make_a_task(queue: Queue) -> None:
    @queue.task
    def plain(x: int) -> int:
        return x + 1

    @queue.task(name="other", retries=3, timeout=None)
    def named(x: int) -> int:
        """Says what it does."""
        return x + 2

    assert plain(1) == 2
    assert named(1) == 3
    assert named.__doc__ == "Says what it does."
    assert plain.name == f"{__name__}:test_both_forms_of_the_decorator_make_a_task.<locals>.plain"
    assert (plain.policy.retries, plain.policy.timeout) == (0, 600.0)
    assert (named.name, named.policy.retries, named.policy.timeout) == ("other", 3, None)
    # Modules that other tests have imported may have registered tasks of their own.
    assert (registry.tasks[plain.name], registry.tasks["other"]) == (plain, named)
    assert "q" in registry.working_queues()


def test_calling_a_task_puts_nothing(task: AnyTask, broker: Broker) -> None:
    assert task(1, y=2) == 3
    assert messages(broker) == []


def test_two_functions_of_one_name_are_refused(queue: Queue) -> None:
    def one() -> None: ...

    def two() -> None: ...

    queue.task(name="same")(one)
    with pytest.raises(UsageError, match="two tasks are called 'same'"):
        queue.task(name="same")(two)
    assert registry.tasks["same"].function is one


def test_a_module_that_is_imported_again_is_no_clash(queue: Queue) -> None:
    source = "def job():\n    pass\n"
    for _ in range(2):
        space: dict[str, Any] = {"__name__": "mod"}
        exec(compile(source, "mod.py", "exec"), space)
        queue.task(space["job"])
    assert list(registry.tasks) == ["mod:job"]


@pytest.mark.parametrize(
    ("main", "name"),
    [
        ({"__file__": "/somewhere/jobs.py"}, "jobs:work"),
        ({"__spec__": types.SimpleNamespace(name="package.jobs"), "__file__": "/x/jobs.py"}, "package.jobs:work"),
        ({"__spec__": types.SimpleNamespace(name="package.__main__")}, "package:work"),
        ({}, "__main__:work"),
    ],
)
def test_a_task_of_a_script_is_called_as_others_import_it(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, main: dict[str, Any], name: str
) -> None:
    module = types.ModuleType("__main__")
    vars(module).update(main)
    monkeypatch.setitem(sys.modules, "__main__", module)

    def work() -> None: ...

    work.__module__, work.__qualname__ = "__main__", "work"
    assert queue.task(work).name == name


@pytest.mark.parametrize("policy", [{"retries": -1}, {"timeout": 0}, {"timeout": -5}])
def test_policies_that_cannot_be_are_refused(queue: Queue, policy: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        queue.task(**policy)


def test_entries_of_other_programs_may_be_mixed_in(task: AnyTask, broker: Broker) -> None:
    put(broker, 7)
    task.queue.sender.put_entries([], Options())
    task.put(8)
    assert [message.task for message in messages(broker)] == ["t", task.name]


def test_who_is_interrupted_before_an_answer_leaves_it_to_nobody(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C: a request has gone out, and nobody has begun to read."""
    link = broker.link()
    link.call("PING")

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(link._connection, "read_response", interrupted)
        for call in (lambda: link.call("ECHO", "one"), lambda: link.pipe([("ECHO", "one")])):
            with pytest.raises(KeyboardInterrupt):
                call()
    assert link.call("ECHO", "two") == b"two"
    with pytest.raises(REDIS_ERRORS):
        link.call("NOSUCH")
    assert link.pipe([("ECHO", "three")]) == [b"three"]
    link.close()


def test_a_forked_process_has_links_of_its_own(queue: Queue, broker: Broker) -> None:
    """Both put through brokers that were in use before; neither gets the other's answers."""
    broker.read(("PING",))
    child = os.fork()
    if not child:
        try:
            for number in range(20):
                assert broker.read(("ECHO", f"child-{number}"))[0] == f"child-{number}".encode()
        except BaseException:
            os._exit(1)
        os._exit(0)
    for number in range(20):
        assert broker.read(("ECHO", f"parent-{number}"))[0] == f"parent-{number}".encode()
    assert os.waitpid(child, 0)[1] == 0

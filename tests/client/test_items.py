"""Queues of plain items, with the interface of the standard library, in one process on a real Redis."""

from __future__ import annotations

import base64
import collections
import contextlib
import pickle
import queue as stdlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from rq_lite import BadArgument, Empty, Full, JobFailed, LifoQueue, PriorityQueue, Queue, ShutDown, UsageError, events
from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker, Link
from rq_lite.client import leases  # fmt: skip
from rq_lite.client.defaults import defaults
from rq_lite.client.job import Job
from tests.conftest import Server, until
from tests.faults.proxy import Proxy
from tests.steps import KEY, counter, length, script_digest, started_waiting, threads

stdlib_pair = collections.namedtuple("stdlib_pair", "priority item")


@pytest.fixture
def others(broker: Broker, link: Link) -> Callable[[int], list[int]]:
    """Takes as somebody else does: the tags that came."""
    broker.takes.register("q", "other", link=link)

    def take(want: int) -> list[int]:
        taken = broker.takes.exchange("other", [Acks("q", [])], want, link)[0]
        return list(range(taken.tag + 1, taken.tag + 1 + len(taken.jobs)))

    return take


@pytest.fixture
def rude(queue: Queue, broker: Broker) -> Iterator[Callable[[Server], tuple[Queue, Proxy]]]:
    """The queue by way of a proxy."""
    made: list[Proxy] = []

    def make(server: Server) -> tuple[Queue, Proxy]:
        proxy = Proxy(server.url)
        made.append(proxy)
        settings = broker.settings
        defaults.use(settings, Broker(proxy.url, settings=type(settings)(url=proxy.url, patience=20)))
        return Queue("q", broker=defaults.broker), proxy

    yield make
    leases.leave()
    for proxy in made:
        proxy.end()


def inflight(broker: Broker) -> int:
    return counter(broker, "inflight")


# -- the standard library's interface


@pytest.mark.parametrize("item", [None, 0, 1.5, "", "text", True, [1, [2]], {"a": None}, 2**62, [], {}])
def test_an_item_arrives_as_it_was_put(queue: Queue, item: Any) -> None:
    queue.put(item)
    found = queue.get()
    assert (found, type(found)) == (item, type(item))
    queue.task_done()
    assert queue.join(5)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ((1, "x"), "JSON has no word for tuple; put a list"),
        (b"x", "JSON has no word for bytes; put text"),
        ({1: 2}, "1 as a key"),
        (float("nan"), "no word for nan"),
        ({3}, "no word for set"),
        (object(), "no word for object"),
        ("\ud800", "cannot be put"),
    ],
)
def test_what_json_cannot_carry_is_refused(queue: Queue, item: Any, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        queue.put(item)
    assert queue.empty()


def test_what_contains_itself_is_refused(queue: Queue) -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(BadArgument, match="contains itself"):
        queue.put(ring)


def test_a_full_queue_refuses_as_the_standard_library_does(queue: Queue) -> None:
    assert queue.maxsize == 10
    for i in range(10):
        queue.put(i)
    assert (queue.full(), queue.empty(), queue.qsize()) == (True, False, 10)
    puts: list[Callable[[], None]] = [
        lambda: queue.put_nowait(10),
        lambda: queue.put(10, False),
        lambda: queue.put(10, True, 0.02),
        lambda: queue.put(10, block=False, timeout=-1),
    ]
    for put in puts:
        with pytest.raises(stdlib.Full):
            put()
    assert issubclass(Full, stdlib.Full)
    assert [queue.get() for _ in range(10)] == list(range(10))


def test_an_empty_queue_refuses_likewise(queue: Queue) -> None:
    for get in (
        queue.get_nowait,
        lambda: queue.get(False),
        lambda: queue.get(timeout=0.02),
        lambda: queue.get(block=False, timeout=-1),
    ):
        with pytest.raises(stdlib.Empty):
            get()
    assert issubclass(Empty, stdlib.Empty)


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_a_negative_timeout_is_a_value_error(queue: Queue, timeout: float) -> None:
    with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
        queue.put(1, timeout=timeout)
    with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
        queue.get(timeout=timeout)
    with pytest.raises(ValueError, match="non-negative"), queue.lease(timeout):
        raise AssertionError


def test_a_put_waits_for_room_that_a_get_makes(queue: Queue, broker: Broker) -> None:
    for i in range(10):
        queue.put(i)
    with threads() as pool:
        waiting = started_waiting(broker, pool, queue.put, 10)
        assert queue.get() == 0
        assert waiting.result(30) is None
    assert queue.qsize() == 10


def test_a_get_waits_for_a_put(queue: Queue, broker: Broker) -> None:
    with threads() as pool:
        waiting = started_waiting(broker, pool, queue.get)
        queue.put("at last")
        assert waiting.result(30) == "at last"


def test_the_bound_can_be_set(queue: Queue, broker: Broker) -> None:
    for i in range(10):
        queue.put(i)
    with threads() as pool:
        waiting = started_waiting(broker, pool, queue.put, 10)
        queue.maxsize = 11
        waiting.result(30)
    assert (queue.maxsize, Queue("q").maxsize, queue.full()) == (11, 11, True)


def test_the_bound_of_a_new_queue_can_be_set_first(queue: Queue, broker: Broker) -> None:
    new = Queue("new", maxsize=5)
    new.maxsize = 7
    new.put(1)
    assert (new.maxsize, Queue("other", maxsize=3).maxsize) == (7, 3)


def test_many_items_are_put_lazily_and_in_batches(queue: Queue) -> None:
    queue.maxsize = 0
    assert queue.put_many(i for i in range(1200)) == 1200
    assert [queue.get() for _ in range(3)] == [0, 1, 2]
    assert queue.qsize() == 1197


def test_task_done_too_often_is_a_value_error(queue: Queue) -> None:
    with pytest.raises(ValueError, match="called too many times"):
        queue.task_done()
    queue.put(1)
    queue.get()
    queue.task_done()
    with pytest.raises(ValueError, match="called too many times"):
        queue.task_done()


def test_join_waits_for_task_done(queue: Queue, broker: Broker) -> None:
    queue.put(1)
    queue.get()
    assert not queue.join(0.05)
    with threads() as pool:
        waiting = started_waiting(broker, pool, queue.join)
        queue.task_done()
        assert waiting.result(30)
    assert (inflight(broker), counter(broker, "done")) == (0, 1)


def test_task_done_settles_what_its_own_thread_got_first(queue: Queue, broker: Broker) -> None:
    def two_of_which_one_is_done() -> list[int]:
        found = [queue.get(), queue.get()]
        queue.task_done()
        return found

    for i in range(4):
        queue.put(i)
    assert queue.get() == 0
    with threads() as pool:
        assert pool.submit(two_of_which_one_is_done).result(30) == [1, 2]
    queue.task_done()
    leases.leave()
    assert [queue.get(), queue.get()] == [2, 3], "0 and 1 are done"
    with threads() as pool:  # one that has none settles the oldest of the process
        pool.submit(queue.task_done).result(30)
    leases.leave()
    assert queue.get() == 3


# -- leases


def test_an_item_that_was_got_is_nobody_else_s(queue: Queue, others: Callable[[int], list[int]]) -> None:
    queue.put(1)
    assert queue.get() == 1
    assert others(5) == []
    leases.leave()
    assert len(others(5)) == 1


def test_a_lease_is_settled_at_the_end_of_its_block(queue: Queue, broker: Broker) -> None:
    queue.put("a")
    with queue.lease() as item:
        assert (item, inflight(broker)) == ("a", 1)
    assert (inflight(broker), counter(broker, "done")) == (0, 1)
    with pytest.raises(Empty), queue.lease(0.01):
        raise AssertionError


def test_an_exception_gives_a_leased_item_back_to_the_head(queue: Queue, broker: Broker) -> None:
    queue.put("a")
    queue.put("b")
    with pytest.raises(ZeroDivisionError), queue.lease():
        raise ZeroDivisionError
    assert (queue.qsize(), inflight(broker)) == (2, 0)
    with queue.lease() as item:
        assert item == "a"
    with queue.lease() as item:
        queue.task_done()
    assert counter(broker, "done") == 2
    assert counter(broker, "stale") == 0


def test_what_the_process_holds_goes_back_in_its_order(queue: Queue, broker: Broker) -> None:
    for i in range(4):
        queue.put(i)
    assert [queue.get(), queue.get()] == [0, 1]
    leases.leave()
    assert broker.tends.consumers("q") == {}
    assert [queue.get() for _ in range(4)] == [0, 1, 2, 3]


def test_close_is_for_this_process(queue: Queue, broker: Broker) -> None:
    queue.put(1)
    queue.put(2)
    queue.get()
    queue.close()
    queue.close()
    queue.join_thread()
    queue.cancel_join_thread()
    for call in (queue.get, lambda: queue.put(1), queue.task_done, lambda: next(iter(queue))):
        with pytest.raises(ValueError, match="queue 'q' is closed"):
            call()
    assert (queue.qsize(), inflight(broker)) == (2, 0)
    assert Queue("q").get() == 1


@pytest.mark.parametrize("how", ["get", "loop", "lease"])
def test_close_ends_the_gets_that_wait(queue: Queue, broker: Broker, how: str) -> None:
    getting: dict[str, Callable[[], Any]] = {
        "get": queue.get,
        "loop": lambda: list(queue),
        "lease": lambda: queue.lease().__enter__(),
    }
    with threads() as pool:
        waiting = [started_waiting(broker, pool, getting[how]), *(pool.submit(getting[how]) for _ in range(3))]
        ((_, getter),) = leases._here.getters.values()
        until(lambda: getter._waiting == 4, "all of them wait")
        queue.close()
        queue_again = Queue("q")
        queue_again.put(1)
        for one in waiting:
            with pytest.raises(ValueError, match="queue 'q' is closed"):
                one.result(30)
    assert (queue_again.qsize(), inflight(broker)) == (1, 0)
    assert queue_again.get() == 1, "it was for nobody else"


def test_close_while_an_answer_is_on_its_way(queue: Queue, broker: Broker) -> None:
    """The take was done in Redis before `close`, its answer comes after."""
    taken, closed = threading.Event(), threading.Event()

    def watch(name: str, _link: Any, _facts: Any) -> None:
        if name == "take.after" and not taken.is_set():
            taken.set()
            closed.wait(30)

    queue.put(1)
    events.subscribers.append(watch)
    try:
        with threads() as pool:
            getting = pool.submit(queue.get)
            assert taken.wait(30)
            closing = pool.submit(queue.close)
            until(lambda: queue.sender._closed_in, "it is closed")
            closed.set()
            closing.result(30)
            with pytest.raises(ValueError, match="queue 'q' is closed"):
                getting.result(30)
    finally:
        events.subscribers.remove(watch)
    assert (queue.qsize(), inflight(broker)) == (1, 0)


def test_close_gives_back_what_a_loop_has(queue: Queue, broker: Broker) -> None:
    queue.put("a")
    loop = iter(queue)
    assert next(loop) == "a"
    queue.close()
    with pytest.raises(ValueError, match="queue 'q' is closed"):
        next(loop)
    assert (queue.qsize(), inflight(broker), counter(broker, "done")) == (1, 0, 0)


def test_close_leaves_the_other_queues_of_its_name(queue: Queue, broker: Broker) -> None:
    other = Queue("q")
    with threads() as pool:
        waiting = started_waiting(broker, pool, other.get)
        queue.close()
        other.put(1)
        assert waiting.result(30) == 1


def test_close_ends_the_puts_that_wait(queue: Queue, broker: Broker) -> None:
    queue.put_many(range(10))
    with threads() as pool:
        waiting = started_waiting(broker, pool, queue.put, "too much")
        queue.close()
        other = Queue("q")
        assert other.get() == 0
        with pytest.raises(ValueError, match="queue 'q' is closed"):
            waiting.result(30)
    assert other.qsize() == 9


def test_closing_what_was_only_put_into_makes_no_consumer(queue: Queue, broker: Broker) -> None:
    queue.put(1)
    queue.close()
    assert (broker.tends.consumers("q"), leases._here.consumers) == ({}, {})


class Held:
    """A lock that its holder may take again, without being told that this cannot be."""

    def __init__(self) -> None:
        lock = threading.RLock()
        self.acquire, self.release = lock.acquire, lock.release

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return False


@pytest.mark.parametrize("how", ["give back", "bury", "spare", "close"])
def test_what_goes_back_while_the_process_leaves_is_no_death(
    queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A thread lets go of an item when the getter was left already, and what is left has not gone back yet."""
    queue.put(1)
    queue.put(2)
    queue.get()
    ((_, getter),) = leases._here.getters.values()
    talk = Held()
    monkeypatch.setattr(getter, "_talk", talk)
    with threads() as pool:
        with talk:
            leaving = pool.submit(leases.leave)
            until(lambda: getter._left, "it leaves")
            ((held,),) = getter._shelf._held.values()
            if how == "spare":
                getter._shelf.ready.append(held)
                getter._shelf._held.clear()
                getter._return_spare()
            elif how == "close":
                getter.give_all_back()
            else:
                (getter.give_back if how == "give back" else partial(getter.bury, error=ValueError("unreadable")))(held)
        leaving.result(30)
    items = [2] if how == "bury" else [1, 2]
    assert (queue.qsize(), inflight(broker), broker.tends.consumers("q")) == (len(items), 0, {})
    assert (counter(broker, "reclaimed"), broker.read(("HLEN", KEY.dead))[0]) == (0, 2 - len(items))
    assert [queue.get() for _ in items] == items


def test_who_waits_while_all_goes_back_begins_anew(queue: Queue, broker: Broker) -> None:
    with threads() as pool:
        waiting = started_waiting(broker, pool, queue.get)
        (before,) = until(lambda: broker.tends.consumers("q"), "it has a lease")
        leases.leave()
        until(lambda: broker.tends.consumers("q").keys() - {before}, "it has another lease")
        queue.put(1)
        assert waiting.result(30) == 1
    assert len(broker.tends.consumers("q")) == 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("can't create new thread at interpreter shutdown", "this process is ending"),
        ("can't start new thread", "can't start"),
    ],
)
def test_a_first_get_when_no_thread_can_be_started(
    queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(leases, "_here", leases._Here())
    monkeypatch.setattr(leases._here, "hooked", True)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises((UsageError, RuntimeError), match=told):
            queue.get()
    leases.leave()
    assert broker.tends.consumers("q") == {}


def test_an_item_whose_lease_was_lost_is_no_error(
    queue: Queue, broker: Broker, others: Callable[[int], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    queue.put("a")
    queue.get()
    (mine,) = set(broker.tends.consumers("q")) - {"other"}
    assert broker.tends.reclaim("q", mine, certain=True)
    assert len(others(5)) == 1
    queue.task_done()
    assert "1 result came too late, after a reclaim" in caplog.text
    queue.put("b")
    assert queue.get() == "b"  # it registers anew
    queue.task_done()
    assert counter(broker, "stale") == 1


def test_a_lost_lease_is_seen_when_the_next_item_is_got(queue: Queue, broker: Broker) -> None:
    queue.put("a")
    queue.get()
    (mine,) = broker.tends.consumers("q")
    broker.tends.reclaim("q", mine, certain=True)
    assert queue.get() == "a", "it waits again"
    queue.task_done()  # of the first, which is refused
    queue.task_done()
    assert (counter(broker, "done"), counter(broker, "stale"), inflight(broker)) == (1, 1, 0)


def test_the_lease_is_renewed(queue: Queue, broker: Broker) -> None:
    queue.put("a")
    queue.get()
    (mine,) = broker.tends.consumers("q")
    broker.read(("ZADD", KEY.consumers, 1, mine))
    until(lambda: broker.tends.consumers("q")[mine] > 20, "it is prolonged")


def test_the_items_of_a_dead_getter_are_reclaimed_by_another(queue: Queue, broker: Broker, link: Link) -> None:
    queue.put("a")
    broker.takes.register("q", "dead", link=link)
    broker.takes.exchange("dead", [Acks("q", [])], 1, link)
    broker.read(("ZADD", KEY.consumers, 1, "dead"))
    assert queue.get(timeout=60) == "a"


def test_a_suspect_is_got_when_nothing_else_waits(queue: Queue, broker: Broker, link: Link) -> None:
    queue.put("killer")
    for _ in range(2):
        broker.takes.register("q", "dead", link=link)
        broker.takes.exchange("dead", [Acks("q", [])], 1, link)
        broker.tends.reclaim("q", "dead", certain=True)
    assert length(broker, KEY.suspects) == 1
    queue.put("usual")
    assert queue.get(timeout=60) == "usual"
    queue.task_done()
    assert queue.get(timeout=60) == "killer"


def test_a_suspect_is_got_although_others_always_wait(
    queue: Queue, broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rq_lite.client.get.ISOLATE", 0.1)
    queue.maxsize = 0
    queue.put("killer")
    for _ in range(2):
        broker.takes.register("q", "dead", link=link)
        broker.takes.exchange("dead", [Acks("q", [])], 1, link)
        broker.tends.reclaim("q", "dead", certain=True)

    def got() -> bool:
        queue.put("usual")
        item = queue.get()
        queue.task_done()
        return bool(item == "killer")

    queue.put("usual")
    until(got, "the suspect is got")
    assert queue.qsize() > 0


def test_what_is_no_job_is_buried_and_the_next_is_got(queue: Queue, broker: Broker) -> None:
    broker.puts.put(
        "q", [b"garbage", b'{"v":1,"id":"x","task":"","args":[1,2]}', b'{"v":1,"id":"y","task":"","args":[3]}']
    )
    assert queue.get() == 3
    assert broker.read(("HLEN", KEY.dead))[0] == 2


def test_getting_a_task_s_job_gives_the_job(queue: Queue) -> None:
    @queue.task(name="t")
    def task(a: int, b: int = 0) -> None: ...

    job = task.put(1, b=2)
    assert queue.get() == Job(id=job.id, queue="q", task="t", args=(1,), kwargs={"b": 2})


@pytest.mark.parametrize("settle", ["task_done", "lease", "loop"])
def test_a_tracked_job_that_is_got_ends_with_a_result_and_its_callbacks(queue: Queue, settle: str) -> None:
    @queue.task(name="told")
    def told(ended: Any) -> None: ...

    @queue.task(name="kept", result_ttl=60, on_done=told)
    def kept(n: int) -> int: ...  # type: ignore[empty-body]

    job = kept.put(1)
    if settle == "task_done":
        assert queue.get().id == job.id
        queue.task_done()
    elif settle == "lease":
        with queue.lease() as got:
            assert got.id == job.id
    else:
        for got in queue:
            if got.task == "told":
                break
    assert job.result(timeout=10) is None
    callback = queue.get()  # left by a loop, it has gone back
    assert (callback.task, callback.args[0]["state"], callback.args[0]["id"]) == ("told", "done", job.id)
    queue.task_done()
    queue.join()


def test_items_taken_ahead_are_this_process_s_for_a_moment(
    queue: Queue, broker: Broker, others: Callable[[int], list[int]]
) -> None:
    hasty = Queue("q", ahead=4)
    for i in range(8):
        queue.put(i)
    assert hasty.get() == 0
    # Delivery tags: how many wait tells nothing on a slow machine, where some may have gone back by now.
    assert (hasty.qsize(), counter(broker, "tag")) == (7, 5)
    assert [hasty.get(), hasty.get(), hasty.get_nowait()] == [1, 2, 3]
    until(lambda: inflight(broker) == 4, "what nobody gets goes back")
    assert len(others(1)) == 1
    assert [hasty.get(timeout=60) for _ in range(3)] == [5, 6, 7], "4 was next, and is theirs"


def test_a_loop_settles_what_it_took_ahead(queue: Queue, broker: Broker) -> None:
    queue.maxsize = 0
    for i in range(100):
        queue.put(i)
    queue.shutdown()
    broker.read(("CONFIG", "RESETSTAT"))
    assert [*Queue("q", ahead=20)] == list(range(100))
    calls = int(broker.read(("INFO", "commandstats"))[0].decode().split("evalsha:calls=")[1].split(",")[0])
    assert calls < 50
    assert (inflight(broker), counter(broker, "done"), counter(broker, "stale")) == (0, 100, 0)


# -- threads


def test_threads_that_get_at_once_share_what_comes(queue: Queue, broker: Broker) -> None:
    queue.maxsize = 0
    with ThreadPoolExecutor(12) as pool:
        getters = [pool.submit(lambda: [*queue]) for _ in range(12)]
        for i in range(300):
            queue.put(i)
        queue.shutdown()
        found = [item for getter in getters for item in getter.result(60)]
    assert sorted(found) == list(range(300))
    assert (inflight(broker), counter(broker, "done"), counter(broker, "stale")) == (0, 300, 0)


def test_a_thread_that_gives_up_leaves_the_bell_to_another(queue: Queue, broker: Broker) -> None:
    with threads() as pool:
        patient = [pool.submit(queue.get, True, 60) for _ in range(3)]
        hasty = [pool.submit(queue.get, True, 0.05) for _ in range(3)]
        for getter in hasty:
            assert isinstance(getter.exception(60), stdlib.Empty)
        for i in range(3):
            queue.put(i)
        assert sorted(getter.result(60) for getter in patient) == [0, 1, 2]


def test_one_sentinel_for_each_consumer(queue: Queue) -> None:
    queue.maxsize = 0
    found: list[int] = []

    def consume() -> None:
        while (item := queue.get()) is not None:
            found.append(item)
            queue.task_done()
        queue.task_done()

    consumers = [threading.Thread(target=consume) for _ in range(5)]
    for consumer in consumers:
        consumer.start()
    for i in range(50):
        queue.put(i)
    for _ in consumers:
        queue.put(None)
    for consumer in consumers:
        consumer.join(60)
    assert queue.join(30)
    assert sorted(found) == list(range(50))


# -- shutdown


def test_a_queue_that_was_shut_down_is_drained(queue: Queue, broker: Broker) -> None:
    queue.put(1)
    queue.shutdown()
    for put in (queue.put, queue.put_nowait):
        with pytest.raises(ShutDown, match="queue 'q' was shut down"):
            put(2)
    assert queue.get() == 1
    for get in (queue.get, queue.get_nowait):
        with pytest.raises(ShutDown, match="queue 'q' was shut down and is empty"):
            get()
    queue.task_done()
    assert queue.join(5)
    queue.reopen()
    queue.put(3)
    assert queue.get() == 3


def test_shutdown_wakes_all_who_wait(queue: Queue, broker: Broker) -> None:
    with threads() as pool:
        getters = [started_waiting(broker, pool, Queue("q").get)]
        getters += [pool.submit(queue.get) for _ in range(3)]
        queue.shutdown()
        assert all(isinstance(getter.exception(60), ShutDown) for getter in getters)
        queue.reopen()
        for i in range(10):
            queue.put(i)
        putters = [started_waiting(broker, pool, queue.put, i) for i in range(3)]
        queue.shutdown()
        assert all(isinstance(putter.exception(60), ShutDown) for putter in putters)
    assert queue.qsize() == 10


def test_an_immediate_shutdown_drops_what_waits_and_ends_a_join(queue: Queue, broker: Broker) -> None:
    for i in range(3):
        queue.put(i)
    with threads() as pool:
        waiting = started_waiting(broker, pool, queue.join)
        queue.shutdown(immediate=True)
        assert waiting.result(30)
    with pytest.raises(ShutDown):
        queue.get()
    assert (queue.qsize(), counter(broker, "purged")) == (0, 3)


def test_a_put_that_was_done_before_the_shutdown_is_answered_as_it_was(queue: Queue, broker: Broker) -> None:
    names = (KEY.pending, KEY.scheduled, KEY.meta, KEY.bell, KEY.room, KEY.producer("p"))
    put = (1, 60_000, 0, 0, 0, 1, b'{"v":1,"id":"x","task":"","args":[1]}')
    assert broker.core.run("put", names, *put)[:2] == [0, 1]
    operate.shutdown(broker, "q")
    assert broker.core.run("put", names, *put)[:2] == [0, 1]
    assert broker.core.run("put", names, 2, *put[1:]) == [-6]


def test_a_loop_ends_when_the_queue_is_shut_down_and_empty(queue: Queue, broker: Broker) -> None:
    for i in range(3):
        queue.put(i)
    queue.shutdown()
    found = []
    for item in queue:
        found.append(item)
        if item == 1:
            queue.task_done()
    assert found == [0, 1, 2]
    assert (inflight(broker), counter(broker, "done"), counter(broker, "stale")) == (0, 3, 0)


def test_a_loop_waits_for_what_others_may_give_back(
    queue: Queue, broker: Broker, others: Callable[[int], list[int]]
) -> None:
    queue.put("theirs")
    tags = others(1)
    queue.put("ours")
    queue.shutdown()
    with threads() as pool:
        loop = started_waiting(broker, pool, lambda: [*queue])
        broker.takes.give_back("q", "other", tags)
        assert loop.result(60) == ["ours", "theirs"]


@pytest.mark.parametrize("how", ["break", "raise"])
def test_who_leaves_a_loop_gives_its_item_back(queue: Queue, broker: Broker, how: str) -> None:
    for i in range(3):
        queue.put(i)

    def loop() -> None:
        for item in queue:
            if item == 1 and how == "break":
                break
            if item == 1:
                raise ZeroDivisionError

    with contextlib.suppress(ZeroDivisionError):
        loop()
    assert (queue.qsize(), counter(broker, "done"), inflight(broker)) == (2, 1, 0)


# -- order


def test_the_newest_comes_first(queue: Queue) -> None:
    lifo = LifoQueue("stack")
    for i in range(4):
        lifo.put(i)
    assert [lifo.get(), lifo.get()] == [3, 2]
    lifo.put(4)
    leases.leave()
    assert [lifo.get() for _ in range(5)] == [3, 2, 4, 1, 0], "what goes back is next"


def test_the_lowest_priority_comes_first(queue: Queue, broker: Broker) -> None:
    ranked = PriorityQueue("ranked")
    numbers: list[Any] = [3, float("inf"), None, -1.5, 3, float("-inf"), 1e300, 0, True, 2**70]
    for i, number in enumerate(numbers):
        ranked.put([str(i)], priority=number)
    assert (ranked.qsize(), ranked.full(), broker.puts.size("ranked")) == (10, False, (10, False))
    assert [int(ranked.get()[0]) for _ in numbers] == [5, 3, 2, 7, 8, 0, 4, 9, 6, 1]
    leases.leave()
    assert ranked.get() == ["5"]


def test_an_item_that_is_or_begins_with_a_number_has_it_as_its_priority(queue: Queue) -> None:
    """As in the standard library, except that equals come as they were put."""
    ranked = PriorityQueue("ranked")
    items: list[Any] = [
        3,
        (2, "b"),
        [2, "a"],
        "text",
        (-1.5, None),
        (),
        True,
        10**400,
        ("x", -9),
        {"n": -5},
        [[-7]],
        -(10**400),
    ]
    for item in items:
        ranked.put(item)
    found = [ranked.get() for _ in items]
    assert found == [
        -(10**400), (-1.5, None), "text", (), ("x", -9), {"n": -5}, [[-7]], True, (2, "b"), [2, "a"], 3, 10**400
    ]  # fmt: skip
    assert [type(item) for item in found[1:10]] == [tuple, str, tuple, tuple, dict, list, bool, tuple, list]


def test_a_priority_that_is_given_counts_instead_of_the_item_s_own(queue: Queue) -> None:
    ranked = PriorityQueue("ranked")
    ranked.put(1, priority=3)
    ranked.put_nowait((3, "x"), priority=0)
    assert ranked.put_many([2, (-1, "y"), "z"]) == 3
    assert [ranked.get() for _ in range(5)] == [(-1, "y"), (3, "x"), "z", 2, 1]


@pytest.mark.parametrize("item", [(1, (2, 3)), (1, b"x"), stdlib_pair(1, 2)])
def test_what_a_tuple_holds_must_fit_into_json(queue: Queue, item: Any) -> None:
    with pytest.raises(BadArgument, match="JSON has no word for"):
        PriorityQueue("ranked").put(item)


def test_only_a_priority_queue_takes_tuples_and_ranks(queue: Queue) -> None:
    for i in (3, 1, 2):
        queue.put([i])
    assert [queue.get() for _ in range(3)] == [[3], [1], [2]]
    with pytest.raises(BadArgument, match="JSON has no word for tuple; put a list"):
        queue.put((1, "x"))


def test_what_goes_back_comes_before_its_equals(queue: Queue) -> None:
    ranked = PriorityQueue("ranked")
    for i in range(3):
        ranked.put(i, priority=7)
    assert [ranked.get(), ranked.get()] == [0, 1]
    ranked.put("first", priority=1)
    leases.leave()
    assert [ranked.get() for _ in range(4)] == ["first", 0, 1, 2]


@pytest.mark.parametrize("priority", [float("nan"), "1", "x", 10**400, [1]])
def test_a_priority_that_cannot_be_compared_is_refused(queue: Queue, priority: Any) -> None:
    with pytest.raises(UsageError, match="priority must be a number"):
        PriorityQueue("ranked").put(1, priority=priority)


def test_a_task_s_priority_needs_a_priority_queue(queue: Queue) -> None:
    ranked = PriorityQueue("ranked")

    @ranked.task(name="there")
    def there(n: int) -> None: ...

    @queue.task
    def here(n: int) -> None: ...

    with pytest.raises(UsageError, match="priority= needs a PriorityQueue"):
        here.using(priority=1)
    there.using(priority=2).put(1)
    there.put(2)
    assert [job.args for job in (ranked.get(), ranked.get())] == [(2,), (1,)]


def test_a_retry_keeps_its_priority(queue: Queue, broker: Broker) -> None:
    ranked = PriorityQueue("ranked")
    ranked.put("urgent", priority=-1)
    ranked.put("usual")
    assert ranked.get() == "urgent"
    (mine,) = broker.tends.consumers("ranked")
    (tag,) = broker.takes.inflight("ranked", mine)
    broker.takes.retry("ranked", mine, [(tag, 1)])
    until(lambda: broker.tends.promote("ranked")[0] or broker.puts.size("ranked")[0] == 2, "it is due")
    until(lambda: broker.read(("ZCARD", "rq:{ranked}:scheduled"))[0] == 0, "it waits")
    assert [ranked.get(), ranked.get()] == ["urgent", "usual"]


def test_the_order_changes_only_while_nothing_waits(queue: Queue, broker: Broker) -> None:
    queue.put(1)
    with pytest.raises(
        UsageError, match=r"queue 'q' is a Queue, and jobs wait in it; this program makes it a LifoQueue"
    ):
        LifoQueue("q").put(2)
    assert queue.get() == 1
    lifo = LifoQueue("q")
    lifo.put(2)
    lifo.put(3)
    with pytest.raises(UsageError, match="is a LifoQueue, and jobs wait in it; this program makes it a PriorityQueue"):
        PriorityQueue("q").declare()
    assert lifo.get() == 3


def test_looking_at_a_queue_or_ending_it_leaves_its_order(queue: Queue, broker: Broker) -> None:
    ranked = PriorityQueue("ranked")
    ranked.declare()
    plain = Queue("ranked")
    plain.maxsize = plain.maxsize + plain.qsize() + 5
    plain.shutdown()
    plain.reopen()
    ranked.put("usual")
    ranked.put("urgent", priority=-1)
    assert ranked.get() == "urgent"


def test_a_forged_priority_harms_nobody(queue: Queue, broker: Broker) -> None:
    ranked = PriorityQueue("ranked")
    ranked.declare()
    body = b'{"v":1,"id":"x","task":"","args":["forged"]}'
    broker.puts.put("ranked", [b"0.0@abc" + body, b"0.0@nan" + body, b"0.0@" + body])
    ranked.put("own", priority=-1)
    assert ranked.get() == "own"
    assert ranked.qsize() == 3


# -- pickle


def test_pickled_items_need_a_secret(queue: Queue) -> None:
    anything = Queue("anything", pickle=True)
    with pytest.raises(UsageError, match="pickle=True needs a secret"):
        anything.put({1, 2})
    assert anything.empty()


@pytest.fixture
def signing(server: Server, queue: Queue) -> Iterator[Broker]:
    made = server.broker(secret="a secret for these tests").open()
    yield made
    leases.leave()
    made.close()


def test_with_a_secret_whatever_can_be_pickled_is_an_item(signing: Broker) -> None:
    anything = Queue("anything", pickle=True, broker=signing)
    for item in ({1, 2}, (1, "x"), b"bytes", KEY.pending, None):
        anything.put(item)
    assert [anything.get() for _ in range(5)] == [{1, 2}, (1, "x"), b"bytes", KEY.pending, None]


def test_what_cannot_be_pickled_is_refused(signing: Broker) -> None:
    anything = Queue("anything", pickle=True, broker=signing)
    for item in (lambda: None, threading.Lock()):
        with pytest.raises(BadArgument, match=r"queue 'anything': this item cannot be pickled: .+") as caught:
            anything.put(item)
        assert caught.value.__cause__ is not None
    assert anything.empty()


def test_a_pickle_that_nobody_signed_is_never_read(signing: Broker, broker: Broker) -> None:
    anything = Queue("anything", pickle=True, broker=signing)
    anything.declare()
    pickled = base64.b64encode(pickle.dumps(Trap())).decode()
    broker.puts.put("anything", [b'{"v":1,"id":"x","task":"","kwargs":{"pickle":"%s"}}' % pickled.encode()])
    anything.put("own")
    assert anything.get() == "own"
    assert broker.read(("HLEN", "rq:{anything}:dead"))[0] == 1
    assert Trap.sprung == 0


def test_who_waits_for_a_job_that_get_refuses_hears_of_it(signing: Broker, queue: Queue) -> None:
    @queue.task(name="unsigned", result_ttl=60)
    def unsigned() -> None: ...

    job = unsigned.put()
    assert not job.done()
    reader = Queue("q", broker=signing)
    with pytest.raises(Empty):
        reader.get(block=False)
    with pytest.raises(JobFailed, match="not signed") as caught:
        job.result(timeout=30)
    assert caught.value.type == "Refused"


def test_a_pickle_that_cannot_be_read_is_buried(signing: Broker, broker: Broker) -> None:
    anything = Queue("anything", pickle=True, broker=signing)
    anything.put(Trap())
    with pytest.raises(ZeroDivisionError):
        anything.get()
    Trap.sprung = 0
    anything.put("next")
    assert anything.get() == "next"
    assert broker.read(("HLEN", "rq:{anything}:dead"))[0] == 1


def test_who_did_not_ask_for_pickles_reads_none(signing: Broker) -> None:
    Queue("anything", pickle=True, broker=signing).put("x")
    with pytest.raises(UsageError, match=r"its next item is pickled; Queue\(\.\.\., pickle=True\) reads such items"):
        Queue("anything", broker=signing).get()
    assert Queue("anything", pickle=True, broker=signing).get() == "x"


class Trap:
    sprung = 0

    def __reduce__(self) -> Any:
        return spring, ()


def spring() -> None:
    Trap.sprung += 1
    raise ZeroDivisionError


def test_a_queue_and_a_task_can_be_pickled(queue: Queue, broker: Broker) -> None:
    copy = pickle.loads(pickle.dumps(PriorityQueue("elsewhere", maxsize=4, broker=broker)))
    assert (type(copy), copy.name, copy.maxsize, copy.broker.url) == (PriorityQueue, "elsewhere", 4, broker.url)
    same: object = pickle.loads(pickle.dumps(queue))
    assert same is queue

    @queue.task(name="t")
    def task(n: int) -> None: ...

    assert pickle.loads(pickle.dumps(task)) is task
    changed = pickle.loads(pickle.dumps(task.using(delay=60, retries=3)))
    changed.put(1)
    assert broker.read(("ZCARD", KEY.scheduled)) == [1]


# -- faults


def test_a_lost_reply_to_a_get_loses_nothing(
    server: Server, broker: Broker, rude: Callable[[Server], tuple[Queue, Proxy]]
) -> None:
    queue, proxy = rude(server)
    queue.put("a")
    assert queue.get() == "a"
    queue.task_done()
    for i in range(5):
        queue.put(i)
    proxy.swallow_replies(script_digest(broker, "exchange"), nth=2)
    found = []
    for _ in range(5):
        found.append(queue.get())
        queue.task_done()
    proxy.calm()
    assert proxy.counters.swallowed > 0
    assert sorted(found) == list(range(5))
    assert (inflight(broker), counter(broker, "done"), counter(broker, "stale")) == (0, 6, 0)


def test_what_a_lost_reply_brought_goes_back_when_the_process_leaves(
    server: Server,
    broker: Broker,
    rude: Callable[[Server], tuple[Queue, Proxy]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rq_lite.client.get.LAST", 20.0)  # a busy machine may need more than a second for it
    queue, proxy = rude(server)
    with threads() as pool:
        waiting = started_waiting(broker, pool, queue.get)
        with proxy.swallow_replies(script_digest(broker, "exchange")):
            queue.put("a")
            until(lambda: proxy.counters.swallowed > 0 and inflight(broker) == 1, "a reply is lost")
            ((_, getter),) = leases._here.getters.values()
            leaving = pool.submit(leases.leave)
            # A try that began before it left must not have its reply after all.
            until(lambda: getter._left and not getter._waiting, "it leaves, and the thread has heard of it")
        leaving.result(30)
        assert waiting.result(60) == "a", "by a new lease"
        # While the thread that got it lives.
        assert (counter(broker, "reclaimed"), inflight(broker), len(broker.tends.consumers("q"))) == (0, 1, 1)


@pytest.mark.parametrize("settling", ["exchange", "give_back"])
def test_a_lost_reply_to_what_settles_changes_nothing(
    server: Server, broker: Broker, rude: Callable[[Server], tuple[Queue, Proxy]], settling: str
) -> None:
    queue, proxy = rude(server)
    queue.put("a")
    queue.put("b")
    queue.get()
    settle = queue.task_done if settling == "exchange" else queue.close
    with threads() as pool:
        proxy.swallow_replies(script_digest(broker, settling))
        waiting = pool.submit(settle)
        until(lambda: proxy.counters.swallowed > 0, "a reply is lost")
        proxy.calm()
        waiting.result(30)
    done = settling == "exchange"
    assert (inflight(broker), counter(broker, "done"), broker.puts.size("q")[0]) == (0, int(done), 1 if done else 2)
    assert Queue("q", broker=broker).get() == ("b" if done else "a")


def test_a_lost_reply_to_the_isolation_of_a_suspect_loses_it_not(
    server: Server, broker: Broker, link: Link, rude: Callable[[Server], tuple[Queue, Proxy]]
) -> None:
    queue, proxy = rude(server)
    queue.put("killer")
    for _ in range(2):
        broker.takes.register("q", "dead", link=link)
        broker.takes.exchange("dead", [Acks("q", [])], 1, link)
        broker.tends.reclaim("q", "dead", certain=True)
    with proxy.swallow_replies(script_digest(broker, "isolate")):
        pool = ThreadPoolExecutor(1)
        waiting = pool.submit(queue.get, True, 60)
        until(lambda: proxy.counters.swallowed > 0, "a reply is lost")
    assert waiting.result(60) == "killer"
    assert (inflight(broker), length(broker, KEY.suspects)) == (1, 0)


def test_a_lost_reply_to_a_shutdown_changes_nothing(
    server: Server, broker: Broker, rude: Callable[[Server], tuple[Queue, Proxy]]
) -> None:
    queue, proxy = rude(server)
    queue.put(1)
    with threads() as pool, proxy.swallow_replies(script_digest(broker, "shutdown")):
        waiting = pool.submit(queue.shutdown, True)
        until(lambda: proxy.counters.swallowed > 0, "a reply is lost")
        proxy.calm()
        waiting.result(30)
    assert (counter(broker, "purged"), queue.qsize()) == (1, 0)
    with pytest.raises(ShutDown):
        queue.put(2)


def test_a_loop_goes_on_through_transient_errors(
    server: Server, broker: Broker, rude: Callable[[Server], tuple[Queue, Proxy]]
) -> None:
    queue, proxy = rude(server)
    queue.maxsize = 0
    for i in range(40):
        queue.put(i)
    queue.shutdown()
    found = []
    for item in queue:
        found.append(item)
        if item % 10 == 5:
            proxy.reset()
            proxy.calm()
    assert found == list(range(40))
    assert (inflight(broker), counter(broker, "done")) == (0, 40)

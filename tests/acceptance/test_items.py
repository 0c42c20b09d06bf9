"""Items between processes: leases that outlive nobody, fork and spawn, greenlets, and workers beside."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rq_lite import LifoQueue, PriorityQueue, Queue
from rq_lite.chaos.rest import undocumented
from rq_lite.client.defaults import defaults
from rq_lite.client.registry import registry
from tests.acceptance.conftest import Lab
from tests.conftest import DURABLE, ROOT, Commands, Server, until
from tests.steps import threads

GETTER = "tests.acceptance.apps.getter"
Getter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def items(lab: Lab) -> Iterator[Queue]:
    defaults.use(lab.broker.settings, lab.broker)
    made = Queue("items", maxsize=0)
    made.declare()
    yield made
    registry.queues.clear()


@pytest.fixture
def getter(lab: Lab) -> Iterator[Getter]:
    """Starts the program of tests/acceptance/apps/getter.py; what is left of it at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", GETTER, *arguments],
            cwd=ROOT,
            env={**lab.environment, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], code: int = 0) -> None:
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said


# -- leases and deaths


def test_the_item_of_a_getter_that_was_killed_is_got_by_another(lab: Lab, items: Queue, getter: Getter) -> None:
    items.put("precious")
    first = getter("hold")
    lab.until_seen("got", 1)
    first.kill()
    assert items.get(timeout=60) == "precious"
    items.task_done()
    assert items.join(10)
    assert lab.state("items").reclaimed == 1


def test_a_worker_reclaims_from_a_dead_getter_too(lab: Lab, items: Queue, getter: Getter) -> None:
    items.put("precious")
    first = getter("hold")
    lab.until_seen("got", 1)
    first.kill()
    first.wait()
    lab.work("-q", "items")
    until(lambda: lab.state("items").reclaimed == 1, "the worker reclaims it")


@pytest.mark.parametrize("how", ["plain", "gevent"])
def test_who_ends_gives_back_what_it_did_not_settle(lab: Lab, items: Queue, getter: Getter, how: str) -> None:
    for i in range(3):
        items.put(i)
    ended(getter("leave", how))
    assert lab.seen("got") == ["0", "1"]
    state = lab.state("items")
    assert (state.pending, state.inflight, state.done, state.consumers) == (2, 0, 1, 0)
    assert [items.get(), items.get()] == [1, 2]


@pytest.mark.parametrize("how", ["plain", "gevent"])
def test_threads_that_go_on_getting_while_the_program_ends(lab: Lab, items: Queue, getter: Getter, how: str) -> None:
    processes = [getter("daemons", how) for _ in range(3)]
    ending = threading.Event()

    def put() -> None:
        while not ending.is_set():
            items.put("an item")

    with threads() as pool:
        try:
            putting = pool.submit(put)
            lab.until_seen("got", 100)
            lab.open_gate()
            for process in processes:
                said = process.communicate(timeout=60)[1]
                assert (process.returncode, said) == (0, "")
        finally:
            ending.set()
        putting.result(60)
    state = lab.state("items")
    assert (state.inflight, state.consumers, state.reclaimed) == (0, 0, 0)
    assert lab.put_so_far("items") == state.pending + state.done


def test_who_gets_when_all_went_back_already_is_told_so(lab: Lab, items: Queue, getter: Getter) -> None:
    items.put(1)
    items.put(2)
    said = getter("late").communicate(timeout=60)[1]
    assert "UsageError: queue 'items': this process is ending" in said
    assert lab.seen("got") == ["1"]
    state = lab.state("items")
    assert (state.pending, state.inflight, state.consumers) == (1, 0, 0)


def test_an_item_that_kills_three_getters_is_buried(lab: Lab, items: Queue, getter: Getter) -> None:
    items.put("killer")
    for round_ in range(3):
        process = getter("hold")
        lab.until_seen("got", round_ + 1)
        process.kill()
        process.wait()
        until(lambda: reclaimed(lab), "it is reclaimed")
    assert lab.state("items").dead == 1


def reclaimed(lab: Lab) -> bool:
    for consumer in lab.broker.tends.consumers("items"):
        lab.broker.tends.reclaim("items", consumer, certain=True)
    return lab.state("items").inflight == 0


def test_status_shows_who_gets(lab: Lab, items: Queue, getter: Getter, commands: Commands) -> None:
    items.put(1)
    getter("hold")
    lab.until_seen("got", 1)
    until(lambda: "1 x get" in commands.run("status", "items").stdout, "the getter is listed")


# -- threads, greenlets, processes


@pytest.mark.parametrize("how", ["plain", "gevent"])
def test_threads_and_greenlets_share_a_lease(lab: Lab, items: Queue, getter: Getter, how: str) -> None:
    getters = [getter("many", how) for _ in range(2)]
    for i in range(200):
        items.put(i)
    items.shutdown()
    for process in getters:
        ended(process)
    assert Counter(lab.seen("got")) == Counter(map(str, range(200)))
    state = lab.state("items")
    assert (state.pending, state.inflight, state.done, state.stale) == (0, 0, 200, 0)


def consume(items: Queue, results: Queue) -> None:
    while (item := items.get()) is not None:
        results.put([item, item * item])
        items.task_done()
    items.task_done()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_queue_can_be_handed_to_a_process(lab: Lab, items: Queue, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    results = Queue("results", maxsize=0)
    items.put("before")  # the parent has a lease of its own, and a thread for it
    assert items.get() == "before"
    processes = [context.Process(target=consume, args=(items, results)) for _ in range(3)]
    for process in processes:
        process.start()
    for i in range(60):
        items.put(i)
    for _ in processes:
        items.put(None)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    items.task_done()
    assert items.join(30)
    assert sorted(results.get() for _ in range(60)) == [[i, i * i] for i in range(60)]
    assert lab.state("items").stale == 0
    assert len(lab.broker.tends.consumers("items")) == 1, "the children have said goodbye"


def hold_one(items: Queue) -> None:
    items.get()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_gives_back_at_its_end(lab: Lab, items: Queue, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    items.put("unsettled")
    process = context.Process(target=hold_one, args=(items,))
    process.start()
    process.join(60)
    state = lab.state("items")
    assert (process.exitcode, state.pending, state.inflight, state.reclaimed) == (0, 1, 0, 0)


def go_on_in_a_thread(items: Queue, results: Queue) -> None:
    threading.Thread(target=consume, args=(items, results)).start()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_lets_its_threads_finish(lab: Lab, items: Queue, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    results = Queue("results", maxsize=0)
    process = context.Process(target=go_on_in_a_thread, args=(items, results))
    process.start()
    for i in range(5):
        items.put(i)
        assert results.get(timeout=60) == [i, i * i]
        results.task_done()
    items.put(None)
    process.join(60)
    state = lab.state("items")
    assert (process.exitcode, state.done, state.pending, state.reclaimed, state.consumers) == (0, 6, 0, 0, 0)


def test_a_forked_child_does_not_settle_its_parent_s_items(lab: Lab, items: Queue) -> None:
    context: Any = multiprocessing.get_context("fork")
    items.put(1)
    items.get()
    process = context.Process(target=settle_nothing, args=(items,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    items.task_done()
    assert lab.state("items").done == 1


def settle_nothing(items: Queue) -> None:
    try:
        items.task_done()
    except ValueError:
        return
    raise AssertionError("the child has got nothing")


# -- beside workers


def test_workers_run_the_newest_first(lab: Lab, items: Queue) -> None:
    lab.environment["RQ_LITE_GREENLETS"] = "1"
    stack = LifoQueue("stack", maxsize=0)
    put(stack, "newest", range(6), [None] * 6)
    lab.drain("-q", "stack", app="tests.acceptance.apps.ordered")
    assert lab.seen("done") == [str(n) for n in reversed(range(6))]


def test_workers_run_the_lowest_priority_first(lab: Lab, items: Queue) -> None:
    lab.environment["RQ_LITE_GREENLETS"] = "1"
    ranked = PriorityQueue("ranked", maxsize=0)
    put(ranked, "lowest", range(5), [2, -1, 2, 0.5, -3])
    lab.drain("-q", "ranked", app="tests.acceptance.apps.ordered")
    assert lab.seen("done") == ["4", "1", "3", "0", "2"]
    assert lab.state("ranked").order == "priority"
    assert undocumented(lab.broker) == []


def put(queue: Queue, task: str, numbers: Any, priorities: list[Any]) -> None:
    @queue.task(name=f"tests.acceptance.apps.ordered:{task}")
    def job(n: int) -> None: ...

    for n, priority in zip(numbers, priorities, strict=True):
        (job if priority is None else job.using(priority=priority)).put(n)


def test_a_worker_leaves_items_for_who_gets_them(lab: Lab, items: Queue, commands: Commands) -> None:
    lab.environment["RQ_LITE_PARK"] = "1"
    mixed = Queue("mixed")
    mixed.put("an item")
    lab.put("usual", 7, queue="mixed", app="tests.acceptance.apps.ordered")
    worker = lab.work("-q", "mixed", app="tests.acceptance.apps.ordered")
    worker.says("parked: an item, which is for Queue.get")
    until(lambda: "(an item, for Queue.get)" in commands.run("status", "mixed").stdout, "status says so")
    assert worker.stop() == 0
    assert lab.seen("done") == ["7"]
    assert mixed.get(timeout=60) == "an item"


def test_a_worker_drains_a_queue_that_was_shut_down(lab: Lab, items: Queue, commands: Commands) -> None:
    lab.put("usual", 1, 2, 3, queue="mixed", app="tests.acceptance.apps.ordered")
    done = commands.run("queue", "shutdown", "mixed")
    assert (done.returncode, done.stdout) == (0, "queue 'mixed' is shut down; 3 jobs waiting\n")
    lab.drain("-q", "mixed", app="tests.acceptance.apps.ordered")
    assert sorted(lab.seen("done")) == ["1", "2", "3"]
    assert "shut down: nothing is put" in commands.run("status", "mixed").stdout
    assert commands.run("queue", "open", "mixed").stdout == "queue 'mixed' is open; 0 jobs waiting\n"
    Queue("mixed").put_nowait("again")


def test_the_command_drops_only_when_told_twice(lab: Lab, items: Queue, commands: Commands) -> None:
    items.put(1)
    refused = commands.run("queue", "shutdown", "items", "--immediate")
    assert (refused.returncode, "say --yes" in refused.stderr) == (2, True)
    items.put(2)
    done = commands.run("queue", "shutdown", "items", "--immediate", "--yes")
    assert done.stdout == "queue 'items' is shut down; 2 jobs dropped\n"
    assert items.qsize() == 0


def test_a_worker_whose_queue_waits_in_another_order_does_not_start(lab: Lab, items: Queue) -> None:
    Queue("stack").put(1)
    worker = lab.work("-q", "stack", app="tests.acceptance.apps.ordered")
    assert worker.wait() != 0
    assert "queue 'stack' is a Queue, and jobs wait in it; this program makes it a LifoQueue" in worker.said


# -- crashes at named moments


@pytest.mark.parametrize("moment", ["take.before", "take.after", "ack.before", "ack.after", "register.after"])
@pytest.mark.parametrize("action", ["kill", "drop", "raise"])
def test_a_getter_that_is_hit_at_a_moment_loses_nothing(
    lab: Lab, items: Queue, getter: Getter, moment: str, action: str
) -> None:
    for i in range(6):
        items.put(i)
    items.shutdown()
    hit = getter("loop", RQ_LITE_FAILPOINT=f"{moment}:{action}{'' if 'register' in moment else '@2'}")
    hit.communicate(timeout=60)
    assert hit.returncode == {"kill": -signal.SIGKILL, "drop": 0, "raise": 1}[action]
    ended(getter("loop"))
    seen = Counter(lab.seen("got"))
    assert set(seen) == set(map(str, range(6)))
    assert sum(seen.values()) <= 7 if action != "drop" else set(seen.values()) == {1}
    state = lab.state("items")
    assert (state.pending, state.inflight, state.suspects, state.done, state.dead) == (0, 0, 0, 6, 0)


def test_a_getter_goes_on_after_redis_was_restarted(
    lab_at: Callable[[Server], Lab], private: Callable[..., Server]
) -> None:
    server = private(*DURABLE)
    lab = lab_at(server)
    items = Queue("items", maxsize=0, broker=lab.broker)
    items.put_many(range(40))
    items.shutdown()
    process = subprocess.Popen(
        [sys.executable, "-m", GETTER, "slow"], cwd=ROOT, env=lab.environment, stderr=subprocess.PIPE, text=True
    )
    try:
        lab.until_seen("got", 5)
        server.kill()
        server.start(*DURABLE)
        ended(process)
    finally:
        process.kill()
        process.wait()
    assert Counter(lab.seen("got")) == Counter(map(str, range(40)))
    state = lab.state("items")
    assert (state.done, state.inflight, state.stale, state.reclaimed) == (40, 0, 0, 0)


def test_an_item_of_a_process_that_stood_still_is_somebody_else_s(lab: Lab, items: Queue, getter: Getter) -> None:
    """It goes on after its lease, and settles nothing."""
    items.put("a")
    still = getter("one", RQ_LITE_LEASE="1")
    lab.until_seen("got", 1)
    still.send_signal(signal.SIGSTOP)
    assert items.get(timeout=60) == "a"
    lab.open_gate()
    still.send_signal(signal.SIGCONT)
    ended(still)
    state = lab.state("items")
    assert (state.inflight, state.done) == (1, 0)
    items.task_done()
    assert lab.state("items").done == 1

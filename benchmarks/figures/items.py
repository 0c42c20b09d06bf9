"""Items through a Queue beside the standard library's queue between processes, `multiprocessing.Manager().Queue()`."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import redis

from benchmarks.figures.figure import Figure, Site
from rq_lite import Queue
from rq_lite.broker import Broker, Link
from rq_lite.client import leases

SLICE = 200  # items; then it is the next queue's turn
AHEAD = 100
TRANSPORT = "all on Unix sockets"
OURS, AT_ONCE, THEIRS = "Queue()", f"Queue(ahead={AHEAD})", "Manager().Queue()"
BARE = "LPUSH and BRPOP"  # no queue on Redis that waits for the answer to each put can be faster


class Items(Protocol):
    """The methods that all queues have."""

    def put(self, item: Any) -> None: ...
    def get(self) -> Any: ...


class Bare:
    """Redis' own commands, without a queue."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._links: dict[int, Link] = {}

    def _call(self, *command: Any) -> Any:
        pid = os.getpid()
        if pid not in self._links:
            self._links[pid] = self._broker.link()
        return self._links[pid].call(*command)

    def put(self, item: Any) -> None:
        self._call("LPUSH", "bare", json.dumps(item))

    def get(self) -> Any:
        return json.loads(self._call("BRPOP", "bare", 0)[1])


def beside_a_manager(site: Site) -> Iterator[Figure]:
    with site.producer() as producer, multiprocessing.get_context("fork").Manager() as manager:
        broker = Broker(on_a_socket(producer.client) or site.url)
        queues: dict[str, Items] = {
            OURS: Queue("one-by-one", maxsize=0, broker=broker),
            AT_ONCE: Queue("ahead", maxsize=0, broker=broker, ahead=AHEAD),
            BARE: Bare(broker),
            THEIRS: manager.Queue(),
        }
        try:
            pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid is not None)]
            with on_one_core([*pids, int(producer.client.info("server")["process_id"])]):
                yield from one_process(site, queues)
            yield from two_processes(site, queues)
            yield in_batches(site, broker, queues[THEIRS])
        finally:
            leases.leave()
            broker.close()


def one_process(site: Site, queues: dict[str, Items]) -> Iterator[Figure]:
    rounds: dict[str, list[float]] = {name: [] for name in queues}
    for _ in range(site.size(50, 5)):
        for name, queue in queues.items():
            rounds[name].append(there_and_back(queue))
            settle(queue, SLICE)
    found = {name: statistics.median(rates) for name, rates in rounds.items()}
    how = (
        f"small items, {SLICE} put and then got one by one in one process, all processes on one core (between two cores"
        " a wake-up may happen to cost more than all the rest); medians of slices in turn"
    )
    yield from figures("one process", found, how, {})


def two_processes(site: Site, queues: dict[str, Items]) -> Iterator[Figure]:
    items = site.size(10_000, 1_000)
    rounds: dict[str, list[float]] = {name: [] for name in queues}
    for _ in range(site.size(5, 2)):
        for name, queue in queues.items():
            rounds[name].append(items / from_another_process(queue, items))
            settle(queue, items)
    found = {name: max(rates) for name, rates in rounds.items()}
    how = f"{items:,} small items that one process puts while another gets them, one by one; best of rounds in turn"
    yield from figures("two processes", found, how, rounds)


def in_batches(site: Site, broker: Broker, theirs: Items) -> Figure:
    """rq_lite at its fastest, by batches that the manager's queue does not have; settling included."""
    items, rounds = site.size(20_000, 2_000), site.size(5, 2)
    ours: list[float] = []
    other: list[float] = []
    for number in range(rounds):
        queue = Queue(f"batches-{number}", maxsize=0, broker=broker, ahead=AHEAD)
        began = time.perf_counter()
        queue.put_many(range(items))
        queue.shutdown()
        assert sum(1 for _ in queue) == items
        ours.append(items / (time.perf_counter() - began))
        other.append(statistics.median(there_and_back(theirs) for _ in range(10)))
    how = (
        f"{items:,} small items through put_many and a loop over Queue(ahead={AHEAD}) that settles them, beside put "
        f"and get, in one process, {TRANSPORT}; best of rounds: {max(ours):,.0f}/s beside {max(other):,.0f}/s"
    )
    return Figure(f"put_many and a loop beside {THEIRS}", max(ours) / max(other), "×", how)


def figures(who: str, found: dict[str, float], how: str, rounds: dict[str, list[float]]) -> Iterator[Figure]:
    told = "; ".join(f"{name} {rate:,.0f}/s" for name, rate in found.items())
    for name, target in ((OURS, 1.0), (AT_ONCE, 1.0), (BARE, None)):
        ratio = found[name] / found[THEIRS]
        yield Figure(f"{name} beside {THEIRS}, {who}", ratio, "×", f"{how}, {TRANSPORT}: {told}", target, rounds=rounds)


@contextmanager
def on_one_core(pids: list[int]) -> Iterator[None]:
    """Keep these processes on one core during the block, if the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = {pid: os.sched_getaffinity(pid) for pid in pids}
    for pid in pids:
        os.sched_setaffinity(pid, {min(before[pid])})
    try:
        yield
    finally:
        for pid, cores in before.items():
            os.sched_setaffinity(pid, cores)


def there_and_back(queue: Items) -> float:
    began = time.perf_counter()
    for number in range(SLICE):
        queue.put(number)
    for _ in range(SLICE):
        queue.get()
    return SLICE / (time.perf_counter() - began)


def settle(queue: Items, items: int) -> None:
    """Settle the items; not timed, because the manager's queue has no such step."""
    if isinstance(queue, Queue):
        for _ in range(items):
            queue.task_done()


def from_another_process(queue: Items, items: int) -> float:
    """Seconds from the first get to the last, while another process puts the items."""
    producer = multiprocessing.get_context("fork").Process(target=put_all, args=(queue, items))
    producer.start()
    queue.get()
    began = time.perf_counter()
    for _ in range(items - 1):
        queue.get()
    seconds = time.perf_counter() - began
    producer.join()
    return seconds


def put_all(queue: Items, items: int) -> None:
    for number in range(items):
        queue.put(number)


def on_a_socket(client: redis.Redis) -> str | None:
    """The Redis' Unix socket, if it has one."""
    path = dict(client.config_get("unixsocket")).get("unixsocket")
    return f"unix://{path}" if path else None

"""Items through a Queue, beside the standard library's queue for several processes, multiprocessing.Manager().Queue()."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import redis

from benchmarks.figures.figure import Figure, Site
from rq_lite import Queue, leasing
from rq_lite.broker import Broker

SLICE = 200  # items, then it is the other's turn
TRANSPORT = "both on Unix sockets"


class Items(Protocol):
    """What both queues have."""

    def put(self, item: Any) -> None: ...
    def get(self) -> Any: ...


def beside_a_manager(site: Site) -> Iterator[Figure]:
    with site.producer() as producer, multiprocessing.get_context("fork").Manager() as manager:
        broker = Broker(on_a_socket(producer.client) or site.url)
        ours, theirs = Queue("items", maxsize=0, broker=broker), manager.Queue()
        try:
            yield from one_process(site, ours, theirs)
            yield from two_processes(site, ours, theirs)
        finally:
            leasing.leave()
            broker.close()


def one_process(site: Site, ours: Queue, theirs: Items) -> Iterator[Figure]:
    rounds: dict[str, list[float]] = {"rq_lite": [], "Manager().Queue()": [], "rq_lite with task_done": []}
    for _ in range(site.size(50, 5)):
        rounds["rq_lite"].append(rate(lambda: there_and_back(ours)))
        rounds["Manager().Queue()"].append(rate(lambda: there_and_back(theirs)))
        for _ in range(SLICE):
            ours.task_done()
        rounds["rq_lite with task_done"].append(rate(lambda: there_and_settled(ours)))
    found = {name: statistics.median(rates) for name, rates in rounds.items()}
    how = (
        f"small items, put and got one by one in one process, {TRANSPORT}: medians of slices of {SLICE} in turn; "
        f"{found['rq_lite']:,.0f}/s beside {found['Manager().Queue()']:,.0f}/s, and "
        f"{found['rq_lite with task_done']:,.0f}/s with task_done"
    )
    ratio = found["rq_lite"] / found["Manager().Queue()"]
    yield Figure("put and get beside Manager().Queue(), one process", ratio, "×", how, 1.0)


def two_processes(site: Site, ours: Queue, theirs: Items) -> Iterator[Figure]:
    items = site.size(10_000, 1_000)
    rounds: dict[str, list[float]] = {"rq_lite": [], "Manager().Queue()": []}
    for _ in range(site.size(5, 2)):
        rounds["rq_lite"].append(items / from_another_process(ours, items))
        for _ in range(items):
            ours.task_done()
        rounds["Manager().Queue()"].append(items / from_another_process(theirs, items))
    found = {name: max(rates) for name, rates in rounds.items()}
    how = (
        f"{items:,} small items that one process puts while another gets them, one by one, {TRANSPORT}; best of "
        f"{len(rounds['rq_lite'])} rounds in turn: {found['rq_lite']:,.0f}/s beside "
        f"{found['Manager().Queue()']:,.0f}/s"
    )
    ratio = found["rq_lite"] / found["Manager().Queue()"]
    yield Figure("put and get beside Manager().Queue(), two processes", ratio, "×", how, 1.0, rounds=rounds)


def there_and_back(queue: Items) -> None:
    for number in range(SLICE):
        queue.put(number)
        queue.get()


def there_and_settled(queue: Queue) -> None:
    for number in range(SLICE):
        queue.put(number)
        queue.get()
        queue.task_done()


def rate(body: Callable[[], None]) -> float:
    began = time.perf_counter()
    body()
    return SLICE / (time.perf_counter() - began)


def from_another_process(queue: Items, items: int) -> float:
    """Seconds from the first item that was got to the last, while another process puts them."""
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

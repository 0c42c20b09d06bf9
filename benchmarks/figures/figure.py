"""A figure, and the tools that every measurement of one gets."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import redis

from benchmarks import bodies
from benchmarks.contenders import ALL
from benchmarks.measure import Bench
from rq_lite import Queue
from rq_lite.broker import Broker
from rq_lite.client.task import Task

MET = {"at least": operator.ge, "at most": operator.le}


@dataclass(frozen=True)
class Figure:
    """One number, its target, and how it was measured. `rounds` are all the numbers behind it."""

    name: str
    value: float
    unit: str
    how: str
    target: float | None = None  # None: for information
    limit: Literal["at least", "at most"] = "at least"
    rounds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        return None if self.target is None else bool(MET[self.limit](self.value, self.target))

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "target": self.target,
            "limit": self.limit,
            "met": self.met,
            "how": self.how,
            "rounds": self.rounds,
        }


@dataclass(frozen=True)
class Site:
    """The private Redis, and how thorough the measurements are."""

    url: str
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @contextmanager
    def bench(self, name: str = "ours") -> Iterator[Bench]:
        """A contender with an empty folder for its tallies; Redis keeps its data."""
        contender = next(contender for contender in ALL if contender.name == name)
        with TemporaryDirectory(prefix="rq-lite-bench-") as folder:
            yield Bench(contender, self.url, Path(folder))

    @contextmanager
    def producer(self) -> Iterator[Producer]:
        """A producer in this process, on an emptied Redis."""
        producer = Producer(self.url)
        producer.client.flushall()
        try:
            yield producer
        finally:
            producer.close()


class Producer:
    """rq_lite's and redis-py's default client side by side, in one process."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.broker = Broker(url)

    def task(self, queue: str = "bench") -> Task[[str], None]:
        """The no-op job on that queue, whose bound no benchmark reaches."""
        return Queue(queue, maxsize=50_000_000, broker=self.broker).task(bodies.noop)

    def ping(self) -> Task[[float], None]:
        return Queue("bench", maxsize=50_000_000, broker=self.broker).task(bodies.ping)

    def close(self) -> None:
        self.broker.close()
        self.client.close()

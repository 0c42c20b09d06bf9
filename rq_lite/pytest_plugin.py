"""Fixtures for pytest: a real Redis that is empty for each test, or one within this process; a queue on it, workers.

pytest loads this in every run in which rq_lite is installed: it imports nothing else before a fixture is used.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rq_lite.broker import Broker
    from rq_lite.client.queue import Queue
    from rq_lite.process.background import BackgroundProcess

BOUND = 10  # of the queue


def part(name: str) -> Any:
    """A module of rq_lite.testing."""
    return importlib.import_module(f"rq_lite.testing.{name}")


@pytest.fixture(scope="session")
def rq_server() -> Iterator[Broker]:
    """One Redis in a temporary folder, for all tests of this process (each of pytest-xdist's has its own)."""
    with part("isolation").served() as broker:
        yield broker


@pytest.fixture
def rq_redis(rq_server: Broker) -> Iterator[Broker]:
    """The broker of an empty Redis; during the test all queues that were given no other broker use it."""
    isolation = part("isolation")
    broker = isolation.emptied(rq_server)
    with isolation.pointed_to(broker):
        yield broker
    broker.close()


@pytest.fixture
def rq_fake() -> Iterator[Broker]:
    """Like `rq_redis`, but within this process, without a server; docs/testing.md says what that does not prove."""
    with part("fake").fake() as broker:
        yield broker


@pytest.fixture
def _rq_broker(request: pytest.FixtureRequest) -> Broker:
    """The broker of `rq_fake` in a test that uses it, otherwise that of `rq_redis`."""
    broker: Broker = request.getfixturevalue("rq_fake" if "rq_fake" in request.fixturenames else "rq_redis")
    return broker


@pytest.fixture
def rq_queue(_rq_broker: Broker, request: pytest.FixtureRequest) -> Iterator[Queue]:
    """An empty queue with room for 10 jobs, named after the test."""
    name = re.sub(r"[^A-Za-z0-9_.:-]+", "-", request.node.name)[:200]
    with part("isolation").new_queue(name, BOUND, _rq_broker) as queue:
        yield queue


@pytest.fixture
def rq_worker(_rq_broker: Broker) -> Iterator[Callable[..., BackgroundProcess]]:
    """Starts a real worker, as `rq_lite.testing.worker` does, that is stopped at the end of the test.

    Its output is shown if the test fails.
    """
    workers = part("workers")
    started: list[BackgroundProcess] = []

    def start(app: str, **options: Any) -> BackgroundProcess:
        started.append(running.enter_context(workers.worker(app, broker=_rq_broker, **options)))
        return started[-1]

    with ExitStack() as running:
        yield start
        for worker in started:
            print(worker.said)

"""Fixtures of tests that put, take and settle by hand."""

from __future__ import annotations

import pytest

from rq_lite import Queue
from rq_lite.broker import Broker, Link
from tests.steps import Consumer


@pytest.fixture
def consumer(queue: Queue, broker: Broker, link: Link) -> Consumer:
    queue.sender.declare()
    broker.takes.register("q", "c", link=link)
    return Consumer(broker, link)

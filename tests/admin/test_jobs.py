"""Where a job is."""

from __future__ import annotations

from typing import Any

import pytest

from rq_lite.admin import jobs
from rq_lite.broker import Broker, Link
from rq_lite.model.states import State
from tests.steps import entry, put, take


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 1000, 0)
    broker.takes.register("q", "c", link=link)


def test_a_job_that_is_taken_while_one_looks_for_it_is_found(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(broker, 1)
    sizes = jobs.sizes

    def slipping(*args: Any) -> Any:
        seen = sizes(*args)
        take(broker, link, 1)
        return seen

    monkeypatch.setattr(jobs, "sizes", slipping)
    found = jobs.find(broker, "q", "00000001").job
    assert found is not None
    assert found.state is State.INFLIGHT


def test_a_job_that_never_was_is_not_found(broker: Broker) -> None:
    put(broker, 1)
    assert jobs.find(broker, "q", "00000002") == (None, 0)


def test_crashes_are_among_the_attempts_wherever_a_job_is(broker: Broker) -> None:
    broker.puts.put("q", [b"2.1" + entry(1)])
    (waiting,) = jobs.page(broker, "q", State.PENDING, 0, 1)
    assert (waiting.attempts, waiting.crashes) == (3, 1)

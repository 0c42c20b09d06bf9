"""What a supervisor learns from Redis in the place of a consumer whose loop stands still."""

from __future__ import annotations

import pytest

from rq_lite.broker import Broker, Link
from rq_lite.duties.stuck import STEP, StuckJobs
from rq_lite.errors import RqLiteError
from rq_lite.process.board import Running
from tests.conftest import Server
from tests.steps import KEY, cancel, put, take

MANY = 2 * STEP + 3


@pytest.fixture(autouse=True)
def taken(broker: Broker, link: Link) -> None:
    """Consumer "c" has many jobs of queue "q": number n by the delivery tag n."""
    broker.puts.declare("q", 1000, 0)
    broker.takes.register("q", "c", link=link)
    put(broker, *range(1, MANY + 1))
    take(broker, link, MANY)


def running(tag: int) -> Running:
    return Running(slot=tag, lane=0, tag=tag, deadline=1e6)


def standstill(*tags: int) -> StuckJobs:
    return StuckJobs("c", 1, {"q": [running(tag) for tag in tags]})


def questions(broker: Broker) -> int:
    """Commands that Redis has done so far."""
    facts: bytes = broker.read(("INFO", "stats"))[0]
    return int(facts.partition(b"total_commands_processed:")[2].split()[0])


def cost(broker: Broker, still: StuckJobs) -> int:
    """Of a look, in commands of Redis."""
    before = questions(broker)
    still.look(broker)
    return questions(broker) - before - 1


def test_only_what_runs_there_and_was_cancelled_is_seen_whenever_that_was(broker: Broker) -> None:
    cancel(broker, 2)
    cancel(broker, 3)  # that one has not begun, or has ended
    still = standstill(*(tag for tag in range(1, MANY + 1) if tag != 3))
    still.look(broker)
    assert set(still.cancelled) == {running(2)}
    cancel(broker, MANY)
    still.look(broker)
    assert set(still.cancelled) == {running(2), running(MANY)}


def test_the_time_is_that_of_the_first_look_that_saw_it(broker: Broker) -> None:
    still = standstill(1, 2)
    cancel(broker, 1)
    still.look(broker)
    first = still.cancelled
    cancel(broker, 2)
    still.look(broker)
    assert still.cancelled[running(1)] == first[running(1)]
    assert still.cancelled[running(2)] > first[running(1)]


def test_a_look_is_one_question_as_long_as_nothing_is_cancelled(broker: Broker) -> None:
    still = standstill(*range(1, MANY + 1))
    assert cost(broker, still) == 1
    cancel(broker, 0)  # somebody else's
    assert cost(broker, still) > 1
    assert cost(broker, still) == 1
    cancel(broker, 1)
    assert cost(broker, still) == 2  # who these jobs are is known by now
    assert set(still.cancelled) == {running(1)}


def test_what_is_no_job_any_more_or_never_was_one_is_passed_over(broker: Broker, link: Link) -> None:
    broker.read(("LPUSH", KEY.pending, b"no job"), ("HINCRBY", KEY.meta, "bytes", 6))
    take(broker, link, 1, acks=[1])
    cancel(broker, 2)
    still = standstill(1, 2, MANY + 1)
    still.look(broker)
    assert set(still.cancelled) == {running(2)}


def test_a_look_that_failed_is_made_up_for_by_the_next(broker: Broker, server: Server) -> None:
    cancel(broker, 1)
    still = standstill(1)
    gone = Broker(f"unix://{server.folder}/nobody", settings=broker.settings)
    with pytest.raises(RqLiteError):
        still.look(gone)
    gone.close()
    still.look(broker)
    assert set(still.cancelled) == {running(1)}

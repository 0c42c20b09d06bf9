"""Signatures, and what follows a run: in process, with `inline`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rq_lite import BadArgument, Broker, Queue, UsageError, current_job
from rq_lite.client.current import CurrentJob
from rq_lite.client.defaults import DEFAULT, defaults
from rq_lite.client.registry import registry
from rq_lite.redis_url import with_database
from rq_lite.testing import inline, recorded

ran: list[object] = []


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setattr(registry, "queues", {})
    monkeypatch.setattr(registry, "tasks", {})
    ran.clear()
    return Queue("signatures")


def here() -> CurrentJob:
    job = current_job()
    assert job is not None
    return job


def test_a_signature_says_what_it_is_and_can_be_put(queue: Queue) -> None:
    @queue.task(name="add")
    def add(a: int, b: int = 0) -> None: ...

    assert (repr(add.s(1, b=2)), repr(add.si(1))) == ("add.s(1, b=2)", "add.si(1)")
    assert (add.s(1).takes_input, add.si(1).takes_input) == (True, False)
    with recorded() as puts:
        add.using(retries=4).s(1, b=2).put()
    assert [(job.task, tuple(job.args), job.kwargs) for job in puts] == [("add", (1,), {"b": 2})]


def test_what_follows_a_run_is_run_after_it_with_the_same_id(queue: Queue) -> None:
    @queue.task(name="leaf")
    def leaf(n: int) -> None:
        ran.append((n, here().id))

    @queue.task(name="root", retries=1, backoff=0)
    def root() -> None:
        follower = here().then(leaf.s(here().attempt))
        ran.append(follower.id)
        if here().attempt == 1:
            raise ValueError("once more")

    with inline():
        root.put()
    first, second, leafed = ran
    assert first != second
    assert leafed == (2, second)


def test_a_delay_and_a_wrong_argument_are_refused_and_so_is_what_comes_too_late(queue: Queue) -> None:
    @queue.task(name="leaf")
    def leaf(n: int) -> None: ...

    job = CurrentJob(id="1", queue="q", task="t", attempt=1, deadline=None, tell=lambda _: None)
    with pytest.raises(UsageError, match=r"^then: leaf\.s\(1\) has a delay or a time; what follows a run is due"):
        job.then(leaf.using(delay=timedelta(seconds=5)).s(1))
    with pytest.raises(BadArgument, match="too many positional arguments"):
        job.then(leaf.s(1, 2))
    with inline():
        job.then(leaf.s(1))
    assert [name for name, _ in job.take_follow_ups()] == ["signatures"]
    with inline(), pytest.raises(UsageError, match=r"^then: this run of job 1 has ended"):
        job.then(leaf.s(1))


def test_one_step_cannot_reach_two_redis(queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "_brokers", {DEFAULT: broker})
    job = CurrentJob(id="1", queue="q", task="t", attempt=1, deadline=None, tell=lambda _: None)
    for name, url in {"near": broker.url, "far": with_database(broker.url, 9)}.items():
        own = Queue(name, broker=Broker(url, settings=broker.settings))

        @own.task(name=name)
        def leaf() -> None: ...

        if name == "near":
            job.then(leaf.s())
        else:
            with pytest.raises(UsageError, match=r"^then: queue 'far' is bound .*: one step cannot"):
                job.then(leaf.s())
    assert [name for name, _ in job.take_follow_ups()] == ["near"]

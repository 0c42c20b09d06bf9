"""Tags of a job's put, and the places where a program meets them again."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest

from rq_lite import JobEvent, Queue, Settings, UsageError, current_job, middleware
from rq_lite.broker import Broker
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.model.message import VERSION, Message, as_is, decode, encode, is_tracked
from rq_lite.model.schedule import from_json, to_json
from rq_lite.testing import inline, recorded

DEAD = Settings(url="redis://127.0.0.1:1", patience=0.0)


@pytest.fixture
def queue() -> Queue:
    registry.tasks.clear()
    return Queue("tagged", broker=Broker(settings=DEAD))


@pytest.fixture
def task(queue: Queue) -> Task[..., Any]:
    @queue.task(name="note", tags=["usual", "other"])
    def note(*_: object) -> tuple[str, ...]:
        job = current_job()
        assert job is not None
        return job.tags

    return note


def entry(task: Task[..., Any]) -> bytes:
    return task.encoded((), {}, "id")


def test_a_put_has_the_tags_of_its_task_or_its_own(task: Task[..., Any]) -> None:
    assert decode(entry(task))[0].tags == ("usual", "other")
    assert decode(entry(task.using(retries=2)))[0].tags == ("usual", "other")
    own = task.using(tags=["a", "b", "a"])
    assert entry(own) == b'{"v":2,"id":"id","task":"note","tags":["a","b"]}'
    assert not is_tracked(decode(entry(own))[0])
    assert pickle.loads(pickle.dumps(own.using(tags=["c"]).put_options)).policy == {"tags": ("c",)}


def test_a_job_without_tags_is_as_it_was(queue: Queue, task: Task[..., Any]) -> None:
    """The first version can read it; one with tags it parks."""
    plain = queue.task(name="plain")(print)
    assert entry(plain) == entry(plain.using(tags=[])) == encode(Message(VERSION, "id", "plain"))
    assert entry(task.using(tags=[])) == encode(Message(VERSION, "id", "note"))
    assert b'"v":1,' in entry(plain)


def test_wrong_tags_are_refused_where_they_are_given(queue: Queue, task: Task[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"^tags: ' x' cannot be a tag: "):
        task.using(tags=["a", " x"])
    with pytest.raises(UsageError, match=r"^tags must be a list, as in .*, not 'import'$"):
        queue.task(name="wrong", tags="import")(print)
    assert "wrong" not in registry.tasks


def test_a_job_knows_its_tags_and_so_does_its_handle(task: Task[..., Any]) -> None:
    seen: list[tuple[str, ...]] = []

    @middleware
    class Noting:
        def before_put(self, job: JobEvent) -> None:
            seen.append(job.tags)

        def after_run(self, job: JobEvent) -> None:
            seen.append(job.tags)

    with inline() as ran:
        job = task.using(tags=["x"], result_ttl=60).put()
        task.put()
    assert [one.value for one in ran] == [("x",), ("usual", "other")]
    assert seen == [("x",), ("x",), ("usual", "other"), ("usual", "other")]
    assert job.tags == pickle.loads(pickle.dumps(job)).tags == ("x",)
    assert task.job("1").tags == ("usual", "other")
    with recorded() as puts:
        task.using(tags=["y"]).put()
    assert puts[0].options == {"tags": ("y",)}


def test_what_puts_a_task_by_itself_gives_it_its_own_tags(queue: Queue, task: Task[..., Any]) -> None:
    first = queue.task(name="first", on_success=task, tags=["first"])(lambda: 1)
    with inline() as ran:
        first.put()
    assert [one.job.options.get("tags") for one in ran] == [("first",), ("usual", "other")]
    again = queue.task(name="again", every=timedelta(hours=1), tags=["hourly"])(print).schedule
    assert again is not None
    stored = to_json("again", again, as_is)
    read = from_json("again", stored, as_is)
    assert read is not None
    assert to_json("again", read, as_is) == stored, "a worker does not write it each time it begins"
    assert decode(read.entry("id", as_is))[0] == Message(2, "id", "again", tags=("hourly",))

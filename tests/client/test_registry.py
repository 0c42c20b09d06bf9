"""What can be a task, and what is refused where it is defined."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from rq_lite.client.queue import Queue
from rq_lite.client.registry import registry
from rq_lite.errors import UsageError
from rq_lite.testing import inline

HERE = __name__
INSTEAD = "make it a @staticmethod, or a function outside of the class"


@pytest.fixture
def queue() -> Iterator[Queue]:
    known = {**registry.tasks}
    yield Queue("q")
    registry.tasks.clear()
    registry.tasks.update(known)


def times(factor: int, n: Decimal) -> Decimal:
    return factor * n


def of_class(cls: Any, /) -> None: ...


class Times:
    def __call__(self, n: Decimal) -> Decimal:
        return 2 * n

    def method(self, n: Decimal) -> Decimal:
        return 2 * n

    async def later(self) -> None: ...


class Later:
    async def __call__(self) -> None: ...


def test_whatever_can_be_called_without_another_object_can_be_a_task(queue: Queue) -> None:
    class Inside:
        @queue.task
        @staticmethod
        def below(n: Decimal) -> Decimal:
            return 2 * n

        @staticmethod
        @queue.task
        def above(n: Decimal) -> Decimal:
            return 2 * n

    tasks = [
        queue.task(name="partial")(functools.partial(times, 2)),
        queue.task(name="object")(Times()),
        queue.task(Times().method),
        Inside.below,
        Inside.above,
    ]
    with inline():
        for task in tasks:
            job = task.using(result_ttl=60).put(Decimal("0.5"))
            assert job.result() == 1
    for task in tasks:
        assert pickle.loads(pickle.dumps(task)) is task
        assert registry.tasks[task.name] is task


def test_a_task_may_be_defined_again_by_a_second_import(queue: Queue) -> None:
    for _ in range(2):
        queue.task(name="partial")(functools.partial(times, 2))
        queue.task(name="object")(Times())
    with pytest.raises(UsageError, match="two tasks are called 'partial'"):
        queue.task(name="partial")(functools.partial(times, 3))


@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [
        (classmethod(of_class), {}, f"task {HERE}:of_class: a job has no class to call it on: {INSTEAD}"),
        (Times.method, {}, f"task {HERE}:Times.method: a job has no 'self' to call it on: {INSTEAD}"),
        (5, {}, "@queue.task needs a function, not 5"),
        ("f", {"name": "x"}, "@queue.task needs a function, not 'f'"),
        (Times().later, {"name": "x"}, "task x: a coroutine function; jobs are plain functions: write `def`, with "
         'run_in="process" and asyncio.run(…) in it'),
        (Later(), {"name": "x"}, "task x: a coroutine function; jobs are plain functions: write `def`, with "
         'run_in="process" and asyncio.run(…) in it'),
    ],
)  # fmt: skip
def test_what_no_job_could_call_is_refused_at_the_definition(
    queue: Queue, function: Any, options: dict[str, Any], reason: str
) -> None:
    define: Any = queue.task
    with pytest.raises(UsageError) as caught:
        define(**options)(function)
    assert str(caught.value) == reason


@pytest.mark.parametrize("made", [functools.partial(times, 2), Times()], ids=["partial", "object"])
def test_what_has_no_name_of_its_own_needs_one(queue: Queue, made: Any) -> None:
    with pytest.raises(UsageError, match=r'has no name of its own: give it one, as in queue.task\(name="…"\)\(…\)'):
        queue.task(made)


def test_a_class_method_is_refused_in_either_order(queue: Queue) -> None:
    with pytest.raises(UsageError, match="a job has no class to call it on"):

        class Below:
            @queue.task
            @classmethod
            def f(cls, n: int) -> None: ...

    with pytest.raises(UsageError, match="a job has no 'cls' to call it on"):

        class Above:
            @classmethod
            @queue.task
            def f(cls, n: int) -> None: ...

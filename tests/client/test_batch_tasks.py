"""Tasks with batch=: what is refused at the definition, and how their jobs are put."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rq_lite import BadArgument, BatchFailed, Queue, UsageError
from rq_lite.client.registry import registry
from rq_lite.model.message import decode
from rq_lite.testing import assert_put, inline, put_jobs, recorded


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setattr(registry, "tasks", {})
    monkeypatch.setattr(registry, "queues", {})
    return Queue("batched")


def one(those: list[int]) -> None: ...


def two(those: list[int], more: int) -> None: ...


async def later(those: list[int]) -> None: ...


def each(those: list[int]) -> Iterator[int]:
    yield from those


@pytest.mark.parametrize(
    ("options", "function", "said"),
    [
        ({"batch": 0}, one, "^batch must be 1 or more, a whole number"),
        ({"batch": 1.5}, one, "^batch must be 1 or more, a whole number"),
        ({"batch": True}, one, "^batch must be 1 or more, a whole number"),
        ({"batch": "many"}, one, "^batch must be 1 or more, a whole number"),
        ({"batch": 2, "batch_wait": -1}, one, "^batch_wait must be 0 or more seconds"),
        ({"batch": 2, "batch_wait": "1"}, one, "^batch_wait must be 0 or more seconds"),
        ({"batch": 2, "batch_wait": float("inf")}, one, "^batch_wait must be 0 or more seconds"),
        ({"batch_wait": 0.5}, one, "^batch_wait= belongs to a batch: say batch=, too$"),
        ({"batch": 2, "run_in": "process"}, one, r'^a task with batch= cannot have run_in="process": an engine runs'),
        ({"batch": 2}, two, "^task t: with batch= its function takes one argument, a list with an element for each"),
        ({"batch": 2}, later, "^task t: a coroutine function; jobs are plain functions"),
        ({"batch": 2}, each, "^task t: a generator function; jobs are plain functions"),
        ({"batch": 2, "every": 5}, one, "missing a required argument"),
        ({"batch": 2, "every": 5, "kwargs": {"those": 1}}, one, "those= is given by name"),
    ],
)
def test_what_cannot_be_right_is_refused_at_the_definition(
    queue: Queue, options: dict[str, Any], function: Any, said: str
) -> None:
    define: Any = queue.task
    with pytest.raises((UsageError, BadArgument), match=said):
        define(name="t", **options)(function)
    assert registry.tasks == {}


def test_a_put_cannot_change_the_batch(queue: Queue) -> None:
    task: Any = queue.task(batch=2, name="t")(one)
    assert (task.policy.batch, task.policy.batch_wait) == (2, 0.5)
    with pytest.raises(UsageError, match=r"no option is called batch; it is one of @queue.task\(batch=…\)$"):
        task.using(batch=3)


def test_its_schedule_puts_an_element(queue: Queue) -> None:
    task = queue.task(batch=2, every=5, args=[7], name="t")(one)
    assert task.schedule is not None
    assert task.again is not None
    assert task.again.args == [7]


def test_it_can_still_be_called_with_a_list(queue: Queue) -> None:
    task = queue.task(batch=2, name="t")(lambda those: [2 * n for n in those])
    assert task([1, 2]) == [2, 4]


def test_its_jobs_are_put_one_by_one(queue: Queue) -> None:
    def rows(those: list[tuple[str, int]]) -> None: ...

    task = queue.task(batch=2, name="t")(rows)
    with recorded() as puts:
        task.put("a", 1)
        task.put_nowait("b", 2)
        assert task.put_many([("c", 3), ("d", 4)]) == 2
        with pytest.raises(BadArgument, match="missing a required argument"):
            task.put(("e", 5))
        assert_put(task, "c", 3, times=1)
    assert [job.args for job in puts] == [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
    assert decode(task.encoded(("a", 1), {}, "id"))[0].args == ["a", 1]


def test_inline_runs_each_job_as_a_batch_of_one(queue: Queue) -> None:
    calls: list[list[int]] = []

    def function(those: list[int]) -> list[int]:
        calls.append(those)
        if those[0] < 0:
            raise BatchFailed({0: ValueError("below 0")})
        return [2 * n for n in those]

    task = queue.task(batch=10, batch_wait=60, result_ttl=60, retries=1, name="t")(function)
    with inline() as ran:
        assert task.put(21).result() == 42
        task.put_many([1, 2])
        with pytest.raises(ValueError, match=r"^below 0$"):
            task.put(-1)
        assert len(put_jobs(task)) == 4
    assert calls == [[21], [1], [2], [-1], [-1]]
    assert [one.value for one in ran] == [42, 2, 4, None]
    assert [one.attempts for one in ran] == [1, 1, 1, 2]

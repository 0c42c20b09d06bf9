"""rq_lite.testing without Redis: jobs run at once, puts kept, and what is said about them."""

from __future__ import annotations

import re
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from unittest.mock import ANY

import pytest

from rq_lite import (
    BadArgument,
    Bury,
    Ended,
    JobFailed,
    PriorityQueue,
    Queue,
    Retry,
    Settings,
    UsageError,
    current_job,
    gather,
)
from rq_lite.broker import Broker
from rq_lite.client.defaults import defaults
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.model.completion import BadResult
from rq_lite.testing import PutJob, assert_put, inline, put_jobs, recorded

DEAD = Settings(url="redis://127.0.0.1:1", patience=0.0)  # whoever asks this Redis gets an error


@pytest.fixture(params=[None, "a secret of some length"], ids=["unsigned", "signed"])
def queue(request: pytest.FixtureRequest) -> Queue:
    settings = Settings(url=DEAD.url, patience=0.0, secret=request.param)
    registry.tasks.clear()
    return PriorityQueue("nowhere", broker=Broker(settings=settings))


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def note(queue: Queue, seen: list[Any]) -> Task[..., None]:
    @queue.task(name="note")
    def note(what: Any, often: int = 1) -> None:
        seen.extend([what] * often)

    return note


# -- inline


def test_a_put_runs_the_job(note: Task[..., None], seen: list[Any]) -> None:
    with inline() as ran:
        job = note.put("a", often=2)
    assert seen == ["a", "a"]
    assert [(one.job.id, one.value, one.error, one.attempts) for one in ran] == [(job.id, None, None, 1)]


def test_its_value_is_kept(queue: Queue) -> None:
    @queue.task
    def double(n: int) -> int:
        return 2 * n

    with inline() as ran:
        assert double.put_many([1, 2, 3]) == 3
        double.using(delay=5, timeout=1).put_nowait(4)
    assert [one.value for one in ran] == [2, 4, 6, 8]


def test_as_a_decorator(note: Task[..., None], seen: list[Any]) -> None:
    @inline()
    def test(what: str) -> str:
        note.put(what)
        return what

    assert test("x") == "x"
    assert seen == ["x"]
    assert defaults.instead is None


def test_arguments_go_through_json(queue: Queue, seen: list[Any]) -> None:
    @queue.task
    def pay(amount: Decimal, day: date, names: list[Any]) -> None:
        seen.append((amount, day, names))

    names = ["a"]
    with inline():
        pay.put(Decimal("1.50"), day=date(2026, 1, 2), names=names)
        ((amount, day, got),) = seen
        assert (amount, day, got) == (Decimal("1.50"), date(2026, 1, 2), names)
        assert got is not names
        with pytest.raises(BadArgument, match="JSON has no word for object"):
            pay.put(Decimal(1), date(2026, 1, 2), [object()])
    assert len(seen) == 1


def test_an_error_is_raised_by_the_put(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rq_lite.client.batches.SLOW", float("inf"))  # on a busy machine the first would go alone

    @queue.task
    def fail(what: str) -> None:
        raise ValueError(what)

    with inline() as ran, pytest.raises(ValueError, match="one"):
        fail.put_many(["one", "two"])
    assert [str(one.error) for one in ran] == ["one", "two"], "a bad job does not stop the others"
    with inline(raises=False) as ran:
        fail.put("x")
    assert [str(one.error) for one in ran] == ["x"]


@pytest.mark.parametrize(
    ("error", "options", "attempts"),
    [
        (ValueError, {}, 1),
        (ValueError, {"retries": 2}, 3),
        (Retry, {"retries": 2, "retry_on": OSError}, 3),
        (Bury, {"retries": 2}, 1),
        (ValueError, {"retries": 2, "retry_on": OSError}, 1),
        (OSError, {"retries": 2, "no_retry_on": OSError}, 1),
        (SystemExit, {"retries": 1}, 2),
    ],
)
def test_it_is_tried_as_often_as_the_task_says(queue: Queue, error: Any, options: Any, attempts: int) -> None:
    @queue.task(backoff=1000, **options)
    def fail() -> None:
        raise error("no")

    with inline() as ran, pytest.raises(error):
        fail.put()
    assert [one.attempts for one in ran] == [attempts]


def test_what_only_looks_done_fails_at_once(queue: Queue) -> None:
    async def run() -> None: ...

    @queue.task(retries=2)
    def wrapped() -> Any:
        return run()

    with inline() as ran, pytest.raises(BadResult, match="wrapped returned a coroutine, which nothing runs"):
        wrapped.put()
    assert [one.attempts for one in ran] == [1]


def test_a_put_may_name_other_retries_and_a_later_attempt_may_succeed(queue: Queue) -> None:
    left = [1, 2]

    @queue.task
    def flaky(given: list[int]) -> str:
        assert given == [0], "each attempt has arguments of its own"
        given.append(1)
        if left:
            left.pop()
            raise ValueError
        return "done"

    with inline() as ran:
        flaky.using(retries=2).put([0])
    assert [(one.value, one.attempts, one.error) for one in ran] == [("done", 3, None)]


def test_what_ends_a_test_is_no_failure_of_a_job(queue: Queue) -> None:
    @queue.task(retries=3)
    def interrupted() -> None:
        raise KeyboardInterrupt

    with inline() as ran, pytest.raises(KeyboardInterrupt):
        interrupted.put()
    assert ran == []


def test_what_a_job_puts_runs_after_it(queue: Queue, seen: list[Any]) -> None:
    @queue.task
    def count(n: int) -> None:
        if n:
            count.put(n - 1)
        seen.append(n)

    with inline() as ran:
        count.put(5000)
        assert seen == list(range(5000, -1, -1))
    assert len(ran) == 5001


def test_jobs_of_several_threads_run_in_their_own(note: Task[..., None], seen: list[Any]) -> None:
    with inline() as ran:
        threads = [threading.Thread(target=note.put_many, args=(range(50),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(seen) == sorted([*range(50)] * 4)
    assert len(ran) == 200


def test_results(queue: Queue) -> None:
    @queue.task(result_ttl=60)
    def halves(day: date) -> list[Decimal]:
        return [Decimal(10) / day.day]

    with inline() as ran:
        job = halves.put(date(2026, 1, 4))
        assert job.done()
        assert job.result() == [Decimal("2.5")]
        assert gather(halves.put(date(2026, 1, 5)), job, timeout=1) == [[Decimal(2)], [Decimal("2.5")]]
    with recorded():
        kept = halves.put(date(2026, 1, 4))
        with pytest.raises(UsageError, match="is recorded, not run: it has no result"):
            kept.result()
    with inline(), pytest.raises(UsageError, match="was not put within this block"):
        kept.result()
    assert len(ran) == 2


def test_a_job_that_failed_says_so_to_who_asks_for_its_result(queue: Queue) -> None:
    @queue.task(result_ttl=60)
    def fail() -> None:
        raise ValueError("no")

    with inline(raises=False):
        job = fail.put()
        with pytest.raises(JobFailed, match="ValueError: no") as caught:
            job.result()
        assert "in fail\n" in caught.value.traceback
        assert job.exception() is not None


def test_a_result_that_json_cannot_carry_is_a_failure_and_not_tried_again(queue: Queue) -> None:
    @queue.task(result_ttl=60, retries=3, name="odd")
    def odd() -> object:
        return object()

    with inline() as ran, pytest.raises(ValueError, match="the result of odd: JSON has no word for object"):
        odd.put()
    assert [one.attempts for one in ran] == [1]


def test_a_job_may_wait_for_one_that_it_has_put(queue: Queue, seen: list[Any]) -> None:
    @queue.task(result_ttl=60)
    def child(n: int) -> int:
        seen.append(n)
        return n * n

    @queue.task(result_ttl=60)
    def parent() -> int:
        jobs = [child.put(n) for n in (1, 2, 3)]
        return int(jobs[2].result() + jobs[0].result())

    with inline():
        assert parent.put().result() == 10
    assert seen == [3, 1, 2]


def test_callbacks(queue: Queue, seen: list[Any]) -> None:
    after = Queue("after", broker=queue.broker)

    @after.task(name="good")
    def good(result: int) -> None:
        seen.append(result)

    @after.task(name="bad")
    def bad(ended: Ended) -> None:
        seen.append((ended.state, ended.error, ended.attempts))

    @queue.task(on_success=good, on_done=bad, retries=1)
    def half(n: int) -> float:
        return 10 / n

    with inline(raises=False):
        half.put(2)
        assert seen == [5.0, ("done", None, 1)]
        assert_put(good, 5.0, times=1)
        half.put(0)
        assert seen[2:] == [("failed", "ZeroDivisionError: division by zero", 2)]
        assert [job.task for job in put_jobs(after)] == ["good", "bad", "bad"]


def test_the_current_job(queue: Queue, seen: list[Any]) -> None:
    @queue.task(timeout=100, name="own", retries=1)
    def own() -> None:
        job = current_job()
        assert job is not None
        assert 90 < (job.remaining() or 0) <= 100
        job.progress(job.attempt, 2, "half")
        seen.append((job.id, job.queue, job.task, job.attempt))
        if job.attempt == 1:
            raise ValueError

    with inline() as ran:
        put = own.put()
    assert seen == [(put.id, "nowhere", "own", 1), (put.id, "nowhere", "own", 2)]
    assert ran[0].progress is not None
    assert (ran[0].progress.done, ran[0].progress.note) == (2, "half")
    assert current_job() is None


def test_items_are_only_kept(queue: Queue) -> None:
    with inline() as ran:
        Queue("items", broker=queue.broker).put({"a": 1})
        assert [job.args for job in put_jobs(registry.queues["items"])] == [({"a": 1},)]
    assert ran == []


def test_a_task_that_nobody_knows_is_named(note: Task[..., None]) -> None:
    registry.tasks.clear()
    with inline(), pytest.raises(UsageError, match="no task 'note' is known here"):
        note.put(1)


def test_a_signed_queue_looks_at_signatures(queue: Queue, note: Task[..., None]) -> None:
    entry = note.encoded(("x",), {}, "id")
    assert entry.endswith(b"}") == (queue.broker.core.signer is None)


# -- recorded


def test_puts_are_kept_and_nothing_runs(note: Task[..., None], seen: list[Any], queue: Queue) -> None:
    with recorded() as puts:
        job = note.using(delay=2.5, timeout=5, retries=1, priority=-1.5, result_ttl=60).put("a", often=2)
        note.put("b")
        note.using(at=datetime(2036, 1, 1, tzinfo=UTC)).put("c")
    assert seen == []
    options = {"timeout": 5.0, "retries": 1, "result_ttl": 60.0, "priority": -1.5, "delay": 2.5}
    assert puts == [
        PutJob(id=job.id, queue="nowhere", task="note", args=("a",), kwargs={"often": 2}, options=options),
        PutJob(id=puts[1].id, queue="nowhere", task="note", args=("b",)),
        PutJob(
            id=puts[2].id,
            queue="nowhere",
            task="note",
            args=("c",),
            options={"at": datetime(2036, 1, 1, tzinfo=UTC)},
        ),
    ]
    assert str(puts[0]).startswith("note('a', often=2)  timeout=5.0")


def test_blocks_within_blocks(note: Task[..., None], seen: list[Any]) -> None:
    with recorded() as outer:
        with inline():
            note.put(1)
        note.put(2)
    assert seen == [1]
    assert [put.args for put in outer] == [(2,)]


# -- what is said


def test_put_jobs_are_those_of_the_queue_or_the_task(queue: Queue, note: Task[..., None]) -> None:
    other = queue.task(name="other")(lambda: None)
    elsewhere = Queue("elsewhere", broker=queue.broker).task(name="elsewhere")(lambda: None)
    with recorded():
        note.put(1)
        other.put()
        elsewhere.put()
        assert [job.task for job in put_jobs(queue)] == ["note", "other"]
        assert [job.task for job in put_jobs(note)] == ["note"]
        assert [job.task for job in put_jobs(elsewhere)] == ["elsewhere"]


def test_assert_put(note: Task[..., None]) -> None:
    with inline():
        note.put("a")
        note.put("a", often=1)
        note.put(what="b", often=3)
        assert_put(note, "a")
        assert_put(note, "a", times=2)
        assert_put(note, what="a", often=1, times=2)
        assert_put(note, "b", ANY, times=1)
        assert_put(note, ANY, ANY, times=3)
        assert_put(note, "c", times=0)
        there = "\n  note('a')\n  note('a', often=1)\n  note(what='b', often=3)"
        said = "note('c') was not put; on queue 'nowhere' this task was put as:"
        with pytest.raises(AssertionError, match=re.escape(said + there)):
            assert_put(note, "c")
        with pytest.raises(AssertionError, match="was put 2 times, not 1"):
            assert_put(note, "a", times=1)
        with pytest.raises(AssertionError, match="was put 2 times, not 0"):
            assert_put(note, "a", times=0)
        with pytest.raises(TypeError, match="too many positional"):
            assert_put(note, 1, 2, 3)


def test_a_task_that_was_not_put_at_all(note: Task[..., None]) -> None:
    with recorded(), pytest.raises(AssertionError, match="was not put; this task was not put at all"):
        assert_put(note, "c")


def test_a_long_list_is_cut(note: Task[..., None]) -> None:
    with recorded():
        note.put_many(range(25))
        with pytest.raises(AssertionError, match=r"note\(19\)\n  and 5 more"):
            assert_put(note, "c")

"""Hooks: how they are registered, in which order they are called, and that they change nothing."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from typing import Any

import pytest

from rq_lite import Bury, JobEvent, Queue, Retry, Settings, UsageError, current_job, middleware
from rq_lite.broker import Broker
from rq_lite.client import middleware as module
from rq_lite.client.middleware import NAMES, Hooks, registered
from rq_lite.client.registry import registry
from rq_lite.consumer.executor import Executor
from rq_lite.consumer.run import Attempt, Outcomes, chances, failed, run_once, run_with_hooks, runner
from rq_lite.logs import RateLimitedLog
from rq_lite.model.message import TAGGED, VERSION, Message, as_is
from rq_lite.model.retry import Failure
from rq_lite.testing import inline, recorded

DEAD = Settings(url="redis://127.0.0.1:1", patience=0.0)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    registry.tasks.clear()
    monkeypatch.setattr(module, "seldom", RateLimitedLog(logging.getLogger("rq_lite"), seconds=0.0))
    return Queue("hooked", broker=Broker(settings=DEAD))


@pytest.fixture
def seen() -> list[Any]:
    return []


def noting(seen: list[Any], *names: str, mark: str = "") -> object:
    """An object with these hooks, which note what they got."""

    def hook(name: str) -> Callable[[Any, JobEvent], None]:
        return lambda self, job: seen.append((f"{mark}{name}", job))

    return type("Noting", (), {name: hook(name) for name in names})()


def names(seen: list[Any]) -> list[str]:
    return [name for name, _ in seen]


# -- registering


def test_the_hooks_are_these() -> None:
    assert NAMES == (
        "before_put", "after_put", "before_run", "after_run", "on_failure", "on_retry", "on_bury",
        "worker_start", "worker_stop",
    )  # fmt: skip


def test_without_hooks_around_runs_the_plain_function_runs_jobs() -> None:
    executor = Executor({}, "c", None)  # type: ignore[arg-type]
    assert (runner(), executor._run_once, registered.puts) == (run_once, run_once, False)
    middleware(noting([], "before_put", "on_failure", "on_bury", "worker_start"))
    assert (runner(), registered.puts) == (run_once, True)
    middleware(noting([], "after_run"))
    executor = Executor({}, "c", None)  # type: ignore[arg-type]
    assert (runner(), executor._run_once) == (run_with_hooks, run_with_hooks)


def test_a_class_stays_what_it_is_and_takes_its_own_place_when_it_is_imported_once_more() -> None:
    def imported(said: str) -> type:
        @middleware
        class Own:
            def on_bury(self, job: JobEvent) -> str:
                return said

        return Own

    assert isinstance(imported("old"), type)
    other = middleware(noting([], "on_bury"))
    middleware(other)
    imported("new")
    first, second = registered.hooks["on_bury"]
    assert first(None) == "new"
    assert second.__self__ is other  # type: ignore[attr-defined]


def test_what_is_not_overridden_is_not_called() -> None:
    @middleware
    class Own(Hooks):
        def on_bury(self, job: JobEvent) -> None: ...

    assert {name for name, hooks in registered.hooks.items() if hooks} == {"on_bury"}
    assert not registered.runs


async def asynchronous(self: object, job: JobEvent) -> None: ...


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ({}, "it has no hook; the hooks are before_put, after_put"),
        ({"on_failed": print}, "no hook is called on_failed; the hooks are before_put"),
        ({"before_job": print, "on_bury": print}, "no hook is called before_job"),
        ({"on_bury": asynchronous}, "on_bury is a coroutine function; hooks are plain functions: write `def`"),
    ],
)
def test_what_cannot_be_right_is_refused(methods: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        middleware(type("Odd", (), methods))
    assert not any(registered.hooks.values())


# -- runs


def test_around_a_run_and_its_failures(queue: Queue, seen: list[Any]) -> None:
    @queue.task(name="half", retries=1)
    def half(n: int, *, of: int = 10) -> float:
        seen.append(("run", None))
        return of / n

    for mark in ("1.", "2."):
        middleware(noting(seen, *NAMES, mark=mark))
    with inline(raises=False):
        job = half.put(0, of=7)
    around = ["1.before_run", "2.before_run", "run", "2.after_run", "1.after_run", "1.on_failure", "2.on_failure"]
    puts = ["1.before_put", "2.before_put"], ["2.after_put", "1.after_put"]
    ends = ["1.on_retry", "2.on_retry"], ["1.on_bury", "2.on_bury"]
    assert names(seen) == [*puts[0], *around, *ends[0], *around, *ends[1], *puts[1]]
    assert {(e.id, e.queue, e.task, *e.args, *e.kwargs.items()) for _, e in seen if e} == {
        (job.id, "hooked", "half", 0, ("of", 7))
    }
    by_name: dict[str, list[JobEvent]] = {}
    for name, event in seen:
        by_name.setdefault(name, []).append(event)
    assert [event.attempt for event in by_name["1.before_run"]] == [1, 2]
    assert [event.attempt for event in by_name["1.on_failure"]] == [1, 2]
    assert [event.attempt for event in by_name["1.after_put"]] == [0]
    (first, _) = by_name["1.after_run"]
    assert isinstance(first.exception, ZeroDivisionError)
    (buried,) = by_name["1.on_bury"]
    assert (buried.error, buried.exception, buried.delay) == ("ZeroDivisionError: division by zero", None, None)
    assert "in half\n" in buried.traceback
    (retried,) = by_name["1.on_retry"]
    assert retried.delay is not None
    assert 0 <= retried.delay <= 1


def test_a_run_that_returns(queue: Queue, seen: list[Any]) -> None:
    middleware(noting(seen, *NAMES))
    with inline() as ran:
        queue.task(name="five")(lambda: 5).put()
    assert [one.value for one in ran] == [5]
    assert names(seen) == ["before_put", "before_run", "after_run", "after_put"]
    assert seen[2][1].exception is None


@pytest.mark.parametrize(("error", "told"), [(Bury("no"), "on_bury"), (Retry("later", delay=7), "on_retry")])
def test_what_a_failure_leads_to(error: Exception, told: str, seen: list[Any]) -> None:
    def fail() -> None:
        raise error

    task = Queue("hooked").task(name="fail", retries=1)(fail)
    middleware(noting(seen, "on_failure", "on_retry", "on_bury"))
    outcomes = Outcomes({}, "c", as_is, 1000)
    attempt = Attempt(Message(TAGGED, "id", "fail", tags=("x",)), "hooked", 0, 2)
    with pytest.raises(type(error)) as caught:
        run_once(task, attempt.message, None)
    outcomes.raised(attempt, chances(task.policy, caught.value), failed(caught.value, 60.0, 0.1))
    assert names(seen) == ["on_failure", told]
    assert (seen[1][1].attempt, seen[1][1].tags) == (3, ("x",))
    assert seen[1][1].delay == (7 if told == "on_retry" else None)


def test_a_job_that_consumers_have_died_of_is_told_of_too(seen: list[Any]) -> None:
    middleware(noting(seen, *NAMES))
    Outcomes({}, "c", as_is, 1000).poisoned(Attempt(Message(VERSION, "id", "t"), "hooked", 0, 3))
    ((name, event),) = seen
    assert (name, event.error, event.attempt) == ("on_bury", "poison: 3 consumers died while it ran", 3)


@pytest.mark.parametrize(
    ("crashes", "then", "told"),
    [(1, None, "on_retry"), (2, None, "on_bury"), (2, {"failure": ["hooked", "t"]}, "")],
    ids=["again", "poison", "poison-with-callbacks"],
)
def test_the_death_of_an_engine_is_told_with_what_follows(
    seen: list[Any], crashes: int, then: dict[str, list[str]] | None, told: str
) -> None:
    middleware(noting(seen, *NAMES))
    attempt = Attempt(Message(VERSION, "id", "t", then=then), "hooked", 0, crashes)
    Outcomes({}, "c", as_is, 1000).crashed(attempt, Failure("Crashed: its process died", "in f"), 3)
    assert names(seen) == ["on_failure", *([told] if told else [])]
    assert {(event.attempt, event.error) for _, event in seen} == {(crashes + 1, "Crashed: its process died")}
    assert seen[-1][1].delay == (0.0 if told == "on_retry" else None)


color = contextvars.ContextVar("color", default="none")


def test_a_hook_shares_the_context_of_its_run_and_knows_the_job(queue: Queue, seen: list[Any]) -> None:
    @middleware
    class Painter:
        def before_run(self, job: JobEvent) -> None:
            here = current_job()
            assert here is not None
            color.set(here.id)

        def after_run(self, job: JobEvent) -> None:
            seen.append(color.get())

    with inline():
        job = queue.task(name="paint")(lambda: seen.append(color.get())).put()
    assert seen == [job.id, job.id]
    assert color.get() == "none"


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("name", NAMES[:7])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), Broken()])
def test_a_hook_that_raises_is_logged_and_changes_nothing(
    queue: Queue, seen: list[Any], caplog: pytest.LogCaptureFixture, name: str, error: BaseException
) -> None:
    def fail(self: object, job: JobEvent) -> None:
        raise error

    @queue.task(name="half", retries=1)
    def half(n: int) -> float:
        return 10 / n

    middleware(type("Bad", (), {name: fail}))
    middleware(noting(seen, name))
    with inline(raises=False) as ran:
        half.put(2)
        half.put(0)
    assert [(one.value, type(one.error), one.attempts) for one in ran] == [
        (5.0, type(None), 1),
        (None, ZeroDivisionError, 2),
    ]
    assert names(seen) == [name] * len(seen)
    assert seen, "the hooks after it are called"
    said = [record.getMessage() for record in caplog.records]
    assert all(f"fail raised {type(error).__name__}: " in line for line in said)
    assert all("test_middleware.py:" in line for line in said)
    assert len(said) == len(seen)


def test_what_ends_a_test_is_no_failure_of_a_hook(queue: Queue) -> None:
    @middleware
    class Stern:
        def before_run(self, job: JobEvent) -> None:
            pytest.fail("not this job")

    with inline(), pytest.raises(pytest.fail.Exception, match="not this job"):
        queue.task(name="t")(lambda: None).put()


# -- puts


def test_items_have_no_hooks(queue: Queue, seen: list[Any]) -> None:
    middleware(noting(seen, *NAMES))
    with recorded() as puts:
        queue.put({"a": 1})
        queue.put_many([1, 2])
    assert (len(puts), seen) == (3, [])


def test_what_a_put_s_hook_puts_itself_has_none(queue: Queue, seen: list[Any]) -> None:
    note = queue.task(name="note")(lambda what: None)

    @middleware
    class Audit:
        def after_put(self, job: JobEvent) -> None:
            seen.append(job.args)
            note.put("audit")

    with recorded() as puts:
        note.put("own")
    assert seen == [("own",)]
    assert [put.args for put in puts] == [("own",), ("audit",)]


def test_a_put_that_raises_what_its_job_raised_is_a_put(queue: Queue, seen: list[Any]) -> None:
    @queue.task(name="fail")
    def fail() -> None:
        raise UsageError("of the job")

    middleware(noting(seen, "after_put"))
    with inline(), pytest.raises(UsageError, match="of the job"):
        fail.put()
    assert names(seen) == ["after_put"]


def test_a_put_that_redis_does_not_take_is_none(queue: Queue, seen: list[Any]) -> None:
    middleware(noting(seen, "before_put", "after_put"))
    with pytest.raises(Exception, match="Redis"):
        queue.task(name="t")(lambda: None).put()
    assert names(seen) == ["before_put"]


def test_a_put_that_was_kept_out_has_no_after_put(seen: list[Any]) -> None:
    """Also in the later batches of one call."""
    settings = Settings(url="redis://127.0.0.1:1", batch=2)
    task = Queue("once", broker=Broker(settings=settings)).task(name="t", unique="{n}")(lambda n: None)
    middleware(noting(seen, "before_put", "after_put"))
    with recorded():
        assert task.put_many([1, 2, 2, 3, 3, 4]) == 4
        task.put(4)
    assert [job.args for name, job in seen if name == "after_put"] == [(1,), (2,), (3,), (4,)]
    assert names(seen).count("before_put") == 7


def test_a_job_that_a_full_queue_dropped_has_no_after_put(broker: Broker, seen: list[Any]) -> None:
    task = Queue("full", maxsize=2, full="drop-new", broker=broker).task(name="t")(lambda n: None)
    middleware(noting(seen, "after_put"))
    assert task.put_many([1, 2, 3]) == 3
    assert [job.args for _, job in seen] == [(1,), (2,)]

"""Numbers of the wrong kind are refused where they are given, in one line, and nothing is sent to Redis."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from rq_lite import Executor, PriorityQueue, Queue, UsageError
from rq_lite.broker import Broker
from rq_lite.checks import MOST, integer, number, shown
from rq_lite.client.registry import registry
from rq_lite.errors import counted
from rq_lite.settings import Settings

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def ranked() -> Iterator[PriorityQueue]:
    """Whose Redis is not there: a question to it would raise another error."""
    nowhere = Settings(url="unix:///nowhere/redis.sock", patience=0.0)
    yield PriorityQueue("checked", broker=Broker(settings=nowhere))
    registry.queues.pop("checked")


class Index:
    """As numpy's integers are."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


@pytest.mark.parametrize("value", [0, 7, MOST, Index(5)])
def test_a_whole_number(value: Any) -> None:
    found = integer("n", value)
    assert (found, type(found)) == (getattr(value, "number", value), int)


WRONG = [1.5, 2.0, INF, NAN, True, False, "5", b"5", None, [], 10**30, MOST + 1, Decimal(1)]


@pytest.mark.parametrize("value", [*WRONG, -1, Index(-1), Index(10**5000)])
def test_what_is_no_whole_number_that_redis_can_count_with(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^n must be 0 or more, a whole number up to 1,000,000,000,000,000, not .+$"):
        integer("n", value)


@pytest.mark.parametrize("value", [NAN, True, "5", b"1", None, [], 10**400, -1, 11, Decimal(1), timedelta(seconds=5)])
def test_what_is_no_number_in_the_range(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^n must be 0 to 10, not .+$"):
        number("n", value, "0 to 10", most=10)


def test_a_number_in_the_range() -> None:
    assert [number("n", value, "", most=10) for value in (0, 0.5, 10)] == [0, 0.5, 10]
    assert number("n", INF, "") == INF
    with pytest.raises(UsageError):
        number("n", 0, "above 0", above=True)


def test_what_was_given_is_shown_in_few_words() -> None:
    assert len(shown("x" * 10_000)) == 60
    assert shown(timedelta(seconds=5)) == "datetime.timedelta(seconds=5)"
    assert "\n" not in shown("a\nb")


@pytest.mark.parametrize("value", [*WRONG[:4], "5", [], 10**30])
@pytest.mark.parametrize("option", ["maxsize", "maxbytes", "ahead"])
def test_bounds(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^queue 'q': {option} must be 0 or more, a whole number"):
        Queue("q", **{option: value})
    assert "q" not in registry.queues


def test_setting_a_bound(ranked: PriorityQueue) -> None:
    for value in (10 / 4, True, "5", None, 10**30):
        with pytest.raises(UsageError, match=r"^queue 'checked': maxsize must be 0 or more, a whole number"):
            ranked.maxsize = value  # type: ignore[assignment]


@pytest.mark.parametrize("timeout", [-1, NAN, "x", True, [], 10**400])
def test_timeouts(ranked: PriorityQueue, timeout: Any) -> None:
    for call in (
        lambda: ranked.join(timeout),
        lambda: ranked.get(timeout=timeout),
        lambda: ranked.put(1, timeout=timeout),
        lambda: ranked.lease(timeout).__enter__(),
    ):
        with pytest.raises(ValueError, match=r"^'timeout' must be a non-negative number of seconds, not "):
            call()


@pytest.mark.parametrize("priority", [[], b"1", "1", NAN, 10**400])
def test_priorities(ranked: PriorityQueue, priority: Any) -> None:
    with pytest.raises(UsageError, match=r"^priority must be a number, not "):
        ranked.put(1, priority=priority)


@pytest.mark.parametrize(
    ("option", "values", "wanted"),
    [
        ("wait", [NAN, "x", True, -1], "0 or more seconds"),
        ("delay", [None, "5", True, NAN, INF, 4e9, timedelta(days=40_000)], "a number of seconds, up to 100 years"),
        ("priority", ["1", None, NAN, []], "a number"),
        ("timeout", ["x", True, 0, NAN], "above 0 seconds"),
        ("retries", [1.5, "1", True, -1, 10**30], "0 or more, a whole number"),
        ("result_ttl", ["x", True, 0, NAN, INF, 10**10], "above 0 seconds, up to 100 years"),
    ],
)
def test_options_of_a_put(ranked: PriorityQueue, option: str, values: list[Any], wanted: str) -> None:
    task = ranked.task(name="checked")(print)
    try:
        for value in values:
            with pytest.raises(UsageError, match=f"^{option} must be {wanted}"):
                task.using(**{option: value})
    finally:
        registry.tasks.pop("checked")


@pytest.mark.parametrize("timeout", [None, INF])
def test_a_put_cannot_say_that_there_is_no_timeout(ranked: PriorityQueue, timeout: Any) -> None:
    task = ranked.task(name="checked")(print)
    registry.tasks.pop("checked")
    with pytest.raises(UsageError, match=f"timeout={timeout} is for the task's definition"):
        task.using(timeout=timeout)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("retries", [1.5, "1", True]),
        ("timeout", ["x", True]),
        ("backoff", ["x", True, NAN, None]),
        ("backoff_max", ["x", INF]),
        ("result_ttl", ["x", True, INF]),
    ],
)
def test_options_of_a_task(ranked: PriorityQueue, option: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(UsageError, match=f"^{option} must be "):
            ranked.task(**{option: value})


def test_executors(ranked: PriorityQueue) -> None:
    with pytest.raises(UsageError, match=r"^an Executor takes a Queue, or the name of one, not 5"):
        Executor(5)  # type: ignore[arg-type]
    for ttl in (None, "x"):
        with pytest.raises(UsageError, match="result_ttl must be above 0 seconds"):
            Executor(ranked, result_ttl=ttl)  # type: ignore[arg-type]
    for option in ("chunksize", "buffersize"):
        for value in (1.5, True, 0, "x"):
            with pytest.raises(UsageError, match=f"^{option} must be 1 or more, a whole number"):
                Executor(ranked).map(print, [1], **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"wait": NAN}, {"maxsize": 10**30}, {"maxbytes": 10**30}])
def test_settings(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(values))} must be at"):
        Settings(**values)


def test_a_number_of_things_has_the_right_form() -> None:
    assert [counted(number, "job") for number in (0, 1, 2, 1000)] == ["0 jobs", "1 job", "2 jobs", "1,000 jobs"]
    assert [counted(number, "process", "processes") for number in (1, 2)] == ["1 process", "2 processes"]

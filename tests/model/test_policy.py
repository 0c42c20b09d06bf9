"""Which errors are worth another attempt, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from fractions import Fraction
from functools import partial
from typing import Any

import pytest

from rq_lite import Bury, JobTimeout, Queue, Retry, UsageError
from rq_lite.client.registry import registry
from rq_lite.consumer.run import Expired, chances, failed
from rq_lite.model.completion import BadResult
from rq_lite.model.message import VERSION, Message
from rq_lite.model.outcome import Finished, Retried
from rq_lite.model.policy import Policy
from rq_lite.model.retry import Failure, RetryPolicy, decide


def message(**fields: Any) -> Message:
    return Message(VERSION, "id", "t", **fields)


@pytest.mark.parametrize(
    ("policy", "error", "final"),
    [
        ({}, ValueError(), False),
        ({}, KeyboardInterrupt(), False),
        ({}, Expired(), False),
        ({}, Bury("no"), True),
        ({}, BadResult("no"), True),
        ({"retry_on": (OSError,)}, ConnectionError(), False),
        ({"retry_on": (OSError,)}, ValueError(), True),
        ({"retry_on": (ValueError,)}, Expired(), True),
        ({"retry_on": (TimeoutError,)}, Expired(), False),
        ({"retry_on": (JobTimeout,)}, Expired(), False),
        ({"no_retry_on": (JobTimeout,)}, Expired(), True),
        ({"no_retry_on": (OSError,)}, ConnectionError(), True),
        ({"retry_on": (OSError,), "no_retry_on": (ConnectionError,)}, ConnectionError(), True),
        ({"retry_on": (OSError,), "no_retry_on": (ConnectionError,)}, OSError(), False),
        ({"retry_on": (OSError,)}, Retry(), False),
    ],
)
def test_which_errors_are_final(policy: dict[str, Any], error: BaseException, final: bool) -> None:
    assert chances(Policy(retries=1, **policy), error).final is final


@pytest.mark.parametrize(
    ("before", "retries", "own", "again"),
    [
        (0, 0, None, False),
        (0, 1, None, True),
        (1, 1, None, False),
        (4, 5, None, True),
        (0, 0, 2, True),
        (2, 9, 2, False),
    ],
)
def test_how_often(before: int, retries: int, own: int | None, again: int) -> None:
    outcome, line = decide(message(retries=own), before, 0, RetryPolicy(retries), Failure("E"), "c")
    assert isinstance(outcome, Retried if again else Finished)
    assert ("buried after attempt" in line) == (not again)


def test_a_final_error_wins_over_the_job_s_own_retries() -> None:
    outcome, _ = decide(message(retries=9), 0, 0, RetryPolicy(9, final=True), Failure("E"), "c")
    assert isinstance(outcome, Finished)


def test_the_back_off_grows_up_to_its_cap() -> None:
    delays = [
        decide(message(), n, 0, RetryPolicy(99, 2.0, 30.0), Failure("E"), "c")[0] for n in range(50) for _ in range(5)
    ]
    assert all(isinstance(delay, Retried) and 0 <= delay.delay <= 30_000 for delay in delays)
    first = [decide(message(), 0, 0, RetryPolicy(9, 2.0, 30.0), Failure("E"), "c")[0] for _ in range(50)]
    assert all(isinstance(delay, Retried) and delay.delay <= 2000 for delay in first)
    assert len(set(delays)) > 50


def test_a_delay_that_the_job_asks_for_is_kept() -> None:
    outcome, _ = decide(message(), 0, 0, RetryPolicy(1), failed(Retry(delay=7.5), 1.0, 0.1), "c")
    assert outcome == Retried(7500)


def test_a_delay_may_be_a_timedelta() -> None:
    assert Retry(delay=timedelta(minutes=1, milliseconds=500)).delay == 60.5


def test_the_report_tells_crashes_from_attempts() -> None:
    outcome, _ = decide(message(), 1, 2, RetryPolicy(1), Failure("E", "T", 0.5), "c")
    assert isinstance(outcome, Finished)
    assert outcome.report == (
        b'{"id":"id","task":"t","error":"E","traceback":"T","attempts":4,"crashes":2,"consumer":"c","seconds":0.5}'
    )


@pytest.mark.parametrize("delay", [-1, float("inf"), float("nan"), 1e306, "5", Fraction(1, 2), timedelta(-1)])
def test_a_delay_that_cannot_be_is_refused(delay: Any) -> None:
    with pytest.raises(UsageError, match="Retry: delay must be 0 or more"):
        Retry(delay=delay)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retry_on": "ValueError"}, "retry_on takes exception types, such as ConnectionError, not 'ValueError'"),
        ({"retry_on": [ValueError()]}, "retry_on takes exception types"),
        ({"no_retry_on": int}, "no_retry_on takes exception types"),
        ({"backoff": -1}, "backoff must be 0 or more"),
        ({"backoff_max": float("inf")}, "backoff_max must be 0 or more"),
        ({"timeout": float("nan")}, "timeout must be above 0"),
    ],
)
def test_what_cannot_be_right_is_refused_at_the_definition(options: dict[str, Any], said: str) -> None:
    define: Any = Queue("policy").task
    with pytest.raises(UsageError, match=said):
        define(**options)(print)
    registry.queues.pop("policy")


async def coroutine() -> None: ...


async def asynchronous() -> AsyncIterator[int]:
    yield 1


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (coroutine, "a coroutine function"),
        (partial(coroutine), "a coroutine function"),
        (asynchronous, "an async generator function"),
        (generator, "a generator function"),
    ],
)
def test_a_function_that_would_not_run_when_it_is_called_is_refused(function: Any, said: str) -> None:
    with pytest.raises(UsageError, match=f"task t: {said}; jobs are plain functions: write `def`"):
        Queue("policy").task(name="t")(function)
    registry.queues.pop("policy")
    assert "t" not in registry.tasks


def test_one_type_or_several() -> None:
    task = Queue("policy").task(retry_on=ConnectionError, no_retry_on=[KeyError, TypeError])(print)
    registry.queues.pop("policy")
    registry.tasks.pop(task.name)
    assert task.policy.retry_on == (ConnectionError,)
    assert task.policy.no_retry_on == (KeyError, TypeError)

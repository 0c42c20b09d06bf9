"""What a job may know of itself, and what it may say."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rq_lite import UsageError, current_job
from rq_lite.client.current import CurrentJob, Progress, given


def made(told: list[Progress], deadline: float | None = None) -> CurrentJob:
    return CurrentJob(id="i", queue="q", task="t", attempt=1, deadline=deadline, tell=told.append)


def test_outside_of_a_job_there_is_none() -> None:
    assert current_job() is None


def test_whoever_runs_a_job_elsewhere_says_which_it_is() -> None:
    job = made([])
    token = given.set(job)
    try:
        assert current_job() is job
    finally:
        given.reset(token)
    assert current_job() is None


def test_progress_is_told_as_it_was_said() -> None:
    told: list[Progress] = []
    job = made(told)
    job.progress(1)
    job.progress(2.5, 10, "half")
    assert told == [Progress(1, None, ""), Progress(2.5, 10, "half")]


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "3", None, 10**16])
def test_what_is_no_number_is_refused(wrong: Any) -> None:
    told: list[Progress] = []
    with pytest.raises(UsageError, match="progress: done must be a number from 0"):
        made(told).progress(wrong)
    if wrong is not None:
        with pytest.raises(UsageError, match="progress: total must be"):
            made(told).progress(1, wrong)
    assert told == []


def test_time_that_is_left() -> None:
    assert made([]).remaining() is None
    assert made([], time.time() - 5).remaining() == 0.0
    left = made([], time.time() + 1000).remaining()
    assert left is not None
    assert 900 < left <= 1000


def test_a_note_is_cut_and_is_utf_8() -> None:
    told: list[Progress] = []
    made(told).progress(1, 2, "\udc80" + 300 * "x")
    assert told == [Progress(1, 2, "?" + 199 * "x")]


class Number(float):
    """As numpy's are."""


def test_numbers_of_other_libraries_are_told_as_plain_ones() -> None:
    told: list[Progress] = []
    made(told).progress(Number(1.5), Number(3))
    assert [type(number) for number in (told[0].done, told[0].total)] == [float, float]
    assert told == [Progress(1.5, 3.0, "")]

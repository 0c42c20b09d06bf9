"""Tests of what needs a Redis, on one within their own process: no server has to be installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rq_lite import Full, Queue
from rq_lite.testing import assert_put, drain, fake

stock = Queue("stock", maxsize=2)


@stock.task(retries=1, backoff=0, result_ttl=60)
def count(shelf: str) -> int:
    return len(Path(shelf).read_text().splitlines())


@pytest.mark.usefixtures("rq_fake")
def test_a_bound_holds() -> None:
    count.put_many(["left", "right"])
    with pytest.raises(Full):
        count.using(wait=0).put("middle")
    assert_put(count, "right", times=1)


@pytest.mark.usefixtures("rq_fake")
def test_a_job_is_cancelled_before_it_runs() -> None:
    job = count.using(delay=60).put("left")
    assert job.cancel()
    assert stock.qsize() == 0


@pytest.mark.usefixtures("rq_fake")
def test_a_result_comes_back(rq_worker: Callable[..., Any], tmp_path: Path) -> None:
    """In a test that asks for `rq_fake`, `rq_queue` and `rq_worker` are on the fake, too."""
    (tmp_path / "left").write_text("bun\nroll\n")
    rq_worker(__name__)
    assert count.put(str(tmp_path / "left")).result(timeout=30) == 2


def test_without_fixtures() -> None:
    with fake(maxsize=5):
        count.put("a shelf that is not there")
        assert [job.attempts for job in drain(__name__)] == [2]

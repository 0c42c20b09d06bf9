"""workers/ as their users run them: puts on an empty Redis, a real worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rq_lite.broker import Broker
from rq_lite.testing import assert_put, drain, put_jobs
from workers import packages, tickets


@pytest.fixture(autouse=True)
def sale(rq_redis: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_LITE_TICKETS", str(tmp_path / "sale"))
    monkeypatch.delenv("RQ_LITE_ARCHIVE", raising=False)


def test_a_hundred_buyers_and_ten_tickets() -> None:
    tickets.buy.put_many(f"buyer {number}" for number in range(100))
    assert_put(tickets.buy, "buyer 99", times=1)
    assert drain("workers", queues=["tickets"]) == []
    sold = tickets.sold()
    assert sorted(sold) == list(range(1, 11))
    assert len(set(sold.values())) == 10
    assert put_jobs(tickets.tickets) == []


def test_a_package_that_is_none_is_buried_with_the_reason(rq_worker: Callable[..., Any], tmp_path: Path) -> None:
    rq_worker("workers", queues=["packages"])
    packages.unpack.put(str(tmp_path / "nowhere"))
    assert packages.packages.join(30)
    (dead,) = drain("workers", queues=["packages"])
    assert dead.error.startswith("PackageError: ")

"""workers/tickets.py: never more sales than tickets, never two to one buyer."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rq_lite.testing import inline
from workers import tickets

ROOT = Path(__file__).parents[2]
BUYERS = [f"buyer {number}" for number in range(100)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RQ_LITE_TICKETS", str(tmp_path / "sale"))
    return tmp_path / "sale"


def in_threads(buyers: list[str]) -> list[int | None]:
    """What each gets, all of them starting at the same moment."""
    start = threading.Barrier(len(buyers))

    def buy(buyer: str) -> int | None:
        start.wait()
        return tickets.buy(buyer)

    with ThreadPoolExecutor(len(buyers)) as pool:
        return list(pool.map(buy, buyers))


def test_no_tickets() -> None:
    tickets.open_sale(0)
    assert tickets.buy("ann") is None


def test_a_sale() -> None:
    tickets.open_sale(2)
    assert [tickets.buy(buyer) for buyer in ("ann", "bob", "cy", "ann", "bob")] == [1, 2, None, 1, 2]
    assert tickets.sold() == {1: "ann", 2: "bob"}


def test_a_hundred_threads_and_ten_tickets() -> None:
    tickets.open_sale(10)
    got = in_threads(BUYERS)
    assert sorted(number for number in got if number) == list(range(1, 11))
    assert tickets.sold() == {number: buyer for buyer, number in zip(BUYERS, got, strict=True) if number}


@inline()
def test_a_sale_by_jobs() -> None:
    tickets.open_sale(10)
    assert tickets.buy.put_many(BUYERS) == 100
    assert tickets.sold() == {number: f"buyer {number - 1}" for number in range(1, 11)}


def test_what_a_job_has_got() -> None:
    tickets.open_sale(1)
    with inline() as ran:
        tickets.buy.put("ann")
        tickets.buy.put(buyer="bob")
        tickets.buy.put("ann")
    assert [job.value for job in ran] == [1, None, 1]


def test_jobs_that_run_several_times_at_once_buy_nothing_twice() -> None:
    tickets.open_sale(20)
    buyers = BUYERS[:15]
    got = in_threads(buyers * 6)
    assert sorted(tickets.sold().values()) == sorted(buyers)
    assert got == got[:15] * 6


PROCESS = """
import sys
from workers import tickets
input()
for number in range(100):
    tickets.buy(f"buyer {number}")
"""


def test_processes_share_the_tickets() -> None:
    """Four processes, each with the jobs of all buyers: each job runs four times."""
    tickets.open_sale(10)
    command = [sys.executable, "-c", PROCESS]
    runs = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) for _ in range(4)]
    for run in runs:  # each waits at input() until now
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.close()
    assert [run.wait(60) for run in runs] == [0] * 4
    sold = tickets.sold()
    assert sorted(sold) == list(range(1, 11))
    assert len(set(sold.values())) == 10


def test_opening_again_keeps_what_is_sold() -> None:
    tickets.open_sale(1)
    tickets.buy("ann")
    tickets.open_sale(2)
    assert tickets.sold() == {1: "ann"}
    assert tickets.buy("bob") == 2


def test_the_first_buyers_open_a_sale_of_ten(folder: Path) -> None:
    assert [tickets.buy(f"buyer-{n}") for n in range(12)] == [*range(1, 11), None, None]
    assert folder.is_dir()

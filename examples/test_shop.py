"""How a program that uses rq_lite is tested, from the fast to the real. Its tasks are here to have all on one page."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rq_lite import Queue
from rq_lite.testing import assert_put, drain, inline, put_jobs, recorded

orders = Queue("orders", maxsize=100)
mail = Queue("mail")


@orders.task(retries=2)
def order(what: str, price: Decimal) -> Decimal:
    if price <= 0:
        raise ValueError(f"{what} costs nothing")
    send.using(delay=60).put("sales@example.org", f"{what} was ordered")
    return price * 2


@mail.task
def send(to: str, text: str) -> None:
    Path(f"{to}.txt").write_text(text)


def test_the_function_itself() -> None:
    """A task is called like any function; what it puts is kept."""
    with recorded():
        assert order("bun", Decimal("1.50")) == Decimal("3.00")
        assert_put(send, "sales@example.org", "bun was ordered", times=1)
        assert [job.options for job in put_jobs(send)] == [{"delay": 60.0}]


def test_jobs_inline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts run their jobs at once, and what these put, too: no Redis, no worker."""
    monkeypatch.chdir(tmp_path)
    with inline() as ran:
        order.put("bun", Decimal("1.50"))
    assert [one.value for one in ran] == [Decimal("3.00"), None]
    assert Path("sales@example.org.txt").read_text() == "bun was ordered"


@inline()
def test_a_job_that_fails() -> None:
    with pytest.raises(ValueError, match="costs nothing"):
        order.put("air", Decimal(0))


@pytest.mark.usefixtures("rq_redis")
def test_on_a_redis() -> None:
    """The default broker is an empty Redis of the test's own: bounds, delays and everything else are real."""
    order.put_many([("bun", Decimal(1)), ("roll", Decimal(2))])
    assert orders.qsize() == 2
    assert_put(order, "roll", price=Decimal(2))


def test_with_a_worker(rq_worker: Callable[..., Any], tmp_path: Path) -> None:
    send.put(str(tmp_path / "ada"), "hello")
    rq_worker(__name__)
    assert mail.join(timeout=30)
    assert (tmp_path / "ada.txt").read_text() == "hello"


@pytest.mark.usefixtures("rq_redis")
def test_until_nothing_is_left() -> None:
    order.using(retries=0).put("air", Decimal(0))
    assert [job.error for job in drain(__name__)] == ["ValueError: air costs nothing"]


def test_a_queue_of_the_test_s_own(rq_queue: Queue, tmp_path: Path) -> None:
    """With room for ten. A worker finds tasks by their names, in any queue that it is told to work on."""
    post = rq_queue.task(send.function)  # called like `send`, for the time of the test
    post.put_many((str(tmp_path / f"{number}"), "hello") for number in range(10))
    assert rq_queue.full()
    assert drain(__name__, queues=[rq_queue.name]) == []
    assert len(list(tmp_path.iterdir())) == 10

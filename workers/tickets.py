"""A hundred buyers, a few tickets: each ticket is sold once, without a lock.

Nothing here reads first and writes later. "A ticket is free, this buyer has none, so it is theirs" is one
statement to a database that every process of the machine shares, and one statement happens or does not.

    seq 100 | rq-lite produce - --task workers.tickets:buy
    rq-lite work workers -q tickets --burst
    python -c "from workers.tickets import sold; print(sold())"
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rq_lite import Queue

tickets = Queue("tickets")

SCHEMA = "CREATE TABLE IF NOT EXISTS tickets (number INTEGER PRIMARY KEY, buyer TEXT UNIQUE)"
OFFER = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
    INSERT OR IGNORE INTO tickets (number) SELECT n FROM numbers WHERE n <= :count
"""
SELL = """
    UPDATE tickets SET buyer = :buyer
    WHERE number = (SELECT min(number) FROM tickets WHERE buyer IS NULL)
      AND NOT EXISTS (SELECT 1 FROM tickets WHERE buyer = :buyer)
"""


FIRST_SALE = 10  # tickets on offer if no sale was opened


@tickets.task(timeout=60)
def buy(buyer: str) -> int | None:
    """The number of this buyer's ticket; None when all are sold. A second call for a buyer sells nothing more."""
    with database() as db:
        try:
            db.execute(SELL, {"buyer": buyer})
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            open_sale(FIRST_SALE)
            db.execute(SELL, {"buyer": buyer})
        row = db.execute("SELECT number FROM tickets WHERE buyer = ?", (buyer,)).fetchone()
    return row[0] if row else None


def open_sale(count: int) -> None:
    """Offer tickets number 1 to `count`. Those sold already stay sold."""
    with database() as db:
        db.execute("BEGIN IMMEDIATE")  # no buyer finds the table without its tickets
        db.execute(SCHEMA)
        db.execute(OFFER, {"count": count})
        db.execute("COMMIT")


def sold() -> dict[int, str]:
    """The buyers of the sold tickets, by number."""
    with database() as db:
        return dict(db.execute("SELECT number, buyer FROM tickets WHERE buyer IS NOT NULL ORDER BY number"))


def folder() -> Path:
    return Path(os.environ.get("RQ_LITE_TICKETS", "tickets"))


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """A new connection, each statement its own transaction; waits up to 30 s for other writers."""
    folder().mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(folder() / "tickets.sqlite", timeout=30, isolation_level=None)
    try:
        yield db
    finally:
        db.close()

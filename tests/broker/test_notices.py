"""Notices of failed runs that a supervisor settled: what reclaim leaves of them, and only if it is asked to."""

from __future__ import annotations

from typing import Any

import pytest

from rq_lite.broker import Broker, Death, Link, tending
from rq_lite.model.message import VERSION, Message, encode
from rq_lite.model.notice import LARGE, Notice, read, written
from tests.steps import KEY, entry, take

THEN = {"failure": ["q", "t"]}


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 10_000, 0)
    broker.takes.register("q", "c", link=link)


def reclaimed(broker: Broker, link: Link, *entries: bytes, noting: bool = True, **death: Any) -> list[Any]:
    """The notices that are left when these jobs were taken and their consumer died."""
    broker.puts.put("q", entries)
    assert len(take(broker, link, len(entries)).jobs) == len(entries)
    end = Death(**{"how": "was killed by signal 9", "where": "in f", **death})
    assert broker.tends.reclaim("q", "c", certain=True, death=end, limits={"once": 1}, noting=noting) is not None
    return [read(notice) for notice in broker.tends.notices("q", link)]


def of(number: int, attempt: int, error: str, after: str) -> Notice:
    job_id = f"{number:08}"
    return Notice(id=job_id, task="t", attempt=attempt, error=error, traceback="in f", next=after)


def test_each_job_that_is_charged_leaves_a_notice_of_what_follows(broker: Broker, link: Link) -> None:
    tracked = encode(Message(VERSION, "00000004", "t", then=THEN))
    found = reclaimed(broker, link, entry(1), b"1.1" + entry(2), b"0.2" + entry(3), b"0.2#00000004" + tracked)
    crashed, poison = (
        "Crashed: its consumer was killed by signal 9",
        "poison: 3 consumers died while it ran; the last: ",
    )
    assert found[::-1] == [
        (of(1, 1, crashed, "on_retry"), b"0.1" + entry(1)),
        (of(2, 3, crashed, "on_retry"), b"1.2" + entry(2)),
        (of(3, 3, f"{poison}was killed by signal 9", "on_bury"), b"0.3" + entry(3)),
        (of(4, 3, crashed, ""), b"0.3#00000004" + tracked),
    ]
    assert broker.read(("PTTL", KEY.notices))[0] > 0


def test_the_death_of_a_whole_worker_is_told_as_that(broker: Broker, link: Link) -> None:
    ((told, raw),) = reclaimed(broker, link, entry(1), how="it is gone", worker=True)
    assert (told.error, told.next, raw) == (
        "Crashed: its whole worker died: it is gone", "on_retry", b"0.0*1" + entry(1),
    )  # fmt: skip


def test_a_job_that_is_not_charged_leaves_none_and_nor_does_what_is_no_job(broker: Broker, link: Link) -> None:
    assert reclaimed(broker, link, entry(1), b"\x00 no job", noting=False) == []
    broker.takes.register("q", "c", link=link)
    broker.puts.put("q", [b'{"v":1}', entry(2)])
    take(broker, link, 4)
    broker.tends.reclaim("q", "c", certain=True, death=Death("x", "none"), noting=True)
    assert broker.read(("EXISTS", KEY.notices))[0] == 0
    broker.takes.register("q", "c", link=link)
    take(broker, link, 4)
    broker.tends.reclaim("q", "c", certain=True, death=Death("x", "all"), noting=True)
    left = [read(notice) for notice in broker.tends.notices("q", link)]
    assert sorted(found[0].id for found in left if found) == ["00000001", "00000002"]


def test_the_entry_of_a_large_job_is_left_out_and_the_newest_are_kept(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = encode(Message(VERSION, "00000001", "t", ["x" * LARGE]))
    ((told, raw),) = reclaimed(broker, link, large)
    assert (told.id, raw) == ("00000001", b"")
    assert written(told, large).endswith(b"\n")
    monkeypatch.setattr(tending, "NOTICES", 2)
    for number in range(3):
        broker.tends.leave_notice("q", b"%d" % number)
    assert broker.tends.notices("q", link) == [b"1", b"2"]
    broker.tends.told("q", b"1", link)
    assert broker.tends.notices("q", link) == [b"2"]
    assert broker.read(("PTTL", KEY.notices))[0] > 0


def test_reclaim_keeps_a_thousand(broker: Broker, link: Link) -> None:
    broker.puts.put("q", [entry(number) for number in range(1003)])
    take(broker, link, 1003)
    step = broker.tends.reclaim("q", "c", certain=True, death=Death("died"), most=2000, noting=True)
    assert step is not None
    assert step.moved == 1003
    assert broker.read(("LLEN", KEY.notices))[0] == tending.NOTICES == 1000

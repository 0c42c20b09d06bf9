"""Hooks are called for notices that a supervisor has left; each is removed only after that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rq_lite import JobEvent, middleware
from rq_lite.broker import Broker, Link
from rq_lite.consumer.executor import Executor
from rq_lite.consumer.notices import Notices
from rq_lite.model.message import TAGGED, Message, encode
from rq_lite.model.notice import Notice, written
from rq_lite.model.signing import Signer

ENTRY = encode(Message(TAGGED, "id", "t", [1], {"k": 2}, tags=("x",)))
NOTICE = Notice(id="id", task="t", attempt=3, error="Crashed: it", traceback="in f", delay=1.5, next="on_retry")


@pytest.fixture
def seen() -> list[tuple[str, JobEvent]]:
    found: list[tuple[str, JobEvent]] = []

    def hook(name: str) -> Callable[[Any, JobEvent], None]:
        return lambda self, job: found.append((name, job))

    middleware(type("Noting", (), {name: hook(name) for name in ("on_failure", "on_retry", "on_bury")})())
    return found


def tell_all(broker: Broker, link: Link, signer: Signer | None = None) -> None:
    executor = Executor({}, "c", None, signer=signer)  # type: ignore[arg-type]
    Notices(broker, ["q"], executor.tell).tell_all(link)
    assert broker.tends.notices("q", link) == []


def test_hooks_are_told_what_the_notice_says(broker: Broker, link: Link, seen: list[tuple[str, JobEvent]]) -> None:
    broker.tends.leave_notice("q", written(NOTICE, b"1.2" + ENTRY))
    tell_all(broker, link)
    event = JobEvent(
        id="id", queue="q", task="t", args=(1,), kwargs={"k": 2}, tags=("x",), attempt=3, error="Crashed: it",
        traceback="in f",
    )  # fmt: skip
    (failed, again) = seen
    assert failed == ("on_failure", event)
    assert (again[0], again[1].delay, again[1].attempt) == ("on_retry", 1.5, 3)


@pytest.mark.parametrize(
    ("after", "names"), [("on_bury", ["on_failure", "on_bury"]), ("", ["on_failure"]), ("x", ["on_failure"])]
)
def test_what_follows(
    broker: Broker, link: Link, seen: list[tuple[str, JobEvent]], after: str, names: list[str]
) -> None:
    broker.tends.leave_notice("q", written(Notice(id="id", task="t", attempt=1, error="e", next=after), b""))
    tell_all(broker, link)
    assert [name for name, _ in seen] == names
    assert {(event.id, event.task, event.args, event.delay) for _, event in seen} == {("id", "t", (), None)}


def test_what_others_have_left_is_dropped(broker: Broker, link: Link, seen: list[tuple[str, JobEvent]]) -> None:
    signer = Signer([b"secret"])
    for left in (b"", b"\xff", b"{}\n", written(NOTICE, b"no job"), written(NOTICE, ENTRY)):
        broker.tends.leave_notice("q", left)
    broker.tends.leave_notice("q", written(NOTICE, signer.seal("q", ENTRY)))
    tell_all(broker, link, signer)
    assert [name for name, _ in seen] == ["on_failure", "on_retry"], "of the one that is signed"


def test_a_notice_stays_until_its_hooks_were_called(broker: Broker, link: Link) -> None:
    broker.tends.leave_notice("q", b"first")
    broker.tends.leave_notice("q", b"second")
    told: list[bytes] = []

    def tell(queue: str, notice: bytes) -> None:
        told.append(notice)
        if notice == b"second" and told.count(notice) == 1:
            raise KeyboardInterrupt  # as if the process ended here

    notices = Notices(broker, ["q"], tell)
    with pytest.raises(KeyboardInterrupt):
        notices.tell_all(link)
    assert broker.tends.notices("q", link) == [b"second"]
    notices.tell_all(link)
    assert told == [b"first", b"second", b"second"]

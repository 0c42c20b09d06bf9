"""How a tracked job ends: results as JSON, callbacks as entries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from rq_lite import Ended
from rq_lite.model import completion
from rq_lite.model.arguments import Arguments
from rq_lite.model.failure import describe
from rq_lite.model.message import VERSION, Message, Undecodable, as_is, decode, encode, entry_of, offspring
from rq_lite.model.outcome import Retry
from rq_lite.model.retry import Failure, Report


@dataclass
class Point:
    x: int
    y: float


def message(**fields: Any) -> Message:
    return Message(VERSION, "id-1", "app:f", [1, "a"], {"k": None}, **fields)


def nothing(_: str) -> dict[str, Any]:
    return {}


PUTS = completion.Puts(nothing, as_is)


def encoded(function: Any, result: Any, most: int = 1000, **fields: Any) -> bytes:
    about = message(**(fields or {"result_ttl": 60}))
    return completion.encoded(about, result, Arguments("f", function), most)


def test_results_are_json_or_what_the_annotation_restores() -> None:
    def plain(): ...  # type: ignore[no-untyped-def]
    def pair() -> tuple[int, bytes]: ...  # type: ignore[empty-body]
    def point() -> Point: ...  # type: ignore[empty-body]

    assert encoded(plain, {"a": [1, None, 2.5, "ü"]}) == '{"a":[1,null,2.5,"ü"]}'.encode()
    assert encoded(pair, (1, b"hi")) == b'[1,"aGk="]'
    assert encoded(point, Point(1, 2.0)) == b'{"x":1,"y":2.0}'


@pytest.mark.parametrize(
    "result", [{1}, (1,), b"x", float("nan"), {1: 2}, object(), "\ud800", [10**5000], [[{"a": {1}}]]]
)
def test_what_json_cannot_carry_is_refused(result: object) -> None:
    def plain(): ...  # type: ignore[no-untyped-def]

    with pytest.raises(completion.BadResult, match="the result of app:f: "):
        encoded(plain, result)


def test_a_result_that_is_not_what_the_annotation_says_is_refused() -> None:
    def pair() -> tuple[int, int]: ...  # type: ignore[empty-body]

    with pytest.raises(completion.BadResult):
        encoded(pair, [1, 2])


def test_a_large_result_is_refused() -> None:
    def plain(): ...  # type: ignore[no-untyped-def]

    assert len(encoded(plain, "x" * 998)) == 1000
    with pytest.raises(completion.BadResult, match=r"has 1,001 bytes as JSON, max_result is 1,000"):
        encoded(plain, "x" * 999)


@pytest.mark.parametrize(("word", "looked_at"), [("success", True), ("done", True), ("failure", False)])
def test_a_result_that_nobody_asks_for_is_not_looked_at(word: str, looked_at: bool) -> None:
    def plain(): ...  # type: ignore[no-untyped-def]

    def attempt() -> bytes:
        return encoded(plain, {1}, then={word: ["q", "t"]})

    if looked_at:
        with pytest.raises(completion.BadResult):
            attempt()
    else:
        assert attempt() == b"null"


def test_done_puts_the_result_and_how_it_ended() -> None:
    then = {"success": ["q1", "a"], "failure": ["q2", "b"], "done": ["q3", "c"]}
    found = completion.done(message(result_ttl=1.5, then=then), "home", 2, b'{"n":1}', PUTS)
    assert (found.state, found.detail, found.ttl, found.report) == ("done", b'"value":{"n":1}', 1500, b"")
    (q1, first), (q3, second) = found.puts
    assert (q1, q3) == ("q1", "q3")
    assert (decode(first)[0].id, decode(first)[0].task, decode(first)[0].args) == ("id-1.success", "a", [{"n": 1}])
    (ended,) = Arguments("c", takes_ended).restore(decode(second)[0].args, {})[0]
    assert ended == Ended(
        id="id-1", queue="home", task="app:f", args=[1, "a"], kwargs={"k": None}, attempts=2, state="done",
        result={"n": 1},
    )  # fmt: skip


def takes_ended(ended: Ended) -> None: ...


def test_given_up_puts_the_error() -> None:
    then = {"success": ["q1", "a"], "failure": ["q2", "b"], "done": ["q3", "c"]}
    failure = Failure("KeyError: 'a: b'", "Traceback …")
    found = completion.given_up(message(then=then), "home", 3, failure, b"{}", PUTS)
    assert (found.state, found.ttl, found.report) == ("failed", 0, b"{}")
    expected = {"type": "KeyError", "message": "'a: b'", "traceback": "Traceback …"}
    assert json.loads(b"{" + found.detail + b"}") == {"error": expected}
    assert [queue for queue, _ in found.puts] == ["q2", "q3"]
    ended = msgspec.convert(decode(found.puts[0][1])[0].args[0], Ended)
    assert (ended.state, ended.error, ended.traceback, ended.attempts) == (
        "failed", "KeyError: 'a: b'", "Traceback …", 3,
    )  # fmt: skip


def test_a_callback_says_what_its_task_says() -> None:
    def says(name: str) -> dict[str, Any]:
        return {"result_ttl": 9.0, "then": {"done": ["q", "next"]}} if name == "a" else {}

    found = completion.done(message(then={"success": ["q1", "a"]}), "home", 1, b"1", completion.Puts(says, as_is))
    ((_, raw),) = found.puts
    assert raw.startswith(b"0.0#id-1.success{")
    assert decode(raw)[0].result_ttl == 9
    assert found.detail == b""  # nobody asked for its own result


def test_ids_of_callbacks_never_grow_too_long() -> None:
    one = "id-1"
    for _ in range(100):
        one = offspring(one, "success")
        assert len(one) <= 150
        assert decode(entry_of(Message(VERSION, one, "t", result_ttl=1), "q"))[0].id == one
    assert offspring("x" * 200, "done") == offspring("x" * 200, "done") != offspring("y" * 200, "done")


@pytest.mark.parametrize(
    "then", [{"later": ["q", "t"]}, {"done": ["q"]}, {"done": ["q", "t", "u"]}, {"done": ["no queue!", "t"]}]
)
def test_callbacks_that_cannot_be_are_no_job(then: dict[str, list[str]]) -> None:
    with pytest.raises(Undecodable, match="then: "):
        decode(encode(message(then=then)))


def test_the_time_that_a_result_is_kept_has_bounds() -> None:
    for seconds, ms in ((1e-9, 1), (2.5, 2500), (1e300, 10**12), (-5, 1)):
        assert completion.ttl(message(result_ttl=seconds)) == ms
    assert completion.ttl(message()) == 0


def test_what_cannot_be_told_is_buried_all_the_same() -> None:
    """Else whoever runs it, or ends it by force, would stumble over it again and again."""

    def fail(*_: object) -> bytes:
        raise RecursionError("too deep")

    failure, report = Failure("KeyError: 'a'"), Report("id-1", "t", "KeyError: 'a'", attempts=2)
    puts = PUTS._replace(seal=fail)
    found = completion.buried(message(then={"done": ["q", "a"]}), "home", 2, failure, report.buried(), puts)
    assert (found.state, found.puts) == ("failed", ())
    said = msgspec.json.decode(found.report, type=Report)
    assert said.error == "KeyError: 'a'; its callbacks could not be made: RecursionError: too deep"
    assert (said.id, said.attempts) == ("id-1", 2)
    assert completion.buried(message(), "home", 2, failure, report.buried(), puts) == report.buried()


class Limited(Retry):
    """A subclass that says how long to wait as it was told."""

    def __init__(self, delay: Any) -> None:
        self.delay = delay


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (1, 1.0), (0.5, 0.5), (timedelta(minutes=1), 60.0), (None, None),
        ("30", None), (float("nan"), None), (-1, None), (1e300, None), (b"", None), (object(), None),
    ],
)  # fmt: skip
def test_the_delay_that_a_job_asks_for(asked: Any, got: float | None) -> None:
    """What is none is left out: an engine could not even say it, and its consumer would wait for an answer."""
    delay = describe(Limited(asked), 0.1).delay
    assert delay == got
    assert delay is None or type(delay) is float

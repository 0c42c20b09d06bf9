"""Jobs as bytes and back; whatever else stands in Redis must be no more than Undecodable."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rq_lite.model.message import VERSION, Message, Undecodable, decode, encode, made_at, new_id

GOOD = encode(Message(VERSION, "id", "mod:task", [1, "two"], {"three": 3.5}))

WORDS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=15,
)


@given(
    st.builds(
        Message,
        v=st.just(VERSION),
        id=WORDS,
        task=WORDS,
        args=st.lists(JSON, max_size=4),
        kwargs=st.dictionaries(WORDS, JSON, max_size=4),
        timeout=st.none() | st.floats(0.001, 1e9),
        retries=st.none() | st.integers(0, 1000),
        tags=st.lists(WORDS, max_size=4).map(tuple),
    )
)
def test_what_is_encoded_is_decoded_the_same(message: Message) -> None:
    raw = encode(message)
    assert raw.startswith(b"{")
    assert b"\n" not in raw
    assert decode(raw) == (message, 0, 0, 0)


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**8 - 1))
def test_the_header_holds_attempts_crashes_and_deaths_of_workers(attempts: int, crashes: int) -> None:
    message, *header = decode(b"%d.%d%s" % (attempts, crashes, GOOD))
    assert message == decode(GOOD)[0]
    assert header == [attempts, crashes, 0]
    message, *header = decode(b"%d.0#x*%d%s" % (attempts, crashes, GOOD))
    assert header == [attempts, 0, crashes]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "does not begin like a job"),
        (b"hello", "does not begin like a job"),
        (b" " + GOOD, "does not begin like a job"),
        (b"1" + GOOD, "does not begin like a job"),
        (b"1." + GOOD, "does not begin like a job"),
        (b"-1.0" + GOOD, "does not begin like a job"),
        (b"1.0.0" + GOOD, "does not begin like a job"),
        (b"\xd9\xa1.0" + GOOD, "does not begin like a job"),
        (b"9" * 30 + b".0" + GOOD, "does not begin like a job"),
        (b"{", "not JSON"),
        (b"{}", "version None"),
        (GOOD + b"x", "not JSON"),
        (GOOD[:-1], "not JSON"),
        (GOOD.replace(b'"v":1', b'"v":3'), "version 3, which this version of rq_lite does not know"),
        (GOOD.replace(b'"v":1', b'"v":3,"new":0'), "version 3, which this version of rq_lite does not know"),
        (GOOD.replace(b'"v":1', b'"v":2,"new":0'), "unknown field `new`"),
        (GOOD.replace(b'"v":1', b'"v":0'), "version 0; this worker runs jobs of the versions 1 to 2"),
        (GOOD.replace(b'"v":1', b'"v":"1"'), "version '1'"),
        (b'{"v":1}', "missing required field `id`"),
        (b'{"v":1,"id":"a"}', "missing required field `task`"),
        (b'{"v":1,"id":7,"task":"t"}', "Expected `str`"),
        (b'{"v":1,"id":"a","task":"t","color":1}', "unknown field `color`"),
        (b'{"v":1,"id":"a","task":"t","args":{}}', "Expected `array`"),
        (b'{"v":1,"id":"a","task":"t","kwargs":[]}', "Expected `object`"),
        (b'{"v":1,"id":"a","task":"t","retries":1.5}', "Expected `int"),
        (b'{"v":1,"id":"a","task":"t","timeout":"5"}', "Expected `float"),
        (b'{"v":2,"id":"a","task":"t","tags":"a"}', "Expected `array`"),
        (b'{"v":2,"id":"a","task":"t","tags":[1]}', "Expected `str`"),
        (b'{"v":1,"id":"\xff","task":"t"}', "not JSON"),
        (b'{"v":1,"id":"a","task":"t","\xff":1}', "not JSON"),
        (b'{"v":1,"id":"\\ud800","task":"t"}', "not JSON"),
        (b'{"v":1,"id":"a","task":"t","args":[1e999]}', "not JSON"),
    ],
)
def test_what_is_no_job_says_why(raw: bytes, why: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(raw)
    assert why in str(caught.value)


@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_undecodable(pair: tuple[bytes, bytes]) -> None:
    deep = pair[0] * 100_000 + b"1" + pair[1] * 100_000
    for raw in (b'{"v":1,"id":"a","task":"t","args":[' + deep + b"]}", b'{"v":2,"x":' + deep + b"}", b"{" + deep):
        with pytest.raises(Undecodable):
            decode(raw)


@pytest.mark.parametrize("start", [b"", b"{", b'{"v":1,"id":"', b"1.0{", b'{"v":1,"id":"a","task":"t","args":["'])
def test_a_megabyte_of_anything_is_undecodable(start: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(start + os.urandom(1_000_000))


@pytest.mark.parametrize("depth", [900, 2_000, 10_000])
def test_how_deep_is_too_deep_depends_on_the_interpreter_and_is_no_other_error(depth: int) -> None:
    readable(b'{"v":1,"id":"a","task":"t","args":[' + b"[" * depth + b"]" * depth + b"]}")


def test_a_number_without_end_is_undecodable_or_a_number() -> None:
    assert readable(b'{"v":1,"id":"a","task":"t","args":[' + b"9" * 100_000 + b"]}") in (True, False)


def readable(raw: bytes) -> bool:
    """Whether it is a job; any error but Undecodable goes through."""
    try:
        message, *counts = decode(raw)
    except Undecodable:
        return False
    assert isinstance(message, Message)
    assert min(counts) >= 0
    return True


@given(st.binary(max_size=200))
@example(b"{\xff")
@example(b'{"\xc3(":1}')
def test_random_bytes_raise_nothing_but_undecodable(raw: bytes) -> None:
    readable(raw)
    readable(b"{" + raw)
    readable(b"1.0{" + raw)


@given(st.data())
def test_a_job_with_some_bytes_changed_raises_nothing_but_undecodable(data: Any) -> None:
    raw = bytearray(b"12.3" + GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    readable(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    readable(bytes(raw))


def test_ids_tell_when_they_were_made_and_sort_by_it() -> None:
    ids = [new_id(milliseconds) for milliseconds in (0, 1, 1_700_000_000_000, 1_700_000_000_001)]
    assert [made_at(one) for one in ids] == [0.0, 0.001, 1_700_000_000.0, 1_700_000_000.001]
    assert ids == sorted(ids)
    assert len({new_id(5) for _ in range(100)}) == 100


@pytest.mark.parametrize("odd", ["", "x", "by-hand-1", "zzzzzzzzzzz-1", "18c2f3a4b5d", "-" * 30])
def test_an_id_of_another_making_tells_no_time(odd: str) -> None:
    assert made_at(odd) is None

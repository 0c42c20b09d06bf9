"""Heads of entries: what Python and Lua read in front of the JSON, as docs/internals/protocol.md writes it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rq_lite.model.message import (
    NO_HEAD,
    VERSION,
    Head,
    Message,
    Newer,
    Undecodable,
    decode,
    encode,
    id_in,
    marked,
    parse,
)  # fmt: skip
from rq_lite.model.names import encoded, encoded_id

JSON = encode(Message(VERSION, "id-1", "t"))


@pytest.mark.parametrize(
    ("text", "head"),
    [
        (b"", NO_HEAD),
        (b"2.1", Head(2, 1, 3)),
        (b"0.0@-1.5", Head(at=8, priority=b"-1.5")),
        (b"0.0#a%20b", Head(at=9, id=b"a%20b")),
        (b"10.2@1e+20#id-1", Head(10, 2, 15, b"id-1", b"1e+20")),
        (b"0.0*12", Head(at=6, deaths=12)),
        (b"1.2@1#id-1*3~f.n/0", Head(1, 2, 18, b"id-1", b"1", b"~f.n/0", 3)),
        (b"0.0~flow.node/3", Head(at=15, unknown=b"~flow.node/3")),
        (b"1.0@2#id-1~f.n/0^eu!e:k?1700000000000", Head(1, 0, 37, b"id-1", b"2", b"~f.n/0^eu!e:k?1700000000000")),
        (b"0.0#id-1!e:t:a%3Ab", Head(at=18, id=b"id-1", unique=b"e:t:a%3Ab")),
        (b"0.0#id-1?17", Head(at=11, id=b"id-1", expires=17)),
        (b"3.1@1#id-1*2!s:k?0", Head(3, 1, 18, b"id-1", b"1", b"", 2, b"s:k", 0)),
        (b"0.0#id-1!s:k?0&new", Head(at=18, id=b"id-1", unique=b"s:k", expires=0, unknown=b"&new")),
        (b"0.0#id-1!x:key", Head(at=14, id=b"id-1", unknown=b"!x:key")),
        (b"0.0#id-1!e:a/b", Head(at=14, id=b"id-1", unknown=b"!e:a/b")),
        (b"0.0#id-1!e:a!e:b", Head(at=16, id=b"id-1", unique=b"e:a", unknown=b"!e:b")),
        (b"0.0#id-1?1a", Head(at=11, id=b"id-1", unknown=b"?1a")),
        (b"0.0#id-1?1?2", Head(at=12, id=b"id-1", expires=1, unknown=b"?2")),
        (b"0.0?1!e:a", Head(at=9, expires=1, unknown=b"!e:a")),
        (b"0.0!e:" + b"k" * 210, Head(at=216, unique=b"e:" + b"k" * 210)),
        (b"0.0!e:" + b"k" * 211, Head(at=217, unknown=b"!e:" + b"k" * 211)),
        (b"0.0?" + b"1" * 16, Head(at=20, unknown=b"?" + b"1" * 16)),
        (b"0.0&new=thing", Head(at=13, unknown=b"&new=thing")),
    ],
)
def test_a_head_is_read_as_the_grammar_says(text: bytes, head: Head) -> None:
    assert parse(text + JSON) == head


@pytest.mark.parametrize(
    "text",
    [
        b"x", b"1", b"1.", b"-1.0", b"1.0 ", b"1.0x", b"1.0@", b"1.0#", b"1.0#a@1", b"1.0@1@2", b"1.0#a#b", b"1.0#a b",
        b"1.0#a\n", b"1234567890.0", b"1.0@" + b"1" * 31, b"1.0#" + b"a" * 201, b"1.0~a#b", b"1.0~\xff", b"1.0*",
        b"1.0*x", b"1.0*1#a", b"1.0*1*2", b"1.0*1234567890",
    ],
)  # fmt: skip
def test_what_is_against_the_grammar_is_no_job(text: bytes) -> None:
    assert parse(text + JSON) is None
    with pytest.raises(Undecodable, match="does not begin like a job") as raised:
        decode(text + JSON)
    assert not isinstance(raised.value, Newer)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (b"0.0~flow.node/1" + JSON, "marks ~"),
        (b"3.1@1#id-1~f.n/1^lane!once?17" + JSON, "marks ~ ^ ! ?"),
        (JSON.replace(b'"v":1', b'"v":3'), "version 3"),
        (b"1.0" + JSON.replace(b'"v":1', b'"v":3,"new":[]'), "version 3"),
    ],
)
def test_what_a_newer_version_has_put_is_told_from_what_is_no_job(entry: bytes, what: str) -> None:
    with pytest.raises(Newer, match=f"^{re.escape(what)}.*this version of rq_lite does not know") as raised:
        decode(entry)
    assert raised.value.what == what


def test_an_id_is_found_whatever_marks_stand_before_it() -> None:
    assert id_in(b"0.0#id-1~f.n/1" + JSON) == "id-1"
    assert id_in(b"0.0~f.n/1" + JSON.replace(b'"v":1', b'"v":2')) == "id-1"


@pytest.mark.parametrize(
    ("job_id", "mark"),
    [
        ("18c2f3a4b5d-9f86d081884c7d65", "18c2f3a4b5d-9f86d081884c7d65"),
        ("18c.success.done", "18c.success.done"),
        ("a b", "a%20b"),
        ("a%20b", "a%2520b"),
        ("{#~^!?@/|}", "%7B%23%7E%5E%21%3F%40%2F%7C%7D"),
        ("ü", "%C3%BC"),
    ],
)
def test_an_id_is_percent_encoded_in_its_mark(job_id: str, mark: str) -> None:
    assert encoded_id(job_id) == mark
    head = parse(marked(JSON, job_id, tracked=True))
    assert head is not None
    assert head.id == mark.encode()


@given(st.lists(st.text(min_size=1, max_size=120), unique=True, max_size=8))
def test_whatever_an_id_or_key_is_it_fits_the_grammar_and_stays_apart_from_others(texts: list[str]) -> None:
    for made, most in ((encoded_id, 200), (encoded, 100)):
        found = [made(text) for text in texts]
        assert len(set(found)) == len(texts)
        assert all(re.fullmatch(r"[A-Za-z0-9_.:%-]+", one) and len(one) <= most for one in found)
    assert re.fullmatch("[0-9a-f]{32}", encoded("k" * 101))

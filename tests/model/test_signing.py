"""Signatures: whatever was changed, or put by somebody without the secret, is refused; the secret is never shown."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rq_lite import Settings, UsageError
from rq_lite.broker import Broker
from rq_lite.model.message import VERSION, Message, decode, encode, marked, split
from rq_lite.model.signing import UNFIT, UNSIGNED, Refused, Signer
from rq_lite.settings import keys_of, load_settings

KEY, OTHER = b"one key of the secret", b"another key as long"
SIGNER = Signer([KEY])
TEXT = encode(Message(VERSION, "id", "mod:task", [1, "two"], {"three": 3.5}))
SEALED = SIGNER.seal("q", TEXT)


def refused(entry: bytes, queue: str = "q", signer: Signer = SIGNER) -> str:
    with pytest.raises(Refused) as caught:
        signer.opened(queue, entry)
    return str(caught.value)


def test_what_was_signed_opens() -> None:
    assert SEALED != TEXT
    assert SIGNER.opened("q", SEALED) == TEXT


@pytest.mark.parametrize("front", [b"0.0", b"2.1", b"0.0@-1.5", b"3.0@inf#an-id", b"0.0#by-hand-1"])
def test_what_stands_in_front_stays_and_is_not_signed(front: bytes) -> None:
    assert SIGNER.opened("q", front + SEALED) == front + TEXT


def test_marks_come_in_front_of_what_was_signed() -> None:
    entry = marked(SEALED, "id", priority=2.0, tracked=True)
    assert SIGNER.opened("q", entry) == marked(TEXT, "id", priority=2.0, tracked=True)


@pytest.mark.parametrize(
    "entry", [b"", TEXT, b"1.0" + TEXT, b"{", b"}", b"no job", SEALED + b" ", SEALED[:-1], b"a" * 64]
)
def test_without_a_signature_it_is_not_signed(entry: bytes) -> None:
    assert refused(entry) == UNSIGNED


def test_upper_case_is_no_signature() -> None:
    assert refused(TEXT + SEALED[-64:].upper()) == UNSIGNED


def test_for_another_queue_it_does_not_fit() -> None:
    assert refused(SEALED, queue="q2") == UNFIT
    assert refused(Signer([KEY]).seal("a", TEXT), queue="b") == UNFIT


def test_a_queue_s_end_is_not_a_job_s_beginning() -> None:
    assert refused(Signer([KEY]).seal("qq", TEXT), queue="q") == UNFIT


def test_signed_with_another_key_it_does_not_fit() -> None:
    assert refused(SEALED, signer=Signer([OTHER])) == UNFIT


def test_the_first_key_signs_and_all_are_accepted() -> None:
    both = Signer([OTHER, KEY])
    assert both.opened("q", SEALED) == TEXT
    assert both.seal("q", TEXT) == Signer([OTHER]).seal("q", TEXT) != SEALED


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_no_byte_can_be_another(at: int, change: int) -> None:
    altered = bytearray(SEALED)
    altered[at] ^= change
    assert refused(bytes(altered)) in (UNFIT, UNSIGNED)


@given(st.data())
def test_nothing_can_be_put_in_or_taken_out(data: Any) -> None:
    start = data.draw(st.integers(0, len(SEALED)))
    end = data.draw(st.integers(start, len(SEALED)))
    new = data.draw(st.binary(max_size=20))
    changed = SEALED[:start] + new + SEALED[end:]
    try:
        opened = SIGNER.opened("q", changed)
    except Refused:
        return
    assert split(opened)[2] == TEXT if opened[:1] != b"{" else opened == TEXT  # a header was put in front


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_else(raw: bytes) -> None:
    for entry in (raw, b"{" + raw, b"1.0{" + raw, b"{" + raw + b"}" + b"0" * 64):
        refused(entry)


# -- without a secret


def test_without_a_secret_a_signature_is_ignored() -> None:
    for front, header in ((b"", (0, 0)), (b"2.1", (2, 1)), (b"0.0#id", (0, 0))):
        assert decode(front + SEALED) == (decode(TEXT)[0], *header, 0)
    assert split(b"2.1" + SEALED) == (2, 1, TEXT)


def test_without_a_secret_the_broker_changes_nothing() -> None:
    broker = Broker("redis://nowhere", settings=Settings())
    assert broker.core.seal("q", TEXT) is TEXT
    assert broker.core.opened("q", SEALED) is SEALED


def test_with_one_it_signs_and_checks() -> None:
    broker = Broker("redis://nowhere", settings=Settings(secret=KEY.decode()))
    assert broker.core.seal("q", TEXT) == SEALED
    assert broker.core.opened("q", SEALED) == TEXT
    with pytest.raises(Refused):
        broker.core.opened("q", TEXT)


# -- for other languages


def test_the_vector_in_the_protocol_is_right() -> None:
    """Made with the standard library alone, as another language would."""
    page = (Path(__file__).parents[2] / "docs" / "internals" / "protocol.md").read_text().partition("### Signatures")[2]
    found = re.search(r"key `(.+?)`,\s+the queue `(\w+)` and the JSON `(.+?)`:\s+signature = ([0-9a-f]+)", page)
    assert found is not None
    key, queue, text, signature = (part.encode() for part in found.groups())
    assert hmac.new(key, queue + b"\0" + text, hashlib.sha256).hexdigest().encode() == signature
    assert Signer(keys_of(key.decode())).opened(queue.decode(), text + signature) == text


# -- the secret


def test_keys_are_separated_by_commas() -> None:
    assert keys_of(f" {KEY.decode()} ,{OTHER.decode()}\n") == [KEY, OTHER]
    assert keys_of(None) == []


@pytest.mark.parametrize("secret", ["hunter2", ",", KEY.decode() + ",", KEY.decode() + ",hunter2", "k" * 15])
def test_a_short_key_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(UsageError, match=r"secret: .* shorter than 16 characters; make one with: python -c") as caught:
        Settings(secret=secret)
    assert not any(key and key in str(caught.value) for key in secret.split(","))


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="secret: a key must be text in UTF-8"):
        Settings(secret=os.fsdecode(b"\xff" * 20))


def test_the_secret_is_not_shown() -> None:
    settings = Settings(secret=KEY.decode(), url="redis://h")
    assert KEY.decode() not in repr(settings) + repr(settings.__rich_repr__()) + str(settings)
    assert "secret='***'" in repr(settings)
    assert "secret=None" in repr(Settings())
    assert "url='redis://h'" in repr(settings)


def test_it_comes_from_the_environment_or_an_argument_and_from_no_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert load_settings(environ={"RQ_LITE_SECRET": KEY.decode()}, folder=tmp_path).secret == KEY.decode()
    assert load_settings({"secret": KEY.decode()}, environ={}, folder=tmp_path).secret == KEY.decode()
    (tmp_path / "pyproject.toml").write_text(f"[tool.rq-lite]\nsecret = '{KEY.decode()}'\n")
    with pytest.raises(UsageError, match="set RQ_LITE_SECRET") as caught:
        load_settings(environ={}, folder=tmp_path)
    assert KEY.decode() not in str(caught.value)


def test_one_of_the_wrong_kind_is_not_shown() -> None:
    with pytest.raises(UsageError, match=r"secret must be text, not '\*\*\*'") as caught:
        load_settings({"secret": 1234567890123456}, environ={})
    assert "1234567890123456" not in str(caught.value)

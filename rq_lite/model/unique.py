"""What makes a job unique: a key from its arguments, or an id of its own, and until when that keeps others out."""

from __future__ import annotations

import hashlib
import string
from functools import partial
from typing import Any

from rq_lite.checks import duration, one_of
from rq_lite.errors import UsageError
from rq_lite.model.message import FOR_A_TIME, FOR_EVER, LONGEST_ID, REPLACES
from rq_lite.model.names import LONGEST_KEY, encoded
from rq_lite.model.option import or_none

LONGEST_TEXT = 10_000  # bytes of a key: what is longer is a mistake
UNTIL = {"end": "e", "start": "s"}  # and the modes of their locks; else "forever", or seconds
ON_CONFLICT = ("skip", "replace", "raise")


@or_none
def check_unique(name: str, value: Any) -> Any:
    """Raises UsageError for anything but a template, such as `"{user}-{day:%F}"`."""
    if not isinstance(value, str):
        raise UsageError(f'{name} must be a template of parameters, such as "{{user_id}}", not {value!r}')
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(value) if field is not None]
    except ValueError as error:
        raise UsageError(f"{name}={value!r} cannot be read: {error}") from None
    if not fields:
        raise UsageError(
            f'{name}={value!r} names no parameter, as in "{{user_id}}"; to keep a task to one job at a time, put it '
            'with an id of its own: using(id="…")'
        )
    if not all(first_name(field).isidentifier() for field in fields):
        raise UsageError(f'{name}={value!r}: name the parameters, as in "{{user_id}}"')
    return value


def parameters_of(template: str) -> list[str]:
    """The parameters that a template names."""
    return [first_name(field) for _, field, _, _ in string.Formatter().parse(template) if field is not None]


def first_name(field: str) -> str:
    """`user` for the field `user.id` or `user[id]`."""
    return field.partition(".")[0].partition("[")[0]


def check_until(name: str, value: Any) -> Any:
    if value in (*UNTIL, "forever"):
        return value
    if isinstance(value, str) or value is None:
        raise UsageError(f'{name} must be "end", "start", "forever", or a number of seconds, not {value!r}')
    return duration(name, value)


check_on_conflict = partial(one_of, words=ON_CONFLICT)
check_max_wait = or_none(duration)


@or_none
def check_id(name: str, value: Any) -> Any:
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_ID or not value.isprintable():
        raise UsageError(f"{name} must be 1 to {LONGEST_ID} characters that can be printed, not {value!r:.200}")
    encoded(value)  # refuses what is not UTF-8
    return value


def name_of_key(task: str, key: str) -> str:
    """The name of the lock: two tasks never share one. Raises UsageError for a key that is too long, or no UTF-8."""
    if len(key) > LONGEST_TEXT:
        raise UsageError(f"its key has {len(key):,} characters, at most {LONGEST_TEXT:,} are allowed")
    return f"{part(task)}:{part(key)}"


def name_of_id(job_id: str) -> str:
    """The name of the lock of a job with an id of its own; no task has an empty name."""
    return f":{part(job_id)}"


def part(text: str) -> str:
    found = encoded(text).replace(":", "%3A")
    return found if len(found) <= LONGEST_KEY else hashlib.sha256(text.encode()).hexdigest()[:32]


def digest(name: str) -> bytes:
    """How a lock that lasts for ever is stored: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(name.encode()).digest()[:16]


def lock(name: str, until: Any, mark: str, replaces: bool = False, wait: float = 0.0) -> tuple[str | None, bytes]:
    """The field `unique` of the message, and what a put says in front of the entry; `mark`: the encoded id.

    `replaces`: it takes the place of the job that holds the lock; further ones may put it off for `wait` s (0: for
    ever).
    """
    if until in UNTIL:
        return f"{UNTIL[until]}:{name}", REPLACES + f" {round(wait * 1000)} ".encode() if replaces else b""
    if until == "forever":
        return None, FOR_EVER + digest(name)
    return None, FOR_A_TIME + f" {max(1, round(until * 1000))} {name} {mark} ".encode()

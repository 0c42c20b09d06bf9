"""Names of queues, schedules, feeds and tasks, as they stand in keys and in messages."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from rq_lite.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
LONGEST_ID, LONGEST_KEY = 200, 100  # bytes of an id, and of a key that a user gives, where they stand in marks and keys


def checked_name(name: str, what: str) -> str:
    """The name itself, if it can stand inside a key."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(f"{what} {name!r}: a name has 1 to 200 letters, digits or _ . : -")
    return name


def encoded_id(job_id: str) -> str:
    """How a job's id stands in its mark, and in the keys that are named after it."""
    return encoded(job_id, LONGEST_ID)


def encoded(text: str, most: int = LONGEST_KEY) -> str:
    """Text that a user gives, in the letters that a mark may have: percent-encoded.

    What is longer than `most` then becomes 32 hex digits of its SHA-256. Raises UsageError if it is not UTF-8.
    """
    if NAME.fullmatch(text) and len(text) <= most:
        return text
    try:
        found = quote(text, safe=":", errors="strict").replace("~", "%7E")
    except UnicodeEncodeError:  # from the command line, for example
        raise UsageError(f"{text!r} is not valid UTF-8") from None
    return found if len(found) <= most else hashlib.sha256(text.encode()).hexdigest()[:32]

"""Names of queues, schedules, feeds and tasks, as they stand in keys and in messages."""

from __future__ import annotations

import re

from rq_lite.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


def checked_name(name: str, what: str) -> str:
    """The name itself, if it can stand inside a key."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(f"{what} {name!r}: a name has 1 to 200 letters, digits or _ . : -")
    return name

"""A failed run that a supervisor settled, as it waits in Redis for a consumer that calls the app's hooks.

The supervisor runs no code of an app. So for an app with such hooks it leaves a notice for each run that it charges:
JSON, a line end, and the job's entry (left out if it is large).
"""

from __future__ import annotations

import msgspec

from rq_lite.model.unreadable import UNREADABLE

LARGE = 10_000  # bytes of an entry from which on a notice goes without it; as in lib.lua


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What hooks are told of the run; reclaim.lua writes the same fields."""

    id: str
    task: str
    attempt: int  # which run of the job has failed; the first is 1
    error: str
    traceback: str = ""
    delay: float = 0.0  # seconds until the next run
    next: str = ""  # the hook after on_failure: on_retry or on_bury; "": the one that buries the job calls it


_decode = msgspec.json.Decoder(Notice).decode


def written(notice: Notice, entry: bytes) -> bytes:
    return msgspec.json.encode(notice) + b"\n" + (b"" if len(entry) > LARGE else entry)


def read(left: bytes) -> tuple[Notice, bytes] | None:
    """The notice, and the entry or b"". None: another program has written it."""
    text, _, entry = left.partition(b"\n")
    try:
        return _decode(text.decode(errors="replace")), entry  # a stack may hold any bytes
    except UNREADABLE:
        return None

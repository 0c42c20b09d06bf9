"""Reading what may be large in answers of bounded size, so that none is more than Redis sends.

A Redis may be told how much may wait to be sent to one client (client-output-buffer-limit). It cuts an answer that is
larger off, with the connection, and would cut the same answer each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis

from rq_lite.broker.base import Core, T
from rq_lite.broker.link import Link
from rq_lite.broker.scripts import Code
from rq_lite.broker.transient import REDIS_ERRORS, is_lost

LIMIT = "client-output-buffer-limit"
LEAST = 10_000  # bytes: where not even this can be sent, it is not the size
log = logging.getLogger("rq_lite.broker")


class Reading:
    """Jobs, results, definitions: whatever is as large as somebody likes."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def values(self, name: str, fields: Sequence[Any], link: Link | None = None) -> Iterator[bytes | None]:
        """What these fields of a hash hold, in their order; None for those that are not there."""
        if not fields:
            return
        lengths = self.sized(lambda on: on.pipe([("HSTRLEN", name, field) for field in fields]), link)
        at = 0

        def step(on: Link) -> list[bytes | None]:
            end, size = at + 1, lengths[at]
            while end < len(fields) and size + lengths[end] <= self._core.portion:
                size += lengths[end]
                end += 1
            if size > self._core.portion:
                return [self._in_pieces(name, fields[at], on)]
            found: list[bytes | None] = on.call("HMGET", name, *fields[at:end])
            return found

        while at < len(fields):
            found = self.sized(step, link)
            yield from found
            at += len(found)

    def _in_pieces(self, name: str, field: Any, link: Link) -> bytes | None:
        """What one field holds that is more than one answer may."""
        parts: list[bytes] = []
        first = 1
        while True:
            size = self._core.portion  # another greenlet's `heed_limit` may lower it meanwhile
            code, *part = self._core.run("piece", (name,), field, first, first + size - 1, link=link)
            if code != Code.OK:
                return None
            parts += part
            if len(part[0]) < size:
                return b"".join(parts)
            first += size

    def text(self, name: str) -> bytes | None:
        """What this key holds, a text that is never empty; None if it is not there."""

        def step(on: Link) -> bytes | None:
            found, length = b"", -1
            while len(found) != length:
                before = length
                ends = (len(found), len(found) + self._core.portion - 1)
                length, part = on.pipe([("STRLEN", name), ("GETRANGE", name, *ends)])
                # Another one has taken its place: from the beginning.
                found, length = (found + part, length) if before in (-1, length) else (b"", -1)
            return found or None

        return self.sized(step, None)

    def window(self, place: str, first: int, count: int) -> Iterator[tuple[bytes, bytes]]:
        """Entries of a list or a sorted set, with their scores there, from the first-th on, those first that are taken
        next. Others may come and go meanwhile."""
        while count > 0:
            length, digest, *flat = self._window(place, first, count, 1)
            if not flat:
                return
            while digest and len(flat[0]) < length:
                found = self._window(place, first, 1, len(flat[0]) + 1)
                if found[:2] != [length, digest]:
                    break  # it has moved on; who reads what there is of it sees that it is no job
                flat[0] += found[2]
            yield from zip(flat[::2], flat[1::2], strict=True)
            first, count = first + len(flat) // 2, count - len(flat) // 2

    def _window(self, place: str, first: int, count: int, start: int) -> list[Any]:
        """One answer's part of a window; of an entry that is larger the piece that begins at `start`."""
        return self.sized(
            lambda on: self._core.run("window", (place,), first, count, self._core.portion, start, link=on)[1:], None
        )

    def head(self, place: str, most: int) -> bytes | None:
        """The entry that is taken next, or its beginning, so many bytes."""
        found = self._core.run("window", (place,), 0, 1, most, 1)[3:]
        return found[0] if found else None

    def sized(self, step: Callable[[Link], T], link: Link | None) -> T:
        """A step whose answers are as large as `portion` says, once more where they were still too large for Redis."""

        def attempt(on: Link) -> T:
            while True:
                portion = self._core.portion
                try:
                    return step(on)
                except REDIS_ERRORS as error:
                    if not (is_lost(error) and on.asked):
                        raise
                    on.close()
                    self.heed_limit(on, cut=True)
                    if self._core.portion == portion:
                        raise

        if link is not None:
            return attempt(link)
        until = self._core.until()
        self._core.ready(until)
        with self._core.links.lend(until) as lent:
            return self._core.patiently(lambda: attempt(lent), lent, until)

    def heed_limit(self, link: Link, *, cut: bool = False) -> None:
        """After an answer was lost: ask for less at a time, if Redis may have cut it off for its size.

        Where it does not tell its limit, that is if such an answer was `cut` a second time.
        """
        try:
            words = link.call("CONFIG", "GET", LIMIT)[1].decode().split()
            limit = int(words[words.index("normal") + 1])
        except (redis.ResponseError, LookupError, ValueError):  # as hosted ones answer, or with nothing
            limit, said = self._core.portion if cut else 0, "it does not say what that is"
        except REDIS_ERRORS:
            return  # it is away
        else:
            said = f"{limit:,} bytes for normal clients"
        # What it reckons is up to a quarter more than the answer.
        portion = max(LEAST, limit // 2)
        if limit and portion < self._core.portion:
            self._core.portion = portion
            log.warning(
                "Redis cuts off answers that are larger than its %s (%s). From now on jobs are read in pieces of %s "
                "bytes, which is slower. To lift it: redis-cli CONFIG SET %s 'normal 0 0 0', and also in redis.conf",
                LIMIT, said, f"{portion:,}", LIMIT,
            )  # fmt: skip

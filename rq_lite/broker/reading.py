"""Read large data in answers of bounded size, so that Redis does not cut one off.

Redis may have a limit on how much may wait to be sent to one client (client-output-buffer-limit). In the middle of a
larger answer it closes the connection, and it would do so each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis

from rq_lite.broker.base import Core, T
from rq_lite.broker.link import Link
from rq_lite.broker.scripts import Code
from rq_lite.broker.transient import REDIS_ERRORS, is_lost
from rq_lite.logs import logger

LIMIT = "client-output-buffer-limit"
LEAST = 10_000  # bytes: if not even this much arrives, size is not the cause
log = logger("rq_lite.broker")


class Reading:
    """Reads jobs, results, definitions: data whose size users decide."""

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
        """The value of one field that is larger than one answer may be."""
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
        """The string at this key, which is never empty; None if there is no such key."""

        def step(on: Link) -> bytes | None:
            found, length = b"", -1
            while len(found) != length:
                before = length
                ends = (len(found), len(found) + self._core.portion - 1)
                length, part = on.pipe([("STRLEN", name), ("GETRANGE", name, *ends)])
                # Another value has replaced it: begin again.
                found, length = (found + part, length) if before in (-1, length) else (b"", -1)
            return found or None

        return self.sized(step, None)

    def window(self, place: str, first: int, count: int) -> Iterator[tuple[bytes, bytes]]:
        """Entries of a list or a sorted set, and their scores, in the order in which they are taken, from index `first`
        on. Entries may come and go meanwhile."""
        while count > 0:
            length, digest, *flat = self._window(place, first, count, 1)
            if not flat:
                return
            while digest and len(flat[0]) < length:
                found = self._window(place, first, 1, len(flat[0]) + 1)
                if found[:2] != [length, digest]:
                    break  # it has moved on; the caller will see that this part of it is no job
                flat[0] += found[2]
            yield from zip(flat[::2], flat[1::2], strict=True)
            first, count = first + len(flat) // 2, count - len(flat) // 2

    def _window(self, place: str, first: int, count: int, start: int) -> list[Any]:
        """One answer's part of a window; for a larger entry, its piece that begins at `start`."""
        return self.sized(
            lambda on: self._core.run("window", (place,), first, count, self._core.portion, start, link=on)[1:], None
        )

    def head(self, place: str, most: int) -> bytes | None:
        """The entry that is taken next, or its first `most` bytes."""
        found = self._core.run("window", (place,), 0, 1, most, 1)[3:]
        return found[0] if found else None

    def sized(self, step: Callable[[Link], T], link: Link | None) -> T:
        """Run a step whose answers are as large as `portion` says; again with a smaller one if Redis cut one off."""

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
        """After an answer was lost: lower `portion`, if Redis may have cut the answer off for its size.

        If Redis does not tell its limit, `portion` is lowered only if the lost answer was a large one (`cut`).
        """
        try:
            words = link.call("CONFIG", "GET", LIMIT)[1].decode().split()
            limit = int(words[words.index("normal") + 1])
        except (redis.ResponseError, LookupError, ValueError):  # hosted servers refuse CONFIG, or return nothing
            limit, said = self._core.portion if cut else 0, "it does not say what that is"
        except REDIS_ERRORS:
            return  # Redis is unreachable
        else:
            said = f"{limit:,} bytes for normal clients"
        # Redis counts up to a quarter more than the answer's bytes.
        portion = max(LEAST, limit // 2)
        if limit and portion < self._core.portion:
            self._core.portion = portion
            log.warning(
                "Redis cuts off answers that are larger than its %s (%s). From now on jobs are read in pieces of %s "
                "bytes, which is slower. To lift it: redis-cli CONFIG SET %s 'normal 0 0 0', and also in redis.conf",
                LIMIT, said, f"{portion:,}", LIMIT,
            )  # fmt: skip

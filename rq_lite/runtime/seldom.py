"""Log lines that may come by the thousand: the first at once, then one now and then with how many were left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def one_line(text: str, most: int = 300) -> str:
    """The text as one harmless line: what others wrote may hold line ends and terminal codes."""
    return text.translate(UNPRINTABLE)[:most]


class Seldom:
    """Passes a line of the same key on at most once in `seconds`."""

    def __init__(
        self,
        log: logging.Logger,
        *,
        seconds: float = 5.0,
        most: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}

    def warn(self, key: str, message: str) -> None:
        now = self._clock()
        last, left_out = self._last.get(key, (-self._seconds, 0))
        if now - last < self._seconds:
            self._last[key] = (last, left_out + 1)
            return
        if len(self._last) >= self._most:
            self._last.clear()
        self._last[key] = (now, 0)
        self._log.warning("%s%s", one_line(message), f" ({left_out:,} more like it)" if left_out else "")

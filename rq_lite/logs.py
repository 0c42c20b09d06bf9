"""The loggers of rq_lite, text from elsewhere made harmless, and lines that may come by the thousand, counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

# Spaces that only look unusual, such as that of Chinese: `isprintable` is False for them.
SPACES = frozenset("\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000")


def escaped(text: str) -> str:
    """The text on one line; what could change a terminal or the order of letters is shown as `\\x1b`, `\\u202e`.

    For all text from elsewhere (names, ids, errors) wherever a person reads it: in logs, tables and messages.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in SPACES else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, most: int = 300) -> str:
    """The text escaped, and cut if it is longer than `most` characters."""
    shown = escaped(text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."


class _Enabled(logging.Logger):
    """Stays as it is when an app configures its own logging.

    `logging.config.dictConfig` and `fileConfig` by default disable each logger that exists already
    (`disable_existing_loggers`), and a worker's loggers exist before the app is imported. A level still silences it.
    """

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass


def logger(name: str) -> logging.Logger:
    """The logger of this name, which an app cannot disable by accident."""
    found = logging.getLogger(name)
    if type(found) is logging.Logger:  # a program may have a class of its own for its loggers
        found.__class__ = _Enabled
    return found


class RateLimitedLog:
    """Logs a line of the same key at most once in `seconds`; the key says in a few words what its lines are about."""

    FLUSH = 5.0  # seconds between two calls of `flush`

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

    def flush(self, *, at_once: bool = False) -> None:
        """Log how many lines of a key were left out, if no line has come for `seconds` (`at_once`: in any case)."""
        now = self._clock()
        for key, (last, left_out) in list(self._last.items()):
            if at_once or now - last >= self._seconds:
                del self._last[key]
                if left_out:
                    self._log.warning("%s: %s more like it", one_line(key), f"{left_out:,}")

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

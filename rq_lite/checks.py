"""Numbers that a program gives: of the right kind and size, or refused in one line that says what is wanted."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Collection
from datetime import timedelta
from reprlib import Repr
from typing import Any

from rq_lite.errors import UsageError

# Redis' scripts count in floating point; up to here that is exact.
MOST = 10**15
MOST_CRASHES = 999_999_999  # as many digits as the head of an entry has for a count
INFINITE = float("inf")
LONGEST = 3.2e9  # seconds: a hundred years

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def integer(what: str, value: Any, *, least: int = 0, most: int = MOST) -> int:
    """A whole number (of any type with __index__, but no bool) that Redis can count with. Raises UsageError."""
    number = None
    with contextlib.suppress(TypeError):
        number = operator.index(value)
    if number is None or isinstance(value, bool) or not least <= number <= most:
        raise UsageError(f"{what} must be {least} or more, a whole number up to {most:,}, not {shown(value)}")
    return number


def number(
    what: str, value: Any, wanted: str, *, least: float = 0.0, most: float = INFINITE, above: bool = False
) -> Any:
    """A number in [least, most]; `above` excludes `least`. bool and NaN are refused.

    Raises UsageError, which says what was `wanted`.
    """
    number = float("nan")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if not least <= number <= most or (above and number == least):
        raise UsageError(f"{what} must be {wanted}, not {shown(value)}")
    return value


def one_of(what: str, value: Any, words: Collection[str]) -> Any:
    """One of these words. Raises UsageError."""
    if value not in words:
        raise UsageError(f"{what} must be one of {', '.join(words)}, not {value!r}")
    return value


def duration(what: str, value: Any) -> Any:
    """A time above 0; a timedelta as its number of seconds. Raises UsageError."""
    return number(what, in_seconds(value), "above 0 seconds, up to 100 years", most=LONGEST, above=True)


def in_seconds(time: Any) -> Any:
    """A timedelta as a number of seconds; anything else as it is."""
    return time.total_seconds() if isinstance(time, timedelta) else time


def priority(value: Any) -> float:
    """The priority as a float; a bool counts as 0 or 1, NaN is refused. Raises UsageError."""
    return float(number("priority", int(value) if isinstance(value, bool) else value, "a number", least=-INFINITE))


def in_words(default: object) -> str:
    """A default as the docs write it; a float is a number of seconds."""
    if default is None:
        return "none"
    return (
        f"{default:g} s" if isinstance(default, float) else f"{default:,}" if isinstance(default, int) else str(default)
    )


def shown(value: object) -> str:
    """Any value in few words."""
    try:
        return _short.repr(value)
    except ValueError:  # a number with thousands of digits
        return "one with thousands of digits"

"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


def full_jitter(
    attempt: int, *, base: float = 1.0, cap: float = 600.0, chance: Callable[[], float] = random.random
) -> float:
    """Seconds before attempt number `attempt + 1` (the first is 1): between 0 and base·2^(attempt-1), at most `cap`.

    The spread over the whole range keeps jobs that failed together from running again together.
    """
    return chance() * min(cap, base * 2.0 ** min(attempt - 1, 60))


def pauses(*, base: float = 0.05, cap: float = 1.5) -> Iterator[float]:
    """Seconds between tries to reach Redis: growing to about one, and random, so that programs do not try in step."""
    pause = base
    while True:
        yield random.uniform(pause / 2, pause)
        pause = min(cap, pause * 2)

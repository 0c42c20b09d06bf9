"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


def full_jitter(
    attempt: int, *, base: float = 1.0, cap: float = 600.0, chance: Callable[[], float] = random.random
) -> float:
    """Seconds before attempt number `attempt + 1` (the first is 1): between 0 and base·2^(attempt-1), at most `cap`.

    The spread over the whole range keeps many that failed together from coming back together.
    """
    return chance() * min(cap, base * 2.0 ** min(attempt - 1, 60))


def pauses(*, base: float = 0.05, cap: float = 1.5) -> Iterator[float]:
    """Seconds between tries to reach Redis: growing, and never two programs' in step. At most about one a second."""
    pause = base
    while True:
        yield random.uniform(pause / 2, pause)
        pause = min(cap, pause * 2)

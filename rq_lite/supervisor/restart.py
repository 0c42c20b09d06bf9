"""When a consumer that has died is started again, and when the worker gives up."""

from __future__ import annotations

YOUNG = 10.0  # seconds; a consumer that dies sooner is assumed to die of what killed the one before
TRIES = 6  # deaths at the start, in a row, after which the worker gives up
FIRST = 0.25  # seconds until a consumer is started again after the first death; twice that after each further one
LONGEST = 30.0  # seconds, at most
# At most, if the consumer had been ready: a job or another process has killed it, which is no reason to let the other
# jobs wait.
LONGEST_READY = 2.0


class RestartBackoff:
    """Deaths of one worker's consumers, in a row."""

    def __init__(self) -> None:
        self._young = 0
        self.unready = 0  # those that died before they were ready

    def pause(self, *, ready: bool, age: float) -> float | None:
        """Seconds until a consumer that died at this age is started again; None: give up."""
        self._young = self._young + 1 if age < YOUNG else 1
        self.unready = 0 if ready else self.unready + 1
        if self.unready >= TRIES:
            return None
        return min(LONGEST_READY if ready else LONGEST, FIRST * 2.0 ** min(self._young - 1, 10))

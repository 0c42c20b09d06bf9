"""One consumer's deliveries of one queue: those whose runs have ended unsettled, and those that it gives back."""

from __future__ import annotations

from collections.abc import Iterator

from rq_lite.model.outcome import Crashed, Finished, Parked, Retried

PORTION = 250  # jobs with results or callbacks that end in one step,
HEAVY = 500_000  # or their bytes,
PUTS = 1000  # or the jobs that are put with them


class Deliveries:
    """One queue's deliveries. Their owner appends to `acks` and `outcomes` at any time; only the session removes."""

    def __init__(self, queue: str, base: int = 0) -> None:
        self.queue = queue
        self.base = base  # `base` + tag names a delivery on the consumer's board
        self.acks: list[int] = []
        self.outcomes: list[tuple[int, Retried | Parked | Crashed | Finished]] = []
        self.leaving: set[int] = set()  # tags that are being given back: a reconcile does not adopt them
        self.highest = 0  # the last delivery tag that came with a take
        self.cancels = b""  # the `Taken.cancels` up to which marks of cancelled jobs were read
        self.marks: set[str] = set()  # jobs that may be cancelled: Redis is asked before one is dropped

    @property
    def finished(self) -> set[int]:
        return {*self.acks, *(tag for tag, _ in self.outcomes)}

    def forget_all_but(self, owned: set[int]) -> None:
        """Forget what Redis has settled already, though its answer was lost."""
        # In place, and only what is there now: another thread may append meanwhile.
        count = len(self.acks)
        self.acks[:count] = [tag for tag in self.acks[:count] if tag in owned]
        count = len(self.outcomes)
        self.outcomes[:count] = [(tag, outcome) for tag, outcome in self.outcomes[:count] if tag in owned]


def portions(ends: list[tuple[int, Finished]]) -> Iterator[list[tuple[int, Finished]]]:
    """Split into parts so small that none holds Redis up; what one job brings along stays together."""
    some: list[tuple[int, Finished]] = []
    size = puts = 0
    for tag, end in ends:
        some.append((tag, end))
        puts += len(end.puts)
        size += len(end.detail) + len(end.report) + sum(len(entry) for _, entry in end.puts)
        if len(some) == PORTION or size > HEAVY or puts >= PUTS:
            yield some
            some, size, puts = [], 0, 0
    if some:
        yield some

"""What a consumer has of one queue: what it has finished since Redis last heard of it, and what is on its way back."""

from __future__ import annotations

from collections.abc import Iterator

from rq_lite.model.outcome import Crashed, Finished, Parked, Retried

PORTION = 250  # jobs that end in one step with results or callbacks,
HEAVY = 500_000  # or bytes of these


class Deliveries:
    """One queue's. Its owner appends to `acks` and `outcomes` at any time; only the session removes."""

    def __init__(self, queue: str, base: int = 0) -> None:
        self.queue = queue
        self.base = base  # added to a tag it names the delivery on a consumer's board
        self.acks: list[int] = []
        self.outcomes: list[tuple[int, Retried | Parked | Crashed | Finished]] = []
        self.leaving: set[int] = set()  # on their way back to the queue: to a reconcile these are not new
        self.highest = 0  # the last delivery tag that came with a take
        self.cancels = b""  # up to when the marks of cancelled jobs are known, as Redis told it
        self.marks: set[str] = set()  # jobs that may be cancelled: Redis is asked before one is dropped

    @property
    def finished(self) -> set[int]:
        return {*self.acks, *(tag for tag, _ in self.outcomes)}

    def forget_all_but(self, owned: set[int]) -> None:
        """What Redis has settled already, though its answer was lost."""
        # In place, and only what is there now: another thread may append meanwhile.
        count = len(self.acks)
        self.acks[:count] = [tag for tag in self.acks[:count] if tag in owned]
        count = len(self.outcomes)
        self.outcomes[:count] = [(tag, outcome) for tag, outcome in self.outcomes[:count] if tag in owned]


def portions(ends: list[tuple[int, Finished]]) -> Iterator[list[tuple[int, Finished]]]:
    """Parts of such a size that Redis is not held up by one."""
    some: list[tuple[int, Finished]] = []
    size = 0
    for tag, end in ends:
        some.append((tag, end))
        size += len(end.detail) + len(end.report) + sum(len(entry) for _, entry in end.puts)
        if len(some) == PORTION or size > HEAVY:
            yield some
            some, size = [], 0
    if some:
        yield some

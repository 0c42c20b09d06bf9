"""The queues of a consumer: what has ended of each since Redis last heard of it, and in which order they are asked."""

from __future__ import annotations

import random
from collections.abc import Iterator

from rq_lite.model.outcome import Buried, Crashed, Dropped, Finished, Parked, Retried
from rq_lite.process.board import LANE

PORTION = 250  # jobs that end in one step with results or callbacks,
HEAVY = 500_000  # or bytes of these


class Lane:
    """A queue, and what has finished of it since the last exchange."""

    def __init__(self, queue: str, number: int) -> None:
        self.queue = queue
        self.base = number * LANE
        self.acks: list[int] = []
        self.highest = 0  # the last delivery tag that came with a take
        self.others: list[tuple[int, Buried | Retried | Parked | Crashed | Dropped | Finished]] = []
        self.cancels = b""  # up to when the marks of cancelled jobs are known, as Redis told it
        self.marks: set[str] = set()  # jobs that may be cancelled: Redis is asked before one is dropped

    @property
    def finished(self) -> set[int]:
        return {*self.acks, *(tag for tag, _ in self.others)}

    def forget_all_but(self, owned: set[int]) -> None:
        """What Redis has settled already, though its answer was lost."""
        self.acks = [tag for tag in self.acks if tag in owned]
        self.others = [(tag, outcome) for tag, outcome in self.others if tag in owned]


class Order:
    """In which order the queues are asked: as listed, or by chance in proportion to their weights."""

    def __init__(self, weights: dict[str, float], *, strict: bool, chance: random.Random | None = None) -> None:
        self._weights = weights
        self._strict = strict or len(weights) == 1
        self._chance = chance or random.Random()
        self.queues = list(weights)

    def __call__(self) -> list[str]:
        if self._strict:
            return self.queues
        # Weighted order without replacement (Efraimidis and Spirakis 2006): the largest u^(1/w) goes first.
        return sorted(self.queues, key=lambda queue: -(self._chance.random() ** (1 / self._weights[queue])))


def portions(ends: list[tuple[int, Finished]]) -> Iterator[list[tuple[int, Finished]]]:
    """So many at once that Redis is not held up by it."""
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

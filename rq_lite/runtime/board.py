"""What a consumer shows its supervisor without a word: shared memory that one process writes and the other reads.

It says how a consumer is also when its loop does not turn, because a job holds it, or C code the GIL.
Times are time.monotonic(), which both processes share. A reader may see numbers of two moments side by side.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import NamedTuple

NEVER = float("inf")
# Numbers in the head: when the loop last turned, when Redis last answered, when jobs last came; free slots that
# nothing waits for; jobs taken so far.
TURNED, ANSWERED, TOOK, ROOM, TAKEN = range(5)
HEAD = 8
# Each slot: its job, as `lane's number * LANE + delivery tag` (exact below 2**53), and when it must be done.
JOB, DEADLINE = 0, 1
WIDTH = 2
LANE = 2**44


class Running(NamedTuple):
    """A slot's job: the number of its queue in the consumer's list, its delivery tag, and its deadline."""

    slot: int
    lane: int
    tag: int
    deadline: float


class Board:
    """The numbers themselves are in `numbers`, for those who write many of them."""

    def __init__(self, file: int, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(file, size(slots))
        self.numbers = memoryview(self._memory).cast("d")

    def place(self, slot: int) -> int:
        """Where the slot's numbers begin."""
        return HEAD + WIDTH * slot

    def running(self, slot: int) -> Running:
        """The job that this slot runs, or ran last."""
        at = self.place(slot)
        lane, tag = divmod(int(self.numbers[at + JOB]), LANE)
        return Running(slot, lane, tag, self.numbers[at + DEADLINE])

    def overdue(self, before: float) -> list[Running]:
        """Jobs that should have been done before this time; those without a deadline are never overdue."""
        deadlines = self.numbers[HEAD + DEADLINE : HEAD + WIDTH * self.slots : WIDTH].tolist()
        return [self.running(slot) for slot, deadline in enumerate(deadlines) if 0 < deadline < before]

    def close(self) -> None:
        self.numbers.release()
        self._memory.close()


def size(slots: int) -> int:
    """In bytes."""
    return 8 * (HEAD + WIDTH * slots)


def new_file(length: int = 0) -> int:
    """A file without a name, to be handed to a child."""
    with tempfile.TemporaryFile() as file:
        handle = os.dup(file.fileno())
    os.ftruncate(handle, length)
    return handle

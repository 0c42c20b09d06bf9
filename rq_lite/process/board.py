"""What a consumer shows its supervisor: shared memory that the consumer writes and the supervisor reads.

It shows the consumer's state also when its loop does not turn, because a job holds it up, or C code holds the GIL. The
writer uses `words`, whole numbers (floats would cost twice as much to store); the times in them are
time.monotonic_ns(), which both processes share. Readers get seconds, and may see words of different times side by side.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from typing import NamedTuple

NEVER = 2**62  # ns
ELSEWHERE = NEVER - 1  # the deadline of a job whose time its pool limits, or that waits for its batch
BATCHED = NEVER - 2  # in a slot whose job is run with others: their batch limits its time; the board shows the limit
SECOND = 10**9  # ns
# Words of the head: when the loop last turned; when jobs last came; free slots that nothing waits for; jobs so far.
TURNED, TOOK, ROOM, TAKEN = range(4)
HEAD = 8
# Words of each slot: its job, as `lane's number * LANE + delivery tag`, and when it must be done.
JOB, DEADLINE = 0, 1
WIDTH = 2
LANE = 2**44
# Precedes the stack of a process that calls `os._exit`, in its file of stacks.
EXITING = "os._exit was called\n"
# With the slot's number: the name of a slot's first function in a printed stack.
ENTRANCE = "rq_lite_slot_"


class Running(NamedTuple):
    """A slot's job: the number of its queue in the consumer's list, its delivery tag, and its deadline in seconds."""

    slot: int
    lane: int
    tag: int
    deadline: float


class Board:
    """A consumer's board; `file` is as large as `size` says."""

    def __init__(self, file: int, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(file, size(slots))
        self.words = memoryview(self._memory).cast("q")

    def seconds(self, word: int) -> float:
        """A time of the head, as time.monotonic() counts; 0: not yet."""
        return self.words[word] / SECOND

    def place(self, slot: int) -> int:
        """Where the slot's words begin."""
        return HEAD + WIDTH * slot

    def running(self, slot: int) -> Running:
        """The job that this slot runs, or ran last."""
        at = self.place(slot)
        lane, tag = divmod(self.words[at + JOB], LANE)
        return Running(slot, lane, tag, self.words[at + DEADLINE] / SECOND)

    def overdue(self, before: float) -> list[Running]:
        """Jobs whose deadline was before this time; a job without one is never overdue."""
        deadlines = self.words[HEAD + DEADLINE : HEAD + WIDTH * self.slots : WIDTH].tolist()
        found = [self.running(slot) for slot, deadline in enumerate(deadlines) if 0 < deadline < before * SECOND]
        # A slot may have begun another job meanwhile. It clears the deadline before it shows that job, and here the
        # deadline is read last.
        return [job for job in found if 0 < job.deadline < before]

    def on_the_loop(self) -> list[Running]:
        """Jobs that run in the consumer's loop: not in a pool, and not waiting for a place in one."""
        deadlines = self.words[HEAD + DEADLINE : HEAD + WIDTH * self.slots : WIDTH].tolist()
        return [self.running(slot) for slot, deadline in enumerate(deadlines) if 0 < deadline < ELSEWHERE]

    def together(self, job: Running) -> list[Running]:
        """The jobs that run in one call with this one, which they include: a batch's share their deadline."""
        due = self.words[self.place(job.slot) + DEADLINE]
        if not 0 < due < BATCHED:
            return [job]
        deadlines = self.words[HEAD + DEADLINE : HEAD + WIDTH * self.slots : WIDTH].tolist()
        return [self.running(slot) for slot, deadline in enumerate(deadlines) if deadline == due]

    def close(self) -> None:
        self.words.release()
        self._memory.close()


def size(slots: int) -> int:
    """In bytes."""
    return 8 * (HEAD + WIDTH * slots)


def new_file(length: int = 0) -> int:
    """A file without a name, to be handed to a child; in memory where the system has such: a disk may be read-only."""
    if sys.platform == "linux":
        handle = os.memfd_create("rq-lite")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, length)
    return handle

"""Whose put it is: a producer's, or a running job's; and what follows for waiting and for the bound.

A job's put into a queue that its own workers serve neither waits nor is refused by the bound: a bounded queue that
feeds itself could only stand still or lose. Into any other queue a job's put waits as a producer's does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rq_lite.broker import Put
from rq_lite.client.current import current_job
from rq_lite.client.defaults import defaults

if TYPE_CHECKING:
    from rq_lite.client.put import Sender

log = logging.getLogger(__name__)

UNKNOWN = "?"  # the task of a put from a thread or greenlet that a job has started

# By queue and unit: how often the bound was doubled when this was last said.
warned: dict[tuple[str, str], int] = {}
# Puts of jobs that wait for room, by process (a fork begins without any) and queue.
waiting: dict[tuple[str, str], set[Elsewhere]] = {}


class Origin:
    """A producer, outside of any job."""

    waits = True  # for room, where there is none
    hint = ""  # what QueueFull says beside the numbers

    def word(self) -> str:
        """For the script, see put.lua."""
        return "0"

    def note(self, reply: Put, accepted: Sequence[bytes]) -> None:
        """These were accepted."""

    def wait(self) -> None:
        """There is no room for the rest: it waits from now on."""

    def end(self) -> None:
        """The put is over, in whatever way."""


class Feeding(Origin):
    """A running job whose own workers serve the queue: its puts go beyond the bound."""

    waits = False
    hint = (
        "; the put was made in a job whose own worker serves this queue: it does not wait (the worker would wait "
        "for itself), but the queue's headroom for such puts is used up. Raise headroom= (or `rq-lite queue set NAME "
        "--headroom N`), or put less in one job"
    )

    def __init__(self, queue: str) -> None:
        self._queue = queue
        job = current_job()
        self._task = UNKNOWN if job is None else job.task

    def word(self) -> str:
        return f"over {self._task}"

    def note(self, reply: Put, accepted: Sequence[bytes]) -> None:
        self._look("jobs", reply.accepted, reply.size, reply.maxsize)
        self._look("bytes", sum(map(len, accepted)), reply.bytes, reply.maxbytes)

    def _look(self, unit: str, more: int, now: int, bound: int) -> None:
        """Warn once for each doubling of the bound: of all puts, wherever they are made, one crosses it."""
        level = doublings(now, bound)
        if not level:
            warned.pop((self._queue, unit), None)
        elif doublings(now - more, bound) < level > warned.get((self._queue, unit), 0):
            warned[self._queue, unit] = level
            log.warning(
                "queue %r holds %s %s, %d times its bound of %s: running jobs of its own workers (now %s) put jobs "
                "faster than they are done. The bound does not refuse these puts, only headroom= does; producers wait "
                "until the queue is below its bound",
                self._queue, f"{now:,}", unit, now // bound, f"{bound:,}", self._task,
            )  # fmt: skip


class Elsewhere(Origin):
    """A running job that puts into a queue which its own workers do not serve; it is counted while it waits."""

    hint = (
        "; the put was made in a running job: if jobs of this queue put into queues that this worker serves, each may "
        "wait for the other"
    )

    def __init__(self, queue: str) -> None:
        self._all = waiting.setdefault((defaults.token, queue), set())

    def word(self) -> str:
        waited = self in self._all
        return f"wait {defaults.token} {len(self._all) - waited} {int(waited)}"

    def wait(self) -> None:
        self._all.add(self)

    def end(self) -> None:
        self._all.discard(self)


PRODUCER = Origin()


def origin_of(queue: Sender) -> Origin:
    """Of a put into this queue that is made here and now."""
    if defaults.serves is None:
        return PRODUCER
    own = queue.name in defaults.serves and (queue.chosen_broker is None or queue.broker.url == defaults.broker.url)
    return Feeding(queue.name) if own else Elsewhere(queue.name)


def doublings(amount: int, bound: int) -> int:
    """How often the bound must be doubled to reach so much; 0 below twice the bound, and where there is no bound."""
    return max(0, (amount // bound).bit_length() - 1) if bound else 0

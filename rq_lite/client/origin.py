"""The origin of a put, a producer or a running job: it decides whether the put waits, and whether the bound holds.

A job's put into a queue that its own workers serve neither waits nor is refused by the bound: otherwise a bounded queue
that feeds itself would deadlock or lose jobs. A job's put into any other queue waits as a producer's does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rq_lite.broker import Put
from rq_lite.client.current import current_job
from rq_lite.client.defaults import defaults
from rq_lite.logs import logger

if TYPE_CHECKING:
    from rq_lite.client.put import Sender

log = logger(__name__)

UNKNOWN = "?"  # the task of a put from a thread or greenlet that a job has started

# By queue and unit: how many doublings of the bound the last warning was about.
warned: dict[tuple[str, str], int] = {}
# Puts of jobs that wait for room, by process (a fork begins without any) and queue.
waiting: dict[tuple[str, str], set[Elsewhere]] = {}


class Origin:
    """A producer, outside of any job."""

    waits = True  # for room, if the queue is full
    hint = ""  # what QueueFull says beside the numbers

    def word(self) -> str:
        """For the script, see put.lua."""
        return "0"

    def note(self, reply: Put, accepted: Sequence[bytes]) -> None:
        """These were accepted."""

    def wait(self) -> None:
        """There is no room for the rest: the put waits from now on."""

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
        """Warn once for each doubling of the bound: of all puts, in whatever process, just one crosses it."""
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
    """The origin of a put that is made here and now into this queue."""
    if defaults.serves is None:
        return PRODUCER
    own = queue.name in defaults.serves and (queue.chosen_broker is None or queue.broker.url == defaults.broker.url)
    return Feeding(queue.name) if own else Elsewhere(queue.name)


def doublings(amount: int, bound: int) -> int:
    """How many times `amount` has doubled the bound; 0 below twice the bound, and without a bound."""
    return max(0, (amount // bound).bit_length() - 1) if bound else 0

"""What a harness adds to a history: the faults it injected, and where everything was in the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rq_lite.broker import Broker, keys
from rq_lite.broker.inspection import states
from rq_lite.broker.telling import id_of
from rq_lite.moments import History

PAGE = 1000


class Harness:
    """Writes a history of its own into the folder."""

    def __init__(self, folder: Path) -> None:
        self._history = History(folder, "harness")

    def fault(self, kind: str, inflight: int, consumers: Sequence[str] = ()) -> None:
        """`inflight`: how many jobs were in flight, at most."""
        self._history("fault", None, {"kind": kind, "inflight": inflight, "consumers": consumers})

    def fault_ends(self, kind: str) -> None:
        self._history("fault.end", None, {"kind": kind})

    def final(
        self, broker: Broker, queues: Iterable[str], *, left: Sequence[str] = (), alive: Sequence[int] = ()
    ) -> None:
        """Everything has come to rest; `left` are keys, `alive` processes that should not be there."""
        facts = {queue: places(broker, queue) for queue in queues}
        self._history("final", None, {"queues": facts, "keys": left, "processes": alive})


def places(broker: Broker, queue: str) -> dict[str, Any]:
    """The ids of all jobs that Redis has of a queue, by where they are, and its counters."""
    key = keys.of(queue)
    state = states(broker, [queue])[queue]
    counters = ("put", "done", "failed", "purged", "dropped", "stale")
    consumers = broker.consumers(queue)
    return {
        **{name: getattr(state, name) for name in counters},
        "pending": [id_of(entry) for entry in listed(broker, key.pending)],
        "suspects": [id_of(entry) for entry in listed(broker, key.suspects)],
        "scheduled": [id_of(member.partition(b"|")[2]) for member in broker.read(("ZRANGE", key.scheduled, 0, -1))[0]],
        "dead": [id_of(kept.partition(b"\n")[2]) for kept in broker.read(("HVALS", key.dead))[0]],
        "inflight": {
            consumer: {str(tag): id_of(job) for tag, job in held}
            for consumer in consumers
            if (held := broker.booked(queue, consumer, sorted(broker.inflight(queue, consumer))))
        },
    }


def listed(broker: Broker, name: str) -> Iterable[bytes]:
    """A list, page by page."""
    for start in range(0, broker.read(("LLEN", name))[0], PAGE):
        yield from broker.read(("LRANGE", name, start, start + PAGE - 1))[0]

"""`python -m benchmarks.claims`: what unique and expiring jobs cost Redis, beside plain and tracked ones, in one run.

µs of Redis' time for a job, in batches of 100: to put it, and to take and settle it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import closing
from typing import Any

from rq_lite import Broker, Queue, Task
from rq_lite.broker import Acks, Link
from rq_lite.model.message import decode, is_tracked
from rq_lite.model.outcome import Finished
from rq_lite.testing import isolated

BATCH, ROUNDS = 100, 40
KINDS: dict[str, Callable[[Queue], Task[Any, Any]]] = {
    "plain": lambda queue: queue.task(name="plain")(nothing),
    "tracked": lambda queue: queue.task(name="tracked", result_ttl=60)(nothing),
    "expires": lambda queue: queue.task(name="expires")(nothing).using(expires=3600),
    "unique until its end": lambda queue: queue.task(name="end", unique="{number}")(nothing),
    "unique, newest wins": lambda queue: queue.task(name="newest", unique="{number}", on_conflict="replace")(nothing),
    "unique until its start": lambda queue: queue.task(name="start", unique="{number}", until="start")(nothing),
    "unique for an hour": lambda queue: queue.task(name="hour", unique="{number}", until=3600)(nothing),
    "unique for ever": lambda queue: queue.task(name="ever", unique="{number}", until="forever")(nothing),
}


def nothing(number: int) -> None:
    pass


def spent(broker: Broker, step: Callable[[], object]) -> float:
    """µs that Redis spends on the step's scripts."""
    broker.read(("CONFIG", "RESETSTAT"))
    step()
    found = broker.read(("INFO", "commandstats"))[0].decode()
    lines = [line for line in found.splitlines() if line.startswith("cmdstat_evalsha:")]
    return float(lines[0].partition("usec=")[2].partition(",")[0])


def settle(broker: Broker, link: Link) -> None:
    reply = broker.takes.exchange("c", [Acks("costs", [])], BATCH, link)[0]
    tags = range(reply.tag + 1, reply.tag + 1 + BATCH)
    if is_tracked(decode(reply.jobs[0])[0]):
        broker.takes.finish("costs", "c", [(tag, Finished("done", b'"value":null', 0)) for tag in tags], link)
    else:
        broker.takes.exchange("c", [Acks("costs", list(tags))], 0, link)


def main() -> None:
    with isolated() as broker, closing(broker.link()) as link:
        queue = Queue("costs", maxsize=0, broker=broker)
        queue.declare()
        broker.takes.register("costs", "c", link=link)
        tasks = {kind: make(queue) for kind, make in KINDS.items()}
        puts: dict[str, list[float]] = {kind: [] for kind in KINDS}
        takes: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(ROUNDS):
            for kind, task in tasks.items():
                keys = range(number * BATCH, (number + 1) * BATCH)
                puts[kind].append(spent(broker, lambda task=task, keys=keys: task.put_many(keys)))  # type: ignore[misc]
                takes[kind].append(spent(broker, lambda: settle(broker, link)))
        print(f"{'':24}{'put':>8}{'take, settle':>14}")
        for kind in KINDS:
            print(
                f"{kind:24}{statistics.median(puts[kind]) / BATCH:8.1f}{statistics.median(takes[kind]) / BATCH:14.1f}"
            )


if __name__ == "__main__":
    main()

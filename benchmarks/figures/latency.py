"""From put to the job's body on an idle queue, beside one bare hop between two processes."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import tally
from benchmarks.drive import ARRIVE_WITHIN
from benchmarks.figures.figure import Figure, Site
from benchmarks.measure import SLOTS, RunFailed

PAUSE = 0.005  # seconds between two jobs, so that all processes are idle again
WARM_UP = 20  # jobs that are not counted


def hop(site: Site) -> Iterator[Figure]:
    n = site.size(400, 50) + WARM_UP
    with site.producer() as producer, site.bench() as ours, site.bench("bare") as bare:
        ping = producer.ping()
        ping.queue.declare()
        with ours.workers(2, SLOTS), bare.workers(1, 1):
            for number in range(1, n + 1):
                send_and_wait(lambda: ping.put(time.monotonic()), ours.folder, number)
                send_and_wait(
                    lambda: producer.client.lpush("bare", json.dumps(["ping", time.monotonic()])), bare.folder, number
                )
        put, brpop = (1000 * median(bench.folder) for bench in (ours, bare))
    how = (
        f"medians of {n - WARM_UP} each, in turn: put → body on 2 idle consumers × {SLOTS}, and LPUSH → BRPOP to a "
        "plain process, both with redis-py on TCP loopback"
    )
    yield Figure("put → body beside a bare BRPOP hop", put / brpop, "×", how, 2.5, "at most")
    yield Figure("put → body, idle, p50", put, "ms", how, rounds={"bare hop, ms": [brpop]})


def send_and_wait(send: Callable[[], object], folder: Path, number: int) -> None:
    """Send one job and wait until it has arrived and all processes are idle again. Raises RunFailed."""
    send()
    path, deadline = folder / "delays", time.monotonic() + ARRIVE_WITHIN
    while not path.exists() or path.stat().st_size < number * tally.DELAY.size:
        if time.monotonic() > deadline:
            raise RunFailed(f"ping {number} did not arrive within {ARRIVE_WITHIN:g} s")
        time.sleep(0.0005)
    time.sleep(PAUSE)


def median(folder: Path) -> float:
    return statistics.median(tally.delays(folder)[WARM_UP:])

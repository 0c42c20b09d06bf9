"""The cost of waiting jobs, of an idle consumer, and of a start of the command."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import redis

from benchmarks import machine, tally
from benchmarks.drive import PAYLOAD
from benchmarks.figures.figure import Figure, Site
from benchmarks.measure import ROOT, SLOTS, used_memory

PENDING = "rq:{bench}:pending"


def redis_memory(site: Site) -> Iterator[Figure]:
    n = site.size(200_000, 50_000)
    with site.producer() as producer:
        task, client = producer.task(), producer.client
        task.put(PAYLOAD)
        before, first = used_memory(client), list_memory(client)
        task.put_many([PAYLOAD] * n)
        grown, listed = used_memory(client) - before, list_memory(client) - first
        entry = len(client.lindex(PENDING, 0) or b"")
    how = (
        f"growth of used_memory by {n:,} jobs with a 100-byte argument, divided by the {entry} bytes of an encoded "
        f"job; by MEMORY USAGE of the list it is {listed / n / entry:.2f}"
    )
    yield Figure("Redis memory per waiting job", grown / n / entry, "× its bytes", how, 1.3, "at most")


def list_memory(client: redis.Redis) -> int:
    """The list's size in bytes, counting all entries."""
    return client.memory_usage(PENDING, samples=0) or 0


def consumer(site: Site) -> Iterator[Figure]:
    with site.bench() as bench:
        bench.fresh()
        bench.drive("put", 1)  # and one to warm up
        with bench.workers(1, SLOTS) as log:
            next(progress for progress in bench.watch(log) if progress.done >= 2)
            (pid,) = tally.each(bench.folder)
            time.sleep(site.size(1, 0))  # the consumer is idle at the end of it
            resident = machine.resident(pid)
    how = f"VmRSS of a consumer of `rq-lite work` with {SLOTS} idle slots, after two jobs of an app without imports"
    yield Figure("an idle consumer", resident, "MB", how, 60, "at most")


def help_time(site: Site) -> Iterator[Figure]:
    took = []
    for _ in range(site.size(5, 3)):
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "rq_lite", "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        took.append(time.monotonic() - start)
    how = f"wall time, median of {len(took)} runs of `python -m rq_lite --help`"
    yield Figure("rq-lite --help", statistics.median(took), "s", how, 0.3, "at most", rounds={"s": took})

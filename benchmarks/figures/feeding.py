"""A long file through a narrow queue: the bound holds, and the producer does not grow."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from benchmarks import bounded, machine
from benchmarks.figures.figure import Figure, Site
from benchmarks.measure import SLOTS, Bench, RunFailed, end, start

LOOK = 0.002  # seconds between two samples of the queue's length
RQ_LITE = [sys.executable, "-m", "rq_lite"]
WORKER = [*RQ_LITE, "work", "benchmarks.bounded", "--procs", "2", "--greenlets", str(SLOTS)]
PRODUCE = [*RQ_LITE, "produce", "--task", "benchmarks.bounded:line", "--no-progress"]
SETTLED = 0.1  # of the lines: by then the producer has been through all its code
LONGEST = 300.0  # seconds


@dataclass
class Samples:
    """What was measured from outside."""

    lengths: list[int] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)  # MB, at the same times
    put: list[int] = field(default_factory=list)  # jobs so far

    def growth(self, lines: int) -> tuple[float, float]:
        """Medians of the resident memory, MB: of the first tenth after settling, and of the last tenth."""
        settled = [mb for mb, put in zip(self.resident, self.put, strict=True) if put >= SETTLED * lines]
        tenth = max(1, len(settled) // 10)
        return statistics.median(settled[:tenth]), statistics.median(settled[-tenth:])


def feed(site: Site) -> Iterator[Figure]:
    lines = site.size(2_000_000, 80_000)
    with site.bench() as bench, lines_in(bench.folder / "lines.txt", lines) as path:
        bench.client.flushall()
        with running(bench, WORKER) as log:
            samples, seconds = produce(bench, path)
            next(progress for progress in bench.watch(log) if progress.done >= lines)
    bound = bounded.BOUND
    first, last = samples.growth(lines)
    full = sum(length >= 0.9 * bound for length in samples.lengths) / len(samples.lengths)
    how = (
        f"`rq-lite produce` of a file of {lines:,} lines of 100 bytes into a queue bounded at {bound:,}, drained at "
        f"the same time by 2 consumers × {SLOTS}"
    )
    yield Figure("a file through a bounded queue", lines / seconds, "jobs/s", how)
    yield Figure(
        "the producer's growth",
        last - first,
        "MB",
        f"the same run: VmRSS, median of the last tenth ({last:.1f} MB) minus that of the first ({first:.1f} MB), "
        f"which begins when {SETTLED:.0%} of the lines are put",
        2.0,
        "at most",
        rounds={"most, MB": [max(samples.resident)]},
    )
    yield Figure(
        "the longest the queue was",
        max(samples.lengths),
        "jobs",
        f"the same run: LLEN read {len(samples.lengths):,} times from outside; at 90 % of the bound or above "
        f"{full:.0%} of the time",
        bound,
        "at most",
    )


def produce(bench: Bench, path: Path) -> tuple[Samples, float]:
    """Feed the file and sample; returns the samples and the seconds that it took. Raises RunFailed."""
    samples, began = Samples(), time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = start([*PRODUCE, str(path)], bench.environment(), said)
        try:
            look_on(process, bench.client, samples, began + LONGEST)
        finally:
            end([process])
        if process.returncode:
            said.seek(0)
            raise RunFailed(f"rq-lite produce: exit code {process.returncode}: {said.read()[-1000:]}")
    return samples, time.monotonic() - began


def look_on(process: subprocess.Popen[bytes], client: redis.Redis, samples: Samples, deadline: float) -> None:
    pipe = client.pipeline(transaction=False)
    while process.poll() is None and time.monotonic() < deadline:
        pipe.llen(bounded.PENDING)
        pipe.hget(bounded.META, "put")
        length, put = pipe.execute()
        try:
            resident = machine.resident(process.pid)
        except OSError:  # ended just now
            break
        samples.lengths.append(length)
        samples.resident.append(resident)
        samples.put.append(int(put or 0))
        time.sleep(LOOK)
    if process.poll() is None and time.monotonic() < deadline:
        process.wait(10)


@contextmanager
def running(bench: Bench, command: list[str]) -> Iterator[Path]:
    """Run a worker during the block; yields its log file."""
    log = bench.folder / "worker.log"
    with log.open("w") as output:
        process = start(command, bench.environment(), output)
        try:
            yield log
        finally:
            end([process])


@contextmanager
def lines_in(path: Path, count: int) -> Iterator[Path]:
    with path.open("w") as file:
        file.writelines(f"{number:0100}\n" for number in range(count))
    yield path

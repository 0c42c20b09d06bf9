"""All runs of one contender: put, drain no-op jobs, drain naps, ping. Everything that it starts is ended here."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import IO, Any

import redis

from benchmarks import tally
from benchmarks.contenders import Contender

ROOT = Path(__file__).parent.parent
NAP = 0.05  # seconds
SLOTS = 200
PINGS = 200
WARM_UP = 20  # pings that are not counted
POLL = 0.02  # seconds between two reads of the tallies; the times in them come from the workers
STILL = 20.0  # seconds without any progress after which a run has failed
LONGEST_DRIVE = 120.0  # seconds a producer may take
STOP_WITHIN = 1.0  # seconds; no worker has a job to finish then
COMPLAINTS = ("WARN", "ERROR", "CRITICAL", "Error", "Traceback")


class RunFailed(Exception):
    """A contender did not finish; the message has the end of its log."""


@dataclass(frozen=True)
class Bench:
    """What all runs of one contender share."""

    contender: Contender
    url: str
    folder: Path
    scale: float = 1.0  # of the number of jobs
    jobs: int | None = None  # no-op jobs, instead of the contender's own number
    results: bool = False  # the run reads results: contenders that store them separately set that up
    client: redis.Redis = field(init=False)
    complaints: list[str] = field(default_factory=list)  # warnings of a contender, which may be set up badly

    def __post_init__(self) -> None:
        object.__setattr__(self, "client", redis.Redis.from_url(self.url))

    def sized(self, jobs: int, least: int = 100) -> int:
        return max(least, int(jobs * self.scale))

    def environment(self, slots: int = SLOTS) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "BENCH_REDIS": self.url,
            "RQ_LITE_URL": self.url,
            "BENCH_GREENLETS": str(slots),
            tally.FOLDER: str(self.folder),
            **({"BENCH_RESULTS": "1"} if self.results else {}),
        }

    def drive(self, *arguments: object) -> dict[str, Any]:
        """Run the producer and return its answer. Raises RunFailed with its output."""
        command = [str(self.contender.python()), "-m", "benchmarks.drive", self.contender.module]
        try:
            done = subprocess.run(
                [*command, *map(str, arguments)],
                env=self.environment(),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=LONGEST_DRIVE,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunFailed(f"{' '.join(map(str, arguments))}: {error}") from None
        if done.returncode:
            raise RunFailed(
                f"{' '.join(map(str, arguments))}: exit code {done.returncode}: {done.stderr[-2000:].strip()}"
            )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def fresh(self) -> None:
        """An empty Redis and empty tallies."""
        self.client.flushall()
        for path in self.folder.iterdir():
            path.unlink()

    @contextmanager
    def workers(self, procs: int, slots: int, *, naps: bool = False) -> Iterator[Path]:
        """Run workers during the block; yields their log file."""
        log = self.folder / "workers.log"
        running: list[subprocess.Popen[bytes]] = []
        with log.open("w") as output:
            try:
                for command in self.contender.commands(procs, slots, naps=naps):
                    running.append(start(command, self.environment(slots), output))
                yield log
            finally:
                end(running)

    def drain(self, jobs: int, procs: int, slots: int, *, naps: bool = False) -> tally.Progress:
        """Start workers on a filled queue and wait until they have done that many jobs."""
        with self.workers(procs, slots, naps=naps) as log:
            progress = next(p for p in self.watch(log) if p.done >= jobs)
            self.complaints.extend(complaints(log))
            return progress

    def watch(self, log: Path, every: float = POLL) -> Iterator[tally.Progress]:
        """The progress so far, every `every` seconds. Raises RunFailed after STILL seconds without any."""
        seen, since = 0, time.monotonic()
        while True:
            progress = tally.read(self.folder)
            yield progress
            if progress.done > seen:
                seen, since = progress.done, time.monotonic()
            elif time.monotonic() - since > STILL:
                said = log.read_text(errors="replace")[-2000:]
                raise RunFailed(f"{self.contender.name}: stuck after {seen:,} jobs\n{said}")
            time.sleep(every)


def start(command: list[str], environment: dict[str, str], output: IO[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)


def complaints(log: Path) -> list[str]:
    """The first warnings and errors in the workers' log."""
    lines = log.read_text(errors="replace").splitlines()
    return [line[:300] for line in lines if any(word in line for word in COMPLAINTS)][:3]


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Send SIGTERM to all, then kill each with its whole session."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_WITHIN
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measure(contender: Contender, url: str, *, scale: float = 1.0, jobs: int | None = None) -> dict[str, Any]:
    """One round of all figures of one contender, rates per second and latencies in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="rq-lite-bench-") as folder:
        bench = Bench(contender, url, Path(folder), scale, jobs)
        return {
            "put": puts(bench),
            "noop": [noops(bench, procs) for procs in (contender.procs if scale == 1 else (2,))],
            "nap": naps(bench),
            "ping": pings(bench),
            "complaints": sorted(set(bench.complaints)),
        }


def describe(contender: Contender, url: str) -> dict[str, Any]:
    """The contender's versions, command, settings and promise. Raises RunFailed if its environment is broken."""
    with tempfile.TemporaryDirectory(prefix="rq-lite-bench-") as folder:
        versions = Bench(contender, url, Path(folder)).drive("versions", *contender.packages)
    return {
        "name": contender.name,
        "label": contender.label,
        "concurrent": contender.concurrent,
        "killed": contender.killed,
        "versions": versions,
        "worker": contender.worker,
        "settings": contender.settings,
    }


def best_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Each figure from its best round, with the other rounds beside it.

    Other programs can only make a round slower, so the best round is the least disturbed one. Contenders are
    comparable only if each had a quiet round: `reference` shows that, see `with_reference`.
    """
    return {
        "put": best([r["put"] for r in rounds]),
        "noop": [best(list(sizes)) for sizes in zip(*(r["noop"] for r in rounds), strict=True)],
        "nap": best([r["nap"] for r in rounds]),
        "ping": best([r["ping"] for r in rounds], by="p50_ms"),
        "complaints": sorted({line for r in rounds for line in r["complaints"]}),
    }


def best(results: list[dict[str, Any]], by: str = "per_second") -> dict[str, Any]:
    """The result with the highest rate, or the lowest latency."""
    chosen = max(results, key=lambda result: result[by] if by == "per_second" else -result[by])
    others = [{by: result[by], "reference": result["reference"]} for result in results]
    return {**chosen, "rounds": others}


def with_reference(run: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Add how many bare round trips per second the same Redis did just before and just after.

    A round trip takes from 25 to 350 microseconds on the same machine, depending on the load of its cores;
    figures with different references are as if from different machines.
    """

    @wraps(run)
    def measured(bench: Bench, *arguments: Any) -> dict[str, Any]:
        before = round_trips(bench.client)
        result = run(bench, *arguments)
        return {**result, "reference": [round(before), round(round_trips(bench.client))]}

    return measured


def round_trips(client: redis.Redis, n: int = 1000) -> float:
    """LPUSH one by one through redis-py with its defaults, per second."""
    start = time.monotonic()
    for _ in range(n):
        client.lpush("bench:reference", "x" * 100)
    rate = n / (time.monotonic() - start)
    client.delete("bench:reference")
    return rate


@with_reference
def puts(bench: Bench) -> dict[str, Any]:
    """Jobs put one by one, without workers."""
    bench.fresh()
    n = bench.sized(bench.contender.puts)
    return {"jobs": n, "per_second": n / bench.drive("put", n)["seconds"]}


@with_reference
def noops(bench: Bench, procs: int) -> dict[str, Any]:
    """No-op jobs, all waiting before the workers start; timed from the end of the first to the end of the last."""
    bench.fresh()
    before = used_memory(bench.client)
    n = bench.jobs or bench.sized(bench.contender.jobs)
    fill = bench.drive("fill", n)
    waiting = used_memory(bench.client) - before
    progress = bench.drain(n, procs, SLOTS)
    return {
        "jobs": n,
        "procs": procs,
        "slots": SLOTS if bench.contender.concurrent else 1,
        "per_second": progress.rate,
        "seconds": progress.last - progress.first,
        "batched_puts_per_second": n / fill["seconds"] if fill["batched"] else None,
        "redis_bytes_per_waiting_job": waiting / n,
    }


@with_reference
def naps(bench: Bench, procs: int = 2) -> dict[str, Any]:
    """Jobs that sleep 50 ms, timed from the end of the first; `ideal` is the share of what the slots could do alone."""
    bench.fresh()
    room = procs * (SLOTS if bench.contender.concurrent else 1)
    n = bench.sized(bench.contender.naps, least=2 * room)
    bench.drive("nap", n, NAP)
    progress = bench.drain(n, procs, SLOTS, naps=True)
    took = progress.last - progress.first + NAP
    return {"jobs": n, "procs": procs, "slots": room // procs, "per_second": n / took, "ideal": n * NAP / room / took}


@with_reference
def pings(bench: Bench) -> dict[str, Any]:
    """The time from put to body on an idle queue with idle workers."""
    bench.fresh()
    n = bench.sized(PINGS, least=20)
    with bench.workers(2, SLOTS):
        bench.drive("ping", n + WARM_UP)
    delays = sorted(1000 * delay for delay in tally.delays(bench.folder)[WARM_UP:])
    return {"jobs": n, "p50_ms": statistics.median(delays), "p99_ms": delays[int(0.99 * n)]}


def used_memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])

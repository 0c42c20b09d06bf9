"""The time that a step takes Redis: by the clock, and on the processor, which other processes cannot prolong."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rq_lite.broker import Broker
from tests.conftest import Server


class Steps:
    """Times of calls of one kind, in ms: `cpu` of Redis' main thread, `wall` as the caller measures it."""

    def __init__(self, server: Server) -> None:
        assert server.process is not None
        self._file = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/schedstat")
        self.cpu: list[float] = []
        self.wall: list[float] = []

    @contextmanager
    def one(self) -> Iterator[None]:
        """Measure the block as one call."""
        cpu, wall = self._spent(), time.perf_counter()
        yield
        self.wall.append((time.perf_counter() - wall) * 1e3)
        self.cpu.append(self._spent() - cpu)

    def run(self, broker: Broker, script: str) -> None:
        """Measure one call of this script."""
        with self.one():
            broker.read(("EVAL", script, 0))

    def _spent(self) -> float:
        return int(self._file.read_text().split()[0]) / 1e6

    def __str__(self) -> str:
        return f"{len(self.cpu):,} calls, cpu {spread(self.cpu)} ms, wall {spread(self.wall)} ms"


def spread(times: Sequence[float]) -> str:
    """`median/p99/longest`."""
    return f"{statistics.median(times):.2f}/{p99(times):.2f}/{max(times):.2f}"


def steady(runs: Sequence[Steps]) -> list[float]:
    """Each step's shortest `cpu` in runs of the same steps: the machine's noise hits other steps in each run."""
    return [min(times) for times in zip(*(run.cpu for run in runs), strict=False)]


def p99(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def watch_slow_calls(broker: Broker, us: int) -> None:
    broker.read(("CONFIG", "SET", "slowlog-log-slower-than", us), ("CONFIG", "SET", "slowlog-max-len", 10_000))
    broker.read(("SLOWLOG", "RESET"), ("CONFIG", "RESETSTAT"))


def slow_calls(broker: Broker) -> list[float]:
    """The durations, in ms, of slow script calls by Redis' slow log: wall time, which other processes prolong."""
    return [
        took / 1e3 for _, _, took, (name, *_), *_ in broker.read(("SLOWLOG", "GET", 10_000))[0] if name == b"EVALSHA"
    ]

"""What the figures depend on besides the code: the machine, and its load by other programs."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

STAT = Path("/proc/stat")
CALM = 0.1  # share of all cores


def describe(redis_version: str) -> dict[str, Any]:
    """The conditions, in the form of the results."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "redis": redis_version,
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def wait_for_calm(patience: float) -> float:
    """The share of all cores that other programs use, once it is low or when `patience` (seconds) is over."""
    deadline = time.monotonic() + patience
    while (busy := busy_share()) > CALM and time.monotonic() < deadline:
        pass
    return busy


def busy_share(seconds: float = 0.2) -> float:
    """The used share of all cores, during that time; 0 without /proc. Call it while the benchmark itself is idle."""
    if not STAT.exists():
        return 0.0
    before = cpu_times()
    time.sleep(seconds)
    idle, total = (after - then for after, then in zip(cpu_times(), before, strict=True))
    return 1 - idle / total if total else 0.0


def cpu_times() -> tuple[int, int]:
    """Ticks since the machine started: those idle or waiting for a disk, and all."""
    ticks = [int(number) for number in STAT.read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def resident(pid: int) -> float:
    """A process's memory in RAM (VmRSS), MB. Raises OSError without /proc, or if the process has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    for line in lines:
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has ended")

"""The jobs that contenders run."""

from __future__ import annotations

import time

from benchmarks import tally


def noop(payload: str) -> None:  # noqa: ARG001 - it only has to travel
    """Nothing: what is left is the queue."""
    tally.count()


def nap(seconds: float) -> None:
    """A job that waits for something outside, as most do."""
    time.sleep(seconds)
    tally.count()


def ping(sent: float) -> None:
    """Say how long the way here took; `sent` is the monotonic time just before the put."""
    tally.arrived(sent)


def echo(argument: float) -> float:
    """For those who wait for its result."""
    return argument

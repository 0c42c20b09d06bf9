"""The jobs that contenders run."""

from __future__ import annotations

import time

from benchmarks import tally


def noop(payload: str) -> None:  # noqa: ARG001 - it only has to travel
    """Do nothing, so that only the queue costs time."""
    tally.count()


def nap(seconds: float) -> None:
    """Wait for something outside, as most jobs do."""
    time.sleep(seconds)
    tally.count()


def ping(sent: float) -> None:
    """Record the time from put to body; `sent` is the monotonic time just before the put."""
    tally.arrived(sent)


def echo(argument: float) -> float:
    """Return the argument, for producers that wait for the result."""
    return argument

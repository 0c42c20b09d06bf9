"""All figures, one measurement after the other; if one fails the others are still measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import click

from benchmarks import machine
from benchmarks.figures import feeding, items, latency, lateness, results, size, throughput
from benchmarks.figures.figure import Figure, Site


def groups(known: throughput.Rates) -> dict[str, Callable[[Site], Iterable[Figure]]]:
    """The measurements, each of one or a few figures; `known` are no-op jobs/s measured in the same run."""
    return {
        "no-op jobs": partial(throughput.beside, known=known),
        "jobs of 50 ms": throughput.naps_short,
        "jobs of 1 s": throughput.naps_second,
        "jobs of 2 s": throughput.naps_many,
        "putting": throughput.puts,
        "depth": throughput.depth,
        "put → body": latency.hop,
        "delayed jobs": lateness.late,
        "a million due at once": lateness.at_once,
        "put → result": results.round_trip,
        "Executor.map": results.mapped,
        "items": items.beside_a_manager,
        "memory in Redis": size.redis_memory,
        "an idle consumer": size.consumer,
        "--help": size.help_time,
        "feeding a file": feeding.feed,
    }


def run(site: Site, known: throughput.Rates, calm: float) -> Iterator[dict[str, Any]]:
    """Each figure in the form of the results, with other programs' share of the machine before and after."""
    for name, measured in groups(known).items():
        before = machine.wait_for_calm(calm)
        click.echo(f"figures: {name} (others use {before:.0%} of the machine)", err=True)
        try:
            figures = [figure.as_json() for figure in measured(site)]
        except Exception as error:
            click.echo(f"{name}: {error}", err=True)
            figures = [failed(name, f"{type(error).__name__}: {error}")]
        others = [before, machine.busy_share()]
        yield from ({**figure, "others": others} for figure in figures)


def failed(name: str, reason: str) -> dict[str, Any]:
    """A placeholder for figures that could not be measured."""
    return {"name": name, "value": None, "unit": "", "target": None, "met": False, "how": reason[:500], "rounds": {}}

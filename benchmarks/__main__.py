"""`python -m benchmarks`: every contender and every figure, on one private Redis; tables and results.json."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks import machine, redis_server, tables
from benchmarks.contenders import ALL, FOLDER, Contender
from benchmarks.figures import run as figures
from benchmarks.figures.figure import Site
from benchmarks.figures.throughput import rates
from benchmarks.measure import RunFailed, best_of, describe, measure

NAMES = [contender.name for contender in ALL]
RESULTS = FOLDER / "results.json"
PARTIAL = FOLDER / "results.partial.json"  # written after each round and figure, so that an interrupted run is not lost


@click.command()
@click.option("--quick", is_flag=True, help="A tenth of the jobs, one round: does it work at all?")
@click.option("--only", help=f"Only these, separated by commas, without figures: {', '.join(NAMES)}.")
@click.option("--only-figures", is_flag=True, help="Figures of rq_lite alone, without the other libraries.")
@click.option("--jobs", type=click.IntRange(min=100), help="This many no-op jobs for each contender.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="The best round counts.")
@click.option("--calm", default=0.0, metavar="SECONDS", help="Wait up to this long for an idle machine, each time.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Default: benchmarks/results.json for a complete run, else results.partial.json beside it.",
)
def main(
    quick: bool, only: str | None, only_figures: bool, jobs: int | None, rounds: int, calm: float, output: Path | None
) -> None:
    """Measure rq_lite beside other queues, and alone. Figures of different runs must not be compared."""
    signal.signal(signal.SIGTERM, terminated)
    if output is None:
        output = PARTIAL if quick or jobs or only or only_figures else RESULTS
    contenders = [] if only_figures else chosen(only)
    with redis_server.running() as server:
        results: dict[str, Any] = {
            "machine": machine.describe(server.version),
            "quick": quick,
            "contenders": [],
            "left_out": {},
            "figures": [],
        }
        measured = partial(measure, url=server.url, scale=0.1 if quick else 1.0, jobs=jobs)
        present = those_that_work(contenders, server.url, results)
        run(present, measured, 1 if quick else rounds, calm, results)
        if not only:
            for figure in figures.run(Site(server.url, quick), rates(results["contenders"]), calm):
                results["figures"].append(figure)
                write(results, PARTIAL)
    tables.show(results)
    write(results, output)
    if output != PARTIAL:
        PARTIAL.unlink(missing_ok=True)
    click.echo(f"written to {output}", err=True)
    if "ours" in results["left_out"]:
        sys.exit(1)


def terminated(*_: object) -> None:
    """Leave all `with` blocks, so that every started process is ended."""
    click.echo(f"ended by SIGTERM; the results so far are in {PARTIAL}", err=True)
    sys.exit(143)


def chosen(only: str | None) -> list[Contender]:
    wanted = only.split(",") if only else NAMES
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        raise click.UsageError(f"--only: no contender is called {', '.join(unknown)}; known: {', '.join(NAMES)}")
    return [contender for contender in ALL if contender.name in wanted]


def those_that_work(contenders: list[Contender], url: str, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The description of each contender, by name; those that do not start are noted in the results."""
    present = {}
    for contender in contenders:
        if not contender.ready():
            leave_out(contender, f"not installed: `python -m benchmarks.venvs {contender.venv}`", results)
            continue
        try:
            present[contender.name] = describe(contender, url)
        except RunFailed as error:
            leave_out(contender, str(error), results)
    return present


def leave_out(contender: Contender, reason: str, results: dict[str, Any]) -> None:
    click.echo(f"{contender.name}: left out: {reason}", err=True)
    results["left_out"][contender.name] = reason


def run(
    present: dict[str, dict[str, Any]],
    measured: Callable[[Contender], dict[str, Any]],
    rounds: int,
    calm: float,
    results: dict[str, Any],
) -> None:
    """Run all rounds, into the results; every round measures every contender, so that a busy hour slows all of them."""
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in present}
    for number in range(1, rounds + 1):
        for contender in (c for c in ALL if c.name in present):
            busy = machine.wait_for_calm(calm)
            click.echo(f"round {number}: {contender.name} (others use {busy:.0%} of the machine)", err=True)
            try:
                result = {**measured(contender), "others": busy}
            except Exception as error:
                leave_out(contender, f"round {number}: {error}", results)
                continue
            for line in result["complaints"]:
                click.echo(f"{contender.name}: {line}", err=True)
            taken[contender.name].append(result)
        results["contenders"] = [{**present[name], **best_of(found)} for name, found in taken.items() if found]
        write(results, PARTIAL)
    for contender_result in results["contenders"]:  # one good round is enough
        results["left_out"].pop(contender_result["name"], None)


def write(results: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

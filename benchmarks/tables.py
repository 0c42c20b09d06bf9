"""The results on the terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

HEADINGS = (
    "",
    "put/s",
    "put_many/s",
    "no-op/s, 1 × 200",
    "no-op/s, 2 × 200",
    "50 ms jobs/s",
    "put→body p50 ms",
    "LPUSH/s beside put / ping",
)


def show(results: dict[str, Any]) -> None:
    console = Console(file=sys.stdout, width=150)
    if results["contenders"]:
        console.print(contenders(results["contenders"]))
    if results["figures"]:
        console.print(figures(results["figures"]))


def contenders(found: list[dict[str, Any]]) -> Table:
    table = Table(title="2 processes, one Redis, all on this machine")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=not heading)
    for result in found:
        table.add_row(*row(result))
    return table


def row(result: dict[str, Any]) -> list[str]:
    by_procs = {noop["procs"]: noop for noop in result["noop"]}
    return [
        result["label"],
        f"{result['put']['per_second']:,.0f}",
        number(by_procs[2]["batched_puts_per_second"]),
        number(by_procs.get(1, {}).get("per_second")),
        number(by_procs[2]["per_second"]),
        f"{result['nap']['per_second']:,.0f} ({result['nap']['ideal']:.0%})",
        f"{result['ping']['p50_ms']:.2f}",
        " / ".join(f"{min(result[run]['reference']):,}" for run in ("put", "ping")),
    ]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def figures(found: list[dict[str, Any]]) -> Table:
    table = Table(title="rq_lite alone")
    for heading in ("", "measured", "target", "met"):
        table.add_column(heading)
    for figure in found:
        table.add_row(figure["name"], measured(figure), target(figure), met(figure))
    return table


def measured(figure: dict[str, Any]) -> str:
    return "not measured" if figure["value"] is None else f"{short(figure['value'])} {figure['unit']}"


def target(figure: dict[str, Any]) -> str:
    if figure["target"] is None:
        return "–"
    return f"{'≥' if figure['limit'] == 'at least' else '≤'} {short(figure['target'])}"


def met(figure: dict[str, Any]) -> str:
    return {True: "yes", False: "no", None: "–"}[figure["met"]]


def short(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

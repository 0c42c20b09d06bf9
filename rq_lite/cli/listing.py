"""How many jobs are printed, whatever is known of them: a table on a terminal, lines on a pipe, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click

from rq_lite.cli.table import Column, Paper, cells, cut, paper, table, wrapped

LEAST = 20  # columns for the last one, or the table is none
T = TypeVar("T")


@dataclass(frozen=True)
class View(Generic[T]):
    """How one kind is shown; `columns` and `facts` of one, `columns` at a moment (Redis' time in s since 1970)."""

    headings: Sequence[str]
    columns: Callable[[T, float], list[str]]
    lines: Callable[[list[str], int], str]  # a row's columns where the terminal, so many columns wide, is too narrow
    facts: Callable[[T], dict[str, Any]]  # for JSON


def put_out(jobs: Iterable[T], view: View[T], now: float, *, as_json: bool) -> int:
    """Print them; how many they were."""
    on = paper()
    if on.terminal and not as_json:
        rows = [view.columns(job, now) for job in jobs]
        if rows:
            click.echo("\n".join(shown(rows, view, on)))
        return len(rows)
    number = 0
    for job in jobs:
        number += 1
        click.echo(json.dumps(view.facts(job)) if as_json else "\t".join(view.columns(job, now)))
    return number


def shown(rows: list[list[str]], view: View[Any], on: Paper) -> list[str]:
    """A row for each; where it is too narrow for that some lines for each. Only the last column is ever cut."""
    headings = view.headings
    widths = [max(cells(row[i]) for row in (headings, *rows)) for i in range(len(headings) - 1)]
    left = on.width - sum(widths) - 2 * len(widths) - 2
    if left < LEAST:
        lines = [line for row in rows for line in view.lines(row, on.width).split("\n")]
        return [part for line in lines for part in wrapped(line, on.width)]
    columns = [*(Column(heading, right=heading[-1] == "s") for heading in headings[:-1]), Column(headings[-1])]
    return table(columns, [[*row[:-1], cut(row[-1], left)] for row in rows], on)


def as_lines(known: Iterable[tuple[str, str]]) -> list[str]:
    """A page's lines: names, and what belongs to them below each other."""
    return [f"{name:<10} {value}".rstrip() for name, value in known]

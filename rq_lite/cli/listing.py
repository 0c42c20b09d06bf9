"""How lists of jobs are printed: as a table on a terminal, as lines on a pipe, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from rq_lite.cli.text import json_line

LEAST = 20  # characters for the last column; with less room there is no table
T = TypeVar("T")


@dataclass(frozen=True)
class View(Generic[T]):
    """How one kind of job is shown. `columns` takes a job and Redis' time in s since 1970, `facts` takes a job."""

    headings: Sequence[str]
    columns: Callable[[T, float], list[str]]
    lines: Callable[[list[str], int], str]  # a row's columns and the terminal's width, if that is too narrow
    facts: Callable[[T], dict[str, Any]]  # for JSON


def put_out(jobs: Iterable[T], view: View[T], now: float, *, as_json: bool) -> int:
    """Print the jobs; returns how many they were."""
    console = Console(highlight=False)
    if console.is_terminal and not as_json:
        rows = [view.columns(job, now) for job in jobs]
        if rows:
            console.print(table(rows, view, console))
        return len(rows)
    number = 0
    for job in jobs:
        number += 1
        click.echo(json_line(view.facts(job)) if as_json else "\t".join(view.columns(job, now)))
    return number


def table(rows: list[list[str]], view: View[Any], console: Console) -> RenderableType:
    """A row for each job, or some lines for each if the terminal is too narrow. Only the last column is ever cut."""
    headings = view.headings
    widths = [max(cell_len(row[i]) for row in (headings, *rows)) for i in range(len(headings) - 1)]
    left = console.width - sum(widths) - 2 * len(widths) - 2
    if left < LEAST:
        return Text("\n".join(view.lines(row, console.width) for row in rows))
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings[:-1]:
        drawn.add_column(heading, no_wrap=True, justify="right" if heading[-1] == "s" else "left")
    drawn.add_column(headings[-1], no_wrap=True, overflow="ellipsis", max_width=left)
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def as_lines(known: Iterable[tuple[str, str]]) -> list[str]:
    """The lines of a page: names on the left, their values on the right."""
    return [f"{name:<10} {value}".rstrip() for name, value in known]

"""How lists are printed: as a table on a terminal, on a pipe as lines in full, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click

from rq_lite.cli.table import Column, console_of, table
from rq_lite.cli.text import json_line

T = TypeVar("T")


@dataclass(frozen=True)
class View(Generic[T]):
    """How one kind of thing is shown. `row` takes a thing and Redis' time in s since 1970, `facts` takes a thing."""

    columns: Sequence[Column]
    row: Callable[[T, float], list[str]]  # escaped, and not shortened
    facts: Callable[[T], dict[str, Any]]  # for JSON


def put_out(things: Iterable[T], view: View[T], now: float, *, as_json: bool) -> int:
    """Print the things; returns how many they were."""
    console = console_of()
    if console.is_terminal and not as_json:
        rows = [view.row(thing, now) for thing in things]
        if rows:
            console.print(table(view.columns, rows, console.width))
        return len(rows)
    number = 0
    for thing in things:
        number += 1
        click.echo(json_line(view.facts(thing)) if as_json else "\t".join(view.row(thing, now)))
    return number


def as_lines(known: Iterable[tuple[str, str]]) -> list[str]:
    """The lines of a page: names on the left, their values on the right."""
    return [f"{name:<10} {value}".rstrip() for name, value in known]

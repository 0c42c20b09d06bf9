"""Tables, and text that is safe and short, for people: on a terminal with colours, elsewhere without.

Small on purpose: a command that prints one table starts in three quarters of the time that it takes with rich.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import click

WIDE = 200  # columns where no terminal says how many there are
LONGEST = 60  # characters of a name that are shown
GAP = "  "  # between two columns
STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "90"}
PAINT = re.compile(r"\x1b\[[0-9;]*m")


class Paper(NamedTuple):
    """Where it is printed: how wide that is, and what it can show."""

    width: int = WIDE
    terminal: bool = False
    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.colour and style and text else text


def paper() -> Paper:
    """Standard output."""
    terminal = sys.stdout.isatty()
    return Paper(
        shutil.get_terminal_size().columns if terminal else WIDE,
        terminal,
        terminal and "NO_COLOR" not in os.environ and moves(),
        sys.stdout.encoding.lower().startswith("utf"),
    )


def moves() -> bool:
    """Whether the terminal's cursor can be moved, and its text be coloured."""
    return os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


@contextmanager
def in_place() -> Iterator[Callable[[Sequence[str]], None]]:
    """On a terminal: lines that take the place of the last ones."""
    shown = 0

    def put_up(lines: Sequence[str]) -> None:
        nonlocal shown
        lines = lines[: shutil.get_terminal_size().lines - 1]
        sys.stdout.write("\x1b[1A\x1b[2K" * shown + "".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        shown = len(lines)

    sys.stdout.write("\x1b[?25l")  # no cursor meanwhile
    try:
        yield put_up
    finally:
        click.echo("\x1b[?25h", nl=False)


# -- text


def plain(text: str, longest: int = LONGEST) -> str:
    """Text that any program may have written, safe for a terminal: one line, no control characters, not too long."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def span(seconds: float) -> str:
    """Roughly how long: `42 s`, `7 min`, `3 h`, `5 d`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def cells(text: str) -> int:
    """How many columns of a terminal it takes, without its paint."""
    bare = PAINT.sub("", text)
    if bare.isascii():
        return len(bare)
    return sum(
        2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.category(c) in ("Mn", "Me") else 1
        for c in bare
    )


def cut(text: str, width: int) -> str:
    """With an ellipsis, where it is too wide."""
    return text if cells(text) <= width else fitting(text, width - 1) + "…"


def fitting(text: str, width: int) -> str:
    """As much from its beginning as fits; at least one character."""
    end = max(1, min(len(text), width))
    while end > 1 and cells(text[:end]) > width:
        end -= 1
    return text[:end]


def wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words; a word that is too long for one is broken."""
    lines = [""]
    for word in re.findall(r"\s*\S+\s*", text):
        if lines[-1] and cells(lines[-1] + word.rstrip()) > width:
            lines.append("")
        while cells(word.rstrip()) > width:
            lines[-1] = fitting(word, width)
            word = word[len(lines[-1]) :]
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


# -- tables


class Column(NamedTuple):
    heading: str
    right: bool = False
    style: str = ""


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], on: Paper, *, rule: bool = True) -> list[str]:
    """Lines: the headings, with a rule below and an empty line around, and the rows. Too wide cells are wrapped."""
    widths = fitted(natural(columns, rows), on)
    head = line(columns, [on.paint(column.heading, "bold") for column in columns], widths)
    body = [
        line(columns, [on.paint(cell, column.style) for column, cell in zip(columns, part, strict=True)], widths)
        for row in rows
        for part in broken(row, widths)
    ]
    if not rule:
        return [head, *body]
    dash = "─" if on.unicode else "-"
    return ["", f" {head}", f" {dash * (sum(widths) + len(GAP) * (len(widths) - 1))}", *(f" {row}" for row in body), ""]


def width_of(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """Of the table if nothing is wrapped."""
    return 2 + len(GAP) * (len(columns) - 1) + sum(natural(columns, rows))


def natural(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """The width that each column would like to have."""
    headings = [column.heading for column in columns]
    return [max(map(cells, column)) for column in zip(headings, *rows, strict=True)]


def fitted(widths: list[int], on: Paper) -> list[int]:
    """The widest become narrower, until all fit."""
    room = on.width - 2 - len(GAP) * (len(widths) - 1)
    while sum(widths) > room and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    return widths


def broken(row: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """A row as the lines that it takes."""
    parts = [[cell] if cells(cell) <= width else wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    return [[part[i] if i < len(part) else "" for part in parts] for i in range(max(map(len, parts)))]


def line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for column, cell, width in zip(columns, row, widths, strict=True):
        space = " " * (width - cells(cell))
        padded.append(space + cell if column.right else cell + space)
    return GAP.join(padded).rstrip()


def bar(share: float, width: int, style: str, on: Paper) -> str:
    """How much of it is full, in halves of a column."""
    full, half = divmod(int(2 * width * max(0.0, min(1.0, share))), 2)
    dash, left, right = "━╸╺" if on.unicode else "-  "
    done = dash * full + left * half
    rest = width - full - half
    if not on.colour:
        return done + " " * rest
    begin = right if rest and full and not half else ""
    return on.paint(done, style) + on.paint(begin + dash * (rest - len(begin)), "dim")

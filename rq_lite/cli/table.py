"""Tables that fit a terminal: a column that finds no room is left out, a long text is shortened, a number never."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2  # cells between two columns
CUT = "…"
BAR = 10  # cells of a bar


def unstyled(_text: str) -> str:
    return ""


class Column(NamedTuple):
    """One column. Of those that do not fit, the one with the highest `rank` is left out first; the first one stays."""

    heading: str
    rank: int
    least: int = 0  # cells to which its texts may be shortened; 0: they never are
    middle: bool = False  # shorten in the middle: the ends of names tell them apart
    right: bool = False
    style: Callable[[str], str] = unstyled
    optional: bool = False  # left out where it would be empty


def console_of(*, stderr: bool = False) -> Console:
    """The console of standard output. On a pipe it writes no codes, whatever FORCE_COLOR says."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, force_terminal=stream.isatty())


def bar(share: float, style: str) -> Text:
    done = round(BAR * min(1.0, share))
    return Text("━" * done, style).append("─" * (BAR - done), "dim")


def table(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], room: int | None) -> Table:
    """The rows in at most `room` cells; None: in full."""
    kept = [i for i, column in enumerate(columns) if not column.optional or any(row[i] for row in rows)]
    columns, rows = [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]
    texts = [[cell if isinstance(cell, Text) else Text(cell, columns[i].style(cell)) for i, cell in enumerate(row)]
             for row in rows]  # fmt: skip
    widest = [max([cell_len(column.heading), *(row[i].cell_len for row in texts)]) for i, column in enumerate(columns)]
    widths = dict(enumerate(widest)) if room is None else fitted(columns, widest, room)
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for i, width in widths.items():
        column = columns[i]
        drawn.add_column(column.heading, no_wrap=True, width=width, justify="right" if column.right else "left")
    for row in texts:
        drawn.add_row(*(shortened(row[i], width, middle=columns[i].middle) for i, width in widths.items()))
    return drawn


def fitted(columns: Sequence[Column], widest: Sequence[int], room: int) -> dict[int, int]:
    """The columns that find room, and their widths. What is left goes evenly to those whose texts are shortened."""
    least = [
        min(width, max(column.least, cell_len(column.heading))) if column.least else width
        for column, width in zip(columns, widest, strict=True)
    ]
    shown = list(range(len(columns)))
    while (left := room - sum(least[i] for i in shown) - GAP * (len(shown) - 1)) < 0 and len(shown) > 1:
        last = max(shown[1:], key=lambda i: columns[i].rank)
        rest = room - least[shown[0]] - GAP
        if len(shown) == 2 and columns[last].least and rest >= cell_len(columns[last].heading):
            least[last] = rest
        else:
            shown.remove(last)
    widths = {}
    for place, i in enumerate(sorted(shown, key=lambda i: widest[i] - least[i])):
        more = max(0, min(widest[i] - least[i], left // (len(shown) - place)))
        widths[i] = min(least[i] + more, room)
        left -= more
    return dict(sorted(widths.items()))


def shortened(text: Text, width: int, *, middle: bool) -> Text:
    """The text in at most `width` cells: wide characters have two."""
    if text.cell_len <= width:
        return text
    tail = (width - 1) * 2 // 3 if middle else 0
    end = set_cell_size(text.plain[::-1], tail)[::-1].lstrip()
    head = set_cell_size(text.plain, width - 1 - cell_len(end)).rstrip()
    return Text(head + CUT + end, text.style)

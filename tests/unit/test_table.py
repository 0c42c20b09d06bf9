"""Tables for people: what they look like where there is room, and where there is not."""

from __future__ import annotations

import pytest

from rq_lite.cli.table import Column, Paper, bar, cells, cut, table, wrapped

COLUMNS = (Column("name", style="bold"), Column("size", right=True))


def test_a_table_is_aligned_by_what_a_terminal_shows() -> None:
    assert table(COLUMNS, [["名前", "1,000"], ["a", "2"]], Paper()) == [
        "",
        " name   size",
        " ───────────",
        " 名前  1,000",
        " a         2",
        "",
    ]


def test_colours_change_no_width() -> None:
    on = Paper(colour=True, terminal=True)
    row = table(COLUMNS, [["a", on.paint("2", "red")]], on)[3]
    assert row == " \x1b[1ma\x1b[0m        \x1b[31m2\x1b[0m"
    assert cells(row) == len(" a        2")


def test_without_utf8_it_is_ascii() -> None:
    on = Paper(unicode=False)
    assert "".join([*table(COLUMNS, [["a", "2"]], on), bar(0.55, 10, "red", on)]).isascii()


def test_without_room_the_widest_column_is_wrapped_and_nothing_is_lost() -> None:
    columns = (Column("host"), Column("queues"))
    lines = table(columns, [["h" * 15, "a bb ccc dddd eeeee ffffff"]], Paper(width=30))
    assert max(map(cells, lines)) <= 30
    assert "".join(line[:14] for line in lines).replace(" ", "").endswith("h" * 15)
    assert " ".join(word for line in lines[3:] for word in line[14:].split()) == "a bb ccc dddd eeeee ffffff"


@pytest.mark.parametrize("text", ["one two three four", "x" * 25, "  indented", "名前" * 8, "a " + "b" * 21 + " c", ""])
def test_wrapped_lines_fit_and_hold_all_of_the_text(text: str) -> None:
    lines = wrapped(text, 10)
    assert all(cells(line) <= 10 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_what_is_cut_says_so() -> None:
    assert (cut("abcdef", 6), cut("abcdefg", 6), cut("名前名前", 5)) == ("abcdef", "abcde…", "名前…")


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, " " * 10), (0.05, "╸" + " " * 9), (0.5, "━" * 5 + " " * 5), (0.87, "━" * 8 + "╸ "), (3, "━" * 10)],
)
def test_a_bar_counts_in_halves(share: float, shown: str) -> None:
    assert bar(share, 10, "green", Paper()) == shown

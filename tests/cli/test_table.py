"""Tables fit any terminal: never wider, never prose, no number cut, wide characters counted as two cells."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from rq_lite.cli.table import Column, console_of, table
from rq_lite.cli.text import runs

COLUMNS = (
    Column("name", 0, least=8, middle=True),
    Column("number", 1, right=True),
    Column("other", 3, right=True),
    Column("error", 2, least=10),
)
ROWS = [
    ["shop.mails:send_newsletter", "1,234,567", "7", "ValueError: no such customer"],
    ["商店:发送邮件给所有的客户", "2", "12,345,678", "邮件服务器无法连接，请稍后再试一次"],
]


def drawn(room: int | None, rows: list[list[str]] = ROWS) -> list[str]:
    console = Console(width=room or 500, file=io.StringIO(), color_system=None)
    console.print(table(COLUMNS, rows, room))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_with_room_everything_is_there_in_full() -> None:
    for room in (None, 200):
        shown = drawn(room)
        assert shown[0].split() == ["name", "number", "other", "error"]
        for line, row in zip(shown[2:], ROWS, strict=True):
            assert all(cell in line for cell in row)


def test_the_least_important_column_is_left_out_first() -> None:
    headings = [drawn(room)[0].split() for room in range(60, 8, -1)]
    steps = [each for i, each in enumerate(headings) if i == 0 or each != headings[i - 1]]
    assert steps == [["name", "number", "other", "error"], ["name", "number", "error"], ["name", "number"], ["name"]]


def test_names_are_shortened_in_the_middle_and_sentences_at_their_end() -> None:
    shown = drawn(50)
    assert "shop…letter" in shown[2]
    assert "ValueError: n…" in shown[2]
    assert "1,234,567" in shown[2]


def test_an_optional_column_is_left_out_where_it_would_be_empty() -> None:
    columns = (Column("name", 0), Column("tags", 1, optional=True))
    for rows, headings in (
        ([["a", ""], ["b", ""]], ["name"]),
        ([["a", ""], ["b", "x"]], ["name", "tags"]),
        ([], ["name"]),
    ):
        drawn = table(columns, rows, 80)
        assert [column.header for column in drawn.columns] == headings
        assert drawn.row_count == len(rows)


@given(
    st.integers(4, 150),
    st.lists(st.tuples(st.text(st.characters(categories=["Lu", "Ll", "Lo"]), max_size=60), st.integers(0, 10**12))),
)
def test_no_line_is_wider_than_the_terminal(room: int, things: list[tuple[str, int]]) -> None:
    rows = [[name, f"{number:,}", "1", name] for name, number in things]
    shown = drawn(room, rows)
    assert len(shown) == 2 + len(rows)
    assert all(cell_len(line.rstrip()) <= room for line in shown)
    for line, row in zip(shown[2:], rows, strict=True):
        assert "number" not in shown[0] or row[1] in line


@pytest.mark.parametrize("value", ["1", "3", "true"])
def test_a_pipe_has_no_codes_though_colours_are_forced(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", value)
    assert not console_of().is_terminal
    assert not console_of(stderr=True).is_terminal


@pytest.mark.parametrize(
    ("attempts", "crashes", "deaths", "words"),
    [
        (0, 0, 0, "none has failed or crashed"),
        (2, 0, 0, "2 failed"),
        (3, 3, 0, "3 crashed (the process died)"),
        (3, 1, 0, "3: 2 failed, 1 crashed (the process died)"),
        (0, 2, 0, "2 crashed (the process died)"),  # another program has written it
        (9, 0, 9, "9 ended with their whole worker"),
        (6, 1, 2, "6: 3 failed, 1 crashed (the process died), 2 ended with their whole worker"),
    ],
)
def test_runs_in_words(attempts: int, crashes: int, deaths: int, words: str) -> None:
    assert runs(attempts, crashes, deaths) == words

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rq_lite.errors import SourceError, UsageError
from rq_lite.feeds.cursor import LIMIT, WINDOW, parsed
from rq_lite.feeds.encoding import Encoding
from rq_lite.feeds.sources import START, Format, Item, Source, fingerprint, guess, numbers, open_source, same
from tests.conftest import examples

SMALL = 64  # a limit for lines that small files can exceed


class Piece(NamedTuple):
    """A line, or a csv row with all its lines, and what is to come of it."""

    raw: bytes
    call: tuple[tuple[object, ...], dict[str, object]] | None = None
    bad: bool = False


def call(item: Item) -> tuple[tuple[object, ...], dict[str, object]]:
    return item.args, item.kwargs


def write(folder: Path, name: str, data: bytes) -> str:
    file = folder / name
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(file)


# What a reader must make of any mixture of good, blank and bad lines.

ENDS = st.sampled_from([b"\n", b"\r\n"])
TOO_LONG = Piece(b"x" * (3 * SMALL) + b"\n", bad=True)
TEXT = st.text(st.characters(exclude_characters="\0\n\r\ufeff", exclude_categories=["Cs"]), min_size=1, max_size=10)
BLANKS = st.sampled_from([Piece(b"\n"), Piece(b"\r\n"), Piece(b" \t\n")])


def text_piece(text: str, end: bytes) -> Piece:
    return Piece(text.encode() + end, ((text,), {}))


LINES = st.one_of(
    st.builds(text_piece, TEXT.filter(lambda text: bool(text.encode().strip())), ENDS),
    BLANKS,
    st.sampled_from([TOO_LONG, Piece(b"caf\xe9\n", bad=True)]),
)


def json_piece(value: object, end: bytes) -> Piece:
    raw = json.dumps(value).encode() + end
    if isinstance(value, dict):
        return Piece(raw, ((), value))
    return Piece(raw, (tuple(value) if isinstance(value, list) else (value,), {}))


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.text("aé\n,", max_size=3))
NDJSON = st.one_of(
    st.builds(
        json_piece,
        SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text("ab", max_size=2), SCALARS, max_size=1),
        ENDS,
    ),
    BLANKS,
    st.sampled_from([TOO_LONG, Piece(b"{\n", bad=True), Piece(b'"\xff"\n', bad=True), Piece(b"1 2\n", bad=True)]),
)


def csv_piece(fields: list[str], end: str, delimiter: str) -> Piece:
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL, delimiter=delimiter).writerow(fields)
    return Piece(text.getvalue().encode(), ((), dict(zip("ab", fields, strict=True))))


def csv_pieces(delimiter: str) -> st.SearchStrategy[Piece]:
    bad = [b"1\n", b"1,2,3\n", b'"1"2,3\n', b"\xff,2\n", b'"\xff\n",2\n']
    return st.one_of(
        st.builds(
            csv_piece,
            st.lists(st.text('aé ,\t"\n\r', max_size=5), min_size=2, max_size=2),
            st.sampled_from(["\n", "\r\n"]),
            st.just(delimiter),
        ),
        st.sampled_from([Piece(b"\n"), Piece(b"\r\n")]),
        st.sampled_from([TOO_LONG, *(Piece(raw.replace(b",", delimiter.encode()), bad=True) for raw in bad)]),
    )


KINDS: dict[Format, tuple[Piece | None, st.SearchStrategy[Piece]]] = {
    "lines": (None, LINES),
    "ndjson": (None, NDJSON),
    "csv": (Piece(b"a,b\r\n"), csv_pieces(",")),
    "tsv": (Piece(b"a\tb\n"), csv_pieces("\t")),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


@pytest.mark.parametrize("way", ["file", "gz", "stdin"])
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_feed_goes_on_exactly_where_it_stopped(shared: Path, kind: Format, way: str, data: st.DataObject) -> None:
    header, strategy = KINDS[kind]
    pieces = data.draw(st.lists(strategy, max_size=8))
    bom = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    begin = bom + (header.raw if header else b"")
    raw = begin + b"".join(piece.raw for piece in pieces)
    if pieces and pieces[-1].call and data.draw(st.booleans()):
        raw = raw.removesuffix(b"\n")
    lines = len(io.BytesIO(raw[len(bom) :]).readlines())
    file = write(shared, f"source.{kind}.gz" if way == "gz" else f"source.{kind}", raw)
    skipped = shared / "skipped"

    def opened(start: str) -> Source:
        skipped.unlink(missing_ok=True)
        name, stdin = ("-", io.BytesIO(raw)) if way == "stdin" else (file, None)
        return open_source(name, format=kind, start=start, on_error="skip", rejects=skipped, stdin=stdin, limit=SMALL)

    def check(start: str, after: int) -> list[Item]:
        """Everything from the piece of this index on."""
        with opened(start) as source:
            if start != START or not header:
                assert source.position == start
            items = list(source)
            assert parsed(source.position)[:2] == (lines, len(raw))
            bad = [piece.raw for piece in pieces[after:] if piece.bad]
            assert source.rejects.count == len(bad)
        assert [call(item) for item in items] == [piece.call for piece in pieces[after:] if piece.call]
        assert skipped.exists() == bool(bad)
        if bad:
            assert skipped.read_bytes() == (header.raw if header else b"") + b"".join(bad)
        return items

    items = check(START, 0)
    good = [index for index, piece in enumerate(pieces) if piece.call]
    before = [begin + b"".join(piece.raw for piece in pieces[:index]) for index in good]
    assert [item.line for item in items] == [lines.count(b"\n") + 1 for lines in before]
    if items:
        last = data.draw(st.integers(0, len(items) - 1))
        assert check(items[last].position, good[last] + 1) == items[last + 1 :]


# Single cases.


def read(folder: Path, name: str, data: bytes, **options: object) -> list[tuple[tuple[object, ...], object]]:
    with open_source(write(folder, name, data), **options) as source:  # type: ignore[arg-type]
        return [call(item) for item in source]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("urls.txt", "lines"),
        ("-", "lines"),
        ("a.csv.d/urls", "lines"),
        ("a.ndjson", "ndjson"),
        ("a.JSONL", "ndjson"),
        ("a.csv", "csv"),
        ("a.tsv.gz", "tsv"),
        ("a.csv.skipped", "csv"),
        ("a.json", "ndjson"),
    ],
)
def test_the_name_tells_the_format(name: str, kind: str) -> None:
    assert guess(name) == kind


def test_formats_by_name(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", b"one\r\n\n two \n") == [(("one",), {}), ((" two ",), {})]
    assert read(tmp_path, "a.jsonl", b'{"a": 1}\n[1, "x"]\n5\nnull\n[]') == [
        ((), {"a": 1}),
        ((1, "x"), {}),
        ((5,), {}),
        ((None,), {}),
        ((), {}),
    ]
    assert read(tmp_path, "a.csv", b'a,b\n1,"x\ny"\n') == [((), {"a": "1", "b": "x\ny"})]
    assert read(tmp_path, "a.tsv", b"a\tb\n1\t2,3\n") == [((), {"a": "1", "b": "2,3"})]
    assert read(tmp_path, "a.csv.gz", b"a\n1\n") == [((), {"a": "1"})]
    assert read(tmp_path, "empty.csv", b"") == []


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"fine\n\ncaf\xe9\n", r"a\.txt, line 3: not UTF-8 \(byte 4 of the line is 0xe9\)"),
        ("a.txt", b"fine\n" + b"x" * 99, r"line 2: longer than 64 bytes"),
        ("a.ndjson", b"1\n\n{oops}\n", r"line 3: not JSON"),
        ("a.ndjson", b'{"x": "\xff"}\n', r"line 1: not UTF-8 \(byte 8 of the line is 0xff\)"),
        ("a.ndjson", b"1\n\xfe\xff[2]\n", r"line 2: not UTF-8 \(byte 1 of the line is 0xfe\)"),
        ("a.csv", b'a,b\n"1\n",2\n3\n', r"line 4: 1 column where the header has 2"),
        ("a.csv", b'a,b\n1,"2\n3\n', r"line 2: the quote that opens in line 2 is not closed: .* up to line 3, is p"),
        ("a.csv", b'a,b\n1,"' + b"2\n" * 99, r"line 2: longer than 64 bytes"),
        ("a.csv", b'a,b\n1,"\xff\n2"\n', r"line 2: not UTF-8"),
    ],
)
def test_a_bad_line_stops_the_feed_and_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message + ".*; --on-error skip passes over such lines"):
        read(tmp_path, name, data, limit=SMALL)


def test_deeply_nested_json_is_a_bad_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="line 1: not JSON"):
        read(tmp_path, "a.ndjson", b"[" * 100_000 + b"\n")


@pytest.mark.parametrize("header", [b"a,a\n", b"a,\n", b"a,\xff\n", b'a,"b\n'])
def test_a_bad_header_is_an_error_even_when_skipping(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(SourceError, match="header in line 1"):
        read(tmp_path, "a.csv", header + b"1,2\n", on_error="skip")


def test_large_csv_fields_pass(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", b"a\n" + b"x" * 200_000 + b"\n") == [((), {"a": "x" * 200_000})]


def test_the_consumer_rejects_in_the_same_way(tmp_path: Path) -> None:
    name = write(tmp_path, "a.csv", b'a,b\n1,"x\ny"\n\xff,2\n3,4')
    skipped = tmp_path / "bad"
    with open_source(name, on_error="skip", rejects=skipped) as source:
        for item in source:
            source.reject(item, "the task does not take it")
        assert source.rejects.count == 3
        # Already on file: the process may be killed now.
        assert skipped.read_bytes() == b'a,b\n1,"x\ny"\n\xff,2\n3,4\n'
    with open_source(name, on_error="skip", rejects=skipped, start=item.position) as source:
        source.reject(item, "again")
    assert skipped.read_bytes() == b'a,b\n1,"x\ny"\n\xff,2\n3,4\n3,4\n'
    with open_source(name) as source, pytest.raises(SourceError, match=r"line 2: no such argument; --on-error"):
        source.reject(next(iter(source)), "no such argument")


def test_skipped_lines_and_their_reasons_are_beside_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a feed and its resumed runs; a new feed begins new files, and puts the former ones aside."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()

    def feed(data: bytes, start: str = START) -> tuple[str, dict[str, bytes]]:
        with open_source(write(tmp_path / "data", "a.txt.gz", data), on_error="skip", start=start) as source:
            position = [item.position for item in source][-1]
        return position, {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}

    reason = b"line %d: not UTF-8 (byte 1 of the line is 0x%x)\n"
    position, found = feed(b"\xfe\nfine\n")
    assert found == {"a.txt.skipped": b"\xfe\n", "a.txt.skipped.reasons": reason % (1, 0xFE)}
    _, found = feed(b"\xfe\nfine\n\xff\nfine", position)
    both = {"a.txt.skipped": b"\xfe\n\xff\n", "a.txt.skipped.reasons": reason % (1, 0xFE) + reason % (3, 0xFF)}
    assert found == both
    _, found = feed(b"fine")
    assert found == {f"{name}.old": content for name, content in both.items()}
    assert guess("a.csv.skipped.old") == "csv"
    _, found = feed(b"\xf0\nfine\n\xf1\n")
    assert (found["a.txt.skipped"], len(found)) == (b"\xf0\n\xf1\n", 4)
    with open_source("data/a.txt.gz"):  # it stops at a bad line: these files are not its own
        assert Path("a.txt.skipped").exists()


def test_skipped_lines_are_logged_once_for_each_kind_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The names and values of one line do not make a kind of their own, and cannot write on the terminal."""
    lines = [b'"caf\xe9"\n', b"{\n", b"1\n", b"\xff\n", b'{"a":1\n', b"\xfe\n"]
    name = write(tmp_path, "a.ndjson", b"".join(lines))
    skipped = tmp_path / "bad"
    with open_source(name, on_error="skip", rejects=skipped) as source:
        for item in source:
            for word in "ab":
                source.reject(item, f"task t: got an unexpected keyword argument '{word}\x1b'")
    shown, see = f"{name}, line ", f" (skipped, see {skipped})"
    assert caplog.messages == [
        f"{shown}1: not UTF-8 (byte 5 of the line is 0xe9){see}",
        f"{shown}2: not JSON: Input data was truncated{see}",
        f"{shown}3: task t: got an unexpected keyword argument 'a\\x1b'{see}",
        f"{name}: not UTF-8 (byte … of the line is …): 2 more like it",
        f"{name}: not JSON: Input data was truncated: 1 more like it",
        f"{name}: task t: got an unexpected keyword argument …: 1 more like it",
    ]
    assert "argument 'a\\x1b'\n" in (tmp_path / "bad.reasons").read_text()


OPENS = "the quote that opens in line"


@pytest.mark.parametrize(
    ("rows", "line", "flaw"),
    [
        ('1,"2\n3,4\n5,6\n', 2, f"{OPENS} 2 is not closed: the rest of the source, up to line 4, is part of this row"),
        (
            '1,2\n"3\n","4\n5,6',
            3,
            f"{OPENS} 4 is not closed: the rest of the source, up to line 5, is part of this row",
        ),
        ('"a ""b"" \n""c","d\n', 2, f"{OPENS} 3 is not closed: "),
        ('5" x,"d\n', 2, f"{OPENS} 2 is not closed: "),
        ('1,"2\n3,"4\n', 2, r"not CSV: .* expected after .* \(the row is in lines 2 to 3\)"),
        (
            "1,2\r3,4\n",
            2,
            "a CR within the row, and not in quotes: the lines of one source must all end in the same way",
        ),
        ('1,"' + "2\n" * 50, 2, rf"longer than 64 bytes: {OPENS} 2 is not closed by line \d\d"),
        ("1," + "2" * 99, 2, "longer than 64 bytes$"),
    ],
)
def test_a_row_that_cannot_be_read_names_the_line_where_its_quote_opens(
    tmp_path: Path, rows: str, line: int, flaw: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = write(tmp_path, "a.csv", f"a,b\n{rows}".encode())
    with open_source(name, on_error="skip", rejects=tmp_path / "bad", limit=SMALL) as source:
        list(source)
        assert source.rejects.unit == "row"
    reason = (tmp_path / "bad.reasons").read_text().splitlines()[0]
    assert re.fullmatch(rf"line {line}: {flaw}.*", reason), reason
    assert caplog.messages[0].startswith(f"{name}, {reason} (skipped, see ")


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("text", ["[\n 1,\n 2]", '{\n "a": 1\n}\n', '[{"a":1},{"a":2}]', "[]\n[]\n"])
def test_a_json_file_that_is_one_document_is_refused_with_its_way_out(
    tmp_path: Path, text: str, on_error: Literal["stop", "skip"]
) -> None:
    with pytest.raises(SourceError, match=r"as one JSON document, .* jq -c '\.\[\]' .*a\.json \| rq-lite produce - "):
        read(tmp_path, "a.json", text.encode(), on_error=on_error, rejects=tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_a_json_file_with_a_value_per_line_is_ndjson(tmp_path: Path) -> None:
    calls = [((), {"a": 1}), ((1, 2), {}), (("x",), {})]
    for name in ("a.json", "a.JSON.gz", "a.json.skipped"):
        assert read(tmp_path, name, b'{"a":1}\n\n[1,2]\n"x"\n') == calls
    file = write(tmp_path, "a.json", b'{"a":1}\n[1,2]\n"x"\n')
    with open_source(file, start=stopped_at(file, 1)) as source:
        assert [call(item) for item in source] == calls[1:]
    assert read(tmp_path, "a.json", b"[1,2]\n", format="ndjson") == [((1, 2), {})]
    assert read(tmp_path, "a.json", b"{oops}\n1\n", on_error="skip", rejects=tmp_path / "bad") == [((1,), {})]


def test_skipped_lines_cannot_go_to_the_source_or_nowhere(tmp_path: Path) -> None:
    name = write(tmp_path, "a.txt", b"\xff\n")
    with pytest.raises(SourceError, match="is the source itself"):
        open_source(name, on_error="skip", rejects=Path(name))
    with pytest.raises(SourceError, match="no/where, for skipped lines: No such file"):
        read(tmp_path, "a.txt", b"\xff\n", on_error="skip", rejects=tmp_path / "no/where")


@pytest.mark.parametrize("way", ["file", "gz", "stdin"])
@pytest.mark.parametrize("kind", ["lines", "csv"])
def test_a_source_shorter_than_the_position_is_refused(tmp_path: Path, way: str, kind: Format) -> None:
    name = {"file": "a", "gz": "a.gz", "stdin": "-"}[way]
    stdin = io.BytesIO(b"one\n") if way == "stdin" else None
    path = "-" if stdin else write(tmp_path, name, b"one\n")
    with pytest.raises(SourceError, match="ends before the place where the feed stopped"):
        open_source(path, format=kind, start="2:5", stdin=stdin)


def test_plain_files_are_entered_by_seeking(tmp_path: Path) -> None:
    """Reading through this hole would not end within the test's time."""
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)
        file.seek(0, os.SEEK_END)
        file.write(b"\nend\n")
    with open_source(str(tmp_path / "a"), start=f"1:{2**40 + 1}") as source:
        assert [(item.args, item.line) for item in source] == [(("end",), 2)]


def test_positions_that_are_none() -> None:
    for position in ("", "7", "a:b", "1:2:x", "1:2:0-", "1:2:0-xyz"):
        with pytest.raises(SourceError, match="not a position in a source"):
            open_source("-", start=position, stdin=io.BytesIO(b"x\n" * 9))


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, "file", b"")
    with pytest.raises(SourceError, match="missing: No such file"):
        open_source(str(tmp_path / "missing"))
    with pytest.raises(SourceError, match="Is a directory"):
        open_source(str(tmp_path))
    with pytest.raises(SourceError, match="Not a directory"):
        open_source(str(tmp_path / "file" / "below"))


def test_damaged_gz(tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(50_000).hex().encode() + b"\nend\n")
    for data in (b"no gzip at all\n", whole[:-20], whole[:5000] + b"\xff" * 99 + whole[5099:]):
        (tmp_path / "a.gz").write_bytes(data)
        with pytest.raises(SourceError, match=r"a\.gz, after line \d: "):
            drain(open_source(str(tmp_path / "a.gz")))


def test_progress(tmp_path: Path) -> None:
    with open_source(write(tmp_path, "a", b"1\n" * 10)) as source:
        items = iter(source)
        assert (source.size, source.offset) == (20, 0)
        next(items)
        assert source.offset == 2
        assert (len(list(items)), source.offset) == (9, 20)
    with open_source(write(tmp_path, "a.gz", b"1\n" * 10)) as source:
        assert source.size == (tmp_path / "a.gz").stat().st_size
        list(source)
        assert source.offset == source.size
    assert open_source("-", stdin=io.BytesIO()).size is None


def test_pipes_are_read_through() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\n")
    os.close(writing)
    with open_source(f"/dev/fd/{reading}", start="1:4") as source:
        assert [(item.args, item.line) for item in source] == [(("two",), 2)]
        assert source.size is None
    os.close(reading)


def test_numbers() -> None:
    with numbers(5) as source:
        items = list(source)
        assert (source.size, source.offset) == (5, 5)
    assert [item.args for item in items] == [(0,), (1,), (2,), (3,), (4,)]
    assert list(numbers(5, start=items[2].position)) == items[3:]
    assert list(numbers(5, start=items[4].position)) == []
    with pytest.raises(SourceError, match="numbers below 5, line 1: no"):
        numbers(5).reject(items[0], "no")


# Memory: far below what the data takes.


def peak(work: Callable[[], object]) -> int:
    """The lower one of two runs: a thread that another test has left behind may allocate meanwhile."""
    found = []
    for _ in range(2):
        tracemalloc.start()
        try:
            work()
            found.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(found)


def drain(source: Source) -> None:
    with source:
        for _ in source:
            pass


@pytest.mark.parametrize("name", ["a.txt", "a.ndjson", "a.csv", "a.txt.gz"])
def test_memory_does_not_grow_with_the_source(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name, b'"%s"\n' % (b"x" * 98) * 20_000)
    assert peak(lambda: drain(open_source(file))) < 500_000


def test_a_line_of_any_length_is_passed_over_in_little_memory(tmp_path: Path) -> None:
    data = b"a\n" + b"x" * 5_000_000 + b"\nend\n"
    for name in ("a.txt", "a.ndjson", "a.csv"):
        file = write(tmp_path, name, data)
        skipped = tmp_path / f"{name}.bad"
        options = {"on_error": "skip", "rejects": skipped, "limit": 1000}
        assert peak(lambda: drain(open_source(file, **options))) < 500_000  # type: ignore[arg-type]  # noqa: B023
        assert b"x" * 5_000_000 + b"\n" in skipped.read_bytes()
    assert LIMIT == 16 * 2**20


def test_a_quote_left_open_does_not_swallow_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", b'a,b\n1,"\n' + b"2,3\n" * 40_000)
    sources: list[Source] = []

    def work() -> None:
        sources.append(open_source(file, on_error="skip", rejects=tmp_path / "bad", limit=1000))
        drain(sources[-1])

    assert peak(work) < 100_000
    assert [source.rejects.count for source in sources] == [1, 1]
    assert (tmp_path / "bad").stat().st_size < 1100


# Fingerprints.


def test_a_grown_file_is_the_same_and_another_is_not(tmp_path: Path) -> None:
    for size in (0, 1, 100, 4095, 4096, 10_000):
        file = tmp_path / str(size)
        file.write_bytes(b"a" * size)
        known = fingerprint(file)
        assert same(known, file)
        with file.open("ab") as end:
            end.write(b"more" * 2000)
        assert same(known, file)
        if size:
            file.write_bytes(b"b" + b"a" * 20_000)
            assert not same(known, file)
            file.write_bytes(b"a" * min(size - 1, 4095))
            assert not same(known, file)


def test_a_fingerprint_that_is_none_and_a_file_that_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    assert not same("", file)
    assert not same("x:y", file)
    with pytest.raises(SourceError, match="No such file"):
        fingerprint(tmp_path / "missing")


# What was put must still stand before the place where a feed goes on.

BIG = [b"%06d,row %d\n" % (i, i) for i in range(20_000)]


def stopped_at(file: str, after: int, **options: object) -> str:
    """The position after so many items."""
    with open_source(file, **options) as source:  # type: ignore[arg-type]
        return [item.position for _, item in zip(range(after), source, strict=False)][-1]


@pytest.mark.parametrize("way", ["a.txt", "a.csv", "a.txt.gz", "a.csv.gz", "-"])
@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:9_000], b"", *lines[9_001:]],  # one line less, as 10 bytes that are missing
        lambda lines: [*lines[:9_999], lines[9_999].replace(b"row", b"new"), *lines[10_000:]],
        lambda lines: [*lines[:9_000], lines[9_000].replace(b"row", b"new"), *lines[9_001:]],
        lambda lines: [*lines[:5_000], b"x" * 5, *lines[5_000:]],
        lambda lines: [line.replace(b"\n", b"\r\n") for line in lines],
        lambda lines: lines[::-1],
    ],
)
def test_a_source_that_was_rewritten_is_not_gone_on_with(
    tmp_path: Path, way: str, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    name = way if way != "-" else "a.txt"
    file = write(tmp_path, name, b"".join(BIG))
    position = stopped_at(file, 10_000)
    changed = b"".join(change(BIG))
    if way == "-":
        with pytest.raises(SourceError, match="stdin was changed before the place where the feed stopped"):
            open_source("-", start=position, stdin=io.BytesIO(changed))
        return
    write(tmp_path, name, changed)
    with pytest.raises(SourceError, match=r"was changed before .*, after line 1\d,\d{3}: .* another --resume name"):
        open_source(file, start=position)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.txt.gz"])
def test_a_source_that_has_grown_or_changed_behind_it_is_gone_on_with(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name, b"".join(BIG))
    position = stopped_at(file, 10_000)
    write(tmp_path, name, b"".join([*BIG[:10_100], b"1,2\n"]))
    with open_source(file, start=position) as source:
        items = list(source)
    assert items[-1].raw == b"1,2\n"
    assert items[0].raw == BIG[10_001 if name == "a.csv" else 10_000]


def test_long_lines_and_skipped_ones_count(tmp_path: Path) -> None:
    lines = [b"a\n", b"x" * (3 * WINDOW) + b"\n", b"b\n", b"\n", b"\xff\n", b"c\n"]
    options = {"on_error": "skip", "rejects": tmp_path / "bad", "limit": 100}
    file = write(tmp_path, "a.txt", b"".join(lines))
    positions = [stopped_at(file, after, **options) for after in (1, 2, 3)]
    for position, left in zip(positions, ([b"b\n", b"c\n"], [b"c\n"], []), strict=True):
        with open_source(file, start=position, **options) as source:  # type: ignore[arg-type]
            assert [item.raw for item in source] == left
    write(tmp_path, "a.txt", b"".join(lines).replace(b"b\n", b"d\n"))
    for position in positions[1:]:
        with pytest.raises(SourceError, match="was changed before"):
            open_source(file, start=position, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["file", "stdin"])
@pytest.mark.parametrize(
    ("added", "left"),
    [(b"", []), (b"\n", []), (b"\r\n", []), (b"\nc\n", ["c"]), (b"\r\n\r\nc", ["c"]), (b"x\nc\n", None), (b"x", None)],
)
def test_a_last_line_without_an_end(tmp_path: Path, way: str, added: bytes, left: list[str] | None) -> None:
    file = write(tmp_path, "a.txt", b"a\nb")
    position = stopped_at(file, 2)
    write(tmp_path, "a.txt", b"a\nb" + added)
    name, stdin = (file, None) if way == "file" else ("-", io.BytesIO(b"a\nb" + added))
    with open_source(name, start=position, stdin=stdin) as source:
        if left is None:
            with pytest.raises(SourceError, match=r"line 2 has grown since it was put .* with its line end"):
                list(source)
            return
        items = list(source)
        assert [item.args[0] for item in items] == left
        assert parsed(source.position)[1] == 3 + len(added)
    for item in items:
        write(tmp_path, "a.txt", b"a\nb" + added)
        with open_source(file, start=item.position) as source:
            assert list(source) == items[items.index(item) + 1 :]


def test_a_position_of_an_older_version_needs_the_end_of_a_line_before_it(tmp_path: Path) -> None:
    file = write(tmp_path, "a.txt", b"abc\ndef\n")
    with open_source(file, start="1:4") as source:
        assert [item.args for item in source] == [("def",)]
    with open_source(file, start="1:5") as source, pytest.raises(SourceError, match="has grown"):
        list(source)


# Encodings.

WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def encoded(text: str, encoding: str, marked: bool = False) -> bytes:
    return ("\ufeff" if marked else "").encode(encoding.removesuffix("-sig")) + text.encode(encoding)


@pytest.mark.parametrize("way", ["file", "gz", "stdin"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("encoding", "bytes_as", "marked"),
    [
        *(("utf-16", kind, True) for kind in ("utf-16-le", "utf-16-be")),
        *(("utf-32", kind, True) for kind in ("utf-32-le", "utf-32-be")),
        *((kind, kind, marked) for kind in WIDE if kind[6:] for marked in (False, True)),
        ("latin-1", "latin-1", False),
        ("cp1252", "cp1252", False),
        ("shift_jis", "shift_jis", False),
        ("utf-8-sig", "utf-8", True),
        ("utf-8", "utf-8", False),
    ],
)
@examples(8)
@given(data=st.data())
def test_a_feed_in_another_encoding_goes_on_exactly_where_it_stopped(
    shared: Path, kind: Format, way: str, encoding: str, bytes_as: str, marked: bool, data: st.DataObject
) -> None:
    wide = bytes_as[:5] == "utf-3" or bytes_as[:5] == "utf-1"
    letters = "abc ਊ਀Ċ०\u0a0d" if wide or bytes_as == "utf-8" else "abc x"
    # In Shift-JIS a byte of a character may be one that means something in ASCII.
    words = data.draw(st.lists(st.text(letters + ("ソ表" if bytes_as == "shift_jis" else ""), max_size=5), max_size=8))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    texts = {
        "lines": [word + end for word in words],
        "ndjson": [json.dumps(word, ensure_ascii=False) + end for word in words],
        "csv": [f'"{word}{end}{word}","{word}"{end}' for word in words],
        "tsv": [f'"{word}{end}{word}"\t"{word}"{end}' for word in words],
    }[kind]
    header = {"csv": f"a,b{end}", "tsv": f"a\tb{end}"}.get(kind, "")
    raw = encoded(header + "".join(texts), bytes_as, marked)
    calls: list[object] = [
        ((), {"a": word + end + word, "b": word}) if kind in ("csv", "tsv") else ((word,), {})
        for word in words
        if kind != "lines" or word.strip()
    ]
    file = write(shared, f"source.{kind}" + (".gz" if way == "gz" else ""), raw)

    def items(start: str) -> list[Item]:
        name, stdin = ("-", io.BytesIO(raw)) if way == "stdin" else (file, None)
        with open_source(name, format=kind, start=start, stdin=stdin, encoding=encoding) as source:
            found = list(source)
            assert parsed(source.position).byte == len(raw) or not found
            return found

    whole = items(START)
    assert [call(item) for item in whole] == calls
    for index, item in enumerate(whole):
        assert items(item.position) == whole[index + 1 :]


@pytest.mark.parametrize("way", ["file", "gz", "stdin"])
def test_lines_that_end_with_cr(tmp_path: Path, way: str) -> None:
    """More than one chunk, some lines above the limit; each line is an item, and a feed goes on after each."""
    lines = [b"%d" % number * (60 if number % 500 == 7 else 1) + b"\r" for number in range(20_000)]
    raw = b"".join(lines)
    file = write(tmp_path, "a.gz" if way == "gz" else "a", raw)
    skipped = tmp_path / "skipped"

    def items(start: str = START) -> list[Item]:
        name, stdin = ("-", io.BytesIO(raw)) if way == "stdin" else (file, None)
        with open_source(
            name, format="lines", start=start, on_error="skip", rejects=skipped, stdin=stdin, limit=SMALL
        ) as source:
            return list(source)

    found = items()
    good = [(number, line) for number, line in enumerate(lines, 1) if len(line) <= SMALL]
    assert [(item.line, item.raw, item.args) for item in found] == [
        (number, line, (line.decode()[:-1],)) for number, line in good
    ]
    assert skipped.read_bytes() == b"".join(line for line in lines if len(line) > SMALL)
    for index in (0, 6, 12_000, len(found) - 1):
        assert items(found[index].position) == found[index + 1 :]


@pytest.mark.parametrize("way", ["file", "stdin"])
@pytest.mark.parametrize(
    ("before", "put", "after", "left"),
    [
        (b"a\r", ["a"], b"a\r\nb\r\n", ["b"]),  # half of an end was written
        (b"a\r", ["a"], b"a\rb\r", ["b"]),
        (b"a\rb", ["a", "b"], b"a\rb\rc\r", ["c"]),
        (b"a\rb\r", ["a", "b"], b"a\rb\rc", ["c"]),
        (b"a\rb", ["a", "b"], b"a\rbc\rd\r", None),
        (b"a\rb\r", ["a", "b"], b"axb\rc\r", None),
        (b"a\nb\r", ["a", "b"], b"a\nb\r\nc", ["c"]),
        (b"10 %\r20 %\r\nb", ["10 %\r20 %", "b"], b"10 %\r20 %\r\nb\n", []),  # LF is the end, CR is not
    ],
)
def test_ends_of_lines_in_a_file_that_grows(
    tmp_path: Path, way: str, before: bytes, put: list[str], after: bytes, left: list[str] | None
) -> None:
    file = write(tmp_path, "a.txt", before)
    with open_source(file) as source:
        items = list(source)
        assert [item.args[0] for item in items] == put
    write(tmp_path, "a.txt", after)
    name, stdin = (file, None) if way == "file" else ("-", io.BytesIO(after))
    if left is None:
        with (
            pytest.raises(SourceError, match=r"was changed|has grown"),
            open_source(name, start=items[-1].position, stdin=stdin) as source,
        ):
            list(source)
    else:
        with open_source(name, start=items[-1].position, stdin=stdin) as source:
            assert [item.args[0] for item in source] == left


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_a_source_whose_first_line_has_grown_over_the_position_was_changed(tmp_path: Path, way: str) -> None:
    position = stopped_at(write(tmp_path, "a.txt", b"a\nb\n"), 1)
    raw = b"a long first line\n"
    name, stdin = (write(tmp_path, "a.txt", raw), None) if way == "file" else ("-", io.BytesIO(raw))
    with pytest.raises(SourceError, match="was changed"):
        open_source(name, start=position, stdin=stdin)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("way", ["a.txt", "a.csv", "a.ndjson", "a.txt.gz", "-"])
@pytest.mark.parametrize(
    ("read_as", "bytes_as", "marked", "message"),
    [
        *(
            (None, kind, True, f"begins with the byte order mark of {kind[:6].upper()}, .* --encoding {kind[:6]}$")
            for kind in WIDE
            if kind[6:]
        ),
        *(
            (None, kind, False, f"line 1: it has NUL .* looks like {kind.upper()}: say --encoding {kind}$")
            for kind in WIDE
            if kind[6:]
        ),
        ("utf-8", "utf-16-le", True, "--encoding utf-16$"),
        ("latin-1", "utf-16-be", True, "is read as ISO8859-1: say --encoding utf-16$"),
        ("latin-1", "utf-8", True, "of UTF-8, and is read as ISO8859-1: say --encoding utf-8$"),
        (
            "utf-16",
            "utf-8",
            False,
            r"no byte order mark: .* --encoding utf-16-le \(as Windows writes it\) or utf-16-be$",
        ),
        ("utf-32", "utf-32-le", False, "no byte order mark"),
        ("utf-16-le", "utf-16-be", True, "--encoding utf-16$"),
        ("utf-16", "utf-32-le", True, "--encoding utf-32$"),
    ],
)
def test_another_encoding_is_an_error_with_its_way_out_also_when_skipping(
    tmp_path: Path, way: str, on_error: str, read_as: str | None, bytes_as: str, marked: bool, message: str
) -> None:
    data = encoded("http://example.org/1\r\nhttp://example.org/2\r\n", bytes_as, marked)
    file, stdin = ("-", io.BytesIO(data)) if way == "-" else (write(tmp_path, way, data), None)
    options: dict[str, Any] = {} if read_as is None else {"encoding": read_as}
    skipped = tmp_path / "skipped"
    with pytest.raises(SourceError, match=message):  # noqa: SIM117
        with open_source(file, on_error=on_error, rejects=skipped, stdin=stdin, **options) as source:  # type: ignore[arg-type]
            pytest.fail(f"it was read: {list(source)}")
    assert not skipped.exists()


def test_a_blank_first_line_hides_no_other_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        with pytest.raises(SourceError, match="NUL"):
            read(
                tmp_path, "a.txt", "\nhttp://example.org\n".encode(encoding), on_error="skip", rejects=tmp_path / "bad"
            )


@pytest.mark.parametrize(
    ("name", "line"), [("a.txt", b"c\0d\n"), ("a.ndjson", b'"c\0d"\n'), ("a.csv", b"c\0d,1\n"), ("a.txt", b"\0\0\0\n")]
)
def test_a_line_with_nul_bytes_is_a_bad_line(tmp_path: Path, name: str, line: bytes) -> None:
    head = {"a.csv": b"a,b\n1,2\n", "a.ndjson": b'"a"\n"b"\n'}.get(name, b"a\nb\n")
    with pytest.raises(SourceError, match="line 3: it has NUL bytes, which text does not have; --on-error skip"):
        read(tmp_path, name, head + line)
    skipped = tmp_path / "bad"
    assert read(tmp_path, name, head + line, on_error="skip", rejects=skipped) == read(tmp_path, name, head)
    assert skipped.read_bytes().endswith(line)


@pytest.mark.parametrize("name", ["a.txt", "a.csv"])
def test_what_is_skipped_of_another_encoding_is_a_source_in_it(tmp_path: Path, name: str) -> None:
    text = "a,b\nfine,ù\n" if name == "a.csv" else "fine\n"
    lone = b"\x00\xd8" + "x,y\n".encode("utf-16-le")  # half of a pair
    lines = (f"\ufeff{text}".encode("utf-16-le"), lone, ("x" * 99 + "\n").encode("utf-16-le"), lone[:-2])
    data = b"".join(lines)
    skipped = tmp_path / "a.skipped"
    good = read(tmp_path, name, data, on_error="skip", rejects=skipped, limit=SMALL, encoding="utf-16")
    assert len(good) == 1
    with pytest.raises(SourceError, match=r"not UTF-16-LE \(byte 1 of the line is 0x00\)"):
        read(tmp_path, name, data, limit=SMALL, encoding="utf-16")
    repaired = skipped.read_bytes().replace(b"\x00\xd8", "x".encode("utf-16-le"))
    assert repaired.startswith(b"\xff\xfe")
    assert repaired.decode("utf-16").splitlines()[-3:] == ["xx,y", "x" * 99, "xx,y"]


def test_a_source_of_another_encoding_without_a_word(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-32"):
        assert read(tmp_path, "a.txt", "\ufeff".encode(f"{encoding}-le"), encoding=encoding) == []
        assert read(tmp_path, "a.txt", b"", encoding=encoding) == []
        assert read(tmp_path, "a.txt", "\ufeff\na".encode(f"{encoding}-be"), encoding=encoding) == [(("a",), {})]


def test_positions_hold_also_when_the_encoding_is_said_later(tmp_path: Path) -> None:
    """A feed that stopped at the first line that is no UTF-8."""
    file = write(tmp_path, "a.txt", b"a\nb\ncaf\xe9\n")
    with open_source(file) as source:
        position = next(iter(source)).position
    with open_source(file, start=position, encoding="latin-1") as source:
        assert [item.args for item in source] == [("b",), ("café",)]


@pytest.mark.parametrize("name", ["utf17", "", "base64", "rot13", "\0", "é", "utf-8\ud800"])
def test_an_encoding_that_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="Python knows no such encoding; examples are utf-16"):
        Encoding(name)


@pytest.mark.parametrize("name", ["cp037", "utf-7", "hz"])
def test_an_encoding_whose_lines_cannot_be_told(name: str) -> None:
    with pytest.raises(UsageError, match=f"is not supported: convert it first, as in iconv -f {name} -t utf-8"):
        Encoding(name)

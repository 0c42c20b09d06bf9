"""Items from the bytes of a source: lines, JSON lines, csv; read lazily, in constant memory."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from rq_lite.errors import SourceError, counted
from rq_lite.feeds.cursor import START, Cursor, written
from rq_lite.feeds.encoding import Encoding
from rq_lite.feeds.rejects import Rejects
from rq_lite.model.unreadable import UNREADABLE

Format: TypeAlias = Literal["lines", "ndjson", "csv", "tsv"]
Arguments: TypeAlias = Callable[[bytes], tuple[tuple[object, ...], dict[str, object]]]

LONGER = "longer than"
QUOTE = re.compile('""|"')  # within quotes two are one that does not close them
NOT_TEXT = "it has NUL bytes, which text does not have"


class Item(NamedTuple):
    """The arguments of one job, and where they come from."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    place: tuple[int, int, int, int]  # as in Position: what was read up to the end of this item
    line: int  # counted from 1; the first line of a csv row that has several
    raw: bytes  # its bytes in the source, for the file of skipped lines

    @property
    def position(self) -> str:
        return written(self.place)


def read_each(cursor: Cursor, rejects: Rejects, start: str, *, arguments: Arguments) -> Iterator[Item]:
    """Each line is an item; `arguments` raises ValueError, with the reason, for a bad line."""
    cursor.go_on_at(start)
    return each(cursor, rejects, arguments)


def each(cursor: Cursor, rejects: Rejects, arguments: Arguments) -> Iterator[Item]:
    encoding = cursor.encoding
    for raw in cursor:
        line = cursor.line
        if cursor.cut:
            rejects.reject(line, raw, too_long(cursor.limit), cursor.rest(raw))
        elif not raw.isspace():
            try:
                text = raw if encoding.plain else encoding.utf8(raw)
                if 0 in text:
                    rejects.reject(line, raw, NOT_TEXT)
                    continue
                if not encoding.plain and text.isspace():
                    continue
                args, kwargs = arguments(text)
            except UnicodeDecodeError as error:
                rejects.reject(line, raw, undecodable(encoding, error))
            except UNREADABLE as error:
                rejects.reject(line, raw, f"not JSON: {error}")
            else:
                yield Item(args, kwargs, cursor.place, line, raw)


def from_text(raw: bytes) -> tuple[tuple[object, ...], dict[str, object]]:
    return (raw.removesuffix(b"\n").removesuffix(b"\r").decode(),), {}


def from_json(raw: bytes) -> tuple[tuple[object, ...], dict[str, object]]:
    """An object is keyword arguments, an array positional ones, anything else one argument."""
    try:
        value = msgspec.json.decode(raw)
    except UNREADABLE:
        raw.decode()  # a line that is not UTF-8 is reported as that; this error counts from the start of the line
        raise
    if isinstance(value, dict):
        return (), value
    return (tuple(value) if isinstance(value, list) else (value,)), {}


def read_json_file(cursor: Cursor, rejects: Rejects, start: str) -> Iterator[Item]:
    """The lines of a file that is named .json. Raises SourceError if its first one shows that it is one document."""
    begun = start != START

    def arguments(raw: bytes) -> tuple[tuple[object, ...], dict[str, object]]:
        nonlocal begun
        if not begun:
            check_not_one_document(raw, cursor.name)
            begun = True
        return from_json(raw)

    return read_each(cursor, rejects, start, arguments=arguments)


def check_not_one_document(line: bytes, source: str) -> None:
    try:
        value = msgspec.json.decode(line)
    except UNREADABLE as error:
        if "truncated" not in str(error):  # a bad line as any other
            return
        value = []
    if isinstance(value, list):
        raise SourceError(
            f"{source} begins as one JSON document, and a .json file is read as NDJSON, one value per line. To put a "
            f"job for each element of an array: jq -c '.[]' {source} | rq-lite produce - --format ndjson. If its lines "
            "are arrays of arguments: say --format ndjson"
        )


def read_csv(cursor: Cursor, rejects: Rejects, start: str, *, delimiter: str) -> Iterator[Item]:
    """A row is keyword arguments, named by the header, which is read again wherever the feed continues."""
    records = Records(cursor, delimiter)
    header = next(iter(records), None)
    cursor.go_on_at(start)
    if header is None:
        return iter(())
    names = header_names(cursor.name, header)
    end = cursor.encoding.end
    rejects.header = header.raw if header.raw.endswith(end) else header.raw + end
    rejects.unit = "row"
    return rows(cursor, rejects, records, names)


def rows(cursor: Cursor, rejects: Rejects, records: Records, names: list[str]) -> Iterator[Item]:
    for record in records:
        reason = record.flaw
        if not reason and len(record.row) != len(names):
            reason = f"{counted(len(record.row), 'column')} where the header has {len(names)}"
        if reason:
            rejects.reject(record.line, record.raw, reason, cursor.rest(record.raw))
        else:
            kwargs = dict[str, object](zip(names, record.row, strict=True))
            yield Item((), kwargs, cursor.place, record.line, record.raw)


def header_names(source: str, header: Record) -> list[str]:
    names = header.row
    reason = header.flaw
    if not reason and "" in names:
        reason = "a column without a name"
    if not reason and len(set(names)) < len(names):
        reason = "two columns of the same name"
    if reason:
        raise SourceError(f"{source}, header in line {header.line}: {reason}")
    return names


class Record(NamedTuple):
    """A csv row, or why it is not one."""

    line: int
    raw: bytes
    row: list[str]
    flaw: str


class Records:
    """The rows of a csv file that are not blank.

    Only the csv module knows whether a row continues in the next line. It asks for as many lines as it needs
    (`next_line` hands them out and keeps them), never for more, and after an error it starts a new row.
    """

    def __init__(self, cursor: Cursor, delimiter: str) -> None:
        # The module's own limit, one per process, would refuse fields above 128 KB.
        csv.field_size_limit(max(cursor.limit, csv.field_size_limit()))
        self.cursor = cursor
        self.opening = re.compile(f'(?:^|{re.escape(delimiter)})"')
        self.rows = csv.reader(iter(self.next_line, ""), delimiter=delimiter, strict=True)
        self.lines: list[bytes] = []
        self.size = 0
        self.flaw = ""

    def __iter__(self) -> Iterator[Record]:
        while True:
            self.lines, self.size, self.flaw = [], 0, ""
            line = self.cursor.line + 1
            row: list[str] = []
            try:
                row = next(self.rows)
            except StopIteration:
                return
            except csv.Error as error:
                self.flaw = self._flaw_of(line, str(error))
            if row or self.flaw:
                yield Record(line, b"".join(self.lines), row, self.flaw)

    def _flaw_of(self, first: int, said: str) -> str:
        """Why the row that begins in line `first` cannot be read; a quote that is never closed makes it a long one."""
        last = self.cursor.line
        if said == "unexpected end of data":
            way = f"the rest of the source, up to line {last:,}, is part of this row"
            return f"the quote that opens in line {self._opened_in(first):,} is not closed: {way}"
        if self.flaw.startswith(LONGER) and last > first:
            return (
                f"{self.flaw}: the quote that opens in line {self._opened_in(first):,} is not closed by line {last:,}"
            )
        if self.flaw:
            return self.flaw
        if "new-line" in said:
            return "a CR within the row, and not in quotes: the lines of one source must all end in the same way"
        return f"not CSV: {said}" + (f" (the row is in lines {first:,} to {last:,})" if last > first else "")

    def _opened_in(self, first: int) -> int:
        """The line in which the quote opens that is still open at the end of the row."""
        found, is_open = first, False
        for number, raw in enumerate(self.lines, first):
            text, at = self.cursor.encoding.text(raw, "replace"), 0
            while match := (QUOTE if is_open else self.opening).search(text, at):
                at = match.end()
                if not is_open:
                    found = number
                is_open = not is_open or match[0] == '""'
        return found

    def next_line(self) -> str:
        """For csv.reader: the next line as text, "" after the last."""
        raw = self.cursor.readline()
        self.lines.append(raw)
        self.size += len(raw)
        if self.cursor.cut or self.size > self.cursor.limit:
            self.flaw = too_long(self.cursor.limit)
            raise csv.Error(self.flaw)
        encoding = self.cursor.encoding
        try:
            text = encoding.text(raw)
        except UnicodeDecodeError as error:
            # The row may not end here, so go on; undecodable characters do not affect where rows end.
            self.flaw = undecodable(encoding, error)
            return encoding.text(raw, "replace")
        if "\0" in text:
            self.flaw = NOT_TEXT
        return text


def too_long(limit: int) -> str:
    return f"{LONGER} {limit:,} bytes"


def undecodable(encoding: Encoding, error: UnicodeDecodeError) -> str:
    return f"not {encoding.shown} (byte {error.start + 1} of the line is 0x{error.object[error.start]:02x})"


READERS: dict[Format, Callable[[Cursor, Rejects, str], Iterator[Item]]] = {
    "lines": partial(read_each, arguments=from_text),
    "ndjson": partial(read_each, arguments=from_json),
    "csv": partial(read_csv, delimiter=","),
    "tsv": partial(read_csv, delimiter="\t"),
}

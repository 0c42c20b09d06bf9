"""Items from the bytes of a source: lines, JSON lines, csv; read lazily, in constant memory."""

from __future__ import annotations

import csv
import io
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from rq_lite.errors import SourceError, counted
from rq_lite.feeds.encoding import Encoding
from rq_lite.model.unreadable import UNREADABLE

Format: TypeAlias = Literal["lines", "ndjson", "csv", "tsv"]
OnError: TypeAlias = Literal["stop", "skip"]
Stream: TypeAlias = BinaryIO | io.BufferedIOBase
Arguments: TypeAlias = Callable[[bytes], tuple[tuple[object, ...], dict[str, object]]]

START = "0:0"
LIMIT = 16 * 1024 * 1024  # bytes of a line with its end, and of a csv row with all its lines
CHUNK = 64 * 1024  # bytes that are in memory at a time when a part of the source is passed over
WINDOW = 64 * 1024  # the checksum of a position is of at most this many bytes before it, and one line
WITH_CHECKSUM = "%d:%d:%d-%x"  # a position; faster than an f-string, and each line of a feed needs one
NOT_TEXT = "it has NUL bytes, which text does not have"

log = logging.getLogger(__name__)


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


class Rejects:
    """Handles bad lines: they end the feed, or are appended to a file of skipped lines.

    The file is opened for the first bad line and written without a buffer, so that it has all lines that a killed
    feed has skipped. A feed killed between skipping a line and storing a later position reads that line
    again when it is resumed, and writes it a second time.
    """

    def __init__(self, source: str, on_error: OnError, path: Path, encoding: Encoding) -> None:
        self.source = source
        self.encoding = encoding
        self.on_error = on_error
        self.path = path
        self.header = b""  # begins a new file, so that skipped csv rows, once repaired, can be fed
        self.count = 0
        self._file: io.FileIO | None = None

    def reject(self, line: int, raw: bytes, reason: str, rest: Iterable[bytes] = ()) -> None:
        """Raise SourceError, or append `raw` and then `rest` (of a line too long for memory)."""
        place = f"{self.source}, line {line}: {reason}"
        if self.on_error == "stop":
            raise SourceError(f"{place}; --on-error skip passes over such lines")
        log.log(logging.INFO if self.count else logging.WARNING, "%s (skipped, see %s)", place, self.path)
        self.count += 1
        last = self._write(raw)
        for chunk in rest:
            last = self._write(chunk)
        if not last.endswith(self.encoding.end):
            self._write(self.encoding.end)

    def _write(self, data: bytes) -> bytes:
        try:
            if self._file is None:
                self._file = self._open()
            left = memoryview(data)
            while left:  # an unbuffered write may write only a part
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            raise SourceError(f"{self.path}, for skipped lines: {error.strerror}") from None
        return data

    def _open(self) -> io.FileIO:
        file = self.path.open("ab", buffering=0)
        if file.tell() == 0:
            file.write(self.encoding.mark + self.header)
        return file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Cursor:
    """The physical lines of a stream, and how far it has been read."""

    def __init__(self, stream: Stream, name: str, encoding: Encoding, *, seekable: bool, limit: int = LIMIT) -> None:
        self.stream = stream
        self.name = name
        self.encoding = encoding
        self.seekable = seekable
        self.limit = limit
        self.line = 0
        self.byte = 0
        self._since = -1  # where the checksum's bytes begin; -1: with the next line
        self._sum = 0
        self._plain = False  # the next line needs no check of the encoding
        self._unended = False  # the previous line has no end: it was the last one when it was read
        self._begun = False
        self._first = b""  # the first line, read to learn how lines end, and not yet handed out
        self.cut = False  # the last line was above the limit: `rest` reads more of it

    @property
    def place(self) -> tuple[int, int, int, int]:
        return self.line, self.byte, self._since, self._sum

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def readline(self) -> bytes:
        """The next line with its end, cut when it is above the limit; b"" after the last."""
        most = self.limit + 1
        raw = self._read(self.stream.readline, most) if self._plain else self._line(most)
        if self._unended and raw:
            raw = self._ended(raw)
        self.cut = len(raw) >= most
        if raw:
            if self._since < 0 or self.byte - self._since > WINDOW:  # `_pass` inlined: a call for each line is slow
                self._since, self._sum = self.byte, 0
            self._sum = crc32(raw, self._sum)
            self.byte += len(raw)
            self.line += 1
            if not self._plain:
                if self.line <= 2:  # the first may be blank, which shows nothing
                    self.encoding.check_text(raw, self.line, self.name)
                self._plain = self.encoding.unit == 1 and self.line >= 2
        return raw

    def _ended(self, raw: bytes) -> bytes:
        """The next line, after `raw`, which must be the missing end of the previous line; else raises SourceError."""
        if raw not in self.encoding.ends:
            raise SourceError(
                f"{self.name}: line {self.line} has grown since it was put as the last line, without a line end. "
                "Use another --resume name, and append only whole lines, each with its line end"
            )
        self._unended = False
        self._pass(raw)
        return self._line(self.limit + 1)

    def _line(self, most: int) -> bytes:
        """The next line with its end, or its first `most` bytes and the rest of the last character."""
        if not self._begun:
            self._begin(most)
        if self._first:
            line, self._first = self._first, b""
            return line
        return self._whole(self._read(self.stream.readline, most), most)

    def _begin(self, most: int) -> None:
        """Read the first line, which shows the encoding and how lines end."""
        self._begun = True
        piece = self._read(self.stream.readline, most)
        if not piece:
            return
        self.byte = self.encoding.begin(piece, self.name)
        piece = piece[self.byte :]
        if self.byte and not piece.endswith(b"\n"):
            piece += self._read(self.stream.readline, self.byte)
        line = self._whole(piece, most)
        if not line.endswith(self.encoding.end) and self.encoding.ends_with_cr(line):
            self.stream = LinesWithCR(self.stream, line)
        else:
            self._first = line

    def _whole(self, piece: bytes, most: int) -> bytes:
        """The line that begins with `piece`: a character of several bytes may hold that of a line end."""
        if self.encoding.unit == 1:
            return piece
        line = bytearray(piece)
        while piece:  # it ends with a byte 0x0a, of a line end or of another character
            line += self._read(self.stream.read, -len(line) % self.encoding.unit)
            if line.endswith(self.encoding.end) or len(line) >= most:
                break
            piece = self._read(self.stream.readline, most - len(line))
            line += piece
        return bytes(line)

    def _pass(self, raw: bytes) -> None:
        """Add bytes that were read to the position and its checksum."""
        if self._since < 0 or self.byte - self._since > WINDOW:
            self._since, self._sum = self.byte, 0
        self._sum = crc32(raw, self._sum)
        self.byte += len(raw)

    def rest(self, raw: bytes) -> Iterator[bytes]:
        """The rest of a line whose beginning `raw` was read, in chunks."""
        while raw and not raw.endswith(self.encoding.end):
            raw = self._line(CHUNK)
            self._pass(raw)
            yield raw

    def go_on_at(self, position: str) -> None:
        """Pass over what an earlier run has read; this run may already have read a part of it. Raises SourceError."""
        line, byte, since, checksum = parsed(position)
        if byte <= self.byte:
            return
        if not self._begun:
            self._begin(self.limit + 1)
        begun = self._sum if self._since == since else 0
        if self.seekable:
            self.byte, begun = byte - self.encoding.unit if since < 0 else since, 0
            self.stream.seek(self.byte)
            self._first = b""
        elif since > self.byte:
            self._pass_over(since - self.byte)
            self.byte = since
        comparable = since >= 0 and since in (self.byte, self._since)
        found, last = self._pass_over(byte - self.byte, begun)
        if comparable and found != checksum:
            raise SourceError(
                f"{self.name} was changed before the place where the feed stopped, after line {line:,}: the lines "
                "put last are no longer there. To put everything from the beginning, use another --resume name"
            )
        self.line, self.byte, self._since, self._sum = line, byte, since, checksum
        self._unended = not last.endswith(self.encoding.end)

    def _pass_over(self, size: int, checksum: int = 0) -> tuple[int, bytes]:
        """Read and drop `size` bytes; returns the checksum continued over them, and the last chunk."""
        chunk = b""
        while size > 0:
            if self._first:
                chunk, self._first = self._first[:size], self._first[size:]
            else:
                chunk = self._read(self.stream.read, min(size, CHUNK))
            if not chunk:
                raise shorter(self.name)
            size -= len(chunk)
            checksum = crc32(chunk, checksum)
        return checksum, chunk

    def _read(self, method: Callable[[int], bytes], size: int) -> bytes:
        try:
            return method(size)
        except (OSError, EOFError, zlib.error) as error:  # EOFError and zlib.error: a damaged .gz
            raise SourceError(f"{self.name}, after line {self.line}: {error}") from None


class LinesWithCR(io.BufferedIOBase):
    """A stream whose lines end with CR; `begin` was read from it already."""

    def __init__(self, stream: Stream, begin: bytes) -> None:
        self._stream = stream
        self._held = begin
        self._at = 0  # what is before it was handed out

    def readline(self, size: int | None = -1, /) -> bytes:
        most = CHUNK if size is None or size < 0 else size
        while not (end := self._held.find(b"\r", self._at, self._at + most) + 1) and len(self._held) - self._at < most:
            more = self._stream.read(CHUNK)
            if not more:
                break
            self._held, self._at = self._held[self._at :] + more, 0
        return self._take(end - self._at if end else most)

    def read(self, size: int | None = -1, /) -> bytes:
        most = CHUNK if size is None or size < 0 else size
        return self._take(most) or self._stream.read(most)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._held, self._at = b"", 0
        return self._stream.seek(offset, whence)

    def _take(self, size: int) -> bytes:
        taken = self._held[self._at : self._at + size]
        self._at += len(taken)
        return taken


class Position(NamedTuple):
    """How many lines and bytes are before it, and the checksum of the bytes from `since` on (-1: no checksum)."""

    line: int
    byte: int
    since: int = -1
    checksum: int = 0


def written(place: tuple[int, int, int, int]) -> str:
    """The position as it is stored: `<line>:<byte>:<since>-<checksum>`, without the last two if it has no checksum."""
    return WITH_CHECKSUM % place if place[2] >= 0 else f"{place[0]}:{place[1]}"


def parsed(position: str) -> Position:
    line, _, rest = position.partition(":")
    byte, _, tail = rest.partition(":")
    since, _, checksum = tail.partition("-")
    try:
        return Position(int(line), int(byte), int(since), int(checksum, 16)) if tail else Position(int(line), int(byte))
    except ValueError:
        raise SourceError(f"{position!r} is not a position in a source; one looks like 17:4096") from None


def shorter(name: str) -> SourceError:
    return SourceError(
        f"{name} ends before the place where the feed stopped: it was cut off, or is another source under this name"
    )


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
                self.flaw = self.flaw or f"not CSV: {error}"
            if row or self.flaw:
                yield Record(line, b"".join(self.lines), row, self.flaw)

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
    return f"longer than {limit:,} bytes"


def undecodable(encoding: Encoding, error: UnicodeDecodeError) -> str:
    return f"not {encoding.shown} (byte {error.start + 1} of the line is 0x{error.object[error.start]:02x})"


READERS: dict[Format, Callable[[Cursor, Rejects, str], Iterator[Item]]] = {
    "lines": partial(read_each, arguments=from_text),
    "ndjson": partial(read_each, arguments=from_json),
    "csv": partial(read_csv, delimiter=","),
    "tsv": partial(read_csv, delimiter="\t"),
}

"""The lines of a source, and positions in it."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeAlias
from zlib import crc32

from rq_lite.errors import SourceError
from rq_lite.feeds.encoding import Encoding

Stream: TypeAlias = BinaryIO | io.BufferedIOBase

START = "0:0"
LIMIT = 16 * 1024 * 1024  # bytes of a line with its end, and of a csv row with all its lines
CHUNK = 64 * 1024  # bytes that are in memory at a time when a part of the source is passed over
WINDOW = 64 * 1024  # the checksum of a position is of at most this many bytes before it, and one line
WITH_CHECKSUM = "%d:%d:%d-%x"  # a position; faster than an f-string, and each line of a feed needs one


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

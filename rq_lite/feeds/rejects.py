"""Bad lines of a source: they end the feed, or are skipped and kept."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeAlias

from rq_lite.errors import SourceError
from rq_lite.feeds.encoding import Encoding
from rq_lite.logs import RateLimitedLog, escaped, logger

OnError: TypeAlias = Literal["stop", "skip"]

log = logger(__name__)


class Rejects:
    """Handles bad lines: they end the feed, or go to a file of skipped lines, and their reasons to one beside it.

    A feed that is not `resumed` begins new files; those of an earlier one get the ending `.old`. They are opened for
    the first bad line and written without a buffer, so that they have all lines that a killed feed has skipped. A
    feed killed between skipping a line and storing a later position reads that line again when it is resumed, and
    writes it a second time.
    """

    def __init__(
        self, source: str, on_error: OnError, path: Path, encoding: Encoding, *, resumed: bool, unit: str = "line"
    ) -> None:
        self.source = source
        self.encoding = encoding
        self.on_error = on_error
        self.path = path
        self.reasons = path.with_name(f"{path.name}.reasons")
        self.unit = unit  # of what is skipped
        self.header = b""  # begins a new file, so that skipped csv rows, once repaired, can be fed
        self.count = 0
        self._log = RateLimitedLog(log)
        self._files: tuple[io.FileIO, io.FileIO] | None = None
        if on_error == "skip" and not resumed:
            for former in (self.path, self.reasons):
                self._put_aside(former)

    def _put_aside(self, former: Path) -> None:
        try:
            if former.is_file():
                former.replace(former.with_name(f"{former.name}.old"))
        except OSError as error:
            raise SourceError(f"{former}, of an earlier feed, cannot be renamed: {error.strerror}") from None

    def reject(self, line: int, raw: bytes, reason: str, rest: Iterable[bytes] = ()) -> None:
        """Raise SourceError, or append `raw` and then `rest` (of a line too long for memory)."""
        place = f"{self.source}, line {line}: {reason}"
        if self.on_error == "stop":
            raise SourceError(f"{place}; --on-error skip passes over such lines")
        self._log.warn(f"{self.source}: {kind_of(reason)}", f"{place} (skipped, see {self.path})")
        self.count += 1
        try:
            lines, reasons = self._files = self._files or self._open()
            write_all(reasons, f"line {line}: {escaped(reason)}\n".encode())
            last = write_all(lines, raw)
            for chunk in rest:
                last = write_all(lines, chunk)
            if not last.endswith(self.encoding.end):
                write_all(lines, self.encoding.end)
        except OSError as error:
            raise SourceError(f"{self.path}, for skipped lines: {error.strerror}") from None

    def _open(self) -> tuple[io.FileIO, io.FileIO]:
        lines = self.path.open("ab", buffering=0)
        if lines.tell() == 0:
            write_all(lines, self.encoding.mark + self.header)
        return lines, self.reasons.open("ab", buffering=0)

    def close(self) -> None:
        self._log.flush(at_once=True)
        for file in self._files or ():
            file.close()


def write_all(file: io.FileIO, data: bytes) -> bytes:
    """Write and return the data: an unbuffered write may write only a part."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0 :]
    return data


def kind_of(reason: str) -> str:
    """What reasons of the same kind have in common: without the numbers and values of one line."""
    return re.sub(r"'[^']*'|0x\w+|\b(?<!-)\d[\d,.]*\b", "…", reason)

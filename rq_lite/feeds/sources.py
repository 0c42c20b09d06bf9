"""What `rq-lite produce` reads: files, standard input, numbers.

The `position` of an item is where reading continues after it. The producer stores the position together
with the puts; a feed that is resumed there yields exactly the items after it. Positions count
from the start of the uncompressed data: in plain files reading seeks there, anything else is read from the start. A
position has a checksum of the bytes before it, so that a source that was rewritten there is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from rq_lite.errors import SourceError
from rq_lite.feeds.cursor import LIMIT, START, Cursor, Stream, parsed, shorter, written
from rq_lite.feeds.encoding import Encoding
from rq_lite.feeds.readers import READERS, Format, Item, read_json_file
from rq_lite.feeds.rejects import OnError, Rejects

__all__ = [
    "START",
    "Format",
    "Item",
    "OnError",
    "Source",
    "fingerprint",
    "numbers",
    "open_source",
    "read_lines",
    "same",
]

HEAD = 4096  # bytes that tell one file from another
FORMATS: dict[str, Format] = {".ndjson": "ndjson", ".json": "ndjson", ".jsonl": "ndjson", ".csv": "csv", ".tsv": "tsv"}


class Source:
    """Yields items and knows how far it is. Close it, or use it in a `with`.

    `position` and `offset` belong to the line read last, skipped lines included; after the last item
    `position` is the end of the source.
    """

    def __init__(
        self,
        cursor: Cursor,
        items: Iterator[Item],
        rejects: Rejects,
        *,
        size: int | None = None,
        packed: Stream | None = None,
        live: bool = False,
        unit: str = "line",
        first: int = 1,
        resources: ExitStack | None = None,
    ) -> None:
        self.name = cursor.name
        self.size = size  # in the unit of `offset`; None: not known
        self.live = live  # a pipe or terminal: it may fall silent for long
        self.unit = unit
        self.rejects = rejects
        self._first = first  # number of the first unit
        self._cursor = cursor
        self._items = items
        self._packed = packed  # the compressed file below the cursor's stream
        self._resources = resources or ExitStack()
        self._resources.callback(rejects.close)

    @property
    def position(self) -> str:
        return written(self._cursor.place)

    @property
    def offset(self) -> int:
        """How much of `size` is read: bytes of the file (as it is on disk), or numbers."""
        return self._cursor.byte if self._packed is None else self._packed.tell()

    @property
    def read(self) -> int:
        """How many units were read, blank and skipped ones included."""
        return self._cursor.line

    @property
    def place(self) -> str:
        """The unit that is read next: `line 3,601`."""
        return f"{self.unit} {self._first + self.read:,}"

    def reject(self, item: Item, reason: str) -> None:
        """Treat an item that the task does not accept as a bad line. Raises SourceError unless these are skipped."""
        self.rejects.reject(item.line, item.raw, reason)

    def close(self) -> None:
        self._resources.close()

    def __iter__(self) -> Iterator[Item]:
        return self._items

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(
    name: str,
    *,
    format: Format | None = None,
    start: str = START,
    on_error: OnError = "stop",
    rejects: Path | None = None,
    stdin: Stream | None = None,
    limit: int = LIMIT,
    encoding: str = "utf-8",
) -> Source:
    """A file, or standard input for `-`, from `start` on.

    `format` None: guessed from the name. `rejects` is the file for skipped lines, `<name>.skipped` in the current
    folder when None. It gets them byte for byte; the file beside it, with `.reasons` behind its name, gets a line for
    each with the reason. Raises SourceError when the source cannot be read, is shorter than `start`, or has changed
    before it. A last line without an end is used as it is: an appending writer should finish its lines.
    """
    shown = "stdin" if name == "-" else name
    compressed = name.lower().endswith(".gz")
    skipped = rejects or Path(f"{Path(shown).stem if compressed else Path(shown).name}.skipped")
    with ExitStack() as resources:
        size = packed = None
        stream: Stream
        if name == "-":
            stream = stdin or standard_input()
        else:
            file, size = open_file(name)
            stream = resources.enter_context(file)
            if skipped.exists() and skipped.samefile(name):
                raise SourceError(f"{skipped} is the source itself; skipped lines need a file of their own")
            if compressed:
                packed, stream = file, resources.enter_context(gzip.GzipFile(fileobj=file))
        seekable = size is not None and packed is None
        if size is not None and seekable and parsed(start).byte > size:
            raise shorter(shown)
        written_in = Encoding(encoding)
        cursor = Cursor(stream, shown, written_in, seekable=seekable, limit=limit)
        bad = Rejects(shown, on_error, skipped, written_in, resumed=start != START)
        reader = read_json_file if format is None and ending(name) == ".json" else READERS[format or guess(name)]
        items = reader(cursor, bad, start)
        return Source(cursor, items, bad, size=size, packed=packed, live=size is None, resources=resources.pop_all())


def read_lines(source: str | Path, *, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a text file, or of standard input for `-`, as `rq-lite produce` reads them; for `put_many`.

    They are read when they are asked for, and come without line ends and byte order mark; blank ones are left out.
    Raises SourceError for a source or a line that cannot be read, UsageError for an unknown encoding.
    """
    with open_source(str(source), format="lines", encoding=encoding) as opened:
        for item in opened:
            yield str(item.args[0])


def numbers(count: int, *, start: str = START, on_error: OnError = "stop", rejects: Path | None = None) -> Source:
    """The numbers 0 to count - 1, each the only argument of a job, for trying things out."""
    cursor = Cursor(io.BytesIO(), f"numbers below {count:,}", Encoding(), seekable=False)
    cursor.line = cursor.byte = parsed(start).line
    skipped = rejects or Path("numbers.skipped")
    bad = Rejects(cursor.name, on_error, skipped, cursor.encoding, resumed=start != START, unit="number")
    return Source(cursor, count_up(cursor, count), bad, size=count, unit="number", first=0)


def count_up(cursor: Cursor, count: int) -> Iterator[Item]:
    for number in range(cursor.line, count):
        cursor.line = cursor.byte = number + 1
        yield Item((number,), {}, cursor.place, cursor.line, b"%d\n" % number)


def standard_input() -> io.BufferedReader:
    """Standard input. Not sys.stdin, because a thread that waits in it would block the interpreter's exit."""
    try:
        return open(0, "rb", closefd=False)
    except OSError as error:
        raise SourceError(f"stdin: {error.strerror}") from None


def open_file(name: str) -> tuple[io.BufferedReader, int | None]:
    """The open file and its size; None for a pipe or device."""
    try:
        file = Path(name).open("rb")  # noqa: SIM115  the caller closes it
        state = os.fstat(file.fileno())
    except OSError as error:
        raise SourceError(f"{name}: {error.strerror}") from None
    return file, state.st_size if stat.S_ISREG(state.st_mode) else None


def guess(name: str) -> Format:
    """The format by the name's ending."""
    return FORMATS.get(ending(name), "lines")


def ending(name: str) -> str:
    """The name's ending, without `.gz`, `.skipped` and `.old`."""
    path = Path(name)
    while path.suffix.lower() in (".gz", ".skipped", ".old"):
        path = path.with_suffix("")
    return path.suffix.lower()


def fingerprint(path: str | Path) -> str:
    """A text by which `same` recognizes the file of a resumed feed, even if it has grown.

    "<bytes>:<hash>" of the first bytes, 4096 at most; that of a shorter file should be renewed later.
    """
    head = read_head(path, HEAD)
    return f"{len(head)}:{hashlib.sha256(head).hexdigest()}"


def same(known: str, path: str | Path) -> bool:
    """Whether the file begins with the bytes of this fingerprint."""
    size = known.partition(":")[0]
    if not size.isdecimal():
        return False
    head = read_head(path, int(size))
    return known == f"{len(head)}:{hashlib.sha256(head).hexdigest()}"


def read_head(path: str | Path, size: int) -> bytes:
    file, _ = open_file(str(path))
    with file:
        return file.read(size)

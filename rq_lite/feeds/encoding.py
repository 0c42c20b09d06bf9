"""How the text of a source is written: in UTF-8, or as `--encoding` says."""

from __future__ import annotations

import codecs

from rq_lite.errors import SourceError, UsageError

# The byte order marks; that of UTF-32 begins like that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Where the first characters of a line have NUL bytes.
LOOKS = {b"\1\1\1\0": "utf-32-be", b"\0\1\1\1": "utf-32-le", b"\1\0": "utf-16-be", b"\0\1": "utf-16-le"}
ASCII = bytes(range(128))


class Encoding:
    """The encoding of one source. `utf-16` and `utf-32` become one of their two kinds by the mark at its beginning."""

    def __init__(self, name: str = "utf-8") -> None:
        self.mark = b""  # how a file of the source's lines has to begin
        self._be(known(name))

    def _be(self, name: str) -> None:
        self.name = name
        self.plain = name == "utf-8"
        self.unit = {"utf-16": 2, "utf-32": 4}.get(name[:6], 1)  # bytes; a line ends with a whole one
        self.marked = name in ("utf-16", "utf-32")  # only a mark tells which of the two it is
        self.end = b"" if self.marked else "\n".encode(name)
        self.ends = () if self.marked else (self.end, "\r\n".encode(name))

    @property
    def shown(self) -> str:
        return self.name.upper()

    def begin(self, head: bytes, source: str) -> int:
        """The size of the mark with which the source begins. Raises SourceError for that of another encoding."""
        for mark, name in MARKS:
            if head.startswith(mark):
                if not name.startswith(self.name):
                    way_out = name.removesuffix("-le").removesuffix("-be")
                    raise SourceError(
                        f"{source} begins with the byte order mark of {way_out.upper()}, and is read as {self.shown}: "
                        f"say --encoding {way_out}"
                    )
                self._be(name)
                self.mark = b"" if self.plain else mark
                return len(mark)
        if self.marked:
            raise SourceError(
                f"{source} has no byte order mark: say which kind of {self.shown} it is, --encoding {self.name}-le (as "
                f"Windows writes it) or {self.name}-be"
            )
        return 0

    def check_text(self, line: bytes, number: int, source: str) -> None:
        """Raise SourceError for one of the first lines that shows that this is another encoding, or no text."""
        if self.unit == 1 and b"\0" in line:
            zeros = bytes(byte == 0 for byte in line[:4])
            looks = LOOKS.get(zeros) or LOOKS.get(zeros[:2], "") if number == 1 else ""
            way_out = f"it looks like {looks.upper()}: say --encoding {looks}" if looks else "--encoding names another"
            raise SourceError(
                f"{source}, line {number}: it has NUL bytes, so this is no text, or not {self.shown}; {way_out}"
            )

    def text(self, raw: bytes, errors: str = "strict") -> str:
        return raw.decode(self.name, errors)

    def utf8(self, raw: bytes) -> bytes:
        return raw.decode(self.name).encode()


def known(name: str) -> str:
    """Python's name of the encoding. Raises UsageError for one that lines cannot be told in."""
    try:
        found = codecs.lookup(name).name.removesuffix("-sig")
        told = found[:6] in ("utf-16", "utf-32") or ASCII.decode(found) == ASCII.decode()
    except UnicodeDecodeError:
        told = False
    except (LookupError, ValueError):  # the second: not even a name
        raise UsageError(
            f"--encoding {name!r}: Python knows no such encoding; there are utf-16, latin-1 and cp1252, for instance"
        ) from None
    if not told:
        raise UsageError(f"--encoding {name!r} is not supported: convert it first, as in iconv -f {name} -t utf-8")
    return found

"""The encoding of a source: UTF-8, or what `--encoding` names."""

from __future__ import annotations

import codecs

from rq_lite.errors import SourceError, UsageError

# The byte order marks; UTF-32 first, because its little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# The encoding, by where the first characters of a line have NUL bytes.
LOOKS = {b"\1\1\1\0": "utf-32-be", b"\0\1\1\1": "utf-32-le", b"\1\0": "utf-16-be", b"\0\1": "utf-16-le"}
ASCII = bytes(range(128))


class Encoding:
    """The encoding of one source. The byte order mark turns `utf-16` and `utf-32` into one of their two kinds."""

    def __init__(self, name: str = "utf-8") -> None:
        self.mark = b""  # with which a file of the source's lines has to begin
        self._be(known(name))

    def _be(self, name: str) -> None:
        self.name = name
        self.plain = name == "utf-8"
        self.unit = {"utf-16": 2, "utf-32": 4}.get(name[:6], 1)  # bytes; a line ends with a whole unit
        self.marked = name in ("utf-16", "utf-32")  # only a mark tells which of the two it is
        self.end = b"" if self.marked else "\n".encode(name)
        self.ends: tuple[bytes, ...] = () if self.marked else (self.end, "\r\n".encode(name))

    @property
    def shown(self) -> str:
        return self.name.upper()

    def begin(self, head: bytes, source: str) -> int:
        """The size of the source's byte order mark. Raises SourceError for the mark of another encoding."""
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

    def ends_with_cr(self, line: bytes) -> bool:
        """Whether CR alone ends the lines of a source whose first line has no other end; from then on it does."""
        end, at = "\r".encode(self.name), -1
        while (at := line.find(end, at + 1)) % self.unit and at >= 0:
            pass
        # A CR as its last character may be the first half of an end that is not written yet.
        if not 0 <= at < len(line) - self.unit:
            return False
        self.end, self.ends = end, (end,)
        return True

    def check_text(self, line: bytes, number: int, source: str) -> None:
        """Raise SourceError if one of the first lines shows that the source has another encoding, or is not text."""
        if self.unit == 1 and b"\0" in line:
            zeros = bytes(byte == 0 for byte in line[:4])
            looks = LOOKS.get(zeros) or LOOKS.get(zeros[:2], "") if number == 1 else ""
            way_out = f"it looks like {looks.upper()}: say --encoding {looks}" if looks else "--encoding names another"
            raise SourceError(
                f"{source}, line {number}: it has NUL bytes, so this is not text, or not {self.shown}; {way_out}"
            )

    def text(self, raw: bytes, errors: str = "strict") -> str:
        return raw.decode(self.name, errors)

    def utf8(self, raw: bytes) -> bytes:
        return raw.decode(self.name).encode()


def known(name: str) -> str:
    """Python's name of the encoding. Raises UsageError for an unknown one, and one in which ASCII looks different."""
    try:
        found = codecs.lookup(name).name.removesuffix("-sig")
        told = found[:6] in ("utf-16", "utf-32") or ASCII.decode(found) == ASCII.decode()
    except UnicodeDecodeError:
        told = False
    except (LookupError, ValueError):  # ValueError: not even a name
        raise UsageError(
            f"--encoding {name!r}: Python knows no such encoding; examples are utf-16, latin-1 and cp1252"
        ) from None
    if not told:
        raise UsageError(f"--encoding {name!r} is not supported: convert it first, as in iconv -f {name} -t utf-8")
    return found

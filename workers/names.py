"""The names of a ZIP's entries: in which encoding they are, and which of them may become paths.

A ZIP marks names that are UTF-8. Of others it does not say what they are, and many programs write UTF-8, or the
encoding of their country, without the mark. What is valid UTF-8 is hardly ever anything else, so it is taken for that.
"""

from __future__ import annotations

import os
import re
import zipfile

UTF8 = 0x800  # the mark
UNMARKED = "cp437"  # zipfile reads names without the mark in it; it has all 256 bytes, so they can be had back
HERE = re.compile(r"^(\./)+")
FOREIGN = {
    "has a control character in its name": re.compile(r"[\x00-\x1f\x7f]"),
    "has a backslash in its name, which separates folders on Windows": re.compile(r"\\"),
    "names a drive": re.compile(r"^[A-Za-z]:"),
    "has an absolute path": re.compile(r"^/"),
    "leaves the package by its ..": re.compile(r"(^|/)\.\.(/|$)"),
    "has a folder named . in its path": re.compile(r"(^|/)\.(/|$)"),
    "has a folder or file without a name in its path": re.compile(r"^$|//"),
}


class PackageError(Exception):
    """This package is refused and stays where it is. The message names it and the reason."""


def named(entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The entries, each with its checked path as its `filename`. Raises PackageError.

    A path may begin with `./`, which means the package itself; the entry of the package itself is left out.
    """
    encoding = encoding_of([raw_name(entry) for entry in entries if is_unmarked(entry)])
    found = []
    for entry in entries:
        # Both names: the one in the list, and the one that zipfile reads (cut at a NUL, or from an extra field)
        listed, read = entry.orig_filename, entry.filename
        if is_unmarked(entry):
            listed = read = decoded(raw_name(entry), encoding)
        if HERE.fullmatch(listed) and read == listed:
            continue
        check_name(HERE.sub("", listed))
        entry.filename = HERE.sub("", read)
        check_name(entry.filename)
        found.append(entry)
    return found


def is_unmarked(entry: zipfile.ZipInfo) -> bool:
    """Whether the ZIP does not say in which encoding this name is; a name from an extra field is UTF-8."""
    return not (entry.flag_bits & UTF8 or entry.orig_filename.isascii() or entry.filename != entry.orig_filename)


def raw_name(entry: zipfile.ZipInfo) -> bytes:
    return entry.orig_filename.encode(UNMARKED)


def encoding_of(names: list[bytes]) -> str:
    """The encoding of all these names: UTF-8 if they are valid in it, else RQ_LITE_ZIP_ENCODING."""
    for name in names:
        try:
            name.decode()
        except UnicodeDecodeError:
            chosen = os.environ.get("RQ_LITE_ZIP_ENCODING")
            if chosen:
                return chosen
            raise PackageError(
                f"has an entry named {name[:200]!r}, which is not UTF-8, and the ZIP does not say what it is: set "
                "RQ_LITE_ZIP_ENCODING for the workers, to gbk, shift_jis, cp437 or another encoding"
            ) from None
    return "utf-8"


def decoded(name: bytes, encoding: str) -> str:
    try:
        return name.decode(encoding)
    except LookupError:
        raise PackageError(f"cannot be read: RQ_LITE_ZIP_ENCODING is {encoding!r}, which is not an encoding") from None
    except ValueError:
        raise PackageError(
            f"has an entry named {name[:200]!r}, which is not {encoding}, the RQ_LITE_ZIP_ENCODING of this worker"
        ) from None


def check_name(name: str) -> None:
    """Refuse all but relative paths of plain names, of a length and depth that any filesystem takes."""
    path = name.removesuffix("/")
    for reason, pattern in FOREIGN.items():
        if pattern.search(path):
            raise PackageError(f"has an entry named {name[:200]!r}, which {reason}")
    parts = path.split("/")
    if len(parts) > 32 or any(len(part.encode()) > 255 for part in parts):
        raise PackageError(f"has an entry named {name[:200]!r}…, which is too long or too deep")

"""Unpack ZIP packages that strangers deliver into a folder, and move them to an archive.

    incoming/abc-downloading/     still being received: left alone
    incoming/abc/abc.zip          complete: the sender renamed the folder as its last step
    archive/abc/abc.zip           done
    archive/abc/content/…         what was in it

The sender can still write, rename and link in the folder that it has delivered. So a package is unpacked in the
archive, where only the consumers write; the sender's folder is held open, and its ZIP opened once. The ZIP is in one
of the two folders at any time, and a single rename moves it: a run that is killed at any point leaves a package that
the next run unpacks afresh. The price: both folders must be on one filesystem.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rq_lite import Queue
from workers.folders import Branch, Folder
from workers.names import PackageError, named

packages = Queue("packages")

RECEIVING = "-downloading"
CHUNK = 256 * 1024
BLOCK = 4096  # bytes of disk that a file or folder takes besides its content


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes."""

    entries: int = 10_000  # files and folders, including those on the way to a file
    directory: int = 4 * 1024 * 1024  # the ZIP's list of entries, which is read into memory as a whole
    written: int = 2 * 1024**3  # the bytes really written, whatever the headers say, plus a block for each entry
    ratio: int = 100  # written per byte of ZIP …
    ratio_from: int = 10 * 1024**2  # … checked above this size: a small log may well compress better


LIMITS = Limits()


# In a thread, because file operations, and above all fsync, block a greenlet without giving the others a turn.
@packages.task(timeout=600, run_in="thread")
def unpack(package: str) -> str:
    """Unpack incoming/NAME/NAME.zip and move the package to the archive; returns its new path.

    The archive is the folder RQ_LITE_ARCHIVE, or `archive` beside the incoming folder.
    """
    return str(archive(Path(package), archive_of(Path(package))))


def archive_of(package: Path) -> Path:
    named = os.environ.get("RQ_LITE_ARCHIVE")
    return Path(named) if named else package.absolute().parent.parent / "archive"


def archive(package: Path, folder: Path, limits: Limits = LIMITS) -> Path:
    """Unpack `package` and move it into `folder`. Doing it twice is the same as doing it once.

    Raises PackageError for what must not be unpacked, OSError for what the machine cannot do.
    """
    package, done = package.absolute(), folder.absolute() / package.name
    check_package(package)
    folder.mkdir(parents=True, exist_ok=True)
    with Folder.at(folder) as shelf, incoming_of(package) as incoming, exclusive(shelf, f".{done.name}") as place:
        if not is_done(package, incoming, shelf):
            bring(package, incoming, shelf, place, limits)
            shelf.move(place.path.name, shelf, done.name)
            shelf.sync()
            if not (place.is_same(shelf.look(done.name)) and shelf.is_same(folder.stat())):
                raise PackageError(f"{done}: the archive was changed while {package} was moved there")
        incoming.remove_empty(done.name)
        incoming.sync()
    return done


def check_package(package: Path) -> None:
    # The names derived from it, with a dot in front or .zip behind, must be possible, too.
    if package.name.startswith(".") or not 0 < len(os.fsencode(package.name)) <= 250:
        raise PackageError(f"{package}: is not a name for a package")
    if package.name.endswith(RECEIVING):
        raise PackageError(f"{package}: is still being received; it is ready once it has lost {RECEIVING!r}")


def incoming_of(package: Path) -> Folder:
    try:
        return Folder.at(package.parent)
    except OSError as error:
        raise PackageError(f"{package}: {package.parent} cannot be opened ({error.strerror})") from error


def is_done(package: Path, incoming: Folder, shelf: Folder) -> bool:
    """Whether the package is in the archive. Raises PackageError if the archive has another one of this name."""
    found = shelf.look(package.name)
    if found is None:
        return False
    sent = None if incoming.look(package.name) is None else delivered(package, incoming).look(zip_of(package))
    if sent is not None or not stat.S_ISDIR(found.st_mode):
        raise PackageError(
            f"{package}: the archive already holds another package of this name, {shelf.path / package.name}"
        )
    return True


def bring(package: Path, incoming: Folder, shelf: Folder, place: Folder, limits: Limits) -> None:
    """Unpack into `place`, then move the ZIP there, too; if this fails the ZIP is where it was."""
    name = zip_of(package)
    # The ZIP is in `place` already if a run was killed after moving it.
    source = delivered(package, incoming, shelf) if place.look(name) is None else place
    with open_regular(source, name, limits.directory) as file:
        before = identity(os.fstat(file.fileno()))
        content = place.make("content")
        write(file, content, limits)
        if not content.is_same(place.look("content")):
            raise PackageError(f"{place.path}: was changed while {package} was unpacked there")
        if source is not place:
            source.move(name, place)
            if identity(place.look(name)) != before:
                place.move(name, source)
                raise PackageError(f"{file.path}: was changed while it was unpacked")
        place.sync()


def delivered(package: Path, incoming: Folder, shelf: Folder | None = None) -> Folder:
    """The sender's folder, on the filesystem of the archive. Raises PackageError."""
    try:
        folder = incoming.folder(package.name)
    except FileNotFoundError as error:
        raise PackageError(f"{package}: no such package, and the archive has no package of this name") from error
    except OSError as error:  # a link is refused as well
        raise PackageError(f"{package}: is not a folder that can be opened ({error.strerror})") from error
    if shelf is not None and folder.state().st_dev != shelf.state().st_dev:
        raise PackageError(
            f"{package}: {shelf.path} is on another filesystem, so that one rename cannot move it there; "
            "set RQ_LITE_ARCHIVE to a folder on the same one"
        )
    return folder


def zip_of(package: Path) -> str:
    return f"{package.name}.zip"


def identity(state: os.stat_result | None) -> tuple[int, ...] | None:
    """A value that changes when the file is replaced or written to."""
    return state and (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


# --- one at a time, and nothing half-done -------------------------------------------------------------


@contextmanager
def exclusive(shelf: Folder, name: str) -> Iterator[Folder]:
    """A folder in the archive that only this run uses until it ends, without the leftovers of a killed run.

    The lock is on the folder itself, so a run that waits for it may find that it was moved to its final place. If it
    was not moved, only a ZIP that was already taken over stays in it at the end.
    """
    while True:
        with suppress(FileNotFoundError):  # the previous run has just removed it
            place = shelf.make(name)
            if place.try_lock() and place.is_same(shelf.look(name)):
                break
            place.close()
        time.sleep(0.05)
    with place:
        try:
            place.remove("content")
            yield place
        finally:
            if place.is_same(shelf.look(name)):
                place.remove("content")
                shelf.remove_empty(name)


# --- reading the ZIP ----------------------------------------------------------------------------------


class Frugal(io.BufferedReader):
    """Refuses large reads. zipfile makes exactly one: the list of entries, of the size that the file claims."""

    def __init__(self, raw: io.FileIO, path: Path, largest: int) -> None:
        super().__init__(raw)
        self.path = path  # for messages
        self.largest = largest

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = self.largest
        if size > self.largest:
            raise PackageError(f"its list of entries is larger than {self.largest:,} bytes")
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET and offset < 0:  # else an OSError, like those of a failing disk
            raise ValueError("it points before its beginning")
        return super().seek(offset, whence)


def open_regular(folder: Folder, name: str, largest_read: int) -> Frugal:
    """Open the ZIP; refuse a link, a pipe, a device, and a file with several hard links. Raises PackageError."""
    path = folder.path / name
    try:
        raw = folder.read(name)
    except OSError as error:
        raise PackageError(f"{path}: cannot be read ({error.strerror})") from error
    state = os.fstat(raw.fileno())
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        raw.close()
        raise PackageError(f"{path}: is not a regular file with this name alone (hard links are refused)")
    return Frugal(raw, path, largest_read)


# What zipfile raises for damaged or foreign files, besides its own error.
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


def write(file: Frugal, target: Folder, limits: Limits) -> None:
    """Unpack everything into the new folder `target`, and sync it to the disk."""
    size = os.fstat(file.fileno()).st_size
    quota = Quota(limits, size)
    try:
        with zipfile.ZipFile(file) as source, closing(Branch(target)) as branch:
            entries = checked(source.infolist(), limits, size)
            quota.spend(BLOCK * count(entries, limits))
            for entry in entries:
                write_entry(source, entry, branch, quota)
    except (FileExistsError, NotADirectoryError) as error:
        raise PackageError(f"{file.path}: has a name both as a file and as a folder ({error})") from error
    except BROKEN as error:
        raise PackageError(f"{file.path}: is broken ({error})") from error
    except PackageError as error:
        raise PackageError(f"{file.path}: {error}") from error
    target.sync_all()


def write_entry(source: zipfile.ZipFile, entry: zipfile.ZipInfo, branch: Branch, quota: Quota) -> None:
    *above, name = parts_of(entry)
    if entry.is_dir():
        branch.down([*above, name])
        return
    # Never into an existing file. Modes and owners in the ZIP are ignored.
    with source.open(entry) as packed, branch.down(above).create(name) as file:
        written = copy(packed, file, quota)
        os.fsync(file.fileno())
    if written != entry.file_size:
        raise PackageError(f"{entry.filename!r} is {written:,} bytes long, not {entry.file_size:,}")


def copy(packed: IO[bytes], file: io.FileIO, quota: Quota) -> int:
    written = 0
    while chunk := packed.read(CHUNK):
        quota.spend(len(chunk))
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest) :]
        written += len(chunk)
    return written


class Quota:
    """Counts the bytes of disk that one package takes."""

    def __init__(self, limits: Limits, zip_size: int) -> None:
        self.most = min(limits.written, max(limits.ratio_from, limits.ratio * zip_size))
        self.written = 0

    def spend(self, size: int) -> None:
        self.written += size
        if self.written > self.most:
            raise PackageError(f"unpacks to more than the {self.most:,} bytes we write for it")


# --- what may be in it --------------------------------------------------------------------------------


def checked(entries: list[zipfile.ZipInfo], limits: Limits, size: int) -> list[zipfile.ZipInfo]:
    """The entries to write, all of them checked before the first byte is written. Raises PackageError."""
    if len(entries) > limits.entries:
        raise PackageError(f"has {len(entries):,} entries, more than {limits.entries:,}")
    seen: set[str] = set()
    found = named(entries)
    for entry in found:
        check_kind(entry)
        name = entry.filename.rstrip("/")
        if name in seen:
            raise PackageError(f"has the name {name!r} twice")
        seen.add(name)
    # This bounds what is read by the size of the file, whatever it unpacks to.
    if sum(entry.compress_size for entry in entries) > size:
        raise PackageError("is broken (its entries share their data: together they are larger than the file)")
    return found


def count(entries: list[zipfile.ZipInfo], limits: Limits) -> int:
    """How many files and folders these entries make. Raises PackageError when there are too many."""
    tree: dict[str, Any] = {}
    made = 0
    for entry in entries:
        here = tree
        for part in parts_of(entry):
            if part not in here:
                here[part] = {}
                made += 1
            here = here[part]
        if made > limits.entries:
            raise PackageError(f"has more than {limits.entries:,} entries, with the folders that they are in")
    return made


def parts_of(entry: zipfile.ZipInfo) -> list[str]:
    return entry.filename.rstrip("/").split("/")


def check_kind(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        raise PackageError(f"has {entry.filename!r}, which is a link or another special file")
    if entry.flag_bits & 0x2041:  # encrypted, strongly encrypted, or hidden headers
        raise PackageError(f"has {entry.filename!r}, which is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PackageError(f"has {entry.filename!r}, whose compression is not supported")

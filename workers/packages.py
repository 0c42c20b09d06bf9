"""Unpack ZIP packages that strangers deliver into a folder, and move them to an archive.

    incoming/abc-downloading/     still being received: left alone
    incoming/abc/abc.zip          complete: the sender's last step was the rename to this name
    archive/abc/abc.zip           done
    archive/abc/content/…         what was in it

A package is in one of the two folders at any time, and a single rename moves it. So a run that is killed at
any point leaves a package that the next run starts afresh, and a package that is not in incoming any more
but in the archive is done. The price: both folders must be on one filesystem.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rq_lite import Queue

packages = Queue("packages")

RECEIVING = "-downloading"
CHUNK = 256 * 1024


class PackageError(Exception):
    """This package is refused; it stays where it is. The message names it and the reason."""


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes."""

    entries: int = 10_000
    directory: int = 4 * 1024 * 1024  # the ZIP's list of entries, which is read into memory as a whole
    written: int = 2 * 1024**3  # what is really written, whatever the headers say
    ratio: int = 100  # written per byte of ZIP …
    ratio_from: int = 10 * 1024**2  # … looked at from here on: a small log may well shrink more


LIMITS = Limits()


@packages.task(timeout=600)
def unpack(package: str) -> str:
    """Unpack incoming/NAME/NAME.zip and move the package to the archive; returns where it is now.

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
    if package.name.startswith(".") or not package.name:
        raise PackageError(f"{package}: is no name for a package")
    if package.name.endswith(RECEIVING):
        raise PackageError(f"{package}: is still being received; it is ready once it has lost {RECEIVING!r}")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(package) as present:
        if not present:
            if done.is_dir():
                return done
            raise PackageError(f"{package}: no such package, and none of this name in {folder}")
        check_place(package, done)
        with clean_up(package):
            with open_regular(package / f"{package.name}.zip", limits.directory) as file:
                write(file, package / ".unpacking", limits)
            (package / ".unpacking").rename(package / "content")
            sync(package)
            package.rename(done)
    sync(done.parent)
    sync(package.parent)
    return done


def check_place(package: Path, done: Path) -> None:
    if done.exists():
        raise PackageError(f"{package}: the archive already holds another package of this name, {done}")
    if package.stat().st_dev != done.parent.stat().st_dev:
        raise PackageError(
            f"{package}: {done.parent} is on another filesystem, no move there is one step; "
            "set RQ_LITE_ARCHIVE to a folder on the same one"
        )


# --- one at a time, and nothing half-done -------------------------------------------------------------


@contextmanager
def exclusive(package: Path) -> Iterator[bool]:
    """Hold the package, whoever else wants it; False when it is not there, or not there any more.

    The lock is on the folder itself: no lock file is left behind, and the lock goes with its process.
    Waiting sleeps instead of blocking in flock, which would stop all other greenlets of this process.
    """
    held = open_folder(package)
    if held is None:
        yield False
        return
    try:
        while not try_lock(held):
            time.sleep(0.05)
        yield is_same(held, package)
    finally:
        os.close(held)


def open_folder(package: Path) -> int | None:
    try:
        return os.open(package, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:  # a link is refused as well
        raise PackageError(f"{package}: is not a folder that can be opened ({error.strerror})") from error


def try_lock(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_same(held: int, package: Path) -> bool:
    """Whether what we hold is still what the name stands for: the one before us may have moved it."""
    try:
        return os.path.samestat(os.fstat(held), package.lstat())
    except FileNotFoundError:
        return False


@contextmanager
def clean_up(package: Path) -> Iterator[None]:
    """Remove what a killed run has left, and, when this one fails, what it leaves."""
    remove_rest(package)
    try:
        yield
    except BaseException:
        remove_rest(package)
        raise


def remove_rest(package: Path) -> None:
    for name in (".unpacking", "content"):
        rest = package / name
        if rest.is_dir() and not rest.is_symlink():
            shutil.rmtree(rest)
        else:
            rest.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


# --- reading the ZIP ----------------------------------------------------------------------------------


class Frugal(io.BufferedReader):
    """Refuses large reads. zipfile makes exactly one: the list of entries, as long as the file says it is."""

    def __init__(self, raw: io.FileIO, largest: int) -> None:
        super().__init__(raw)
        self.largest = largest

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = self.largest
        if size > self.largest:
            raise PackageError(f"its list of entries is larger than {self.largest:,} bytes")
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET and offset < 0:  # else an OSError, like those of a failing disk
            raise ValueError("it points to before its beginning")
        return super().seek(offset, whence)


def open_regular(path: Path, largest_read: int) -> Frugal:
    """Open the ZIP, never a link or a pipe in its place (opening a pipe would wait for ever)."""
    try:
        raw = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK))
    except OSError as error:
        raise PackageError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        raw.close()
        raise PackageError(f"{path}: is not a regular file")
    return Frugal(raw, largest_read)


# What zipfile raises for damaged or foreign files, besides its own error.
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


def write(file: Frugal, target: Path, limits: Limits) -> None:
    """Unpack everything into the new folder `target`, and see it safely onto the disk."""
    quota = Quota(limits, os.fstat(file.fileno()).st_size)
    try:
        with zipfile.ZipFile(file) as source:
            check(source.infolist(), limits)
            target.mkdir()
            for entry in source.infolist():
                write_entry(source, entry, target / entry.filename, quota)
    except (FileExistsError, NotADirectoryError) as error:
        raise PackageError(f"{file.name}: has a name both as a file and as a folder ({error})") from error
    except BROKEN as error:
        raise PackageError(f"{file.name}: is broken ({error})") from error
    except PackageError as error:
        raise PackageError(f"{file.name}: {error}") from error
    for folder, _, _ in os.walk(target):
        sync(Path(folder))


def write_entry(source: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, quota: Quota) -> None:
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # "x": never into a file that is already there. Modes and owners in the ZIP are not taken over.
    with source.open(entry) as packed, path.open("xb") as file:
        written = copy(packed, file, quota)
        file.flush()
        os.fsync(file.fileno())
    if written != entry.file_size:
        raise PackageError(f"{entry.filename!r} is {written:,} bytes long and not {entry.file_size:,}")


def copy(packed: IO[bytes], file: IO[bytes], quota: Quota) -> int:
    written = 0
    while chunk := packed.read(CHUNK):
        quota.spend(len(chunk))
        file.write(chunk)
        written += len(chunk)
        time.sleep(0)  # unpacking never waits for anything by itself: let the other greenlets have their turn
    return written


class Quota:
    """Counts the bytes that one package writes."""

    def __init__(self, limits: Limits, zip_size: int) -> None:
        self.most = min(limits.written, max(limits.ratio_from, limits.ratio * zip_size))
        self.written = 0

    def spend(self, size: int) -> None:
        self.written += size
        if self.written > self.most:
            raise PackageError(f"unpacks to more than the {self.most:,} bytes we write for it")


# --- what may be in it --------------------------------------------------------------------------------


def check(entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    """Look at all entries before the first byte is written. Raises PackageError."""
    if len(entries) > limits.entries:
        raise PackageError(f"has {len(entries):,} entries, more than {limits.entries:,}")
    seen: set[str] = set()
    for entry in entries:
        # Both names: as it stands in the list, and as zipfile reads it (cut at a NUL, or from an extra field)
        check_name(entry.orig_filename)
        check_name(entry.filename)
        check_kind(entry)
        name = entry.filename.rstrip("/")
        if name in seen:
            raise PackageError(f"has the name {name!r} twice")
        seen.add(name)


FOREIGN = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:|^/")


def check_name(name: str) -> None:
    """A relative path made of plain names, of a length and depth that any filesystem takes."""
    parts = name.removesuffix("/").split("/")
    if FOREIGN.search(name) or any(part in ("", ".", "..") for part in parts):
        raise PackageError(f"has an entry named {name[:200]!r}, which does not stay inside the package")
    if len(parts) > 32 or any(len(part.encode()) > 255 for part in parts):
        raise PackageError(f"has an entry named {name[:200]!r}…, which is too long or too deep")


def check_kind(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        raise PackageError(f"has {entry.filename!r}, which is a link or another special file")
    if entry.flag_bits & 0x2041:  # encrypted, strongly encrypted, hidden headers
        raise PackageError(f"has {entry.filename!r}, which is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PackageError(f"has {entry.filename!r}, compressed in a way that we do not read")

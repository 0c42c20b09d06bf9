"""Folders held open: every operation stays in its folder, whatever other processes rename or link meanwhile.

Each call that is given a path looks it up again, and any process that may write in one of its folders decides where
that call ends. A descriptor always means the same folder; each step down from it takes one name and follows no link.
"""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY


class Folder:
    """One folder, held open until `close` or garbage collection. `path` is how it was found, for messages only."""

    def __init__(self, held: int, path: Path) -> None:
        self.held = held
        self.path = path

    @classmethod
    def at(cls, path: Path) -> Folder:
        """The folder at a trusted path; links are followed."""
        return cls(os.open(path, FOLDER), path)

    def folder(self, name: str) -> Folder:
        """A folder inside this one. Raises OSError for a link as well."""
        return Folder(os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=self.held), self.path / name)

    def make(self, name: str) -> Folder:
        """A folder inside this one, created if it is missing."""
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=self.held)
        return self.folder(name)

    def create(self, name: str) -> io.FileIO:
        """A new file to write; never an existing one, or the target of a link."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return io.FileIO(os.open(name, flags, 0o666, dir_fd=self.held), "w")

    def read(self, name: str) -> io.FileIO:
        """Open whatever has this name, unless it is a link. Opening a pipe does not wait for its other end."""
        return io.FileIO(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.held), "r")

    def look(self, name: str) -> os.stat_result | None:
        """The state of what has this name, of a link itself; None: there is nothing."""
        try:
            return os.stat(name, dir_fd=self.held, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_same(self, found: os.stat_result | None) -> bool:
        return found is not None and os.path.samestat(found, self.state())

    def state(self) -> os.stat_result:
        return os.fstat(self.held)

    def move(self, name: str, to: Folder, new_name: str | None = None) -> None:
        os.rename(name, new_name or name, src_dir_fd=self.held, dst_dir_fd=to.held)

    def remove(self, name: str) -> None:
        """Remove a file, a link or a folder with all that is in it, if it is there."""
        found = self.look(name)
        if found is None:
            return
        with suppress(IsADirectoryError, PermissionError):  # macOS raises the second for folders
            os.unlink(name, dir_fd=self.held)
            return
        for _, folders, files, held in os.fwalk(name, topdown=False, dir_fd=self.held):
            for file in files:
                os.unlink(file, dir_fd=held)
            for folder in folders:
                os.rmdir(folder, dir_fd=held)
        os.rmdir(name, dir_fd=self.held)

    def remove_empty(self, name: str) -> None:
        """Remove the folder unless there is something in it."""
        with suppress(OSError):
            os.rmdir(name, dir_fd=self.held)

    def try_lock(self) -> bool:
        """Lock the folder while it is held; False: another run has it. It ends with its process and leaves no file."""
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def sync(self) -> None:
        """Make the names in this folder survive a power cut."""
        os.fsync(self.held)

    def sync_all(self) -> None:
        """The same, with all folders below."""
        for _, _, _, held in os.fwalk(".", dir_fd=self.held):
            os.fsync(held)

    def close(self) -> None:
        held, self.held = self.held, -1
        if held >= 0:
            os.close(held)

    __del__ = close

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Branch:
    """The open folders on the way down to the last one asked for; the next one reuses those that they share."""

    def __init__(self, root: Folder) -> None:
        self._open = [root]
        self._names: list[str] = []

    def down(self, names: Sequence[str]) -> Folder:
        """The folder at the end of these names; missing ones are made. Raises OSError if a name is not a folder."""
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._names, names, strict=False)))
        for folder in self._open[common + 1 :]:
            folder.close()
        del self._open[common + 1 :], self._names[common:]
        for name in names[common:]:
            self._open.append(self._open[-1].make(name))
            self._names.append(name)
        return self._open[-1]

    def close(self) -> None:
        for folder in self._open[1:]:
            folder.close()

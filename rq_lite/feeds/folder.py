"""A watched folder of packages.

A package is a folder `DIR/NAME/` that holds `NAME.zip`. While it is being received its name ends in
`-downloading`; it is renamed when it is complete, and the rename is what makes it one. Links, to folders or
to ZIPs, are not followed: what they lead to may still be in the making.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import watchfiles

from rq_lite.errors import SourceError

UNFINISHED = "-downloading"

log = logging.getLogger(__name__)


def watch(folder: Path, *, stop: threading.Event, rescan: float = 1.0) -> Iterator[dict[str, str]]:
    """The packages that are there: name → identity, at once and then after each change until `stop` is set.

    A new delivery under an old name has another identity. Also yields every `rescan` seconds, changed or not,
    since a notification can be lost or impossible (network drives, too many watches), and a ZIP put into its
    folder later causes none here. Raises SourceError when the folder is missing, or goes missing: an empty
    answer would mean that all packages are gone.
    """
    warned: set[str] = set()
    yield look(folder, warned)
    for _ in wake_ups(folder, stop, rescan):
        yield look(folder, warned)


def look(folder: Path, warned: set[str] | None = None) -> dict[str, str]:
    """The complete packages as of now: name → identity (inode, mtime in ns and size of the ZIP).

    Packages that vanish meanwhile are not in it. A folder that looks like a package and is none is logged,
    unless its name is in `warned`, which is kept up to date.
    """
    packages = {}
    wrong = {}
    for name in folders_in(folder):
        file = folder / name / f"{name}.zip"
        try:
            packages[name] = identity(file)
        except (FileNotFoundError, NotADirectoryError):
            if (folder / name).is_dir():  # else it has vanished meanwhile
                wrong[name] = f"there is no {file.name} in it"
        except (OSError, ValueError) as error:
            wrong[name] = str(error)
    told = set() if warned is None else warned
    for name in sorted(wrong.keys() - told):
        log.warning("%r in %s is no package: %s", name, folder, wrong[name])
    told.clear()
    told.update(wrong)
    return packages


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in it that are not being received."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.endswith(UNFINISHED)
            ]
    except OSError as error:
        raise SourceError(f"{folder}, the watched folder: {error.strerror}") from None


def identity(file: Path) -> str:
    """Changes with each delivery. Raises OSError, and ValueError for what cannot be a package."""
    file.name.encode()  # a name that is not UTF-8 could not be put
    state = file.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f"{file.name} is no file")
    return f"{state.st_ino}-{state.st_mtime_ns}-{state.st_size}"


def is_still(package: Path, known: str) -> bool:
    """Whether the package is there as it was when it had this identity."""
    try:
        return identity(package / f"{package.name}.zip") == known
    except (OSError, ValueError):
        return False


def wake_ups(folder: Path, stop: threading.Event, rescan: float) -> Iterator[None]:
    """Yields when something has changed in the folder, and after `rescan` seconds without."""
    try:
        # Not recursive: renames happen in the folder itself. A step is how often the waiting thread looks for
        # changes and for `stop`, in ms: 10 looks per second cost a thousandth of a core.
        for _ in watchfiles.watch(
            folder,
            watch_filter=None,
            recursive=False,
            step=100,
            debounce=1000,
            rust_timeout=max(1, round(rescan * 1000)),  # 0 would be: no rescan
            yield_on_timeout=True,
            stop_event=stop,
        ):
            yield None
    except (OSError, RuntimeError) as error:  # watchfiles raises the second at the limits of inotify
        log.warning("%s: no change notifications (%s), looking every %g s instead", folder, error, rescan)
        while not stop.wait(rescan):
            yield None

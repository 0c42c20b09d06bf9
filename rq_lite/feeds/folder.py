"""A watched folder of packages.

A package is a folder `DIR/NAME/` that holds `NAME.zip`. While it is being received its name ends in
`-downloading`; the sender renames it when it is complete, and only then it is a package. Links, to folders or
to ZIPs, are not followed: their targets may be incomplete.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import watchfiles

from rq_lite.errors import SourceError
from rq_lite.logs import escaped, logger

UNFINISHED = "-downloading"

log = logger(__name__)


def watch(folder: Path, *, stop: threading.Event, rescan: float = 1.0) -> Iterator[dict[str, str]]:
    """The packages in the folder: name → identity, at once and then after each change until `stop` is set.

    A new delivery under an old name has another identity. Also yields every `rescan` seconds, changed or not,
    since a notification can be lost or impossible (network drives, too many watches), and a ZIP put into its
    folder later causes none here. Raises SourceError when the folder is missing or disappears: an empty
    result would mean that all packages are gone.
    """
    warned: set[str] = set()
    yield look(folder, warned)
    for _ in wake_ups(folder, stop, rescan):
        yield look(folder, warned)


def look(folder: Path, warned: set[str] | None = None) -> dict[str, str]:
    """The complete packages as of now: name → identity (inode, mtime in ns and size of the ZIP).

    Packages that vanish meanwhile are left out. A folder that looks like a package but is not one is logged,
    unless its name is in `warned`, which is kept up to date.
    """
    packages = {}
    wrong = {}
    for name in folders_in(folder):
        file = folder / name / f"{name}.zip"
        try:
            packages[name] = identity(file)
        except (FileNotFoundError, NotADirectoryError):
            if (folder / name).is_dir():  # otherwise it has just vanished
                wrong[name] = f"it has no {escaped(file.name)}"
        except (OSError, ValueError) as error:
            wrong[name] = str(error)
    told = set() if warned is None else warned
    for name in sorted(wrong.keys() - told):
        log.warning("%r in %s is not a package: %s", name, folder, wrong[name])
    told.clear()
    told.update(wrong)
    return packages


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in this folder, without those that are being received."""
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
    """A text that changes with each delivery. Raises OSError, and ValueError for a file that cannot be a package."""
    file.name.encode()  # a name that is not UTF-8 could not be put
    state = file.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f"{escaped(file.name)} is not a file")
    return f"{state.st_ino}-{state.st_mtime_ns}-{state.st_size}"


def is_still(package: Path, known: str) -> bool:
    """Whether the package still has this identity."""
    try:
        return identity(package / f"{package.name}.zip") == known
    except (OSError, ValueError):
        return False


def wake_ups(folder: Path, stop: threading.Event, rescan: float) -> Iterator[None]:
    """Yields when the folder has changed, and after `rescan` seconds without a change."""
    try:
        # Not recursive: renames happen in the folder itself. `step` is how often the waiting thread checks for
        # changes and for `stop`, in ms: 10 checks per second cost a thousandth of a core.
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
    except (OSError, RuntimeError) as error:  # watchfiles raises RuntimeError at the limits of inotify
        log.warning("%s: no change notifications (%s); reading the folder every %g s instead", folder, error, rescan)
        while not stop.wait(rescan):
            yield None

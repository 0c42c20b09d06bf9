"""Temporary folders that do not pile up when programs are killed: making one removes those that are left over."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rq_lite.embedded import server
from rq_lite.errors import BrokerUnavailable

NEW, NAMED = "rq_lite-new-", "rq_lite-test-"
LOCK = "in-use.lock"  # locked (flock) while the folder is in use: the kernel unlocks it however its process ends


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder for the time of the block."""
    sweep()
    made = Path(tempfile.mkdtemp(prefix=NEW))
    with server.opened(made / LOCK) as lock:
        server.locked(lock, fcntl.LOCK_EX)
        # Only now, so that `sweep` never sees a folder of this name that is not locked yet.
        folder = made.rename(made.with_name(made.name.replace(NEW, NAMED)))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def sweep() -> None:
    """Remove the folders of this kind that no process uses, as far as this user may."""
    for folder in Path(tempfile.gettempdir()).glob(f"{NAMED}*"):
        with contextlib.suppress(OSError, BrokerUnavailable):
            # Not created if it is missing: its owner is then removing the folder.
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                if server.locked(lock, fcntl.LOCK_EX):
                    shutil.rmtree(folder)
            finally:
                os.close(lock)

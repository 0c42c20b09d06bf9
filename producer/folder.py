"""Put every complete package of a folder into the queue of workers/packages.py:

    python -m producer.folder incoming

The same as `rq-lite produce --watch incoming --task workers.packages:unpack`. A package may be put twice, for
instance after a restart of this program; `unpack` finds the second one done.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import watchfiles

from workers.packages import RECEIVING, unpack


def complete(folder: Path) -> set[Path]:
    """The packages in a folder, NAME/NAME.zip, without those that are still being received."""
    found = (file.parent for file in folder.glob("*/*.zip") if file.stem == file.parent.name)
    return {package for package in found if not package.name.endswith(RECEIVING)}


def packages(folder: Path) -> Iterator[Path]:
    """The existing packages, then each that gets its final name, until Ctrl-C."""
    known: set[Path] = set()
    # The folder is also read every second: network drives report no changes.
    changes = watchfiles.watch(
        folder,
        watch_filter=None,
        recursive=False,
        rust_timeout=1000,
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    for _ in chain([None], changes):
        present = complete(folder)
        yield from sorted(present - known)
        known = present


def main(name: str) -> None:
    for package in packages(Path(name).resolve()):  # consumers may have another working directory
        unpack.put(str(package))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m producer.folder DIR")
    main(sys.argv[1])

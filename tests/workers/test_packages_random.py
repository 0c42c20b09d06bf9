"""workers/packages.py: ZIPs made by chance, and broken by chance. What is made on the disk is counted."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import packages
from workers.folders import Folder
from workers.names import PackageError

LIMITS = packages.Limits(entries=12, directory=4096, written=200_000, ratio=20, ratio_from=100_000)
PLAIN = ["a", "b", "C", "content", ".abc", "ü" * 100]
FOREIGN = ["..", ".", "", "a\\b", "c:"]


def entry(names: list[str], modes: list[int]) -> st.SearchStrategy[tuple[str, int, int, int, bool]]:
    return st.tuples(
        st.lists(st.sampled_from(names), min_size=1, max_size=6).map("/".join),
        st.sampled_from([0, 1, 5000, 60_000]),  # bytes
        st.sampled_from(modes),
        st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]),
        st.booleans(),  # of zeros
    )


HONEST = st.lists(entry(PLAIN, [0]), max_size=8, unique_by=lambda one: one[0])
EVIL = st.lists(entry(PLAIN + FOREIGN, [0, 0, 0o100644, 0o040755, 0o120777, 0o010644, 0o106777]), max_size=14)
HARM = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3)


def zipped(entries: list[tuple[str, int, int, int, bool]], harm: list[tuple[float, int]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same name twice
        for name, size, mode, method, zeros in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.compress_type, info.external_attr = name, method, mode << 16
            target.writestr(info, bytes(size) if zeros else (bytes(range(256)) * 250)[:size])
    data = bytearray(file.getvalue())
    for where, byte in harm:
        data[int(where * len(data))] = byte
    return bytes(data)


class Disk:
    """Counts what is made."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.entries = self.bytes = 0
        make, create, copied = Folder.make, Folder.create, packages.Quota.spend

        def counted_make(folder: Folder, name: str) -> Folder:
            self.entries += folder.look(name) is None
            return make(folder, name)

        def counted_create(folder: Folder, name: str) -> io.FileIO:
            made = create(folder, name)  # fails where a folder has the name
            self.entries += 1
            return made

        def spent(quota: packages.Quota, size: int) -> None:
            copied(quota, size)
            self.bytes += size

        patched.setattr(Folder, "make", counted_make)
        patched.setattr(Folder, "create", counted_create)
        patched.setattr(packages.Quota, "spend", spent)
        patched.setattr(os, "fsync", lambda _: None)


def everything(base: Path) -> dict[str, bytes | None]:
    """All that is below; None: a folder."""
    found: dict[str, bytes | None] = {}
    for path in base.rglob("*"):
        assert not path.is_symlink()
        assert path.is_file() or path.is_dir()
        found[str(path.relative_to(base))] = path.read_bytes() if path.is_file() else None
    return found


@settings(max_examples=100)
@given(entries=HONEST | EVIL, harm=HARM)
def test_whatever_the_zip_it_is_refused_or_archived_and_within_its_limits(
    entries: list[tuple[str, int, int, int, bool]], harm: list[tuple[float, int]]
) -> None:
    data = zipped(entries, harm)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        base = Path(name)
        (base / "incoming" / "abc").mkdir(parents=True)
        (base / "incoming" / "abc" / "abc.zip").write_bytes(data)
        disk = Disk(patched)
        try:
            packages.archive(base / "incoming" / "abc", base / "archive", LIMITS)
        except PackageError:
            assert everything(base) == {
                "incoming": None, "incoming/abc": None, "incoming/abc/abc.zip": data, "archive": None,
            }  # fmt: skip
        else:
            found = everything(base)
            assert found.pop("archive/abc/abc.zip") == data
            rest = {"incoming", "archive", "archive/abc", "archive/abc/content"}
            assert all(path in rest or path.startswith("archive/abc/content/") for path in found)
            written = sum(map(len, filter(None, found.values())))
            assert written + packages.BLOCK * (len(found) - len(rest)) <= LIMITS.written
    # The place and its `content` are ours.
    assert disk.entries <= LIMITS.entries + 2
    assert disk.bytes <= min(LIMITS.written, max(LIMITS.ratio_from, LIMITS.ratio * len(data)))

"""workers/packages.py: packages made to do harm, runs killed at every step, and two runs at once."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from producer import folder
from rq_lite.testing import inline
from workers import packages
from workers.folders import Folder
from workers.names import PackageError

ROOT = Path(__file__).parents[2]
CONTENT = {"readme.txt": b"hello", "deep/er/data.bin": bytes(range(256)) * 4000, "empty": b""}


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, data in entries.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.compress_type = name, method  # names that the constructor would tidy up
            target.writestr(info, data)
    return file.getvalue()


def with_entry(name: str, mode: int = 0, data: bytes = b"data") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        target.writestr(info, data)
    return file.getvalue()


def twice(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for number, name in enumerate(names):
            target.writestr(f"{number}" * len(name), b"data")
    data = file.getvalue()
    for number, name in enumerate(names):
        data = data.replace(f"{number}".encode() * len(name), name.encode())
    return data


def altered(data: bytes, local: int, central: int, value: bytes) -> bytes:
    """Another value in the first entry's local header and in its entry in the list."""
    changed = bytearray(data)
    for signature, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        start = changed.index(signature) + offset
        changed[start : start + len(value)] = value
    return bytes(changed)


def deliver(base: Path, data: bytes, name: str = "abc") -> Path:
    package = base / "incoming" / name
    package.mkdir(parents=True)
    (package / f"{name}.zip").write_bytes(data)
    return package


def tree(base: Path) -> dict[str, bytes]:
    """All files below."""
    return {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}


def archived(data: bytes, entries: dict[str, bytes] = CONTENT) -> dict[str, bytes]:
    return {"abc.zip": data} | {f"content/{name}": content for name, content in entries.items()}


@pytest.fixture(autouse=True)
def no_archive_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RQ_LITE_ARCHIVE", raising=False)
    monkeypatch.delenv("RQ_LITE_ZIP_ENCODING", raising=False)


# --- what it is for


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_package_is_unpacked_and_archived(tmp_path: Path, method: int) -> None:
    data = zipped({"folder/": b"", **CONTENT}, method)
    package = deliver(tmp_path, data)
    done = Path(packages.unpack(str(package)))
    assert done == tmp_path / "archive" / "abc"
    assert tree(done) == archived(data)
    assert (done / "content" / "folder").is_dir()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_twice_is_once(tmp_path: Path) -> None:
    data = zipped(CONTENT)
    package = deliver(tmp_path, data)
    assert packages.unpack(str(package)) == packages.unpack(str(package))
    assert tree(tmp_path / "archive" / "abc") == archived(data)


def test_jobs_of_two_packages_one_of_them_broken(tmp_path: Path) -> None:
    good, bad = deliver(tmp_path, zipped(CONTENT)), deliver(tmp_path, b"no ZIP", "bad")
    with inline(raises=False) as ran:
        packages.unpack.put_many([str(bad), str(good), str(good)])
    archive = str(tmp_path / "archive" / "abc")
    assert [job.value for job in ran] == [None, archive, archive]
    assert isinstance(ran[0].error, PackageError)


def test_the_archive_can_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_LITE_ARCHIVE", str(tmp_path / "far" / "away"))
    assert packages.unpack(str(deliver(tmp_path, zipped(CONTENT)))) == str(tmp_path / "far" / "away" / "abc")


def test_the_loop_of_a_consumer_turns_meanwhile() -> None:
    assert packages.unpack.policy.run_in == "thread"


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(tmp_path, zipped(CONTENT))
    monkeypatch.chdir(tmp_path / "incoming")
    assert packages.unpack("abc/") == str(tmp_path / "archive" / "abc")


def test_an_archive_on_another_filesystem_is_refused(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second filesystem here")
    package = deliver(tmp_path, zipped(CONTENT))
    with pytest.raises(PackageError, match="RQ_LITE_ARCHIVE"):
        packages.archive(package, other)
    assert package.is_dir()


def test_modes_are_not_taken_over(tmp_path: Path) -> None:
    package = deliver(tmp_path, with_entry("tool", stat.S_IFREG | 0o6777))
    tool = Path(packages.unpack(str(package))) / "content" / "tool"
    assert stat.S_IMODE(tool.stat().st_mode) & 0o7111 == 0


@pytest.mark.parametrize("first", ["./", "././", ""])
def test_names_may_begin_with_the_package_itself(tmp_path: Path, first: str) -> None:
    data = zipped({**({first: b""} if first else {}), f"{first}a.txt": b"1", f"{first}d/": b"", f"{first}d/b": b"2"})
    done = Path(packages.unpack(str(deliver(tmp_path, data))))
    assert tree(done) == archived(data, {"a.txt": b"1", "d/b": b"2"})


def unmarked(*names: bytes) -> bytes:
    """A ZIP of files with these names, without the mark of UTF-8."""
    letters = [chr(ord("A") + number) * len(name) for number, name in enumerate(names)]
    data = zipped(dict.fromkeys(letters, b"data"))
    for letter, name in zip(letters, names, strict=True):
        data = data.replace(letter.encode(), name)
    return data


GERMAN = "d\u00e9/Gr\u00f6\u00dfe.txt"
CHINESE = "\u62a5\u544a/\u8a97\u7e17.txt"
assert b"\\" in CHINESE.encode("gbk")


@pytest.mark.parametrize(
    ("setting", "names", "found"),
    [
        (None, [GERMAN.encode(), b"plain"], {GERMAN, "plain"}),
        (None, [CHINESE.encode()], {CHINESE}),
        ("gbk", [GERMAN.encode()], {GERMAN}),  # valid UTF-8 is UTF-8
        ("gbk", [CHINESE.encode("gbk")], {CHINESE}),
        ("gbk", [b"\xc4\xa3", CHINESE.encode("gbk")], {"\u6a21", CHINESE}),  # the first is valid UTF-8, too
        ("cp437", [GERMAN.encode("cp437")], {GERMAN}),
        ("shift_jis", ["\u8868/\u30bd.txt".encode("shift_jis")], {"\u8868/\u30bd.txt"}),
    ],
)
def test_names_without_the_mark_of_utf8(
    tmp_path: Path, setting: str | None, names: list[bytes], found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting:
        monkeypatch.setenv("RQ_LITE_ZIP_ENCODING", setting)
    data = unmarked(*names)
    done = Path(packages.unpack(str(deliver(tmp_path, data))))
    assert tree(done) == archived(data, dict.fromkeys(found, b"data"))


def test_a_name_with_the_mark_needs_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_LITE_ZIP_ENCODING", "gbk")
    data = zipped({GERMAN: b"x"})
    assert tree(Path(packages.unpack(str(deliver(tmp_path, data))))) == archived(data, {GERMAN: b"x"})


@pytest.mark.parametrize(
    ("setting", "name", "reason"),
    [
        (None, CHINESE.encode("gbk"), r"named b'.*', which is not UTF-8, .*: set RQ_LITE_ZIP_ENCODING .*gbk"),
        (None, GERMAN.encode("cp437"), "which is not UTF-8, .*: set RQ_LITE_ZIP_ENCODING "),
        ("ascii", b"\xff", "which is not ascii, the RQ_LITE_ZIP_ENCODING of this worker"),
        ("klingon", b"\xff", "RQ_LITE_ZIP_ENCODING is 'klingon', which is not an encoding"),
        ("base64", b"\xff", "RQ_LITE_ZIP_ENCODING is 'base64', which is not an encoding"),
        ("gbk", b"../" + CHINESE.encode("gbk"), "leaves the package by its .."),
        ("utf-7", b"\xff+AC4ALgAv-evil", "which is not utf-7"),
        ("unicode_escape", rb"\x2e\x2e\x2fevil" + b"\xff", "leaves the package by its .."),
        ("unicode_escape", rb"a\x5cevil" + b"\xff", "has a backslash"),
    ],
)
def test_names_in_an_unknown_encoding_are_refused_with_the_way_out(
    tmp_path: Path, setting: str | None, name: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting:
        monkeypatch.setenv("RQ_LITE_ZIP_ENCODING", setting)
    package = deliver(tmp_path, data := unmarked(name))
    with pytest.raises(PackageError, match=reason) as failure:
        packages.unpack(str(package))
    assert str(package / "abc.zip") in str(failure.value)
    assert tree(tmp_path) == {"incoming/abc/abc.zip": data}


# --- what is refused

BIG = zipped({"zeros": bytes(20_000_000)})
PLAIN = zipped({"name": b"some data that is here"}, zipfile.ZIP_STORED)
ATTACKS: dict[str, tuple[bytes, str]] = {
    "up": (zipped({"../evil": b"x"}), "leaves the package by its .."),
    "up and down": (zipped({"a/../../evil": b"x"}), "leaves the package by its .."),
    "up at the end": (zipped({"a/..": b"x"}), "leaves the package by its .."),
    "absolute": (zipped({"/tmp/evil": b"x"}), "absolute path"),
    "double slash": (zipped({"a//b": b"x"}), "without a name in its path"),
    "dot": (zipped({".": b"x"}), "folder named . in its path"),
    "dot between": (zipped({"a/./b": b"x"}), "folder named . in its path"),
    "dot at the end": (zipped({"a/.": b"x"}), "folder named . in its path"),
    "dot and up": (zipped({"./../evil": b"x"}), "leaves the package by its .."),
    "dot and absolute": (zipped({".//evil": b"x"}), "absolute path"),
    "dot and drive": (zipped({"./C:evil": b"x"}), "names a drive"),
    "same name with and without a dot": (zipped({"./a": b"x", "a": b"y"}), "twice"),
    "no name": (zipped({"": b"x"}), "without a name"),
    "backslashes": (zipped({"..\\..\\evil": b"x"}), "has a backslash"),
    "drive": (zipped({"C:evil": b"x"}), "names a drive"),
    "NUL": (zipped({"good\0/../evil": b"x"}), "has a control character"),
    "newline": (zipped({"a\nb": b"x"}), "has a control character"),
    "second is bad": (zipped({"good": b"x", "../evil": b"x"}), "leaves the package by its .."),
    "long name": (zipped({"n" * 256: b"x"}), "too long or too deep"),
    "long name in two-byte letters": (zipped({"ü" * 128: b"x"}), "too long or too deep"),
    "deep": (zipped({"d/" * 32 + "x": b"x"}), "too long or too deep"),
    "symlink": (with_entry("link", stat.S_IFLNK | 0o777, b"/etc/passwd"), "link or another special"),
    "pipe": (with_entry("pipe", stat.S_IFIFO | 0o666), "link or another special"),
    "device": (with_entry("null", stat.S_IFCHR | 0o666), "link or another special"),
    "folder that is a file": (with_entry("a/", stat.S_IFREG | 0o666, b""), "link or another special"),
    "file that is a folder": (with_entry("a", stat.S_IFDIR | 0o777, b""), "link or another special"),
    "bomb": (BIG, "unpacks to more than the 10,485,760"),
    "encrypted": (altered(PLAIN, 6, 8, b"\1\0"), "which is encrypted"),
    "method": (altered(PLAIN, 8, 10, b"\x0c\0"), "whose compression is not supported"),
    "duplicate": (twice("same", "same"), "twice"),
    "empty files in folders": (
        zipped({"/".join([f"{n}", *"abcdefghijklmnopqrstuvwxyz0123"]) + "/e": b"" for n in range(1000)}),
        "more than 10,000 entries",
    ),
    "file and folder, same name": (twice("same", "same/"), "twice"),
    "file and folder above": (twice("same", "same/name"), "both as a file and as a folder"),
    "folder above and file": (twice("same/name", "same"), "both as a file and as a folder"),
    "truncated": (zipped(CONTENT)[:-30], "broken"),
    "nothing": (b"", "broken"),
    "no ZIP": (b"hello" * 100, "broken"),
    "damaged": (PLAIN.replace(b"some data", b"same data"), "broken"),
    "other name inside": (PLAIN.replace(b"name", b"eman", 1), "broken"),
    "list before the beginning": (
        PLAIN[:-10] + b"\xff\xff\xff\0" + PLAIN[-6:],
        "broken",
    ),
    "says smaller": (altered(PLAIN, 22, 24, b"\5\0\0\0"), "broken"),
    "says larger": (altered(PLAIN, 22, 24, b"\xff\0\0\0"), "broken|bytes long"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(tmp_path: Path, name: str) -> None:
    data, reason = ATTACKS[name]
    package = deliver(tmp_path, data)
    for _ in range(2):
        with pytest.raises(PackageError, match=reason) as failure:
            packages.unpack(str(package))
        assert str(package / "abc.zip") in str(failure.value)
        assert tree(tmp_path) == {"incoming/abc/abc.zip": data}
        assert [path.name for path in package.iterdir()] == ["abc.zip"]
        assert list((tmp_path / "archive").iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (replace(packages.LIMITS, entries=2), "3 entries, more than 2"),
        (replace(packages.LIMITS, entries=4), "more than 4 entries, with the folders"),
        (replace(packages.LIMITS, directory=100), "list of entries is larger than 100 bytes"),
        (replace(packages.LIMITS, written=1_024_000), "more than the 1,024,000 bytes"),
        (replace(packages.LIMITS, ratio=1, ratio_from=1000), "more than the"),
    ],
)
def test_limits(tmp_path: Path, limits: packages.Limits, reason: str) -> None:
    data = zipped(CONTENT)
    package = deliver(tmp_path, data)
    with pytest.raises(PackageError, match=reason):
        packages.archive(package, tmp_path / "archive", limits)
    assert tree(tmp_path) == {"incoming/abc/abc.zip": data}


def test_the_limit_on_bytes_is_not_one_less(tmp_path: Path) -> None:
    package = deliver(tmp_path, zipped(CONTENT))
    packages.archive(package, tmp_path / "archive", replace(packages.LIMITS, written=1_024_005 + 5 * packages.BLOCK))


def test_entries_that_share_their_data_count_each_time(tmp_path: Path) -> None:
    """A list that names the same bytes many times; newer versions of zipfile notice by themselves."""
    data = zipped({"a": bytes(1_000_000)})
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry, tail = data[start:end], bytearray(data[end:])
    tail[8:12] = (20).to_bytes(2, "little") * 2
    tail[12:16] = (20 * len(entry)).to_bytes(4, "little")
    package = deliver(tmp_path, data[:start] + entry * 20 + bytes(tail))
    with pytest.raises(PackageError):
        packages.unpack(str(package))
    assert [path.name for path in package.iterdir()] == ["abc.zip"]


def test_a_second_name_in_an_extra_field_is_checked_too(tmp_path: Path) -> None:
    """A "Unicode path", which newer versions of zipfile put in the place of the name."""
    file, name, evil = io.BytesIO(), b"good", b"../../evil"
    extra = b"\1" + zlib.crc32(name).to_bytes(4, "little") + evil
    with zipfile.ZipFile(file, "w") as target:
        info = zipfile.ZipInfo(name.decode())
        info.extra = b"up" + len(extra).to_bytes(2, "little") + extra
        target.writestr(info, b"data")
    package = deliver(tmp_path, file.getvalue())
    with suppress(PackageError):
        packages.unpack(str(package))
    left = {"incoming/abc/abc.zip"}, {"archive/abc/abc.zip", "archive/abc/content/good"}
    assert set(tree(tmp_path)) in left


def make_link(package: Path) -> None:
    (package / "abc.zip").rename(package.parent / "real.zip")
    (package / "abc.zip").symlink_to("../real.zip")


def make_hard_link(package: Path) -> None:
    (package.parent / "other.zip").hardlink_to(package / "abc.zip")


def make_pipe(package: Path) -> None:
    (package / "abc.zip").unlink()
    os.mkfifo(package / "abc.zip")


def make_device(package: Path) -> None:
    (package / "abc.zip").unlink()
    try:
        os.mknod(package / "abc.zip", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except OSError:
        pytest.skip("no devices can be made here")


def make_linked_folder(package: Path) -> None:
    package.rename(package.with_name("real"))
    package.symlink_to("real")


def make_file(package: Path) -> None:
    (package / "abc.zip").unlink()
    package.rmdir()
    package.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (make_link, "cannot be read"),
        (make_hard_link, "not a regular file with this name alone"),
        (make_pipe, "not a regular file"),
        (make_device, "not a regular file|cannot be read"),
        (lambda package: (package / "abc.zip").unlink(), "cannot be read"),
        (make_linked_folder, "not a folder"),
        (make_file, "not a folder"),
    ],
)
def test_what_is_no_package(tmp_path: Path, spoil: Callable[[Path], None], reason: str) -> None:
    package = deliver(tmp_path, zipped(CONTENT))
    spoil(package)
    with pytest.raises(PackageError, match=reason):
        packages.unpack(str(package))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("abc-downloading", "still being received"), (".abc", "not a name"), ("..", "not a name"), ("other", "no such")],
)
def test_names_that_are_no_package(tmp_path: Path, name: str, reason: str) -> None:
    deliver(tmp_path, zipped(CONTENT), "abc-downloading")
    with pytest.raises(PackageError, match=reason):
        packages.unpack(str(tmp_path / "incoming" / name))


def test_another_package_of_an_archived_name_stays(tmp_path: Path) -> None:
    data = zipped(CONTENT)
    packages.unpack(str(deliver(tmp_path, data)))
    second = deliver(tmp_path, PLAIN)
    with pytest.raises(PackageError, match="already holds"):
        packages.unpack(str(second))
    assert tree(second) == {"abc.zip": PLAIN}
    assert tree(tmp_path / "archive" / "abc") == archived(data)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    package = deliver(tmp_path, zipped(CONTENT))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        packages.unpack(str(package))
    assert [path.name for path in package.iterdir()] == ["abc.zip"]


# --- what the sender does meanwhile


def swap_folder(base: Path) -> None:
    (base / "incoming" / "abc").rename(base / "incoming" / "hidden")
    (base / "incoming" / "abc").symlink_to(base / "outside")


def swap_file(base: Path) -> None:
    (base / "incoming" / "abc" / "abc.zip").rename(base / "incoming" / "old.zip")
    (base / "incoming" / "abc" / "abc.zip").write_bytes(PLAIN)


def swap_file_for_link(base: Path) -> None:
    (base / "incoming" / "abc" / "abc.zip").rename(base / "incoming" / "old.zip")
    (base / "incoming" / "abc" / "abc.zip").symlink_to(base / "outside" / "secret")


def swap_file_for_folder(base: Path) -> None:
    (base / "incoming" / "abc" / "abc.zip").rename(base / "incoming" / "old.zip")
    (base / "incoming" / "abc" / "abc.zip").mkdir()


def write_to_file(base: Path) -> None:
    with (base / "incoming" / "abc" / "abc.zip").open("ab") as file:
        file.write(b"more")


def swap_place(base: Path) -> None:
    (base / "archive" / ".abc").rename(base / "archive" / "moved")
    (base / "archive" / ".abc").symlink_to(base / "outside")


def swap_content(base: Path) -> None:
    (base / "archive" / ".abc" / "content").rename(base / "archive" / "moved")
    (base / "archive" / ".abc" / "content").symlink_to(base / "outside")


def swap_archive(base: Path) -> None:
    (base / "archive").rename(base / "moved")
    (base / "archive").symlink_to(base / "outside")


# The last three are beyond what a sender may do: the archive is not theirs to write in.
@pytest.mark.parametrize(
    ("swap", "reason"),
    [
        (swap_folder, None),
        (swap_file, "was changed while"),
        (swap_file_for_link, "was changed while"),
        (swap_file_for_folder, "was changed while"),
        (write_to_file, "was changed while"),
        (swap_place, "archive was changed"),
        (swap_content, "was changed while"),
        (swap_archive, "archive was changed"),
    ],
)
def test_nothing_is_written_outside_whatever_is_swapped_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], None], reason: str | None
) -> None:
    package, outside = deliver(tmp_path, data := zipped(CONTENT)), tmp_path / "outside"
    (outside / "content").mkdir(parents=True)
    (outside / "secret").write_text("secret")
    real, written = packages.write_entry, 0

    def swapping(*given: Any) -> None:
        nonlocal written
        written += 1
        if written == 2:
            swap(tmp_path)
        real(*given)

    monkeypatch.setattr(packages, "write_entry", swapping)
    if reason is None:
        assert tree(Path(packages.unpack(str(package)))) == archived(data)
    else:
        with pytest.raises(PackageError, match=reason):
            packages.unpack(str(package))
        assert any(found.startswith(data) for found in tree(tmp_path).values())  # nothing is lost
    assert written == 3
    assert tree(outside) == {"secret": b"secret"}


@pytest.mark.parametrize("name", [".unpacking", "content"])
def test_a_link_beside_the_zip_leads_nowhere(tmp_path: Path, name: str) -> None:
    package, outside = deliver(tmp_path, data := zipped(CONTENT)), tmp_path / "outside"
    outside.mkdir()
    (package / name).symlink_to(outside)
    assert tree(Path(packages.unpack(str(package)))) == archived(data)
    assert list(outside.iterdir()) == []


# --- killed, and two at once

# For each file operation of a run: a child process that ends just before it, then a run that goes through.
KILLED = """
import itertools, os, shutil, sys
from pathlib import Path
from workers import packages
from workers.folders import Folder

base, data = Path(sys.argv[1]), Path(sys.argv[1], "data").read_bytes()
package = base / "incoming" / "abc"
for step in itertools.count(1):
    package.mkdir(parents=True)
    (package / "abc.zip").write_bytes(data)
    child = os.fork()
    if child == 0:
        left = step
        def hook(event, _):
            global left
            if event == "open" or event.startswith(("os.", "fcntl.")):
                left -= 1
                if left == 0:
                    os._exit(9)
        sys.addaudithook(hook)
        packages.unpack(str(package))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    places = package, base / "archive" / ".abc", base / "archive" / "abc"
    there = [(place / "abc.zip").exists() for place in places]
    assert sum(there) == 1, (step, there)
    assert packages.unpack(str(package)) == str(base / "archive" / "abc")
    done = sorted(str(path.relative_to(base / "archive")) for path in (base / "archive").rglob("*"))
    assert done == ["abc", "abc/abc.zip", "abc/content", "abc/content/a", "abc/content/b", "abc/content/b/c"], done
    assert not list((base / "incoming").iterdir())
    assert (base / "archive/abc/content/b/c").read_bytes() == b"c" * 1000
    shutil.rmtree(base / "archive")
    if status == 0:
        print(step)
        break
    assert status == 9, status
"""


def test_killed_before_any_step_the_next_run_finishes(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(zipped({"a": b"a", "b/c": b"c" * 1000}))
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 15  # so many places to be killed at


@pytest.mark.parametrize("moved", [False, True])
def test_what_a_killed_run_has_left_is_unpacked_afresh(tmp_path: Path, moved: bool) -> None:
    data = zipped(CONTENT)
    package, place = deliver(tmp_path, data), tmp_path / "archive" / ".abc"
    (place / "content" / "half").mkdir(parents=True)
    (place / "content" / "readme.txt").write_bytes(b"hel")
    if moved:
        (package / "abc.zip").rename(place / "abc.zip")
    assert tree(Path(packages.unpack(str(package)))) == archived(data)
    assert not package.exists()
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["abc"]


def test_what_a_killed_run_has_left_goes_though_its_package_was_withdrawn(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "archive" / ".abc" / "content" / "half").mkdir(parents=True)
    with pytest.raises(PackageError, match="no such package"):
        packages.unpack(str(tmp_path / "incoming" / "abc"))
    assert list((tmp_path / "archive").iterdir()) == []


def test_what_is_archived_stays_whole_though_the_disk_fails_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = zipped(CONTENT)
    package, done = deliver(tmp_path, data), tmp_path / "archive" / "abc"

    def failing(folder: Folder) -> None:
        if done.exists():
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Folder, "sync", failing)
    with pytest.raises(OSError, match="Input/output"):
        packages.unpack(str(package))
    assert tree(done) == archived(data)
    monkeypatch.undo()
    assert packages.unpack(str(package)) == str(done)
    assert not package.exists()


def test_what_else_was_delivered_stays(tmp_path: Path) -> None:
    package = deliver(tmp_path, zipped(CONTENT))
    (package / "note").write_text("by the way")
    for _ in range(2):
        assert packages.unpack(str(package)) == str(tmp_path / "archive" / "abc")
    assert tree(tmp_path / "incoming") == {"abc/note": b"by the way"}


def test_many_threads_at_once(tmp_path: Path) -> None:
    data = zipped(CONTENT)
    package = deliver(tmp_path, data)
    start = threading.Barrier(8)

    def run(_: int) -> str:
        start.wait()
        return packages.unpack(str(package))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(run, range(8))) == {str(tmp_path / "archive" / "abc")}
    assert tree(tmp_path / "archive" / "abc") == archived(data)


def test_many_processes_at_once(tmp_path: Path) -> None:
    data = zipped(CONTENT)
    package = deliver(tmp_path, data)
    program = "import sys; from workers import packages; input(); packages.unpack(sys.argv[1])"
    command = [sys.executable, "-c", program, str(package)]
    runs = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) for _ in range(4)]
    for run in runs:  # each waits at input() until now
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.close()
    assert [run.wait(60) for run in runs] == [0] * 4
    assert tree(tmp_path / "archive" / "abc") == archived(data)


def test_a_second_run_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = deliver(tmp_path, zipped(CONTENT))
    refused = threading.Event()
    real = Folder.try_lock

    def noticed(folder: Folder) -> bool:
        got = real(folder)
        if not got:
            refused.set()
        return got

    monkeypatch.setattr(Folder, "try_lock", noticed)
    (tmp_path / "archive").mkdir()
    with ThreadPoolExecutor(1) as pool, Folder.at(tmp_path / "archive") as shelf:
        with packages.exclusive(shelf, ".abc"):
            second = pool.submit(packages.unpack, str(package))
            assert refused.wait(30)
            assert package.is_dir()
        assert second.result(30) == str(tmp_path / "archive" / "abc")


# --- producer/folder.py


def test_the_feed_takes_complete_packages_only(tmp_path: Path) -> None:
    for name in ("abc", "abd-downloading"):
        deliver(tmp_path, PLAIN, name)
    (tmp_path / "incoming" / "empty").mkdir()
    incoming = tmp_path / "incoming"
    found = folder.packages(incoming)
    assert next(found) == incoming / "abc"
    (incoming / "abd-downloading" / "abd-downloading.zip").rename(incoming / "abd-downloading" / "abd.zip")
    (incoming / "abd-downloading").rename(incoming / "abd")
    assert next(found) == incoming / "abd"

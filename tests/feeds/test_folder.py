from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import watchfiles

from rq_lite.errors import SourceError
from rq_lite.feeds import folder as module
from rq_lite.feeds.folder import look, watch

DEADLINE = 60.0  # seconds, far above what anything here takes


def receive(folder: Path, name: str, content: bytes = b"PK") -> Path:
    """The folder of a package whose transfer is under way, its ZIP already whole."""
    receiving = folder / f"{name}-downloading"
    receiving.mkdir()
    (receiving / f"{name}.zip").write_bytes(content)
    return receiving


def deliver(folder: Path, name: str, content: bytes = b"PK") -> None:
    receive(folder, name, content).rename(folder / name)


def until(looks: Iterator[dict[str, str]], wanted: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    end = time.monotonic() + DEADLINE
    for packages in looks:
        if wanted(packages):
            return packages
        assert time.monotonic() < end, f"still only {packages}"
    raise AssertionError("the watch has ended")


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_only_complete_packages_are_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert look(tmp_path) == {}
    deliver(tmp_path, "one")
    deliver(tmp_path, "two words.zip")
    receiving = receive(tmp_path, "three")
    (tmp_path / "a file").write_bytes(b"")
    (tmp_path / "-downloading").mkdir()
    assert set(look(tmp_path)) == {"one", "two words.zip"}
    receiving.rename(tmp_path / "three")
    assert set(look(tmp_path)) == {"one", "two words.zip", "three"}
    assert caplog.messages == []


def test_the_identity_stays_until_the_package_is_delivered_again(tmp_path: Path) -> None:
    deliver(tmp_path, "one")
    first = look(tmp_path)["one"]
    assert look(tmp_path)["one"] == first
    (tmp_path / "one" / "other.txt").write_bytes(b"")
    assert look(tmp_path)["one"] == first

    again = receive(tmp_path, "one")  # the same bytes, of the same time
    state = (tmp_path / "one" / "one.zip").stat()
    os.utime(again / "one.zip", ns=(state.st_atime_ns, state.st_mtime_ns))
    shutil.rmtree(tmp_path / "one")
    again.rename(tmp_path / "one")
    second = look(tmp_path)["one"]
    assert second != first

    file = tmp_path / "one" / "one.zip"
    os.utime(file, ns=(0, 5))
    third = look(tmp_path)["one"]
    assert third != second
    with file.open("ab") as end:
        end.write(b"more")
    os.utime(file, ns=(0, 5))
    assert look(tmp_path)["one"] != third


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    watched = tmp_path / "watched"
    outside.mkdir()
    watched.mkdir()
    deliver(outside, "linked")
    (watched / "linked").symlink_to(outside / "linked")
    (watched / "inner").mkdir()
    (watched / "inner" / "inner.zip").symlink_to(outside / "linked" / "linked.zip")
    assert look(watched) == {}


def test_what_is_no_package_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deliver(tmp_path, "good")
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / "odd.zip").mkdir(parents=True)
    warned: set[str] = set()
    for _ in range(3):
        assert set(look(tmp_path, warned)) == {"good"}
    assert sorted(caplog.messages) == [
        f"'empty' in {tmp_path} is not a package: it has no empty.zip",
        f"'odd' in {tmp_path} is not a package: odd.zip is not a file",
    ]
    (tmp_path / "empty" / "empty.zip").write_bytes(b"PK")
    assert set(look(tmp_path, warned)) == {"good", "empty"}
    assert warned == {"odd"}


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are always UTF-8")
def test_a_name_that_is_not_utf8_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deliver(tmp_path, os.fsdecode(b"caf\xe9"))
    deliver(tmp_path, "café")
    assert set(look(tmp_path)) == {"café"}
    assert ["caf" in message and "not a package" in message for message in caplog.messages] == [True]


def test_a_package_may_vanish_during_the_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(tmp_path, "one")
    deliver(tmp_path, "two")
    identity = module.identity

    def identity_too_late(file: Path) -> str:
        if file.name == "one.zip":
            shutil.rmtree(file.parent)
        return identity(file)

    monkeypatch.setattr(module, "identity", identity_too_late)
    assert set(look(tmp_path)) == {"two"}
    assert caplog.messages == []


def test_a_missing_folder_is_an_error(tmp_path: Path, stop: threading.Event) -> None:
    with pytest.raises(SourceError, match="missing, the watched folder: No such file"):
        look(tmp_path / "missing")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match="file, the watched folder: Not a directory"):
        next(watch(tmp_path / "file", stop=stop))


def test_a_folder_that_goes_missing_ends_the_watch(tmp_path: Path, stop: threading.Event) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    looks = watch(watched, stop=stop, rescan=0.01)
    assert next(looks) == {}
    watched.rmdir()
    with pytest.raises(SourceError, match="watched, the watched folder: No such file"):
        until(looks, bool)


def test_the_watch_sees_come_and_go(tmp_path: Path, stop: threading.Event) -> None:
    deliver(tmp_path, "before")
    receiving = receive(tmp_path, "one")
    looks = watch(tmp_path, stop=stop, rescan=0.05)
    assert set(next(looks)) == {"before"}
    receiving.rename(tmp_path / "one")
    until(looks, lambda packages: set(packages) == {"before", "one"})
    shutil.rmtree(tmp_path / "before")
    until(looks, lambda packages: set(packages) == {"one"})
    stop.set()
    assert len(list(looks)) <= 1


def test_notifications_suffice(tmp_path: Path, stop: threading.Event) -> None:
    """A rescan that never comes; packages arrive until one is noticed, as the watch begins at some time."""
    found = threading.Event()

    def deliver_more() -> None:
        for number in itertools.count():
            deliver(tmp_path, str(number))
            if found.wait(0.05):
                return

    looks = watch(tmp_path, stop=stop, rescan=100 * DEADLINE)
    assert next(looks) == {}
    thread = threading.Thread(target=deliver_more)
    thread.start()
    try:
        assert next(looks)
    finally:
        found.set()
        thread.join()


def test_a_zip_that_comes_later_is_found_by_the_rescan(tmp_path: Path, stop: threading.Event) -> None:
    (tmp_path / "late").mkdir()
    looks = watch(tmp_path, stop=stop, rescan=0.05)
    assert next(looks) == {}
    (tmp_path / "late" / "late.zip").write_bytes(b"PK")
    until(looks, lambda packages: set(packages) == {"late"})


@pytest.mark.parametrize("error", [OSError("no space for watches"), RuntimeError("too many open files")])
def test_without_notifications_the_rescan_goes_on(
    tmp_path: Path,
    stop: threading.Event,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_paths: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(watchfiles, "watch", refuse)
    looks = watch(tmp_path, stop=stop, rescan=0.01)
    assert next(looks) == {}
    deliver(tmp_path, "one")
    until(looks, lambda packages: set(packages) == {"one"})
    assert [str(error) in message for message in caplog.messages] == [True]
    stop.set()
    assert len(list(looks)) <= 1


def test_a_stop_ends_a_waiting_watch(tmp_path: Path, stop: threading.Event) -> None:
    looks = watch(tmp_path, stop=stop, rescan=100 * DEADLINE)
    next(looks)
    thread = threading.Thread(target=lambda: list(looks), daemon=True)
    thread.start()
    stop.set()
    thread.join(DEADLINE)
    assert not thread.is_alive()

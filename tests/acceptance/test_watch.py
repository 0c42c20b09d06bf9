"""`rq-lite produce --watch`: each package that is delivered is put once, whoever watches."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from tests.acceptance.conftest import Lab, package
from tests.conftest import until
from tests.warm import Process


@pytest.fixture
def inbox(lab: Lab) -> Path:
    folder = lab.folder / "inbox"
    folder.mkdir()
    return folder


def watcher(lab: Lab, *options: str) -> Process:
    return lab.producer("do", "--watch", "inbox", *options)


def names(lab: Lab) -> list[str]:
    """The packages that were put, in their order."""
    return [Path(argument).name for argument in lab.arguments()]


def until_put(lab: Lab, *expected: str) -> None:
    until(lambda: sorted(names(lab)) == sorted(expected), f"{expected} put")


def until_among(lab: Lab, name: str) -> None:
    until(lambda: name in names(lab), f"{name} put")


def watches(pid: int) -> bool:
    """Whether the process has asked the kernel for changes."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if "inotify" in str(file.readlink()):
                return True
    return False


def test_each_package_is_put_once_though_it_is_seen_often(lab: Lab, inbox: Path) -> None:
    package(inbox, "a")
    process = watcher(lab)
    until_put(lab, "a")
    # Each is a change in the folder, after which the watcher looks at everything in it.
    for name in ("b", "c"):
        package(inbox, name)
        until_among(lab, name)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert names(lab) == ["a", "b", "c"]
    assert lab.arguments() == [str(inbox.resolve() / name) for name in "abc"]
    assert "3 jobs put into 'work'" in err


def test_a_watcher_that_was_killed_goes_on_where_it_was(lab: Lab, inbox: Path) -> None:
    package(inbox, "a")
    first = watcher(lab)
    until_put(lab, "a")
    first.kill()
    first.wait()
    package(inbox, "b")
    second = watcher(lab)
    until_put(lab, "a", "b")
    package(inbox, "c")
    until_put(lab, "a", "b", "c")
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 0
    assert names(lab) == ["a", "b", "c"]


def test_a_package_is_put_when_it_is_renamed_and_again_when_it_is_delivered_again(lab: Lab, inbox: Path) -> None:
    unfinished = inbox / "a-downloading"
    unfinished.mkdir()
    (unfinished / "a.zip").write_bytes(b"half")
    (unfinished / "a-downloading.zip").write_bytes(b"half")
    watcher(lab)
    package(inbox, "b")
    until_put(lab, "b")
    unfinished.rename(inbox / "a")
    until_among(lab, "a")
    assert names(lab) == ["b", "a"]
    package(inbox, "b", b"other content")
    until(lambda: names(lab).count("b") == 2, "b put again")
    package(inbox, "c")
    until_among(lab, "c")
    assert names(lab) == ["b", "a", "b", "c"]


def test_two_watchers_put_each_package_once(lab: Lab, inbox: Path) -> None:
    processes = [watcher(lab), watcher(lab)]
    until(lambda: all(watches(process.pid) for process in processes), "both watch")
    for i in range(100):
        package(inbox, f"p{i}")
    until(lambda: len({*names(lab)}) == 100, "all put")
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(names(lab)) == 100


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_watcher_can_be_stopped_while_the_queue_is_full(lab: Lab, inbox: Path, number: signal.Signals) -> None:
    for name in ("a", "b"):
        package(inbox, name)
    process = watcher(lab, "--maxsize", "1")
    lab.until_blocked(1)
    process.send_signal(number)
    assert process.wait(30) == 0
    # The one that was not put is found again.
    watcher(lab, "--maxsize", "2")
    until_put(lab, "a", "b")


def test_a_watcher_can_be_stopped_while_it_keeps_to_its_rate(lab: Lab, inbox: Path) -> None:
    for name in ("a", "b"):
        package(inbox, name)
    process = watcher(lab, "--rate", "1/h")
    until_put(lab, "a")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert names(lab) == ["a"]


def test_a_folder_that_is_not_there_is_an_error_of_one_line(lab: Lab) -> None:
    made = lab.produce("do", "--watch", "nowhere")
    assert (made.returncode, made.stderr) == (2, "rq-lite: nowhere: No such file or directory\n")
    (lab.folder / "file").touch()
    made = lab.produce("do", "--watch", "file")
    assert (made.returncode, made.stderr) == (2, "rq-lite: file is a file, not a folder to watch\n")


def test_a_folder_that_goes_missing_is_no_wrong_usage(lab: Lab, inbox: Path) -> None:
    process = watcher(lab)
    until(lambda: watches(process.pid), "it watches")
    inbox.rmdir()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == f"rq-lite: {inbox.resolve()}, the watched folder: No such file or directory"
    assert "0 jobs put" not in err

"""Feeds whose producers get in each other's way, at the moments that a test chooses."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker
from rq_lite.broker.producing import Producing
from rq_lite.client.queue import Queue
from rq_lite.client.task import Task
from rq_lite.errors import QueueFull, SourceError
from rq_lite.feeds import feeder as feed_module
from rq_lite.feeds import folder
from rq_lite.feeds.feeder import Feeder
from rq_lite.feeds.sources import START, open_source
from rq_lite.model.message import decode
from tests.steps import KEY

Looks = Callable[[], Iterator[dict[str, str]]]


@pytest.fixture
def unpack(queue: Queue) -> Task[Any, Any]:
    return queue.task(name="unpack")(lambda path: None)


class Watched:
    """A folder with two producers: what each sees of it, and when, is what the test says."""

    def __init__(self, path: Path, task: Task[Any, Any], broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.task = task
        self.broker = broker
        self.number = 0
        self.monkeypatch = monkeypatch

    def deliver(self, name: str) -> dict[str, str]:
        """What is to be seen once a package (again) is there."""
        self.number += 1
        package = self.path / name
        package.mkdir(exist_ok=True)
        (package / f"{name}.zip").write_text("x" * self.number)
        return self.look()

    def remove(self, name: str) -> dict[str, str]:
        shutil.rmtree(self.path / name)
        return self.look()

    def look(self) -> dict[str, str]:
        return folder.look(self.path)

    def produce(self, looks: Looks) -> None:
        """A producer that sees this, from its start to its end."""
        self.monkeypatch.setattr(feed_module, "watch", lambda *_, **__: looks())
        Feeder(self.task, batch=10).feed_folder(self.path, threading.Event(), name="w")

    def other(self, *steps: Callable[[], dict[str, str]]) -> None:
        """Another producer: each step happens, and is seen, when it looks."""
        self.produce(lambda: (step() for step in steps))

    @property
    def put(self) -> list[str]:
        """The names of the packages, in the order of their puts."""
        entries = self.broker.read(("LRANGE", KEY.pending, 0, -1))[0]
        return [Path(str(decode(entry)[0].args[0])).name for entry in reversed(entries)]


@pytest.fixture
def watched(tmp_path: Path, unpack: Task[Any, Any], broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, unpack, broker, monkeypatch)


def test_a_package_that_comes_again_between_two_looks_of_another_producer_is_put_once(watched: Watched) -> None:
    def looks() -> Iterator[dict[str, str]]:
        yield watched.deliver("p")
        nothing = watched.remove("p")
        watched.other(lambda: nothing, lambda: watched.deliver("p"))
        yield nothing  # seen before the other put it again
        yield watched.look()

    watched.produce(looks)
    assert watched.put == ["p", "p"]


def test_a_name_of_a_package_cannot_write_on_the_terminal(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    evil = "x\x1b[31m\n\u202efake"
    watched.other(lambda: watched.deliver(evil))
    assert watched.put == [evil]
    (watched.path / evil / f"{evil}.zip").unlink()
    watched.other(watched.look)
    shown = r"x\x1b[31m\n\u202efake"
    assert caplog.messages == [
        f"put {shown}",
        f"'{shown}' in {watched.path} is not a package: it has no {shown}.zip",
    ]


def test_a_package_that_another_producer_has_put_and_seen_go_is_not_put_again(watched: Watched) -> None:
    def looks() -> Iterator[dict[str, str]]:
        present = watched.deliver("p")
        watched.other(watched.look, lambda: watched.remove("p"))
        yield present  # seen before the other put it

    watched.produce(looks)
    assert watched.put == ["p"]


def test_what_the_other_forgets_at_the_last_moment_is_not_put_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still there when this one looks at it before its put, and gone when the put reaches Redis."""
    looked: list[str] = []

    def is_still(package: Path, known: str) -> bool:
        here = folder.is_still(package, known)
        if not looked:
            looked.append(known)
            watched.other(watched.look, lambda: watched.remove("p"), watched.look)
        return here

    monkeypatch.setattr(feed_module, "is_still", is_still)
    present = watched.deliver("p")
    watched.other(lambda: present)
    assert watched.put == ["p"]


def test_a_package_that_was_replaced_while_its_put_waited_is_put_as_what_it_is_now(watched: Watched) -> None:
    def looks() -> Iterator[dict[str, str]]:
        old = watched.deliver("p")
        new = watched.deliver("p")
        yield old
        yield new

    watched.produce(looks)
    assert watched.put == ["p"]


def test_the_same_package_taken_away_and_back_is_a_delivery_of_its_own(watched: Watched, tmp_path: Path) -> None:
    def looks() -> Iterator[dict[str, str]]:
        yield watched.deliver("p")
        (tmp_path / "p").rename(tmp_path / "p-downloading")
        yield watched.look()
        (tmp_path / "p-downloading").rename(tmp_path / "p")
        yield watched.look()

    watched.produce(looks)
    assert watched.put == ["p", "p"]


def test_the_mark_of_a_package_that_is_gone_goes_after_a_while(
    watched: Watched, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(feed_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    marks: list[dict[str, str]] = []

    def looks() -> Iterator[dict[str, str]]:
        yield watched.deliver("p")
        nothing = watched.remove("p")
        for seconds in (0.0, 1.0, 60.0, 62.0, 63.0):
            clock[0] = seconds
            yield nothing
            marks.append(broker.puts.feed("q", "w"))

    watched.produce(looks)
    assert [len(each) for each in marks] == [1, 1, 1, 0, 0]
    assert all(each["p"].startswith("gone:") for each in marks[:3])
    assert watched.put == ["p"]


def test_a_feed_that_is_begun_by_two_at_once_belongs_to_one_file(
    queue: Queue, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a\n")
    other.write_text("b\n")
    task = queue.task(name="t")(lambda line: None)
    mark_feed = Producing.mark_feed

    def late(self: Producing, queue: str, name: str, moves: Any) -> int:
        monkeypatch.undo()
        feed_all(task, other)
        return mark_feed(self, queue, name, moves)

    monkeypatch.setattr(Producing, "mark_feed", late)
    with pytest.raises(SourceError, match="is not the file that feed 'r' was begun with"):
        feed_all(task, one)
    assert broker.read(("HGET", KEY.meta, "put"))[0] == b"1"


def test_the_end_of_a_source_does_not_set_a_feed_back(
    queue: Queue, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blank lines at its end; meanwhile another producer has put what was appended."""
    file = tmp_path / "a.txt"
    file.write_text("a\n")
    task = queue.task(name="t")(lambda line: None)
    feed_all(task, file)
    with file.open("a") as out:
        out.write("\n")
    mark_feed = Producing.mark_feed

    def late(self: Producing, queue: str, name: str, moves: Any) -> int:
        if moves[0][0] == "position":
            monkeypatch.undo()
            with file.open("a") as out:
                out.write("b\n")
            feed_all(task, file)
        return mark_feed(self, queue, name, moves)

    monkeypatch.setattr(Producing, "mark_feed", late)
    feed_all(task, file)
    feed_all(task, file)
    assert broker.read(("HGET", KEY.meta, "put"))[0] == b"2"


def feed_all(task: Task[Any, Any], file: Path) -> None:
    feeder = Feeder(task, batch=10)
    at = feeder.resumed_at("r", file)
    with open_source(str(file), start=at or START) as source:
        feeder.feed(source, resume="r", at=at, file=file)


def test_a_feed_of_a_file_that_was_rewritten_puts_no_piece_of_a_line(
    queue: Queue, broker: Broker, tmp_path: Path
) -> None:
    """Its first bytes, which tell one file from another, are the same."""
    queue = Queue("q", maxsize=0)
    operate.configure(broker, "q", maxsize=0)
    file = tmp_path / "numbers.txt"
    lines = [f"{number}\n" for number in range(500_000, 500_900)]
    file.write_text("".join(lines[:800]))
    task = queue.task(name="t")(lambda line: None)
    feed_all(task, file)
    for rewritten in (
        [*lines[:700], "x\n", *lines[700:]],  # the place is within a line now
        [*lines[:750], "0" * 6 + "\n", *lines[751:]],  # at the end of one
    ):
        file.write_text("".join(rewritten))
        before = broker.puts.feed("q", "r")["position"]
        with pytest.raises(SourceError, match="was changed before the place where the feed stopped, after line 800"):
            feed_all(task, file)
        assert broker.puts.feed("q", "r")["position"] == before
    file.write_text("".join(lines))
    feed_all(task, file)
    entries = broker.read(("LRANGE", KEY.pending, 0, -1))[0]
    assert [decode(entry)[0].args[0] + "\n" for entry in reversed(entries)] == lines


def test_a_feed_that_stopped_within_a_batch_goes_on_there(queue: Queue, broker: Broker, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a\n" + "".join(f'"{number}\n"\n' for number in range(30)))
    task = queue.task(name="t")(lambda a: None)
    feeder = Feeder(task, batch=7, wait=0)
    with open_source(str(file)) as source, pytest.raises(QueueFull):
        feeder.feed(source, resume="r")
    text = file.read_text()
    file.write_text(text.replace("9\n", "8\n"))
    with pytest.raises(SourceError, match="was changed"):
        feed_all(task, file)
    file.write_text(text)  # nothing of the other one was kept
    operate.configure(broker, "q", maxsize=0)
    feed_all(task, file)
    entries = broker.read(("LRANGE", KEY.pending, 0, -1))[0]
    assert [decode(entry)[0].kwargs["a"] for entry in reversed(entries)] == [f"{number}\n" for number in range(30)]

"""What a producer shows counts what is put, not what is read."""

from __future__ import annotations

import io

import pytest

from rq_lite.broker import Code, Put
from rq_lite.cli.progress import Meter
from rq_lite.client.put import Progress
from rq_lite.feeds.sources import Source, numbers, open_source


class Feed:
    """A meter of a hundred numbers, read in one batch, at a time that the test sets."""

    def __init__(self, start: str = "0:0") -> None:
        self.now = 0.0
        self.source: Source = numbers(100, start=start)
        self.progress = Progress()
        self.meter = Meter("q", self.progress, self.source, clock=lambda: self.now)
        self.progress.offsets = [int(item.position.split(":")[0]) for item in self.source]

    def put(self, jobs: int) -> None:
        self.progress.note(Put(Code.OK, jobs, 20, 20, 0))

    def shown(self, seconds: float) -> list[str]:
        self.now += seconds
        return [text for text in self.texts() if not text.startswith(("queue", "waited"))]

    def texts(self) -> list[str]:
        return [part.text for part in self.meter.parts()]


def test_the_queue_is_shown_once_it_is_known() -> None:
    feed = Feed()
    assert not any("queue" in text for text in feed.texts())
    feed.put(0)
    assert "queue 20/20" in feed.texts()
    feed.progress.note(Put(Code.OK, 1, 1, 0, 0))
    assert "queue 1 (unbounded)" in feed.texts()


def test_what_was_read_and_has_no_room_is_not_put() -> None:
    feed = Feed()
    assert feed.shown(1) == ["0 %", "0 put", "0/s"]
    feed.put(20)
    assert feed.shown(1) == ["20 %", "0:08 left", "20 put", "10/s"]
    feed.put(40)
    assert feed.shown(1) == ["60 %", "0:02 left", "60 put", "20/s"]


def test_a_slow_feed_has_a_rate_too() -> None:
    feed = Feed()
    feed.put(1)
    assert feed.shown(4) == ["1 %", "6:36 left", "1 put", "0.2/s"]


def test_while_nothing_moves_no_time_is_told() -> None:
    feed = Feed()
    feed.put(20)
    feed.shown(1)
    assert feed.shown(4) == ["20 %", "0:20 left", "20 put", "4/s"]
    for _ in range(3):
        told = feed.shown(5)
    assert told == ["20 %", "20 put", "0/s"]


def test_a_feed_that_goes_on_has_a_pace_of_its_own() -> None:
    feed = Feed("60:60")
    assert feed.shown(1) == ["60 %", "0 put", "0/s"]
    feed.put(20)
    assert feed.shown(1) == ["80 %", "0:02 left", "20 put", "10/s"]


def test_the_bar_is_that_of_the_source_not_of_the_queue() -> None:
    feed = Feed()
    feed.put(20)
    feed.now = 1.0
    assert feed.meter.view(100).plain == "q ━━──────── 20 % · 0:04 left · 20 put · 20/s · queue 20/20 · waited 0.0 s"
    assert feed.meter.line() == "q: 20 %, 0:04 left, 20 put, 20/s, queue 20/20, waited 0.0 s"


def test_a_source_of_unknown_size_has_neither_bar_nor_percentage() -> None:
    progress = Progress()
    progress.note(Put(Code.OK, 20, 20, 20, 0))
    meter = Meter("q", progress, open_source("-", stdin=io.BytesIO(b"1\n")), clock=lambda: 0.0)
    assert meter.view(100).plain == "q 20 put · 0/s · queue 20/20 · waited 0.0 s"
    assert "%" not in meter.line()


@pytest.mark.parametrize("name", ["q", "x" * 200])
def test_a_narrow_terminal_has_one_line_with_what_matters_most(name: str) -> None:
    feed = Feed()
    feed.put(20)
    feed.now = 1.0
    feed.meter.queue = name
    with feed.progress.wait():
        for room in range(30, 130):
            shown = feed.meter.view(room).plain
            assert len(shown) <= room
            assert "20 %" in shown
        assert "20 % · 0:04 left · " in feed.meter.view(60).plain
        assert feed.meter.view(60).plain.endswith("waiting for room")

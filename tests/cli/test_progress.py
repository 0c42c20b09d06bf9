"""What a producer shows counts what is put, not what is read."""

from __future__ import annotations

from rq_lite.broker import Code, Put
from rq_lite.cli.progress import Meter
from rq_lite.client.put import Progress
from rq_lite.feeds.sources import Source, numbers


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
        parts = self.meter.parts()
        return [part for part in parts if not part.startswith(("queue", "waited"))]


def test_the_queue_is_shown_once_it_is_known() -> None:
    feed = Feed()
    assert not any("queue" in part for part in feed.meter.parts())
    feed.put(0)
    assert "queue 20/20" in feed.meter.parts()
    feed.progress.note(Put(Code.OK, 1, 1, 0, 0))
    assert "queue 1 (unbounded)" in feed.meter.parts()


def test_what_was_read_and_has_no_room_is_left() -> None:
    feed = Feed()
    assert feed.shown(1) == ["0 put", "0/s", "100 % left"]
    feed.put(20)
    assert feed.shown(1) == ["20 put", "10/s", "80 % left, 0:08"]
    feed.put(40)
    assert feed.shown(1) == ["60 put", "20/s", "40 % left, 0:02"]


def test_a_slow_feed_has_a_rate_too() -> None:
    feed = Feed()
    feed.put(1)
    assert feed.shown(4) == ["1 put", "0.2/s", "99 % left, 6:36"]


def test_while_nothing_moves_no_time_is_told() -> None:
    feed = Feed()
    feed.put(20)
    feed.shown(1)
    assert feed.shown(4) == ["20 put", "4/s", "80 % left, 0:20"]
    for _ in range(3):
        told = feed.shown(5)
    assert told == ["20 put", "0/s", "80 % left"]


def test_a_feed_that_goes_on_has_a_pace_of_its_own() -> None:
    feed = Feed("60:60")
    assert feed.shown(1) == ["0 put", "0/s", "40 % left"]
    feed.put(20)
    assert feed.shown(1) == ["20 put", "10/s", "20 % left, 0:02"]

"""The demo's figures: the options, the samples during the run, the summary. Times are seconds."""

from __future__ import annotations

import msgspec

from rq_lite.errors import counted
from rq_lite.redis_url import redact


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """The options."""

    jobs: int
    maxsize: int
    delay: float  # that a page takes on average
    procs: int
    greenlets: int  # in each consumer
    url: str | None  # None: an embedded Redis of its own

    def __repr__(self) -> str:
        shown = msgspec.structs.replace(self, url=None if self.url is None else redact(self.url))
        return f"Choices({msgspec.structs.asdict(shown)})"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the demo at one time."""

    last: bool  # everything is done
    elapsed: float
    size: int  # jobs in the queue
    maxsize: int
    put: int
    producer: str  # what it is doing
    waited: float  # by the producer, for room
    done: int
    inflight: int
    consumers: int
    jobs_per_second: float  # of the last seconds


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints. `lost` and `twice` are pages, from the counts of the website itself."""

    jobs: int
    done: int
    failed: int
    lost: int  # never requested
    twice: int  # requested more than once
    seconds: float  # from the first put to the last ack
    jobs_per_second: float
    maxsize: int
    deepest: int  # the most jobs in the queue, by the puts and by the samples
    deepest_put: int  # as the puts reported it
    deepest_seen: int  # as the samples showed it
    looks: int  # the number of samples
    waited: float
    problems: list[str]  # empty: the demo kept its promises


def problems_of(choices: Choices, *, done: int, lost: int, twice: int, deepest: int) -> list[str]:
    """The promises of the demo that were broken, in words."""
    found = []
    if done != choices.jobs:
        found.append(f"jobs done: {done:,} of {choices.jobs:,}")
    if lost:
        found.append(f"pages never requested: {lost:,}")
    if twice:
        found.append(f"pages requested more than once: {twice:,}")
    if deepest > choices.maxsize:
        found.append(f"the queue held {counted(deepest, 'job')}, but its bound is {choices.maxsize:,}")
    return found

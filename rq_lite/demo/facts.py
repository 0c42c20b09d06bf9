"""The demo's figures: what one chooses, what one sees meanwhile, what came out. Times are seconds."""

from __future__ import annotations

import msgspec

from rq_lite.redis_url import redact


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say."""

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
    """One look at everything."""

    last: bool  # everything is done
    elapsed: float
    size: int  # jobs in the queue
    maxsize: int
    put: int
    producer: str  # what it does just now
    waited: float  # by the producer, for room
    done: int
    inflight: int
    consumers: int
    jobs_per_second: float  # of the last seconds


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints. `lost` and `twice` are pages, counted by the website itself."""

    jobs: int
    done: int
    failed: int
    lost: int  # never asked for
    twice: int  # asked for more than once
    seconds: float  # from the first put to the last ack
    jobs_per_second: float
    maxsize: int
    deepest: int  # the longest that the queue was, by the puts and by the looks
    deepest_put: int  # as the puts reported it
    deepest_seen: int  # as seen from outside
    looks: int
    waited: float
    problems: list[str]  # empty: all is as it should be


def problems_of(choices: Choices, *, done: int, lost: int, twice: int, deepest: int) -> list[str]:
    """What is not as the demo promises, in words."""
    found = []
    if done != choices.jobs:
        found.append(f"jobs done: {done:,} of {choices.jobs:,}")
    if lost:
        found.append(f"pages never asked for: {lost:,}")
    if twice:
        found.append(f"pages asked for more than once: {twice:,}")
    if deepest > choices.maxsize:
        found.append(f"the queue held {deepest:,} jobs, and its bound is {choices.maxsize:,}")
    return found

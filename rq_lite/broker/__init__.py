"""The broker: one Redis with the scripts. One typed method per script; every transition of a job is one script.

Methods that are safe to repeat are repeated after a lost connection, until `patience` is over. Given a `link`,
a method runs once on it and raises redis-py's errors unchanged: that is for a consumer, which after an error must
first ask Redis what it owns (`is_transient` tells after which errors to try that).
"""

from __future__ import annotations

from typing import Any, Self

from rq_lite.broker.base import Core
from rq_lite.broker.consuming import Consuming
from rq_lite.broker.link import Link
from rq_lite.broker.producing import Producing
from rq_lite.broker.reading import Reading
from rq_lite.broker.replies import (
    Acks,
    Cancelled,
    Death,
    Feed,
    Named,
    Put,
    Reclaimed,
    Renewed,
    Requeued,
    Taken,
    newer_format,
)  # fmt: skip
from rq_lite.broker.scheduling import Scheduling
from rq_lite.broker.scripts import Code
from rq_lite.broker.tending import Tending
from rq_lite.broker.transient import REDIS_ERRORS, is_transient
from rq_lite.settings import Settings

__all__ = [
    "REDIS_ERRORS",
    "Acks",
    "Broker",
    "Cancelled",
    "Code",
    "Death",
    "Feed",
    "Link",
    "Named",
    "Put",
    "Reclaimed",
    "Renewed",
    "Requeued",
    "Taken",
    "is_transient",
    "newer_format",
]  # fmt: skip


class Broker:
    """One Redis with the scripts; connects with its first use. Safe to share between threads and greenlets.

    `url` overrides the settings; with neither, it is the embedded Redis, which this process then keeps alive.
    `quiet`: print and log nothing about the Redis that it connects to.

        puts    what producers do: declare, put, feeds, watching results
        takes   what consumers do: leases, taking, settling
        tends   what keeps queues going: leases of others, reclaim, promotion
        plans   schedules
        reads   whatever may be large, in answers of bounded size
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None, quiet: bool = False) -> None:
        # The sides refer to the core, not to this object: so it is freed, with its connections, with its last user.
        self.core = core = Core(url, settings=settings, quiet=quiet)
        self.settings = core.settings
        self.reads = Reading(core)
        self.puts = Producing(core, self.reads)
        self.takes = Consuming(core, self.reads, self.puts)
        self.tends = Tending(core)
        self.plans = Scheduling(core, self.reads)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.core.said})"

    def open(self) -> Self:
        """Connect now, once, without patience, and check the server. Raises BrokerError in one line."""
        self.core.open()
        return self

    def close(self) -> None:
        """Close the connections that are free; the next use opens others."""
        self.core.close()

    @property
    def url(self) -> str:
        """The URL with its password: for processes that this one starts, never for people."""
        return self.core.url

    @property
    def shown(self) -> str:
        """The URL for people."""
        return self.core.address.shown

    def link(self) -> Link:
        """A connection for one caller alone."""
        return self.core.link()

    def read(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The replies to plain commands, sent together and repeated like scripts: send only what is safe to repeat."""
        return self.core.read(*commands)

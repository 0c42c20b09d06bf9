"""The broker: one Redis with the scripts. One typed method per script; a job's every transition is one of them.

Methods that are safe to repeat are repeated after a lost connection, until `patience` is over. Given a `link`,
a method runs once on it and lets redis-py's errors through: that is for a consumer, which after an error must
first look what it owns (`is_transient` tells which errors are worth that).
"""

from __future__ import annotations

from rq_lite.broker.consuming import Consuming
from rq_lite.broker.link import Link
from rq_lite.broker.replies import Acks, Cancelled, Death, Feed, Put, Reclaimed, Renewed, Requeued, Taken
from rq_lite.broker.scheduling import Planning
from rq_lite.broker.scripts import Code
from rq_lite.broker.tending import Tending
from rq_lite.broker.transient import REDIS_ERRORS, is_transient

__all__ = [
    "REDIS_ERRORS",
    "Acks",
    "Broker",
    "Cancelled",
    "Code",
    "Death",
    "Feed",
    "Link",
    "Put",
    "Reclaimed",
    "Renewed",
    "Requeued",
    "Taken",
    "is_transient",
]  # fmt: skip


class Broker(Consuming, Tending, Planning):
    """One Redis with the scripts; connects with its first use. Safe to share between threads and greenlets.

    `url` wins over the settings'; with neither it is the embedded Redis, which this process then keeps alive.
    A `quiet` one says nothing of what it finds there when it connects.
    """

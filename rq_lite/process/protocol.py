"""Messages between a supervisor and its consumers, over pipes: lines of JSON; later, to a consumer, single words.

The configuration goes over a pipe because it holds the Redis password, which must not show in `ps`.
"""

from __future__ import annotations

import contextlib
import os

import msgspec

from rq_lite.model.retry import RetryPolicy
from rq_lite.settings import Settings


class ConsumerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that a consumer needs to know."""

    settings: Settings  # with the URL filled in
    app: str
    queues: dict[str, float]  # with their weights, in their order; empty: those that the app's tasks belong to
    strict: bool  # the order counts, not the weights
    verbose: bool
    number: int
    parent: int  # the supervisor's pid
    folder: str = ""  # where it starts, as the user named it: perhaps through a symbolic link; "": as the supervisor
    embedded: bool = False  # no Redis was named to the worker: it has chosen the embedded one
    alone: bool = False  # for suspects: one job at a time, ends when no suspect is left
    patient: bool = False  # Redis was reachable when the worker began: wait until it is again


class ChildEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a consumer reports: `hello` (its id), `ready`, `failed` (it cannot begin), `left` (it was told to end)."""

    event: str
    consumer: str = ""
    queues: dict[str, int] = {}  # with the bound of each; the lanes on the board are numbered in this order
    tasks: dict[str, RetryPolicy] = {}  # by task: what follows when a job's consumer is killed, or dies
    hooks: bool = False  # the app has hooks for failures
    rss: int = 0  # bytes of memory that it uses before its first job; 0: not known
    error: str = ""
    traceback: str = ""

    def send(self, pipe: int) -> None:
        """Write it, if possible: the supervisor may be gone (this process then ends), or a job has closed the pipe."""
        data = msgspec.json.encode(self) + b"\n"
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(pipe, data) :]


REBUILD = b"rebuild"  # reconnect to Redis
NOTICES = b"notices"  # there may be notices in Redis of which hooks are to be told
RETIRE = b"retire"  # take no more jobs, end when the running ones have ended


def write_config(pipe: int, config: ConsumerConfig) -> None:
    data = msgspec.json.encode(config) + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def read_config(pipe: int) -> ConsumerConfig:
    """The first line; one byte at a time, because words for later may follow it."""
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(pipe, 1)
        if not piece:
            raise SystemExit("the supervisor ended before it sent the configuration")
        data += piece
    return msgspec.json.decode(data, type=ConsumerConfig)


parse_event = msgspec.json.Decoder(ChildEvent).decode


SHORTEST_GRACE = 1.0  # seconds between a job's soft and hard limit, at least

"""A real Redis in a temporary folder, which this process's queues then use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from rq_lite.broker import Broker
from rq_lite.client import leases
from rq_lite.client.defaults import defaults
from rq_lite.client.queue import Queue
from rq_lite.client.registry import registry
from rq_lite.client.results import readers
from rq_lite.embedded import server as embedded
from rq_lite.errors import UsageError
from rq_lite.settings import FIELD_TYPES, VARIABLES, checked
from rq_lite.testing.folders import temporary_folder

WAIT = 5.0  # seconds that a put waits for room: a test in which no job is taken should not hang for ten minutes


@contextmanager
def isolated(**settings: Any) -> Iterator[Broker]:
    """Make the default Redis an empty one, which is started for the block and removed after it.

    This holds also for processes that this one starts, by RQ_LITE_URL, but not for queues that were given a `broker=`.
    `settings` are those of docs/settings.md except `url` and `home`, for this process and (by RQ_LITE_…) for those that
    it starts; a put waits at most 5 s for room unless they say otherwise. Yields the broker. Raises UsageError.
    """
    own = [name for name in ("url", "home") if name in settings]
    if own:
        raise UsageError(
            f"isolated() starts a Redis of its own, {own[0]} cannot be chosen; "
            "for an existing Redis set RQ_LITE_URL, or use Queue(…, broker=Broker(url))"
        )
    chosen = checked(settings, "the arguments", strict=False)
    with served(**chosen) as broker, pointed_to(broker, **chosen):
        yield broker


@contextmanager
def served(**settings: Any) -> Iterator[Broker]:
    """A Redis in a temporary folder; defaults and environment do not point to it yet."""
    with temporary_folder() as folder:
        chosen = {"wait": WAIT, **settings, "url": None, "home": str(folder)}
        broker = Broker(settings=msgspec.structs.replace(defaults.settings, **chosen), quiet=True)
        try:
            broker.open().read(("CONFIG", "SET", "appendonly", "no"))  # it has nothing to keep
            yield broker
        finally:
            broker.close()
            embedded.stop(broker.settings)


@contextmanager
def pointed_to(broker: Broker, **chosen: Any) -> Iterator[None]:
    """Make this process, and those that it starts, use this Redis and the chosen settings, unless told otherwise."""
    with environment({"url": broker.url, "wait": broker.settings.wait, **chosen}):
        before = defaults.use(broker.settings, broker)
        forget_settings()
        try:
            yield
        finally:
            # Give back the items of Queue.get, and leave no thread that would use the next test's Redis.
            leases.leave()
            readers.stop()
            defaults.use(*before)
            forget_settings()


@contextmanager
def environment(settings: Mapping[str, Any]) -> Iterator[None]:
    """Set the environment so that processes started during the block read these settings."""
    variables = {VARIABLES[name]: variable(value, FIELD_TYPES[name]) for name, value in settings.items()}
    before = {name: os.environ.get(name) for name in variables}
    put_into_environment(variables)
    try:
        yield
    finally:
        put_into_environment(before)


def put_into_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def variable(value: Any, kind: Any) -> str | None:
    """The text that the environment must have for this value; None: the variable must not exist."""
    if value is None:
        return None if kind == str | None else "null"
    return str(value)


def forget_settings() -> None:
    """Make all queues read the settings again; they keep those of their first use otherwise."""
    for queue in {*registry.queues.values(), *(task.queue for task in registry.tasks.values())}:
        queue.sender.forget_settings()


def emptied(server: Broker) -> Broker:
    """A new broker on the same Redis, emptied, and started again if a test has stopped it."""
    server.open().core.revive()
    server.read(("FLUSHALL",))
    return Broker(settings=msgspec.structs.replace(server.settings, url=server.url))


@contextmanager
def new_queue(name: str, maxsize: int, broker: Broker) -> Iterator[Queue]:
    """A queue for the time of the block; tasks that it has replaced are restored afterwards."""
    tasks = dict(registry.tasks)
    queue = Queue(name, maxsize=maxsize, broker=broker)
    try:
        yield queue
    finally:
        if registry.queues.get(name) is queue:
            del registry.queues[name]
        for name in [task.name for task in registry.tasks.values() if task.queue is queue]:
            if name in tasks:
                registry.tasks[name] = tasks[name]
            else:
                del registry.tasks[name]

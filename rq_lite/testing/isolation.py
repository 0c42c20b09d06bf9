"""A real Redis of one's own, in a temporary folder, that this process's queues then belong to."""

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

WAIT = 5.0  # seconds that a put waits for room: a test in which nobody makes room should not stand for ten minutes


@contextmanager
def isolated(**settings: Any) -> Iterator[Broker]:
    """For the time of the block the default Redis is an empty one of its own, started for it and removed after it.

    Also for what this process starts, by RQ_LITE_URL; not for queues that were given a `broker=`. `settings` are
    those of docs/settings.md, for this process and (by RQ_LITE_…) for what it starts, but for `url` and `home`; a put
    waits at most 5 s for room unless they say otherwise. Yields the broker. Raises UsageError.
    """
    own = [name for name in ("url", "home") if name in settings]
    if own:
        raise UsageError(
            f"isolated() starts a Redis of its own, {own[0]} cannot be chosen; "
            "for a Redis that is there set RQ_LITE_URL, or use Queue(…, broker=Broker(url))"
        )
    chosen = checked(settings, "the arguments", strict=False)
    with served(**chosen) as broker, pointed_to(broker, **chosen):
        yield broker


@contextmanager
def served(**settings: Any) -> Iterator[Broker]:
    """A Redis in a temporary folder, and nothing that points to it."""
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
    """This process, and what it starts, use this Redis, with what was chosen of its settings, unless told otherwise."""
    with environment({"url": broker.url, "wait": broker.settings.wait, **chosen}):
        before = defaults.use(broker.settings, broker)
        forget_settings()
        try:
            yield
        finally:
            # What was got with Queue.get goes back, and no thread goes on in the next test's Redis.
            leases.leave()
            readers.stop()
            defaults.use(*before)
            forget_settings()


@contextmanager
def environment(settings: Mapping[str, Any]) -> Iterator[None]:
    """What is started during the block finds these settings in its environment."""
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
    """As it is read from the environment; None: it must not be there."""
    if value is None:
        return None if kind == str | None else "null"
    return str(value)


def forget_settings() -> None:
    """Queues keep the settings that they met first; what points them elsewhere brings others."""
    for queue in {*registry.queues.values(), *(task.queue for task in registry.tasks.values())}:
        queue.sender.forget_settings()


def emptied(server: Broker) -> Broker:
    """The same Redis, empty, for one who knows nothing of it yet; begun again if a test has stopped it."""
    server.open().core.revive()
    server.read(("FLUSHALL",))
    return Broker(settings=msgspec.structs.replace(server.settings, url=server.url))


@contextmanager
def new_queue(name: str, maxsize: int, broker: Broker) -> Iterator[Queue]:
    """A queue for the time of the block; the tasks that it was given are then what they were before."""
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

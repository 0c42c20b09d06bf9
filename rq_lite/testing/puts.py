"""Jobs that were put, and assertions about them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from rq_lite.broker import Broker, keys
from rq_lite.broker.base import ms_of
from rq_lite.client.defaults import defaults
from rq_lite.client.put import Sender
from rq_lite.client.queue import Queue
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.errors import counted
from rq_lite.model.message import Message, Undecodable, decode, parse

SHOWN = 20  # jobs in a message
PREFIX = 18  # characters before the entry in a sorted set: a kind, 16 digits, |
NO_OPTIONS = ("v", "id", "task", "args", "kwargs")


class PutJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was put; `options` are those that the put itself gave: timeout, retries, delay, …"""

    id: str
    queue: str
    task: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    options: dict[str, Any] = {}

    def __str__(self) -> str:
        options = "".join(f"  {name}={value!r}" for name, value in self.options.items())
        return call(self.task, self.args, self.kwargs) + options


def call(task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """`crawl:fetch('https://example.org', depth=2)`"""
    words = [f"{value!r:.200}" for value in args] + [f"{name}={value!r:.200}" for name, value in kwargs.items()]
    return f"{task}({', '.join(words)})"


def put_jobs(of: Task[..., Any] | Queue) -> list[PutJob]:
    """The jobs that were put on a queue, or of one task, in their order.

    Within `inline` and `recorded`: since the block began. Otherwise the jobs that wait in Redis, the next first, then
    the scheduled ones, whose `delay` is the remaining one (s).
    """
    queue = of if isinstance(of, Queue) else of.queue
    puts = getattr(defaults.instead, "puts", None)
    jobs = waiting(queue) if puts is None else [job for job in puts if job.queue == queue.name]
    return [job for job in jobs if isinstance(of, Queue) or job.task == of.name]


def assert_put(task: Task[..., Any], *args: Any, times: int | None = None, **kwargs: Any) -> None:
    """Raise AssertionError unless the task was put with these arguments `times` times (None: at least once).

    `f(1)` and `f(x=1)` are the same, and `unittest.mock.ANY` is equal to everything.
    """
    jobs = put_jobs(task)
    wanted = bound(task, args, kwargs)
    found = sum(bound(task, job.args, job.kwargs) == wanted for job in jobs)
    if found == times or (times is None and found):
        return
    expected = "was not put" if times is None else f"was put {counted(found, 'time')}, not {times}"
    there = [f"\n  {job}" for job in jobs[:SHOWN]]
    if len(jobs) > SHOWN:
        there.append(f"\n  and {len(jobs) - SHOWN} more")
    said = f"on queue {task.queue.name!r} this task was put as:{''.join(there)}"
    raise AssertionError(
        f"{call(task.name, args, kwargs)} {expected}; {said if jobs else 'this task was not put at all'}"
    )


def bound(task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by the names of the parameters. Raises TypeError if the task does not take them."""
    found = task.arguments.signature.bind(*args, **kwargs)
    found.apply_defaults()
    return found.arguments


# -- reading them


def waiting(queue: Queue) -> list[PutJob]:
    """The jobs that wait in Redis."""
    pending, scheduled = entries(queue.broker, queue.name)
    jobs = [job_of(queue, entry) for entry in pending]
    return jobs + [job_of(queue, entry, delay=delay) for entry, delay in scheduled]


def entries(broker: Broker, queue: str) -> tuple[list[bytes], list[tuple[bytes, float]]]:
    """The entries that wait in Redis, the next first, and the scheduled ones with their remaining delay (s)."""
    key = keys.of(queue)
    kind, now = broker.read(("TYPE", key.pending), ("TIME",))
    if kind == b"zset":  # a priority queue
        pending = [member[PREFIX:] for member in broker.read(("ZRANGE", key.pending, 0, -1))[0]]
    else:
        pending = broker.read(("LRANGE", key.pending, 0, -1))[0][::-1]
    suspects, flat = broker.read(("LRANGE", key.suspects, 0, -1), ("ZRANGE", key.scheduled, 0, -1, "WITHSCORES"))
    scheduled = [
        (member[PREFIX:], max(0.0, (float(due) - ms_of(now)) / 1000))
        for member, due in zip(flat[::2], flat[1::2], strict=True)
    ]
    return [*pending, *suspects[::-1]], scheduled


def is_job(broker: Broker, queue: str, entry: bytes) -> bool:
    """Whether a worker would take the entry: plain items are for `Queue.get`."""
    try:
        return bool(decode(broker.core.opened(queue, entry))[0].task)
    except Undecodable:
        return True


def job_of(queue: Queue | Sender, entry: bytes, *, delay: float = 0.0, at: datetime | None = None) -> PutJob:
    """An entry as the job that was put. Raises Undecodable for an entry that a worker would bury at once."""
    message = decode(queue.broker.core.opened(queue.name, entry))[0]
    args, kwargs = arguments_of(message)
    return PutJob(
        id=message.id,
        queue=queue.name,
        task=message.task,
        args=tuple(args),
        kwargs=kwargs,
        options=options_of(message, entry) | ({"delay": delay} if delay else {}) | ({"at": at} if at else {}),
    )


def arguments_of(message: Message) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as the task gets them, if it is known here. Raises msgspec.ValidationError, as the job will."""
    task = registry.tasks.get(message.task)
    return (message.args, message.kwargs) if task is None else task.arguments.restore(message.args, message.kwargs)


def options_of(message: Message, entry: bytes) -> dict[str, Any]:
    said = {name: getattr(message, name) for name in message.__struct_fields__ if name not in NO_OPTIONS}
    found = {name: value for name, value in said.items() if value not in (None, {}, ())}
    head = parse(entry)
    if head is not None and head.priority is not None:
        found["priority"] = float(head.priority)
    return found

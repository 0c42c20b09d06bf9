"""Short helpers for steps that tests of the broker repeat: queue "q", consumer "c"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker, Cancelled, Link, Put, Taken, keys
from rq_lite.model.message import VERSION, Message, decode, encode
from rq_lite.model.outcome import Finished, cancelled
from tests.conftest import until

T = TypeVar("T")
KEY = keys.of("q")


def entry(number: int) -> bytes:
    """A job's entry; all of these have the same length."""
    return encode(Message(VERSION, f"{number:08}", "t", [f"{number:08}"]))


def number_of(raw: bytes) -> int:
    return int(decode(raw)[0].id)


def put(broker: Broker, *numbers: int, **options: Any) -> Put:
    return broker.puts.put("q", [entry(number) for number in numbers], **options)


def put_by_hand(
    broker: Broker,
    sequence: int,
    numbers: Sequence[int],
    *,
    delay: int = 0,
    again: bool = False,
    entry: Callable[[int], bytes] = entry,
    feed: Sequence[str] = (),
) -> list[Any]:
    """The script's reply to producer "p"; `again`: as a put is repeated after a lost answer.

    `feed`: the field of feed "f", the value that it must have now, and its value once each job is in.
    """
    names: tuple[str, ...] = KEY.pending, KEY.scheduled, KEY.meta, KEY.bell, KEY.room, KEY.producer("p"), KEY.alarm
    names += (KEY.feed("f"),) if feed else ()
    entries = [*map(entry, numbers)]
    return broker.core.run("put", names, sequence, 60_000, 2 * again, delay, 0, len(entries), *entries, *feed)


def take(broker: Broker, link: Link, want: int, acks: Sequence[int] = (), consumer: str = "c") -> Taken:
    return broker.takes.exchange(consumer, [Acks("q", list(acks))], want, link)[0]


class Consumer:
    """Consumer "c", which takes and settles by hand."""

    def __init__(self, broker: Broker, link: Link) -> None:
        self.broker, self.link = broker, link

    def take(self, want: int = 100) -> list[tuple[int, Message]]:
        """The tag and the message of each job."""
        reply = take(self.broker, self.link, want)
        return [(tag, decode(raw)[0]) for tag, raw in enumerate(reply.jobs, reply.tag + 1)]

    def one(self) -> int:
        ((tag, _),) = self.take(1)
        return tag

    def finish(self, tag: int, state: str = "done") -> None:
        report = b"{}" if state == "failed" else b""
        assert self.broker.takes.finish("q", "c", [(tag, Finished(state, b"", 60_000, report))], self.link) == 0


def took(broker: Broker, link: Link, want: int, consumer: str = "c") -> list[int]:
    """The numbers of the jobs that a registered consumer takes."""
    return [number_of(raw) for raw in take(broker, link, want, consumer=consumer).jobs]


def bury(
    broker: Broker, queue: str, consumer: str, reports: Sequence[tuple[int, bytes]], link: Link | None = None
) -> int:
    """Move deliveries (tag, report) to the dead set; returns how many were not the consumer's."""
    ends = [(tag, Finished("failed", report=report)) for tag, report in reports]
    return broker.takes.finish(queue, consumer, ends, link)


def drop(broker: Broker, queue: str, consumer: str, jobs: Sequence[tuple[int, str]], link: Link | None = None) -> int:
    """End deliveries (tag, job id) of jobs that were cancelled; returns how many were not the consumer's."""
    return broker.takes.finish(queue, consumer, [(tag, cancelled(job_id)) for tag, job_id in jobs], link)


def cancel(broker: Broker, number: int) -> Cancelled:
    return operate.cancel(broker, "q", f"{number:08}")


def reclaim(broker: Broker, *, certain: bool, consumer: str = "c", most: int = 500) -> tuple[int, int]:
    """How many jobs of the consumer were reclaimed, and how many are left."""
    step = broker.tends.reclaim("q", consumer, certain=certain, most=most)
    assert step is not None, "it is alive"
    return step.moved, step.left


def suspects(broker: Broker) -> list[tuple[int, tuple[int, int]]]:
    """The jobs that wait to run alone, the next one first: number, (attempts, crashes)."""
    found = map(decode, reversed(broker.read(("LRANGE", KEY.suspects, 0, -1))[0]))
    return [(int(message.id), (attempts, crashes)) for message, attempts, crashes, _ in found]


def owned(broker: Broker, queue: str, consumer: str, link: Link) -> dict[int, bytes]:
    """A consumer's jobs in flight: delivery tag → entry."""
    return dict(broker.takes.booked(queue, consumer, sorted(broker.takes.inflight(queue, consumer, link)), link))


def waiting(broker: Broker) -> list[int]:
    """The numbers of the jobs in the queue, the next to be taken first."""
    return [number_of(raw) for raw in reversed(broker.read(("LRANGE", KEY.pending, 0, -1))[0])]


def counter(broker: Broker, field: str) -> int:
    return int(broker.read(("HGET", KEY.meta, field))[0] or 0)


def length(broker: Broker, name: str) -> int:
    return int(broker.read(("LLEN", name))[0])


def everything(broker: Broker) -> dict[bytes, Any]:
    """All keys with their values, to check that nothing was changed."""
    reading = {b"list": ("LRANGE", 0, -1), b"hash": ("HGETALL",), b"zset": ("ZRANGE", 0, -1, "WITHSCORES")}
    reading |= {b"set": ("SMEMBERS",), b"string": ("GET",)}
    found = {}
    for name in broker.read(("KEYS", "*"))[0]:
        command, *rest = reading[broker.read(("TYPE", name))[0]]
        found[name] = broker.read((command, name, *rest))[0]
    return found


def now_ms(broker: Broker) -> int:
    seconds, micros = broker.read(("TIME",))[0]
    return int(seconds) * 1000 + int(micros) // 1000


@contextmanager
def at_maxmemory(broker: Broker) -> Iterator[None]:
    """Make Redis refuse to store more during the block."""
    broker.read(("CONFIG", "SET", "maxmemory", 1))
    try:
        yield
    finally:
        broker.read(("CONFIG", "SET", "maxmemory", 0))


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def started_waiting(broker: Broker, pool: ThreadPoolExecutor, call: Callable[..., T], *args: Any) -> Future[T]:
    """Run the call in a thread; returns once Redis has one more blocked client, or the call has ended."""
    before = blocked(broker)
    future = pool.submit(call, *args)
    until(lambda: blocked(broker) > before or future.done(), "a client waits in Redis")
    return future


def blocked(broker: Broker) -> int:
    info = broker.read(("INFO", "clients"))[0].decode()
    return int(next(line for line in info.splitlines() if line.startswith("blocked_clients:")).partition(":")[2])


def script_digest(broker: Broker, name: str) -> str:
    """Load the script and return its digest: bytes that only calls of this script have in them."""
    assert broker.core.scripts is not None
    script = broker.core.scripts[name]
    broker.read(("SCRIPT", "LOAD", script.text))
    return script.digest

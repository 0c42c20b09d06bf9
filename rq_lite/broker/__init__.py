"""The broker: one Redis with the scripts. One typed method per script; a job's every transition is one of them.

Methods that are safe to repeat are repeated after a lost connection, until `patience` is over. Given a `link`,
a method runs once on it and lets redis-py's errors through: that is for a consumer, which after an error must
first look what it owns (`weather` tells which errors are worth that).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import OutOfMemoryError

from rq_lite import moments
from rq_lite.backoff import pauses
from rq_lite.broker import keys, scripts, telling
from rq_lite.broker.connection import LONGEST_BLOCK, LOST, Address, Link, Links, explained, is_weather
from rq_lite.broker.replies import Death, Feed, Lane, Put, Reclaimed, Renewed, Requeued, Taken
from rq_lite.broker.scripts import Code
from rq_lite.embedded import Attached, announce, attach
from rq_lite.errors import BrokerOutOfMemory, BrokerUnavailable, BrokerUnsuitable
from rq_lite.programs import OLDEST
from rq_lite.settings import Settings, load_settings

__all__ = [
    "FAULTS", "Broker", "Code", "Death", "Feed", "Lane", "Link", "Put", "Reclaimed", "Renewed", "Requeued", "Taken",
    "weather",
]  # fmt: skip

WITH_FLAGS = (7, 0)
# A producer's last put is remembered for this long, ms: longer than anybody goes on repeating one.
REMEMBER = 600_000
# What a call over a link may raise.
FAULTS = (redis.RedisError, OSError)
T = TypeVar("T")


UNSEEN = Death("nobody saw how")


class Broker:
    """One Redis with the scripts; connects with its first use. Safe to share between threads and greenlets.

    `url` wins over the settings'; with neither it is the embedded Redis, which this process then keeps alive.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None, quiet: bool = False) -> None:
        self.settings = settings or load_settings()
        self._url = url or self.settings.url
        self._quiet = quiet
        self._attached: Attached | None = None
        self._scripts: dict[str, scripts.Script] | None = None
        if self._url is not None:
            self._connect_to(self._url)

    def _connect_to(self, url: str) -> None:
        self._address = Address(url)
        self._links = Links(self._address)
        self._waiters = Links(self._address, most=1024)

    # -- opening and closing

    def open(self) -> Broker:
        """Connect now, once, without patience, and check the server. Raises BrokerError in one line."""
        if self._scripts is not None:
            return self
        moments.begin("producer")  # unless this process has said before what it is
        if self._url is None:
            self._attached = attach(self.settings, say=None if self._quiet else announce)
            self._url = self._attached.url
            self._connect_to(self._url)
        try:
            with self._links.lend() as link:
                info = link.call("INFO", "server")
        except FAULTS as error:
            raise explained(error, self._address) from None
        self.version = version_of(info)
        if self.version < OLDEST:
            number = ".".join(map(str, self.version))
            raise BrokerUnsuitable(f"Redis at {self.shown} is version {number or '?'}; 6.2 or newer is needed")
        self._scripts = scripts.load(flags=self.version >= WITH_FLAGS)
        return self

    def close(self) -> None:
        if self._url is not None:
            self._links.close()
            self._waiters.close()
        if self._attached is not None:
            self._attached.close()
            self._attached, self._url, self._scripts = None, None, None

    def revive(self) -> None:
        """Start the embedded Redis again if it is gone; nothing for any other."""
        if self._attached is not None:
            self._attached.revive()

    @property
    def url(self) -> str:
        """With its password: for processes that this one starts, never for people."""
        self.open()
        return self._address.url

    @property
    def shown(self) -> str:
        """The URL for people."""
        return self._address.shown

    def link(self) -> Link:
        """A connection for one caller alone."""
        self.open()
        return Link(self._address)

    # -- running a script or command

    def _run(self, name: str, keys_: tuple[str, ...], *args: Any, link: Link | None = None) -> list[Any]:
        self.open()
        assert self._scripts is not None
        script = self._scripts[name]
        if link is not None:
            reply: list[Any] = script(link, keys_, *args)
            return reply
        with self._links.lend() as lent:
            return self._patiently(lambda: script(lent, keys_, *args), lent)

    def read(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The replies to plain commands, sent together; they are repeated like scripts, so only safe ones."""
        self.open()
        with self._links.lend() as link:
            return self._patiently(lambda: link.pipe(list(commands)), link)

    @property
    def _caps(self) -> tuple[int, int]:
        """Of the dead set: the most jobs, and the longest to keep one, ms."""
        return self.settings.dead_max, ms(self.settings.dead_age)

    def _read(self, command: tuple[Any, ...], link: Link | None) -> Any:
        return self.read(command)[0] if link is None else link.call(*command)

    def _patiently(self, attempt: Callable[[], T], link: Link, patience: float | None = None) -> T:
        """Tries again after weather, with growing pauses of random length, until patience is over."""
        until = time.monotonic() + (self.settings.patience if patience is None else patience)
        unknown = False
        for pause in pauses():
            try:
                return attempt()
            except FAULTS as error:
                # Once an answer was lost, only an answer to the same step can tell what was done.
                unknown = unknown or (isinstance(error, LOST) and link.asked)
                link.close()
                # From a plain command, and from a script on Redis 7, redis-py knows it; on 6.2 it is in the text.
                if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in str(error):
                    raise BrokerOutOfMemory(
                        f"Redis at {self.shown} is at its maxmemory and stores nothing more; nothing was put. "
                        "Consumers go on: let them drain the queue, or raise maxmemory"
                    ) from None
                if not is_weather(error) or time.monotonic() + pause > until:
                    raise explained(error, self._address, unknown=unknown) from None
            time.sleep(pause)
        raise AssertionError("pauses never end")

    # -- producers

    def declare(self, queue: str, maxsize: int | None = None, maxbytes: int | None = None) -> tuple[int, int]:
        """Make the queue known; the bound in force, in jobs and in bytes (0: none)."""
        key = keys.of(queue)
        # A queue that is listed needs no write: at maxmemory a worker must be able to start and drain it.
        if not self.read(("SISMEMBER", keys.QUEUES, queue))[0]:
            self.read(("SADD", keys.QUEUES, queue))
        defaults = (self.settings.maxsize, self.settings.maxbytes)
        with moments.step("declare", None, queue=queue):
            _, jobs, size = self._run("declare", (key.meta,), *map(blank, (maxsize, maxbytes)), *defaults)
        return jobs, size

    def put(
        self,
        queue: str,
        entries: Sequence[bytes],
        *,
        delay: int = 0,
        woken: bool = False,
        overdraft: int = 0,
        feed: Feed | None = None,
        patience: float | None = None,
    ) -> Put:
        """Add encoded jobs, at most 1000, as many as fit; they are due in `delay` ms.

        Repeating it after a lost answer never adds a job twice. Raises BrokerUnavailable when patience is over;
        its `outcome` is "not put", or "unknown" when an answer was lost.
        """
        self.open()
        assert self._scripts is not None
        script = self._scripts["put"]
        key = keys.of(queue)
        link = self._links.borrow()
        try:
            link.sequence += 1
            names = [key.pending, key.scheduled, key.meta, key.bell, key.room, key.producer(link.producer)]
            remember = max(REMEMBER, 2 * ms(self.settings.patience if patience is None else patience))
            args = [link.sequence, remember, int(woken), delay, overdraft, len(entries), *entries]
            if feed is not None:
                names.append(key.feed(feed.name))
                args += [feed.field, feed.expected, *feed.values]
            return self._put(link, queue, entries, overdraft, lambda: script(link, tuple(names), *args), patience)
        finally:
            self._links.give_back(link)

    def _put(
        self,
        link: Link,
        queue: str,
        entries: Sequence[bytes],
        overdraft: int,
        send: Callable[[], list[Any]],
        patience: float | None,
    ) -> Put:
        def attempt() -> Put:
            if moments.watchers:
                moments.reach("put.before", link, queue=queue, jobs=[telling.id_of(entry) for entry in entries])
            reply = send()
            code = Code(reply[0])
            put = Put(code, *reply[1:]) if code is Code.OK else Put(code)
            if moments.watchers:
                telling.put_ended(queue, entries, put, overdraft, link)
            return put

        try:
            return self._patiently(attempt, link, patience)
        except BrokerUnavailable as error:
            unknown = error.outcome == "unknown"
            outcome = "unknown" if unknown else "not put"
            if moments.watchers:
                jobs = [telling.id_of(entry) for entry in entries]
                moments.reach("put.failed", link, queue=queue, jobs=jobs, outcome=outcome)
            said = "whether it was put is not known" if unknown else "nothing was put"
            raise BrokerUnavailable(f"{error}; {said}", outcome=outcome) from None

    def wait_room(self, queue: str, seconds: float) -> bool:
        """Wait until the queue may have room; False after the time (about 2 s at most), or after weather."""
        return self._wait((keys.of(queue).room,), seconds)

    def feed(self, queue: str, name: str) -> dict[str, str]:
        """The marks of a feed: field to value; empty for one that was never used."""
        flat = self.read(("HGETALL", keys.of(queue).feed(keys.checked_name(name, "feed"))))[0]
        return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}

    def mark_feed(self, queue: str, name: str, field: str, value: str) -> None:
        self.read(("HSET", keys.of(queue).feed(name), field, value))

    def forget_feed(self, queue: str, name: str, fields: Sequence[str]) -> None:
        if fields:
            self.read(("HDEL", keys.of(queue).feed(name), *fields))

    # -- consumers

    def register(self, queue: str, consumer: str, *, link: Link | None = None) -> None:
        """Begin (or begin anew) the lease without which nothing can be taken."""
        key = keys.of(queue)
        with moments.step("register", link, queue=queue, consumer=consumer):
            self._run("register", (key.consumers, key.meta), consumer, ms(self.settings.lease), link=link)

    def renew(self, queue: str, consumers: Sequence[str]) -> Renewed:
        """Prolong leases."""
        key = keys.of(queue)
        with moments.step("renew", None, queue=queue):
            reply = self._run("renew", (key.consumers, key.meta, key.pending), ms(self.settings.lease), *consumers)
        return Renewed(*reply[1:])

    def exchange(self, consumer: str, lanes: Sequence[Lane], want: int, link: Link) -> list[Taken]:
        """Ack what is done and take up to `want` jobs, from the lanes in their order; an answer for each."""
        names: list[str] = []
        args: list[Any] = [consumer, want]
        for queue, acks in lanes:
            key = keys.of(queue)
            names += (
                key.pending, key.scheduled, key.meta, key.consumers,
                key.inflight(consumer), key.bell, key.room, key.drained,
            )  # fmt: skip
            args.append(len(acks))
            args += acks
        if moments.watchers:
            telling.exchange_begins(consumer, lanes, want, link)
        try:
            reply = self._run("exchange", tuple(names), *args, link=link)
        except FAULTS:
            telling.exchange_failed(consumer, lanes, want, link)
            raise
        replies = [Taken(Code(code), stale, tag, jobs) for code, stale, tag, jobs in reply]
        if moments.watchers:
            telling.exchange_ended(consumer, lanes, replies, want, link)
        return replies

    def isolate(self, queue: str, consumer: str, link: Link) -> tuple[Code, int, bytes]:
        """Take one suspect, for a consumer that runs nothing else: its delivery tag (0: there is none) and the job."""
        key = keys.of(queue)
        names = (key.meta, key.consumers, key.suspects, key.inflight(consumer))
        with moments.step("take", link, consumer=consumer, queue=queue) as facts:
            code, tag, job = self._run("isolate", names, consumer, link=link)
            facts["jobs"] = [(tag, telling.id_of(job))] if tag else []
        return Code(code), tag, job

    def bury(self, queue: str, consumer: str, reports: Sequence[tuple[int, bytes]], link: Link | None = None) -> int:
        """Move deliveries (tag, report) to the dead set; how many were no longer the consumer's."""
        key = keys.of(queue)
        names = (
            key.inflight(consumer), key.dead, key.dead_index, key.meta, key.pending, key.scheduled, key.drained,
        )  # fmt: skip
        return self._settle("bury", queue, consumer, firsts(reports), names, *self._caps, *flat(reports), link=link)

    def retry(self, queue: str, consumer: str, delays: Sequence[tuple[int, int]], link: Link | None = None) -> int:
        """Let deliveries (tag, delay in ms) run again later, charged an attempt; how many were not ours."""
        key = keys.of(queue)
        names = (key.inflight(consumer), key.scheduled, key.meta)
        return self._settle("retry", queue, consumer, firsts(delays), names, *flat(delays), link=link)

    def park(self, queue: str, consumer: str, unknown: Sequence[tuple[int, str]], link: Link) -> int:
        """Put deliveries (tag, task) of unknown tasks aside, uncharged; how many were not the consumer's."""
        key = keys.of(queue)
        names = (key.inflight(consumer), key.scheduled, key.meta, key.pending, key.drained)
        return self._settle(
            "park", queue, consumer, firsts(unknown), names, ms(self.settings.park), consumer, *flat(unknown), link=link
        )

    def give_back(self, queue: str, consumer: str, tags: Sequence[int], *, link: Link | None = None) -> int:
        """Return unfinished deliveries to the head of the queue, uncharged; how many were not the consumer's."""
        key = keys.of(queue)
        names = (key.inflight(consumer), key.pending, key.meta, key.bell, key.suspects)
        return self._settle("give_back", queue, consumer, sorted(tags), names, *sorted(tags), link=link)

    def _settle(
        self,
        verb: str,
        queue: str,
        consumer: str,
        tags: list[int],
        names: tuple[str, ...],
        *args: Any,
        link: Link | None,
    ) -> int:
        """One of the scripts that end a delivery; how many of the tags were no longer the consumer's."""
        name = "give_back" if verb == "give_back" else "settle"
        with moments.step(name, link, queue=queue, consumer=consumer, verb=verb, tags=tags) as facts:
            facts["stale"] = stale = int(self._run(verb, names, *args, link=link)[2])
        return stale

    def inflight(self, queue: str, consumer: str, link: Link | None = None) -> set[int]:
        """The delivery tags that this consumer owns according to Redis."""
        return {int(tag) for tag in self._read(("HKEYS", keys.of(queue).inflight(consumer)), link)}

    def booked(
        self, queue: str, consumer: str, tags: Sequence[int], link: Link | None = None
    ) -> list[tuple[int, bytes]]:
        """Deliveries of a consumer: tag and job; those that are no longer its own are left out."""
        if not tags:
            return []
        with moments.step("reconcile", link, queue=queue, consumer=consumer) as facts:
            jobs = self._read(("HMGET", keys.of(queue).inflight(consumer), *tags), link)
            found = [(tag, job) for tag, job in zip(tags, jobs, strict=True) if job is not None]
            facts["jobs"] = [(tag, telling.id_of(job)) for tag, job in found]
        return found

    def wait_bell(self, queues: Sequence[str], seconds: float, link: Link) -> str | None:
        """Wait for something to take, at most so long (below the links' own timeout); the queue that rang."""
        bells = {keys.of(queue).bell.encode(): queue for queue in queues}
        reply = link.call("BRPOP", *bells, min(seconds, LONGEST_BLOCK))
        return None if reply is None else bells[reply[0]]

    def ring(self, queue: str, link: Link) -> None:
        """Hand a wake-up on that came to one who has no room."""
        link.call("LPUSH", keys.of(queue).bell, 1)

    # -- duties

    def reclaim(
        self, queue: str, consumer: str, *, certain: bool, death: Death = UNSEEN, most: int = 500, cursor: int = 0
    ) -> Reclaimed | None:
        """Return a dead consumer's jobs to the head of the queue, a batch; `cursor` is what the last call returned.

        None: its lease has not ended, and nobody said that it is `certain` to be dead.
        """
        key = keys.of(queue)
        names = (
            key.inflight(consumer), key.pending, key.meta, key.consumers, key.bell, key.suspects,
            key.dead, key.dead_index, key.scheduled, key.drained,
        )  # fmt: skip
        args = (consumer, most, int(certain), death.charged, death.how, death.where, cursor, *self._caps)
        with moments.step("reclaim", None, queue=queue, consumer=consumer) as facts:
            reply = self._run("reclaim", names, *args)
            facts["moved"] = 0 if reply[0] == Code.ALIVE else reply[1]
        return None if reply[0] == Code.ALIVE else Reclaimed(*map(int, reply[1:]))

    def promote(self, queue: str, most: int = 500) -> tuple[int, float | None]:
        """Move jobs that are due to the queue, a batch; how many, and seconds until the next is due."""
        key = keys.of(queue)
        with moments.step("promote", None, queue=queue):
            reply = self._run("promote", (key.scheduled, key.pending, key.meta, key.bell, key.suspects), most)
        return reply[1], None if reply[2] < 0 else reply[2] / 1000

    def consumers(self, queue: str) -> dict[str, float]:
        """Every consumer that is listed, and for how many more seconds its lease holds (below 0: it ended)."""
        clock, pairs = self.read(("TIME",), ("ZRANGE", keys.of(queue).consumers, 0, -1, "WITHSCORES"))
        now = int(clock[0]) + int(clock[1]) / 1e6
        return {pairs[i].decode(): float(pairs[i + 1]) / 1000 - now for i in range(0, len(pairs), 2)}

    def announce(self, worker_id: str, facts: dict[str, str | int], lifetime: float) -> None:
        """Say in `rq:worker:<id>` what a worker is; it is gone by itself after `lifetime` seconds."""
        with moments.step("announce", None, worker=worker_id):
            self._run("announce", (keys.worker(worker_id),), ms(lifetime), *flat(list(facts.items())))

    def unannounce(self, worker_id: str) -> None:
        self.read(("DEL", keys.worker(worker_id)))

    # -- everybody

    def unfinished(self, queue: str) -> tuple[int, int]:
        """How many jobs wait, are scheduled or in flight; and how many of these are parked."""
        key = keys.of(queue)
        reply = self._run("unfinished", (key.pending, key.scheduled, key.meta, key.drained))
        return reply[1], reply[2]

    def wait_drained(self, queue: str, seconds: float) -> bool:
        """Wait until perhaps nothing is unfinished; False after the time (about 2 s at most), or after weather."""
        return self._wait((keys.of(queue).drained,), seconds)

    def configure(self, queue: str, maxsize: int | None = None, maxbytes: int | None = None) -> None:
        """Set a queue's bound for everybody."""
        key = keys.of(queue)
        self._run("configure", (key.meta, key.room), *map(blank, (maxsize, maxbytes)))

    def pause(self, queue: str) -> None:
        """Nothing more is taken; puts go on up to the bound."""
        self.read(("HSET", keys.of(queue).meta, "paused", 1))

    def resume(self, queue: str) -> None:
        """Undo a pause and wake the consumers."""
        key = keys.of(queue)
        self._run("resume", (key.meta, key.pending, key.bell))

    def purge(self, queue: str) -> int:
        """Drop everything that waits or is scheduled; how many jobs that were."""
        key = keys.of(queue)
        names = (key.pending, key.scheduled, key.meta, key.bell, key.room, key.drained, key.suspects)
        return int(self._run("purge", names)[1])

    def requeue(self, queue: str, tags: Sequence[int], *, woken: bool = False) -> Requeued:
        """Let buried jobs, at most 500, wait again at the end of the queue, as many as fit.

        Repeated after a lost answer it moves nothing twice, but what was moved then counts as no longer dead.
        """
        key = keys.of(queue)
        names = (key.dead, key.dead_index, key.pending, key.scheduled, key.meta, key.bell, key.room)
        code, *figures = self._run("requeue", names, int(woken), *tags)
        return Requeued(Code(code), *figures)

    def forget(self, queue: str, tags: Sequence[int]) -> int:
        """Drop buried jobs, at most 500 and at least one; how many there were."""
        key = keys.of(queue)
        return int(self._run("forget", (key.dead, key.dead_index, key.meta), *tags)[1])

    def trim(self, queue: str) -> int:
        """Drop buried jobs over the caps; how many. There may be more until it says 0."""
        key = keys.of(queue)
        return int(self._run("trim", (key.dead, key.dead_index, key.meta), *self._caps)[1])

    def _wait(self, lists: tuple[str, ...], seconds: float) -> bool:
        """Block for a wake-up token: a hint only, so that an error is no more than a wait that was in vain."""
        self.open()
        with self._waiters.lend() as link:
            try:
                return link.call("BRPOP", *lists, max(0.01, min(seconds, LONGEST_BLOCK))) is not None
            except FAULTS as error:
                link.close()
                if not is_weather(error):
                    raise explained(error, self._address) from None
        time.sleep(random.uniform(0, min(seconds, 0.5)))
        return False


def weather(error: BaseException) -> bool:
    """Whether an error of a call over a link says "not now"; the others are faults."""
    return is_weather(error)


def version_of(info: bytes) -> tuple[int, ...]:
    """`(7, 0, 15)` from the reply to INFO; empty when it says nothing of a version."""
    for line in info.decode(errors="replace").splitlines():
        if line.startswith("redis_version:"):
            return tuple(int(part) for part in line.partition(":")[2].split(".") if part.isdigit())
    return ()


def blank(number: int | None) -> int | str:
    return "" if number is None else number


def ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def firsts(pairs: Sequence[tuple[int, Any]]) -> list[int]:
    return [tag for tag, _ in pairs]


def flat(pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    return [part for pair in pairs for part in pair]

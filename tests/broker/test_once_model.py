"""Random walks over the steps of unique jobs: after each step every lock has its job, and every job its lock.

Steps are lost replies, deaths and results that come too late, too. What must hold is read from Redis after each step.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker, Link, Put
from rq_lite.model.message import VERSION, Message, decode, entry_of, parse
from rq_lite.model.outcome import Finished
from tests.steps import KEY, counter

KEYS = 4
PAST, FUTURE = 1, 10**14
ENDS = ("done", "failed", "cancelled", "expired", "overflowed", "purged", "replaced")


class Walk:
    """Puts, takes and settles jobs of few keys, at random."""

    def __init__(self, broker: Broker, link: Link, chance: random.Random) -> None:
        self.broker, self.link, self.chance = broker, link, chance
        self.made = 0
        self.taken: set[str] = set()  # ids of jobs that were taken in this life
        self.tags: list[int] = []  # deliveries, some of which are over
        self.steps = Counter[str]()

    def entry(self) -> bytes:
        self.made += 1
        mode, key = self.chance.choice("es"), self.chance.randrange(KEYS)
        expires = self.chance.choice([None, None, FUTURE, PAST])
        unique = f"{mode}:t{mode}:{key}" if self.chance.random() < 0.9 else None
        message = Message(VERSION, f"{self.made:08}", "t", [key], unique=unique, expires=expires)
        front = b"r %d " % self.chance.choice([0, 0, 90_000]) if unique and self.chance.random() < 0.5 else b""
        return front + entry_of(message, "q")

    def step(self) -> None:
        name = self.chance.choice(
            ["put"] * 6 + ["take"] * 4 + ["finish"] * 2 + ["retry", "give_back", "bury", "requeue", "cancel", "promote"]
            + ["reclaim", "full", "purge"] * (self.chance.random() < 0.2)
        )  # fmt: skip
        self.steps[name] += 1
        getattr(self, name)()

    def put(self) -> None:
        entries = [self.entry() for _ in range(self.chance.randint(1, 4))]
        delay = self.chance.choice([0, 0, 0, 60_000])
        first = self.broker.puts.put("q", entries, delay=delay, marked=True)
        if self.chance.random() < 0.3:  # the reply was lost
            with self.broker.core.links.lend() as link:
                link.sequence -= 1
            assert verdicts(self.broker.puts.put("q", entries, delay=delay, marked=True)) == verdicts(first)

    def take(self) -> None:
        (got,) = self.broker.takes.exchange("c", [Acks("q", [])], self.chance.randint(1, 3), self.link)
        for tag, raw in enumerate(got.jobs, got.tag + 1):
            self.tags.append(tag)
            message = decode(raw)[0]
            assert message.expires != PAST
            self.taken.add(message.id)

    def some(self) -> list[int]:
        return self.chance.sample(self.tags, min(len(self.tags), self.chance.randint(1, 2)))

    def finish(self) -> None:
        for tag in self.some():
            state = self.chance.choice(["done", "cancelled"])
            self.broker.takes.finish("q", "c", [(tag, Finished(state, ttl=0))], self.link)

    def bury(self) -> None:
        for tag in self.some():
            self.broker.takes.finish("q", "c", [(tag, Finished("failed", ttl=0, report=b"{}"))], self.link)

    def retry(self) -> None:
        if self.tags:
            self.broker.takes.retry(
                "q", "c", [(tag, self.chance.choice([0, 60_000])) for tag in self.some()], self.link
            )

    def give_back(self) -> None:
        if self.tags:
            self.broker.takes.give_back("q", "c", self.some(), link=self.link)

    def reclaim(self) -> None:
        self.broker.tends.reclaim("q", "c", certain=True)
        self.broker.takes.register("q", "c", link=self.link)

    def requeue(self) -> None:
        tags = [int(tag) for tag in self.broker.read(("HKEYS", KEY.dead))[0]]
        if tags:
            before = {decode(raw)[0].id for raw in alive(self.broker)}
            operate.requeue(self.broker, "q", self.chance.sample(tags, min(3, len(tags))))
            self.taken -= {decode(raw)[0].id for raw in alive(self.broker)} - before  # their next life

    def cancel(self) -> None:
        if self.made:
            operate.cancel(self.broker, "q", f"{self.chance.randint(1, self.made):08}")

    def promote(self) -> None:
        members = self.broker.read(("ZRANGE", KEY.scheduled, 0, 2))[0]
        if members:
            self.broker.read(("ZADD", KEY.scheduled, *(part for member in members for part in (0, member))))
        self.broker.tends.promote("q")

    def full(self) -> None:
        policy = self.chance.choice(["wait", "drop-new", "drop-old"])
        self.broker.read(("HSET", KEY.meta, "full", policy, "maxsize", self.chance.choice([0, 2, 5])))

    def purge(self) -> None:
        operate.purge(self.broker, "q")


def verdicts(reply: Put) -> tuple[int, bytes]:
    return reply.accepted, reply.verdicts


def latest(broker: Broker) -> dict[str, bytes]:
    """By the name of their lock the entries of the jobs that replace others."""
    flat = broker.read(("HGETALL", KEY.latest))[0]
    return {flat[i].decode(): flat[i + 1].partition(b"|")[2] for i in range(0, len(flat), 2)}


def placed(broker: Broker) -> list[bytes]:
    """The entries of all jobs that have not ended, but for those that replace others."""
    pending, scheduled, lone, flat = broker.read(
        ("LRANGE", KEY.pending, 0, -1), ("ZRANGE", KEY.scheduled, 0, -1), ("LRANGE", KEY.suspects, 0, -1),
        ("HVALS", KEY.inflight("c")),
    )  # fmt: skip
    return [*pending, *(member[18:] for member in scheduled), *lone, *flat]


def alive(broker: Broker) -> list[bytes]:
    return [*placed(broker), *latest(broker).values()]


def check(broker: Broker, walk: Walk) -> None:
    jobs = [(decode(raw)[0], parse(raw)) for raw in placed(broker)]
    newer = latest(broker)
    ids = {message.id for message, _ in jobs} | {decode(raw)[0].id for raw in newer.values()}
    assert len(ids) == len(jobs) + len(newer)
    holders: dict[str, str] = {}
    for message, head in jobs:
        assert head is not None
        if head.unique is None or (head.unique[:1] == b"s" and message.id in walk.taken):
            continue
        name = head.unique[2:].decode()
        assert name not in holders, f"two of {name}"
        holders[name] = f"{head.unique[:1].decode()}|{message.id}"
    locks = broker.read(("KEYS", KEY.unique("*")))[0]
    held = {key.decode().partition(":unique:")[2]: broker.read(("GET", key))[0].decode() for key in locks}
    assert {name: "|".join(lock.split("|")[:2]) for name, lock in held.items()} == holders
    assert newer.keys() <= holders.keys()
    assert counter(broker, "latest") == len(newer)
    assert counter(broker, "latest_bytes") == sum(map(len, newer.values()))
    ended = sum(counter(broker, name) for name in ENDS)
    assert counter(broker, "put") + counter(broker, "requeued") == ended + len(ids)
    pending, scheduled = broker.read(("LRANGE", KEY.pending, 0, -1), ("ZRANGE", KEY.scheduled, 0, -1))
    if pending or scheduled:  # else the next put counts from 0
        assert counter(broker, "bytes") == sum(map(len, pending)) + sum(len(member[18:]) for member in scheduled)


@pytest.fixture
def link(broker: Broker) -> Iterator[Link]:
    broker.puts.declare("q", maxsize=0)
    with closing(broker.link()) as link:
        broker.takes.register("q", "c", link=link)
        yield link


@pytest.mark.parametrize("seed", range(6))
def test_every_lock_has_its_job_and_every_job_its_lock(broker: Broker, link: Link, seed: int, long: bool) -> None:
    steps, duplicates, replaced = Counter[str](), 0, 0
    for number in range(20 if long else 1):
        broker.read(("FLUSHALL",))
        broker.puts.declare("q", maxsize=0)
        broker.takes.register("q", "c", link=link)
        walk = Walk(broker, link, random.Random(100 * seed + number))
        for _ in range(250):
            walk.step()
            check(broker, walk)
        steps += walk.steps
        duplicates += counter(broker, "duplicates")
        replaced += counter(broker, "replaced")
    assert len(steps) >= 10
    assert duplicates
    assert replaced

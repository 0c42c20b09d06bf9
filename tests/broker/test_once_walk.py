"""Every order of few steps over one key: three consumers, one death, one lost reply; what must hold, holds in each.

Steps are tried from each state that was not seen before, in breadth, so a failure comes with the shortest way to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker, Link
from rq_lite.model.message import VERSION, Message, decode, entry_of
from rq_lite.model.outcome import Finished
from rq_lite.testing import fake
from tests.steps import KEY, counter

CONSUMERS = ("a", "b", "c")
PUTS = 3  # the number of jobs in a walk
OF_CONSUMER = ("take", "done", "bury", "retry", "back", "die")
STEPS = ("put", "again", "promote", "requeue", *(f"{step} {name}" for step in OF_CONSUMER for name in CONSUMERS))


class World:
    """One way through the steps, from the beginning."""

    def __init__(self, broker: Broker, link: Link, mode: str, steps: tuple[str, ...]) -> None:
        broker.read(("FLUSHALL",))
        broker.puts.declare("q", maxsize=0)
        for name in CONSUMERS:
            broker.takes.register("q", name, link=link)
        self.broker, self.link, self.mode = broker, link, mode
        self.put_count = 0
        self.last: tuple[list[bytes], bytes] | None = None
        self.believes: dict[str, list[int]] = {
            name: [] for name in CONSUMERS
        }  # tags, also of jobs that are no longer theirs
        self.taken: set[str] = set()
        self.gone: set[str] = set()  # consumers that have died; what they sent may come late
        self.repeated = False
        for step in steps:
            assert self.step(step)

    def step(self, step: str) -> bool:
        """False if there is nothing to do."""
        verb, _, name = step.partition(" ")
        done: bool = getattr(self, verb)(*([name] if name else []))
        return done

    def put(self) -> bool:
        if self.put_count == PUTS:
            return False
        self.put_count += 1
        message = Message(VERSION, f"{self.put_count}", "t", unique=f"{self.mode[0]}:t:k")
        entries = [b"r 0 " * self.mode.endswith("replace") + entry_of(message, "q")]
        self.last = entries, self.broker.puts.put("q", entries, marked=True).verdicts
        return True

    def again(self) -> bool:
        """The reply to the last put was lost; a world has one."""
        if self.last is None or self.repeated:
            return False
        self.repeated = True
        with self.broker.core.links.lend() as link:
            link.sequence -= 1
        assert self.broker.puts.put("q", self.last[0], marked=True).verdicts == self.last[1]
        return True

    def take(self, name: str) -> bool:
        if name in self.gone:
            return False
        (reply,) = self.broker.takes.exchange(name, [Acks("q", [])], 1, self.link)
        for raw in reply.jobs:
            self.believes[name].append(reply.tag + 1)
            self.taken.add(decode(raw)[0].id)
        return bool(reply.jobs)

    def _settled(self, name: str) -> int:
        return self.believes[name].pop(0) if self.believes[name] else 0

    def done(self, name: str) -> bool:
        tag = self._settled(name)
        return bool(tag) and self.broker.takes.finish("q", name, [(tag, Finished("done", ttl=0))], self.link) >= 0

    def bury(self, name: str) -> bool:
        tag = self._settled(name)
        end = Finished("failed", ttl=0, report=b"{}")
        return bool(tag) and self.broker.takes.finish("q", name, [(tag, end)], self.link) >= 0

    def retry(self, name: str) -> bool:
        tag = self._settled(name)
        return bool(tag) and self.broker.takes.retry("q", name, [(tag, 0)], self.link) >= 0

    def back(self, name: str) -> bool:
        tag = self._settled(name)
        return bool(tag) and self.broker.takes.give_back("q", name, [tag], link=self.link) >= 0

    def die(self, name: str) -> bool:
        if self.gone:
            return False
        self.gone.add(name)
        self.broker.tends.reclaim("q", name, certain=True)
        return True

    def promote(self) -> bool:
        return self.broker.tends.promote("q")[0] > 0

    def requeue(self) -> bool:
        tags = [int(tag) for tag in self.broker.read(("ZRANGE", KEY.dead_index, 0, -1))[0]]
        if not tags:
            return False
        before = {job for job, _ in self.alive()}
        moved = operate.requeue(self.broker, "q", tags).moved
        self.taken -= {job for job, _ in self.alive()} - before  # their next life
        return moved > 0

    def alive(self) -> list[tuple[str, str]]:
        """All jobs that have not ended, and where they are."""
        pending, scheduled, lone = self.broker.read(
            ("LRANGE", KEY.pending, 0, -1), ("ZRANGE", KEY.scheduled, 0, -1), ("LRANGE", KEY.suspects, 0, -1)
        )
        found = [(raw, "pending") for raw in pending] + [(member[18:], "scheduled") for member in scheduled]
        found += [(raw, "suspects") for raw in lone]
        for name in CONSUMERS:
            flat = self.broker.read(("HGETALL", KEY.inflight(name)))[0]
            found += [(flat[i + 1], f"{name} {self._rank(int(flat[i]))}") for i in range(0, len(flat), 2)]
        found += [(raw.partition(b"|")[2], "latest") for raw in self.broker.read(("HVALS", KEY.latest))[0]]
        return [(decode(raw)[0].id, where) for raw, where in found]

    def _rank(self, tag: int) -> int:
        return sorted(tag for tags in self.believes.values() for tag in tags).index(tag)

    def state(self) -> Any:
        believed = tuple(tuple(self._rank(tag) for tag in self.believes[name]) for name in CONSUMERS)
        lock = self.lock()
        dead = tuple(self.broker.read(("HVALS", KEY.dead))[0])
        return (
            tuple(sorted(self.alive())), believed, lock, len(dead), self.put_count, frozenset(self.taken),
            frozenset(self.gone), self.repeated,
        )  # fmt: skip

    def lock(self) -> str | None:
        """The mode and the id in the lock."""
        lock = self.broker.read(("GET", KEY.unique("t:k")))[0]
        return None if lock is None else "|".join(lock.decode().split("|")[:2])

    def check(self) -> None:
        jobs = self.alive()
        assert len({job for job, _ in jobs}) == len(jobs), "a job is in two places"
        holders = [job for job, where in jobs if where != "latest" and (self.mode[0] == "e" or job not in self.taken)]
        assert len(holders) <= 1, "two of a key"
        assert self.lock() == (f"{self.mode[0]}|{holders[0]}" if holders else None), "a lock without its job, or a job"
        assert holders or all(where != "latest" for _, where in jobs), "a newer job without the one it replaces"
        ended = counter(self.broker, "done") + counter(self.broker, "failed") + counter(self.broker, "replaced")
        assert counter(self.broker, "put") + counter(self.broker, "requeued") == ended + len(jobs)


@pytest.fixture
def memory() -> Iterator[tuple[Broker, Link]]:
    with fake() as broker, closing(broker.link()) as link:
        yield broker, link


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["e", "s", "e replace", "s replace"])
def test_whatever_the_order_of_the_steps_a_key_is_there_once(
    memory: tuple[Broker, Link], mode: str, long: bool
) -> None:
    seen: set[Any] = set()
    ways: list[tuple[str, ...]] = [()]
    for _ in range(7 if long else 3):
        further = []
        for way in ways:
            world: World | None = None  # made again only after a step that did something
            for step in STEPS:
                world = world or World(*memory, mode, way)
                if not world.step(step):
                    continue
                try:
                    world.check()
                    state = world.state()
                except AssertionError as error:
                    raise AssertionError(f"{' → '.join((*way, step))}: {error}") from error
                if state not in seen:
                    seen.add(state)
                    further.append((*way, step))
                world = None
        ways = further
    assert len(seen) > (500 if long else 30)

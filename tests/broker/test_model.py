"""The scripts on a real Redis against a small model in plain Python, in any order that Hypothesis finds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from rq_lite.admin import operate
from rq_lite.broker import Broker, Cancelled, Code, Death
from rq_lite.broker.scheduling import Planned
from rq_lite.model.message import decode, marked
from rq_lite.model.outcome import Finished
from tests.conftest import LONG, undocumented, until
from tests.steps import KEY, bury, drop, entry, everything, now_ms, owned, put_by_hand, take

LATER = 3_600_000  # ms: never due in a test
SLOTS = 2  # consumers
DEATHS = 7  # of workers: then a job is buried


SETTLING = ("ack", "retry", "bury", "park", "give_back", "crashed", "drop")


class Model(RuleBasedStateMachine):
    """What should be in Redis; every job is known by its entry, and every entry is another."""

    broker: Broker
    order = "fifo"

    def __init__(self) -> None:
        super().__init__()
        self.link = self.broker.link()
        self.broker.read(("FLUSHALL",))
        self.broker.puts.declare("q", 20, 0, self.order)
        self.jobs = self.sequence = self.incarnations = 0
        self.maxsize, self.maxbytes, self.paused = 20, 0, False
        self.planned = False
        self.pending: list[bytes] = []  # the next to be taken first
        self.scheduled: dict[bytes, str] = {}  # entry to kind
        self.suspects: list[bytes] = []  # likewise
        self.inflight: dict[str, dict[int, bytes]] = {}  # consumer to tag to entry
        self.dead: dict[int, bytes] = {}
        self.marks: set[str] = set()  # jobs to drop
        counted = (
            "put", "done", "failed", "retried", "reclaimed", "crashed", "stale", "purged", "requeued", "dropped",
            "cancelled",
        )  # fmt: skip
        self.counters = dict.fromkeys(counted, 0)
        for slot in range(SLOTS):
            self.born(slot)

    def teardown(self) -> None:
        self.link.close()

    def born(self, slot: int) -> None:
        self.incarnations += 1
        name = f"c{slot}.{self.incarnations}"
        self.consumers = {**getattr(self, "consumers", {}), slot: name}
        self.inflight[name] = {}
        self.broker.takes.register("q", name, link=self.link)

    def waiting(self) -> int:
        return len(self.pending) + len(self.scheduled)

    def weight(self) -> int:
        return sum(map(len, self.pending)) + sum(map(len, self.scheduled))

    def to_head(self, entries: list[bytes]) -> None:
        """They wait again: suspects alone, the others at the head of the queue; the first in the list goes first."""
        usual = [raw for raw in entries if not lone(raw)]
        if self.order == "priority":
            for raw in reversed(usual):
                at = sum(score(other) < score(raw) for other in self.pending)
                self.pending.insert(at, raw)
        else:
            self.pending = usual + self.pending
        self.suspects = [raw for raw in entries if lone(raw)] + self.suspects

    def arrive(self, entries: list[bytes]) -> None:
        """New ones wait, or such as are due, where the queue's order wants them."""
        for raw in entries:
            if self.order == "fifo":
                at = len(self.pending)
            elif self.order == "lifo":
                at = 0
            else:
                at = sum(score(other) <= score(raw) for other in self.pending)
            self.pending.insert(at, raw)

    def entry(self, number: int) -> bytes:
        mark = (number * 7 % 5) - 2.5 if self.order == "priority" and number % 4 else None
        return marked(entry(number), "", priority=mark)

    def settled(self, slot: int, data: Any) -> tuple[str, list[int], list[bytes]]:
        """A consumer, some tags (perhaps one that is not its own), and the entries that it really has."""
        name = self.consumers[slot]
        own = self.inflight[name]
        tags = data.draw(st.lists(st.sampled_from(sorted(own) or [10**9]), unique=True, max_size=5))
        if data.draw(st.booleans()):
            others = {tag for kept in self.inflight.values() if kept is not own for tag in kept}
            tags.append(data.draw(st.sampled_from(sorted(others) or [10**9 + 1])))
        found = [own.pop(tag) for tag in tags if tag in own]
        self.counters["stale"] += len(tags) - len(found)
        return name, tags, found

    @initialize(buried=st.integers(0, 6), taken=st.integers(0, 3))
    def begin(self, buried: int, taken: int) -> None:
        """Not with nothing: it takes several steps in the right order until a job is dead."""
        self.put(8, 0, False)
        self.put(6, 0, False)
        for each in range(SLOTS):
            name = self.consumers[each]
            reply = take(self.broker, self.link, 3 + taken, consumer=name)
            self.inflight[name] = dict(enumerate(reply.jobs, reply.tag + 1))
            self.pending = self.pending[len(reply.jobs) :]
        name = self.consumers[0]
        for tag in sorted(self.inflight[name])[:buried]:
            assert bury(self.broker, "q", name, [(tag, b"{}")], self.link) == 0
            self.dead[tag] = self.inflight[name].pop(tag)
            self.counters["failed"] += 1

    # -- producers

    @rule(count=st.integers(1, 8), delay=st.sampled_from([0, 0, 0, 1, LATER]), repeated=st.booleans())
    def put(self, count: int, delay: int, repeated: bool) -> None:
        numbers = range(self.jobs, self.jobs + count)
        self.jobs += count
        self.sequence += 1
        reply = put_by_hand(self.broker, self.sequence, numbers, delay=delay, entry=self.entry)
        room = max(0, self.maxsize - self.waiting()) if self.maxsize else count
        accepted: list[bytes] = []
        used = self.weight()
        for raw in map(self.entry, numbers):
            used += len(raw)
            if len(accepted) == room or (self.maxbytes and used > self.maxbytes):
                break
            accepted.append(raw)
        assert reply[:2] == [Code.OK, len(accepted)]
        if repeated and accepted:
            assert put_by_hand(self.broker, self.sequence, numbers, delay=delay, entry=self.entry)[:2] == reply[:2]
        if delay:
            self.scheduled |= dict.fromkeys(accepted, "later" if delay == LATER else "soon")
        else:
            self.arrive(accepted)
        self.counters["put"] += len(accepted)

    @rule(late=st.booleans())
    def fire(self, late: bool) -> None:
        """A schedule's slot: put whatever the bound, and once, however often it is sent."""
        raw = entry(self.jobs)
        self.jobs += 1
        seen = Planned("s", b"{}", self.jobs)
        assert self.broker.plans.plan("s", b"{}" if self.planned else b"", b"{}", seen.slot)
        self.planned = True
        if late:
            assert not self.broker.plans.fire(seen._replace(slot=seen.slot - 1), "q", [raw], 1, None)
            assert not self.broker.plans.fire(seen._replace(definition=b"[]"), "q", [raw], 1, None)
        assert self.broker.plans.fire(seen, "q", [raw], LATER, seen.slot)
        assert not self.broker.plans.fire(seen, "q", [raw], LATER, seen.slot)
        self.arrive([raw])
        self.counters["put"] += 1

    # -- consumers

    @rule(slot=st.integers(0, SLOTS - 1), want=st.integers(0, 12), data=st.data())
    def exchange(self, slot: int, want: int, data: Any) -> None:
        name, acks, found = self.settled(slot, data)
        reply = take(self.broker, self.link, want, acks, consumer=name)
        expected = [] if self.paused else self.pending[:want]
        assert (reply.code, reply.stale, reply.jobs) == (Code.OK, len(acks) - len(found), expected)
        self.pending = self.pending[len(expected) :]
        for tag, raw in enumerate(expected, reply.tag + 1):
            assert all(tag not in kept for kept in self.inflight.values())
            assert tag not in self.dead
            self.inflight[name][tag] = raw
        self.counters["done"] += len(found)

    @rule(slot=st.integers(0, SLOTS - 1), delay=st.sampled_from([1, LATER]), data=st.data())
    def retry(self, slot: int, delay: int, data: Any) -> None:
        name, tags, found = self.settled(slot, data)
        stale = self.broker.takes.retry("q", name, [(tag, delay) for tag in tags], self.link)
        assert stale == len(tags) - len(found)
        kind = "later" if delay == LATER else "soon"
        self.scheduled |= dict.fromkeys((charged(raw, 1, 0) for raw in found), kind)
        self.counters["retried"] += len(found)

    @precondition(lambda self: any(self.inflight.values()))
    @rule(slot=st.integers(0, SLOTS - 1), data=st.data())
    def park(self, slot: int, data: Any) -> None:
        name, tags, found = self.settled(slot, data)
        assert self.broker.takes.park("q", name, [(tag, "t") for tag in tags], self.link) == len(tags) - len(found)
        self.scheduled |= dict.fromkeys(found, "parked")

    @precondition(lambda self: any(self.inflight.values()))
    @rule(slot=st.integers(0, SLOTS - 1), data=st.data())
    def bury(self, slot: int, data: Any) -> None:
        before = dict(self.inflight[self.consumers[slot]])
        name, tags, found = self.settled(slot, data)
        assert bury(self.broker, "q", name, [(tag, b"{}") for tag in tags], self.link) == len(tags) - len(found)
        self.dead |= {tag: before[tag] for tag in tags if tag in before}
        self.counters["failed"] += len(found)

    @precondition(lambda self: any(self.inflight.values()))
    @rule(slot=st.integers(0, SLOTS - 1), given_up=st.booleans(), called=st.integers(0, 2), data=st.data())
    def finish(self, slot: int, given_up: bool, called: int, data: Any) -> None:
        """The ends of several at once, each with callbacks, which no bound refuses."""
        before = dict(self.inflight[self.consumers[slot]])
        name, tags, found = self.settled(slot, data)
        ends, put = [], []
        for tag in tags:
            callbacks = [self.entry(number) for number in range(self.jobs, self.jobs + called)]
            self.jobs += called
            put += callbacks if tag in before else []
            puts = [("q", raw) for raw in callbacks]
            ends.append((tag, Finished("failed" if given_up else "done", b"", 0, b"{}" if given_up else b"", puts)))
        assert self.broker.takes.finish("q", name, ends, self.link) == len(tags) - len(found)
        self.arrive(put)
        self.counters["put"] += len(put)
        self.counters["failed" if given_up else "done"] += len(found)
        if given_up:
            self.dead |= {tag: before[tag] for tag in tags if tag in before}

    @precondition(lambda self: any(self.inflight.values()))
    @rule(slot=st.integers(0, SLOTS - 1), data=st.data())
    def give_back(self, slot: int, data: Any) -> None:
        before = dict(self.inflight[self.consumers[slot]])
        name, tags, found = self.settled(slot, data)
        assert self.broker.takes.give_back("q", name, tags) == len(tags) - len(found)
        self.to_head([before[tag] for tag in sorted(tags) if tag in before])

    @precondition(lambda self: any(self.inflight.values()))
    @rule(slot=st.integers(0, SLOTS - 1), data=st.data())
    def engines_die(self, slot: int, data: Any) -> None:
        """The processes of some jobs die, and the consumer lives to tell."""
        before = dict(self.inflight[self.consumers[slot]])
        name, tags, found = self.settled(slot, data)
        assert self.broker.takes.crashed("q", name, [(tag, "d", "", 3) for tag in tags], self.link) == len(tags) - len(
            found
        )
        after = {tag: charged(before[tag], 0, 1) for tag in sorted(tags) if tag in before}
        poison = {tag: raw for tag, raw in after.items() if crashes(raw) >= 3}
        self.dead |= poison
        self.to_head([raw for tag, raw in after.items() if tag not in poison])
        self.counters["failed"] += len(poison)
        self.counters["crashed"] += len(found)

    @rule(slot=st.integers(0, SLOTS - 1))
    def isolate(self, slot: int) -> None:
        name = self.consumers[slot]
        code, tag, raw = self.broker.takes.isolate("q", name, self.link)
        expected = b"" if self.paused or not self.suspects else self.suspects.pop(0)
        assert (code, raw) == (Code.OK, expected)
        if expected:
            self.inflight[name][tag] = raw

    @rule(
        slot=st.integers(0, SLOTS - 1),
        late=st.booleans(),
        blame=st.sampled_from(["all", "none", "one", "two", "worker"]),
        most=st.sampled_from([1, 3, 3, 5]),
    )
    def crash(self, slot: int, late: bool, blame: str, most: int) -> None:
        """A consumer dies, alone or with its worker, and is reclaimed; what it sent before may still arrive."""
        name = self.consumers[slot]
        held = self.inflight.pop(name)
        worker = blame == "worker"
        most_blamed = {"none": 0, "one": 1, "two": 2}.get(blame)
        blamed = set(sorted(held)[:most_blamed])
        which = "all" if most_blamed is None else ",".join(map(str, blamed)) or "none"
        bill = (0, 0, 1) if worker else (0, 1)
        after = {tag: charged(raw, *bill) if tag in blamed else raw for tag, raw in held.items()}
        count, last = (deaths, DEATHS) if worker else (crashes, most)
        poison = {tag: raw for tag, raw in after.items() if tag in blamed and count(raw) >= last}
        suspects = {tag: raw for tag, raw in after.items() if tag not in poison and lone(raw)}
        death = Death("d", which, worker=worker)
        step = self.broker.tends.reclaim("q", name, certain=True, death=death, limits={"t": most})
        assert step is not None
        assert step[:5] == (len(held), 0, 0, len(suspects), len(poison))
        named = {int(job.id): job for job in step.named}
        marked = {tag for tag in blamed if tag in poison or tag in suspects}
        expected = marked if marked or len(blamed) != 1 else blamed
        assert len(named) == min(10, len(expected))
        assert named.keys() <= {int(id_of(after[tag])) for tag in expected}
        assert all(
            job.buried == (int(id_of(after[tag])) in named and tag in poison)
            for tag in expected
            for job in [named.get(int(id_of(after[tag])))]
            if job
        )
        self.dead |= poison
        self.to_head([raw for tag, raw in sorted(after.items()) if tag not in poison])
        self.counters["failed"] += len(poison)
        self.counters["reclaimed"] += len(held)
        if late:
            reply = take(self.broker, self.link, 5, sorted(held), consumer=name)
            assert (reply.code, reply.stale, reply.jobs) == (Code.NOLEASE, len(held), [])
            self.counters["stale"] += len(held)
        self.born(slot)

    @rule(slot=st.integers(0, SLOTS - 1), want=st.integers(1, 6))
    def take_with_a_lost_reply(self, slot: int, want: int) -> None:
        """Its consumer never hears of it, and finds it out by looking what is booked on it."""
        name = self.consumers[slot]
        known = dict(self.inflight[name])
        take(self.broker, self.link, want, consumer=name)
        found = owned(self.broker, "q", name, self.link)
        expected = [] if self.paused else self.pending[:want]
        assert [found[tag] for tag in sorted(found.keys() - known.keys())] == expected
        self.inflight[name] = found
        self.pending = self.pending[len(expected) :]

    @rule(
        slot=st.integers(0, SLOTS - 1),
        verb=st.sampled_from(["ack", "retry", "bury", "park", "give_back", "crashed"]),
        data=st.data(),
    )
    def resend(self, slot: int, verb: str, data: Any) -> None:
        """What settles a delivery arrives once more after it was done: it changes nothing, and says so."""
        rule_of = {"ack": "exchange", "crashed": "engines_die"}
        getattr(self, rule_of.get(verb, verb))(slot, *self.arguments(verb), data)
        name = self.consumers[slot]
        gone = [tag for tag in range(1, 60) if tag not in self.inflight[name]][-5:]
        before = everything(self.broker)
        stale = {
            "ack": lambda: take(self.broker, self.link, 0, gone, consumer=name).stale,
            "retry": lambda: self.broker.takes.retry("q", name, [(tag, 1) for tag in gone], self.link),
            "bury": lambda: bury(self.broker, "q", name, [(tag, b"{}") for tag in gone], self.link),
            "park": lambda: self.broker.takes.park("q", name, [(tag, "t") for tag in gone], self.link),
            "give_back": lambda: self.broker.takes.give_back("q", name, gone),
            "drop": lambda: drop(self.broker, "q", name, [(tag, "nobody") for tag in gone], self.link),
            "crashed": lambda: self.broker.takes.crashed("q", name, [(tag, "d", "", 3) for tag in gone], self.link),
        }[verb]()
        assert stale == len(gone)
        self.counters["stale"] += stale
        after = everything(self.broker)
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert changed <= {KEY.meta.encode(), KEY.drained.encode()}  # the count of stale results

    @staticmethod
    def arguments(verb: str) -> tuple[int, ...]:
        return {"ack": (0,), "retry": (1,)}.get(verb, ())

    @rule(slot=st.integers(0, SLOTS - 1), forward=st.booleans())
    def the_clock_steps(self, slot: int, forward: bool) -> None:
        """Redis' clock jumps beyond a lease, or back: who renews or registers anew goes on with all it has."""
        name = self.consumers[slot]
        distance = -LATER if forward else LATER
        self.broker.read(("ZADD", KEY.consumers, now_ms(self.broker) + distance, name))
        if forward:
            assert take(self.broker, self.link, 5, consumer=name).code is Code.NOLEASE
            self.broker.takes.register("q", name, link=self.link)
        else:
            assert self.broker.tends.reclaim("q", name, certain=False) is None
            assert self.broker.tends.renew("q", [name]).leases == 1
        assert self.broker.tends.consumers("q")[name] > 0

    # -- duties and operators

    @precondition(lambda self: "soon" in self.scheduled.values())
    @rule(most=st.integers(1, 5))
    def promote(self, most: int) -> None:
        order = scheduled(self.broker)
        due = [(raw, score) for raw, score in order if self.scheduled[raw] == "soon"]
        until(lambda: now_ms(self.broker) >= due[-1][1], "the jobs are due")
        moved, _ = self.broker.tends.promote("q", most)
        assert moved == min(most, len(due))
        for raw, _ in due[:moved]:
            del self.scheduled[raw]
            self.promoted(raw)

    @precondition(lambda self: "parked" in self.scheduled.values())
    @rule()
    def promote_parked(self) -> None:
        """As if their time had come: the parked ones alone."""
        for raw, _ in scheduled(self.broker):
            if self.scheduled[raw] == "parked":
                name = next(m for m in self.broker.read(("ZRANGE", KEY.scheduled, 0, -1))[0] if m.endswith(b"|" + raw))
                self.broker.read(("ZADD", KEY.scheduled, "XX", 0, name))
                assert self.broker.tends.promote("q", 1)[0] == 1
                del self.scheduled[raw]
                self.promoted(raw)

    def promoted(self, raw: bytes) -> None:
        if not lone(raw):
            self.arrive([raw])
        else:
            self.suspects.append(raw)

    @precondition(lambda self: any(self.inflight.values()))
    @rule(slot=st.integers(0, SLOTS - 1), data=st.data())
    def drop(self, slot: int, data: Any) -> None:
        before = dict(self.inflight[self.consumers[slot]])
        name, tags, found = self.settled(slot, data)
        jobs = [(tag, id_of(before[tag]) if tag in before else "somebody's") for tag in tags]
        assert drop(self.broker, "q", name, jobs, self.link) == len(tags) - len(found)
        self.marks -= {id_of(raw) for raw in found}
        self.counters["cancelled"] += len(found)

    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        held = [raw for kept in self.inflight.values() for raw in kept.values()]
        waiting = [*self.pending, *sorted(self.scheduled), *self.suspects]
        raw = data.draw(st.sampled_from([*waiting, *held, entry(99_999_999)]))
        if raw in waiting:
            expected = Cancelled.REMOVED
            self.pending = [one for one in self.pending if one != raw]
            self.suspects = [one for one in self.suspects if one != raw]
            self.scheduled.pop(raw, None)
            self.counters["cancelled"] += 1
            self.marks.discard(id_of(raw))
        else:
            expected = Cancelled.MARKED if held else Cancelled.UNKNOWN
            self.marks |= {id_of(raw)} if held else set()
        assert operate.cancel(self.broker, "q", id_of(raw)) is expected

    @precondition(lambda self: self.waiting() + len(self.suspects) > 2)
    @rule()
    def purge(self) -> None:
        purged = self.waiting() + len(self.suspects)
        assert operate.purge(self.broker, "q") == purged
        self.counters["purged"] += purged
        self.pending, self.scheduled, self.suspects = [], {}, []

    @precondition(lambda self: self.dead)
    @rule(data=st.data(), woken=st.booleans())
    def requeue(self, data: Any, woken: bool) -> None:
        tags = data.draw(st.lists(st.sampled_from([*sorted(self.dead), 10**9]), min_size=1, max_size=5))
        moved, oversized, full = [], 0, 0
        seen: list[int] = []
        for tag in tags:
            if tag in self.dead and tag not in seen:
                raw = plain(self.dead[tag])
                if 0 < self.maxbytes < len(raw):
                    oversized += 1
                elif (0 < self.maxsize <= self.waiting()) or (0 < self.maxbytes < self.weight() + len(raw)):
                    full = 1
                    break
                else:
                    self.arrive([raw])
                    moved.append(tag)
                    self.marks.discard(id_of(raw))
                    del self.dead[tag]
            seen.append(tag)
        reply = operate.requeue(self.broker, "q", tags, woken=woken)
        assert reply[:6] == (Code.OK, len(seen), len(moved), oversized, full, self.waiting())
        self.counters["requeued"] += len(moved)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def forget(self, data: Any) -> None:
        tags = data.draw(st.lists(st.sampled_from([*sorted(self.dead), 10**9]), min_size=1, max_size=5))
        forgotten = {tag for tag in tags if self.dead.pop(tag, None)}
        assert operate.forget(self.broker, "q", tags) == len(forgotten)
        self.counters["purged"] += len(forgotten)

    @precondition(lambda self: self.dead)
    @rule(keep=st.integers(1, 4))
    def trim(self, keep: int) -> None:
        oldest_first = list(map(int, self.broker.read(("ZRANGE", KEY.dead_index, 0, -1))[0]))
        over = oldest_first[: max(0, len(oldest_first) - keep)]
        narrow = Broker(self.broker.url, settings=replace(self.broker.settings, dead_max=keep))
        assert narrow.tends.trim("q") == len(over)
        narrow.close()
        for tag in over:
            del self.dead[tag]
        self.counters["dropped"] += len(over)

    @rule()
    def pause_or_resume(self) -> None:
        (operate.resume if self.paused else operate.pause)(self.broker, "q")
        self.paused = not self.paused

    @rule(maxsize=st.sampled_from([0, 1, 5, 20]), maxbytes=st.sampled_from([0, 0, 300, 1500]))
    def configure(self, maxsize: int, maxbytes: int) -> None:
        operate.configure(self.broker, "q", maxsize, maxbytes)
        self.maxsize, self.maxbytes = maxsize, maxbytes

    # -- what must hold

    @invariant()
    def every_job_is_in_its_one_place(self) -> None:
        if self.order == "priority":
            waiting = [member[18:] for member in self.broker.read(("ZRANGE", KEY.pending, 0, -1))[0]]
        else:
            waiting = self.broker.read(("LRANGE", KEY.pending, 0, -1))[0][::-1]
        assert waiting == self.pending
        assert self.broker.read(("LRANGE", KEY.suspects, 0, -1))[0][::-1] == self.suspects
        assert sorted(raw for raw, _ in scheduled(self.broker)) == sorted(self.scheduled)
        for name, held in self.inflight.items():
            assert owned(self.broker, "q", name, self.link) == held
        flat = self.broker.read(("HGETALL", KEY.dead))[0]
        buried = {int(flat[i]): flat[i + 1].partition(b"\n")[2] for i in range(0, len(flat), 2)}
        assert buried == self.dead
        assert sorted(map(int, self.broker.read(("ZRANGE", KEY.dead_index, 0, -1))[0])) == sorted(self.dead)
        everywhere = [*self.pending, *self.scheduled, *self.suspects, *self.dead.values()]
        everywhere += [raw for held in self.inflight.values() for raw in held.values()]
        ids = [decode(raw)[0].id for raw in everywhere]
        gone = sum(self.counters[name] for name in ("done", "purged", "dropped", "cancelled"))
        assert len(set(ids)) == len(ids) == self.counters["put"] - gone

    @invariant()
    def counters_agree_with_the_keys(self) -> None:
        flat = self.broker.read(("HGETALL", KEY.meta))[0]
        meta = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
        expected = {
            **self.counters,
            "bytes": self.weight(),
            "inflight": sum(map(len, self.inflight.values())),
            "suspects": len(self.suspects),
            "parked": list(self.scheduled.values()).count("parked"),
        }
        assert {name: int(meta.get(name, 0)) for name in expected} == expected
        assert self.broker.tends.unfinished("q")[0] == self.waiting() + expected["inflight"] + len(self.suspects)

    @invariant()
    def only_living_consumers_own_jobs_and_no_key_is_strange(self) -> None:
        assert set(self.broker.tends.consumers("q")) == set(self.inflight)
        assert undocumented(self.broker) == []

    @invariant()
    def marks_are_those_of_jobs_that_were_not_dropped_yet(self) -> None:
        assert {one.decode() for one in self.broker.read(("ZRANGE", KEY.cancelled, 0, -1))[0]} == self.marks


def id_of(raw: bytes) -> str:
    return decode(raw)[0].id


def charged(raw: bytes, attempts: int, crashed: int, died: int = 0) -> bytes:
    _, *before = decode(raw)
    died += before[2]
    mark = b"*%d" % died if died else b""
    return b"%d.%d%s%s%s" % (before[0] + attempts, before[1] + crashed, marks(raw), mark, raw[raw.index(b"{") :])


def plain(raw: bytes) -> bytes:
    """The job without its attempts and crashes."""
    return (b"0.0" + marks(raw) if marks(raw) else b"") + raw[raw.index(b"{") :]


def marks(raw: bytes) -> bytes:
    """All but the one that counts deaths of workers."""
    head = raw[: raw.index(b"{")].partition(b"*")[0]
    at = head.find(b"@")
    return b"" if at < 0 else head[at:]


def score(raw: bytes) -> float:
    return float(marks(raw)[1:] or 0)


def crashes(raw: bytes) -> int:
    return decode(raw)[2]


def deaths(raw: bytes) -> int:
    return decode(raw)[3]


def lone(raw: bytes) -> bool:
    return crashes(raw) >= 2 or deaths(raw) >= 5


def scheduled(broker: Broker) -> list[tuple[bytes, int]]:
    """What is scheduled: entry and due time in ms, in Redis' order."""
    flat = broker.read(("ZRANGE", KEY.scheduled, 0, -1, "WITHSCORES"))[0]
    return [(flat[i].partition(b"|")[2], int(flat[i + 1])) for i in range(0, len(flat), 2)]


@pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
def test_the_scripts_do_what_the_model_says(broker: Broker, order: str) -> None:
    class Bound(Model):
        pass

    limited = Broker(broker.url, settings=replace(broker.settings, max_worker_deaths=DEATHS))
    Bound.broker, Bound.order = limited, order
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=(100 if order == "fifo" else 40) // (1 if LONG else 3),
            stateful_step_count=30,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

"""T2 in one process: faults around each step of unique jobs, of jobs that expire and of jobs that follow a run.

Each step is one call of a script, on a real Redis, made five times: as it should be; with the process killed before the
call; with the process killed once Redis has done it; with the reply lost, after which the process goes on as it does
with any lost reply; and after its jobs were reclaimed, because it stood still. Then everything comes to rest, and after
every step the judge looks at the queue. After a lost reply all must end as if nothing had been lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import pytest
import redis

from rq_lite.admin import operate
from rq_lite.broker import Broker, Death, Link, Taken, scripts
from rq_lite.broker.deliveries import Deliveries
from rq_lite.broker.scheduling import Planned
from rq_lite.broker.session import Session
from rq_lite.chaos.once import breaches
from rq_lite.chaos.rest import look
from rq_lite.consumer.notices import Notices
from rq_lite.logs import RateLimitedLog, logger
from rq_lite.model.message import EXPIRED, VERSION, Message, decode, entry_of, parsed
from rq_lite.model.outcome import Crashed, Finished, Outcome, Parked, Retried, cancelled
from rq_lite.model.unique import lock
from tests.conftest import until
from tests.steps import KEY, counter, script_digest

FATES = ("none", "killed before", "killed after", "reply lost", "too late")
MINUTE = 60_000
PAST, FUTURE = 1, 10**14
DEATH = Death("killed", "all")
FAILED = Finished("failed", ttl=0, report=b"{}")
SCHEDULE = Planned("s", b'{"every":60}', 2_000_000_000_000)


class Killed(BaseException):
    """The process is no more."""


class Process:
    """A consumer, and the owner of its session; it also puts, as an app's process does."""

    def __init__(self, name: str, broker: Broker) -> None:
        self.name = name
        self.broker = Broker(broker.url, settings=msgspec.structs.replace(broker.settings, patience=5.0))
        self.of = Deliveries("q")
        self.here: dict[int, bytes] = {}
        self.session = Session(self.broker, name, [self.of], self, RateLimitedLog(logger("rq_lite.test")))

    def held(self, of: Deliveries) -> Collection[int]:
        return list(self.here)

    def took(self, of: Deliveries, taken: Taken) -> None:
        self.here.update(enumerate(taken.jobs, taken.tag + 1))

    def adopt(self, of: Deliveries, found: list[tuple[int, bytes]]) -> None:
        self.here.update(found)

    def look(self, of: Deliveries, owned: set[int]) -> None:
        """Nothing waits to be begun."""

    def disown(self, of: Deliveries, owned: set[int]) -> int:
        gone = self.here.keys() - owned
        for tag in gone:
            del self.here[tag]
        return len(gone)

    def take(self, want: int = 10) -> None:
        self.session.exchange([self.of], want)

    def end(self, *outcomes: Outcome) -> None:
        """Settle the runs of what it has, the oldest first; without an outcome a run is done."""
        tags = sorted(self.here)
        for tag, outcome in zip(tags, outcomes, strict=False):
            del self.here[tag]
            assert outcome is not None
            self.of.outcomes.append((tag, outcome))
        self.session.settle()

    def close(self) -> None:
        self.session.close()
        self.broker.close()


class World:
    """A queue, the process to which something happens, and the one that lives on."""

    def __init__(self, broker: Broker) -> None:
        broker.read(("FLUSHALL",))
        broker.puts.declare("q", maxsize=0)
        self.broker = broker
        self.it, self.heir = Process("it", broker), Process("heir", broker)
        self.taken: set[str] = set()  # in this life
        self.left: set[bytes] = set()  # notices
        self.told: set[bytes] = set()
        self.leaders = Counter[str]()  # runs that have named a job to follow
        self.followed = Counter[str]()  # by the runs of those

    def put(self, *entries: bytes, delay: int = 0) -> tuple[int, bytes]:
        reply = self.it.broker.puts.put("q", entries, delay=delay, marked=True)
        return reply.accepted, reply.verdicts

    def done(self, tag: int) -> Finished:
        """The outcome of a run that is done. Of a job `lead…` it names one that follows, of another key each time."""
        raw = self.it.here.get(tag) or self.heir.here[tag]
        message = decode(raw)[0]
        if parsed(raw).expires == EXPIRED:
            return Finished("expired", ttl=0, puts=[("q", plain(f"{message.id}.failure"))])
        if not message.id.startswith("lead"):
            return Finished("done", ttl=0)
        self.leaders[message.id] += 1
        name = f"next-{self.leaders[message.id]}.{message.id}"
        return Finished("done", ttl=0, puts=[("q", job(name, name))])

    def tell(self, _queue: str, notice: bytes) -> None:
        self.told.add(notice)

    def notices(self, process: Process) -> None:
        Notices(process.broker, ["q"], self.tell).tell_all(process.session.link)

    def look(self) -> None:
        self.left.update(self.broker.read(("LRANGE", KEY.notices, 0, -1))[0])
        seen = look(self.broker, "q")
        self.taken |= {one.job for one in seen.marked if one.charged or one.place == "inflight"}
        self.taken &= {one.job for one in seen.marked}  # a buried job's next life begins untaken
        assert [*breaches(seen, lambda name: name not in self.taken)] == []

    def rest(self, process: Process) -> None:
        """This process does all that is left."""
        for _ in range(20):
            waiting = self.broker.read(("ZRANGE", KEY.scheduled, 0, -1))[0]
            if waiting:  # all is due
                self.broker.read(("ZADD", KEY.scheduled, *(part for member in waiting for part in (0, member))))
            process.broker.tends.promote("q")
            self.look()
            process.take()
            process.session.isolate(process.of)
            self.look()
            ends = {tag: self.done(tag) for tag in sorted(process.here)}
            names = [decode(process.here[tag])[0].id for tag in ends]
            self.followed.update(name.partition(".")[2] for name in names if name.startswith("next"))
            process.end(*ends.values())
            self.look()
            if process.broker.tends.unfinished("q")[0] == 0:
                break
        self.notices(process)

    def close(self) -> None:
        for process in (self.it, self.heir):
            process.close()


Act = Callable[[World], Any]


class Step(NamedTuple):
    """What something happens to: one call of `script` (or of a command), within `act`."""

    name: str
    script: str
    prepare: Act
    act: Act


def job(id: str, key: str, until: Any = "end", **fields: Any) -> bytes:
    """An entry as it is put."""
    unique, guard = lock(f"t:{key}", until, id)
    return guard + entry_of(Message(VERSION, id, "t", unique=unique, **fields), "q")


def plain(id: str, **fields: Any) -> bytes:
    return entry_of(Message(VERSION, id, "t", **fields), "q")


def nothing(world: World) -> None:
    pass


def puts(*entries: bytes, **options: Any) -> Act:
    return lambda world: world.put(*entries, **options)


def taken(*entries: bytes) -> Act:
    """These are with the process."""

    def prepare(world: World) -> None:
        world.put(*entries)
        world.it.take()
        assert len(world.it.here) == len(entries)

    return prepare


def full(policy: str, *entries: bytes) -> Act:
    """The queue holds these, has no room for more, and does this with a put."""

    def prepare(world: World) -> None:
        world.put(*entries)
        operate.configure(world.broker, "q", maxsize=len(entries), full=policy)

    return prepare


def buried(*entries: bytes, then: Act = nothing) -> Act:
    def prepare(world: World) -> None:
        taken(*entries)(world)
        world.it.end(*[FAILED] * len(entries))
        then(world)

    return prepare


def suspect(*entries: bytes) -> Act:
    """These wait to run alone: two consumers have died of them."""

    def prepare(world: World) -> None:
        taken(*entries)(world)
        for tag, raw in world.it.here.items():
            world.broker.read(("HSET", KEY.inflight("it"), tag, raw.replace(b"0.0", b"0.2", 1)))
        world.it.session.give_back(world.it.of, world.it.here)
        world.it.here.clear()

    return prepare


def run_out(world: World) -> None:
    """All that waits, or is with the process, expires now: its mark says so, and so does its JSON."""
    for place in (KEY.pending, KEY.suspects):
        for number, raw in enumerate(world.broker.read(("LRANGE", place, 0, -1))[0]):
            world.broker.read(("LSET", place, number, raw.replace(b"%d" % FUTURE, b"%d" % PAST)))
    for tag, raw in world.it.here.items():
        world.it.here[tag] = raw.replace(b"%d" % FUTURE, b"%d" % PAST)
        world.broker.read(("HSET", KEY.inflight("it"), tag, world.it.here[tag]))


def then(*acts: Act) -> Act:
    def both(world: World) -> None:
        for act in acts:
            act(world)

    return both


def due(world: World) -> None:
    until(lambda: world.broker.read(("ZCOUNT", KEY.scheduled, 0, world.broker.plans.clock()))[0] == 2, "both are due")


def ends(*outcomes: Outcome) -> Act:
    return lambda world: world.it.end(*outcomes)


def all_done(world: World) -> None:
    world.it.end(*(world.done(tag) for tag in sorted(world.it.here)))


def gives_back(world: World) -> None:
    world.it.session.give_back(world.it.of, sorted(world.it.here))
    world.it.here.clear()


def requeues(world: World) -> None:
    tags = [int(tag) for tag in world.broker.read(("ZRANGE", KEY.dead_index, 0, -1))[0]]
    operate.requeue(world.it.broker, "q", tags)


def reclaims(world: World) -> None:
    """Of another consumer, that is dead."""
    world.it.broker.tends.reclaim("q", "gone", certain=True, death=DEATH, noting=True)


def gone_with(*entries: bytes) -> Act:
    def prepare(world: World) -> None:
        world.put(*entries)
        gone = Process("gone", world.broker)
        gone.take()
        assert len(gone.here) == len(entries)
        gone.close()

    return prepare


def fires(world: World) -> None:
    world.it.broker.plans.fire(SCHEDULE, "q", [job("s1", "b"), job("s2", "c")], SCHEDULE.slot + MINUTE, SCHEDULE.slot)


END, START = job("a", "k"), job("b", "l", "start")
THEN = {"failure": ["q", "t"]}
NEWER = job("c", "l", "start")
taken_beside_newer = then(taken(START), puts(NEWER))  # the lock is the newer one's
LATE, LATE_THEN = job("a", "k", expires=FUTURE), job("b", "l", "start", expires=FUTURE, then=THEN)
STEPS = (
    Step("put until the end", "put", puts(job("0", "z")), puts(END, job("b", "k"), job("c", "z"), job("d", "l"))),
    Step("put until the start", "put", nothing, puts(START, job("c", "l", "start"), job("d", "m", "start"))),
    Step("put for a time", "put", nothing, puts(job("a", "k", 3600), job("b", "k", 3600), job("c", "l", 3600))),
    Step("put for ever", "put", nothing, puts(job("a", "k", "forever"), job("b", "k", "forever"), plain("c"))),
    Step("put what expires", "put", nothing, puts(LATE, plain("b", expires=FUTURE), LATE_THEN)),
    Step("put for later", "put", nothing, puts(END, START, job("c", "l", "start"), delay=MINUTE)),
    Step("put, drop the new", "put", full("drop-new", END), puts(job("b", "l"), job("c", "k"), job("d", "m", 3600))),
    Step("put, drop the old", "put", full("drop-old", END, START), puts(job("c", "m"), job("d", "k"))),
    Step("put, end what has expired", "put", then(full("wait", LATE), run_out), puts(job("b", "k"), job("c", "l"))),
    Step("fire", "fire", then(puts(job("a", "b")), lambda w: w.broker.plans.plan("s", b"", SCHEDULE.definition,
                                                                                 SCHEDULE.slot)), fires),
    Step("take until the end", "exchange", puts(END, job("b", "l")), lambda w: w.it.take(1)),
    Step("take, let the lock fall", "exchange", puts(START, job("c", "m", "start")), lambda w: w.it.take(1)),
    Step("take what has expired", "exchange", then(puts(LATE, plain("c")), run_out), lambda w: w.it.take()),
    Step("take what has expired, with callbacks", "exchange", then(puts(LATE_THEN), run_out), lambda w: w.it.take()),
    Step("take alone", "isolate", suspect(END), lambda w: w.it.session.isolate(w.it.of)),
    Step("take alone what has expired", "isolate", then(suspect(LATE), run_out),
         lambda w: w.it.session.isolate(w.it.of)),
    Step("done", "finish", taken(END, START), all_done),
    Step("failed", "finish", taken(END, START), ends(FAILED, FAILED)),
    Step("cancelled", "finish", taken(END), ends(cancelled("a"))),
    Step("expired, with callbacks", "finish",
         then(puts(LATE_THEN), run_out, lambda w: w.it.take()), all_done),
    Step("done, and followed", "finish", taken(job("lead", "k")), all_done),
    Step("a batch", "finish",
         taken(job("lead1", "k"), plain("lead2"), job("c", "l", "start"), plain("d", result_ttl=1.0), plain("lead3")),
         all_done),
    Step("retry", "retry", taken(END, START), ends(Retried(0), Retried(MINUTE))),
    Step("retry what has expired", "retry", then(taken(LATE, LATE_THEN), run_out), ends(Retried(0), Retried(0))),
    Step("done beside a newer one", "finish", taken_beside_newer, all_done),
    Step("failed beside a newer one", "finish", taken_beside_newer, ends(FAILED)),
    Step("retry beside a newer one", "retry", taken_beside_newer, ends(Retried(0))),
    Step("requeue beside a newer one", "requeue", buried(START, then=puts(NEWER)), requeues),
    Step("reclaim beside a newer one", "reclaim", then(gone_with(START), puts(NEWER)), reclaims),
    Step("park", "park", taken(END, START), ends(Parked("x"), Parked("x"))),
    Step("give back", "give_back", taken(END, START), gives_back),
    Step("crash", "crashed", taken(END, START), ends(Crashed("it died"), Crashed("it died", most=1))),
    Step("reclaim", "reclaim", gone_with(END, START), reclaims),
    Step("promote", "promote", then(puts(END, START, delay=1), due), lambda w: w.it.broker.tends.promote("q")),
    Step("requeue", "requeue", buried(END, START), requeues),
    Step("requeue what is kept out", "requeue", buried(END, job("b", "l"), then=puts(job("c", "k"))), requeues),
    Step("cancel", "cancel", puts(END, START), lambda w: operate.cancel(w.it.broker, "q", "a")),
    Step("purge", "purge", then(puts(END, START), puts(job("c", "m"), delay=MINUTE)),
         lambda w: operate.purge(w.it.broker, "q")),
    Step("shut down", "shutdown", then(taken(job("0", "z")), puts(END, START)),
         lambda w: operate.shutdown(w.it.broker, "q", immediate=True)),
    Step("read a notice", "LRANGE", then(gone_with(END), reclaims), lambda w: w.notices(w.it)),
    Step("clear a notice", "LREM", then(gone_with(END, plain("b")), reclaims), lambda w: w.notices(w.it)),
)  # fmt: skip


# -- what happens


def around(script: str, fate: str, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Let it happen around the next call of this script, or command; the function tells whether it was called."""
    needle = script_digest(broker, script) if script.islower() else script
    call, left = Link.call, [needle]

    def cut(link: Link, *command: Any) -> Any:
        if needle not in command[:2] or not left:
            return call(link, *command)
        left.clear()
        if fate == "killed before":
            raise Killed
        reply = call(link, *command)
        if fate == "killed after":
            raise Killed
        if fate == "reply lost":
            raise redis.ConnectionError("cut")
        return reply

    monkeypatch.setattr(Link, "call", cut)
    return lambda: not left


def happens(world: World, step: Step, fate: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The step, and all that follows; what the step returned."""
    said: Any = None
    step.prepare(world)
    world.look()
    if fate == "too late":
        world.heir.broker.tends.reclaim("q", "it", certain=True, death=DEATH)
        world.look()
    with monkeypatch.context() as patched:
        was_called = around(step.script, fate, world.broker, patched)
        with suppress(Killed, redis.ConnectionError):
            said = step.act(world)
        assert was_called()
    world.look()
    if fate.startswith("killed"):
        world.it.close()
        for name in world.broker.tends.consumers("q"):
            world.heir.broker.tends.reclaim("q", name, certain=True, death=DEATH, noting=True)
            world.look()
        world.rest(world.heir)
    else:
        for name in world.broker.tends.consumers("q").keys() - {"it"}:
            world.it.broker.tends.reclaim("q", name, certain=True, death=DEATH, noting=True)
        world.rest(world.it)
    return said


COUNTED = ("put", "done", "failed", "cancelled", "purged", "expired", "overflowed", "duplicates", "requeued", "dropped")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_around_each_step(broker: Broker, monkeypatch: pytest.MonkeyPatch, step: Step) -> None:
    found = {}
    for fate in FATES:
        world = World(broker)
        said = happens(world, step, fate, monkeypatch)
        world.close()
        seen = look(broker, "q")
        assert (seen.alive, [lock for lock in seen.locks.values() if lock[0] != "t"]) == (0, [])
        assert world.followed == Counter(dict.fromkeys(world.leaders, 1)), fate
        assert (world.left - world.told, broker.read(("EXISTS", KEY.notices))) == (set(), [0])
        found[fate] = {name: counter(broker, name) for name in COUNTED}, said if step.script == "put" else None
    assert found["reply lost"] == found["none"]


def test_every_script_that_knows_locks_is_among_the_steps() -> None:
    known = {name for name, script in scripts.load(flags=True).items() if "unique:" in script.text}
    assert known <= {step.script for step in STEPS}

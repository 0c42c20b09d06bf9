"""T15: scripts that Redis forgets, and that never hold it up, however much there is to do.

A script's time is what Redis' main thread spent on the processor for one call. The clock's time is told beside it: on a
machine with other work a call that needs 1 ms may take 20. What is asserted compares times of one test with each other.
"""

from __future__ import annotations

import random
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from rq_lite.admin import status
from rq_lite.broker import Acks, Broker
from rq_lite.duties import promote, reclaim
from tests.acceptance.conftest import Lab
from tests.acceptance.flow import Flow
from tests.chaos.conftest import Tell
from tests.chaos.measure import Steps, slow_calls, steady, watch_slow_calls
from tests.conftest import Server
from tests.steps import KEY, counter, entry, length

LONGEST = 5.0  # ms that one call may keep Redis; counted, and told
OWN_WORK = "local x = 0 for i = 1, 400000 do x = x + i end return x"  # takes about 3 ms, and depends on nothing
RUNS = 2  # of the same steps: in one, any of them may have been held up
Private = Callable[..., Server]


@pytest.fixture
def alone(private: Private) -> Iterator[tuple[Server, Broker]]:
    """A server whose time nobody else uses, with queue "q"."""
    server = private()
    broker = server.broker().open()
    broker.puts.declare("q", 0)
    yield server, broker
    broker.close()


def in_batches(broker: Broker, count: int, command: Callable[[range], tuple[object, ...]]) -> None:
    """So many, 1000 with each command."""
    for first in range(0, count, 1000):
        broker.read(command(range(first, min(first + 1000, count))))


def test_scripts_may_be_forgotten_every_10_ms(
    private: Private, lab_at: Callable[[Server], Lab], long: bool, tell: Tell
) -> None:
    server = private()
    flow = Flow(lab_at(server), server.url)
    over, flushes = threading.Event(), 0

    def forget() -> None:
        nonlocal flushes
        with_own = server.broker()
        while not over.wait(0.01):
            with_own.read(("SCRIPT", "FLUSH"))
            flushes += 1
        with_own.close()

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        flow.goes_on(10_000 if long else 1000)
    finally:
        over.set()
        thread.join()
    flow.ends_well()
    assert "Redis" not in flow.worker.said.partition("ready")[2]
    tell(f"T15 {flushes:,} SCRIPT FLUSH while {len(flow.lab.seen('done')):,} jobs ran: 0 errors, each ran once")


def owned_by_the_dead(broker: Broker, consumers: Sequence[str], each: int) -> None:
    """So many jobs in flight with each of them; their leases are over."""
    for number, consumer in enumerate(consumers):
        base = number * each

        def book(some: range, consumer: str = consumer, base: int = base) -> tuple[object, ...]:
            return "HSET", KEY.inflight(consumer), *(x for n in some for x in (base + n + 1, entry(base + n)))

        in_batches(broker, each, book)
    in_batches(
        broker, len(consumers), lambda some: ("ZADD", KEY.consumers, *(x for n in some for x in (1, consumers[n])))
    )
    broker.read(("HSET", KEY.meta, "inflight", len(consumers) * each, "tag", len(consumers) * each))


@pytest.mark.parametrize("consumers", [1, 5000])
def test_the_jobs_of_the_dead_are_reclaimed_in_short_steps(
    alone: tuple[Server, Broker], consumers: int, long: bool, tell: Tell
) -> None:
    server, broker = alone
    count = 1_000_000 if long else 50_000
    dead = [f"dead-{number}" for number in range(consumers)]
    runs, slow, others = [Steps(server) for _ in range(RUNS)], [], Steps(server)
    for number, reclaims in enumerate(runs, 1):
        broker.read(("UNLINK", KEY.pending))
        owned_by_the_dead(broker, dead, count // consumers)
        watch_slow_calls(broker, int(LONGEST * 1000))
        for consumer in dead:
            left, cursor = 1, 0
            while left:
                with reclaims.one():
                    step = broker.tends.reclaim("q", consumer, certain=False, most=reclaim.BATCH, cursor=cursor)
                assert step is not None
                left, cursor = step.left, step.cursor
                if len(reclaims.cpu) % 10 == 0:
                    others.run(broker, OWN_WORK)
        slow += slow_calls(broker)
        assert length(broker, KEY.pending) == count
        assert (counter(broker, "inflight"), counter(broker, "reclaimed")) == (0, number * count)
    tell(
        f"T15 reclaim of {count:,} jobs of {consumers:,} dead: {runs[0]} (p50/p99/max); "
        f"in {len(runs)} runs {len(slow)} over {LONGEST:g} ms on the clock, the longest {max(slow, default=0.0):.1f}; "
        f"no step above {max(steady(runs)):.2f} ms each time; a script of constant work: {others}"
    )
    # One step of a thousand may take longer: Redis itself resizes a hash of a million fields within a command.
    usual = sorted(steady(runs))[: len(runs[0].cpu) - len(runs[0].cpu) // 1000]
    assert max(usual) < 2 * statistics.median(others.cpu)


def test_jobs_that_are_due_all_at_once_are_promoted_in_short_steps(
    alone: tuple[Server, Broker], long: bool, tell: Tell
) -> None:
    server, broker = alone
    count = 1_000_000 if long else 50_000

    def schedule(some: range) -> tuple[object, ...]:
        return "ZADD", KEY.scheduled, *(x for n in some for x in (1, b"s%016d|" % n + entry(n)))

    runs, others = [Steps(server) for _ in range(RUNS)], Steps(server)
    for promotes in runs:
        broker.read(("UNLINK", KEY.pending))
        in_batches(broker, count, schedule)
        promoted = promote.BATCH
        while promoted == promote.BATCH:
            with promotes.one():
                promoted = broker.tends.promote("q", promote.BATCH)[0]
            if len(promotes.cpu) % 10 == 0:
                others.run(broker, OWN_WORK)
        assert length(broker, KEY.pending) == count
    tell(
        f"T15 promote of {count:,} due jobs: {runs[0]} (p50/p99/max); in {len(runs)} runs no step above "
        f"{max(steady(runs)):.2f} ms each time; a script of constant work: {others}"
    )
    assert max(steady(runs)) < 2 * statistics.median(others.cpu)


def test_a_long_queue_is_no_slower(alone: tuple[Server, Broker], chance: random.Random, long: bool, tell: Tell) -> None:
    server, broker = alone
    count, rounds = (1_000_000, 1000) if long else (100_000, 200)
    broker.takes.register("q", "c")
    in_batches(broker, 1000, lambda some: ("LPUSH", KEY.pending, *map(entry, some)))
    before = served(server, broker, rounds, chance)
    in_batches(broker, count - 1000, lambda some: ("LPUSH", KEY.pending, *map(entry, some)))
    after = served(server, broker, rounds, chance)
    assert length(broker, KEY.pending) == count
    for waiting, times in ((1000, before), (count, after)):
        exchanges, puts, states = times
        tell(
            f"T15 at {waiting:,} waiting jobs, 200 a batch: exchange {exchanges}; put {puts}; "
            f"status {states} (p50/p99/max)"
        )
    for few, many in zip(before, after, strict=True):
        assert statistics.median(many.cpu) < 3 * statistics.median(few.cpu)


def served(server: Server, broker: Broker, rounds: int, chance: random.Random) -> tuple[Steps, Steps, Steps]:
    """Exchanges, puts and looks at the state; as many jobs wait afterwards as before."""
    exchanges, puts, states = Steps(server), Steps(server), Steps(server)
    link = broker.link()
    acks: list[int] = []
    for _ in range(rounds):
        with exchanges.one():
            (taken,) = broker.takes.exchange("c", [Acks("q", acks)], 200, link)
        acks = list(range(taken.tag + 1, taken.tag + 1 + len(taken.jobs)))
        batch = [entry(chance.randrange(10**6)) for _ in range(200)]
        with puts.one():
            broker.puts.put("q", batch)
        with states.one():
            status.states(broker, ["q"])
    broker.takes.exchange("c", [Acks("q", acks)], 0, link)
    link.close()
    return exchanges, puts, states

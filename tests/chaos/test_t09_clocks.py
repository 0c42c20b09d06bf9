"""T9: machines whose clocks are wrong, and a clock of Redis that jumps.

Leases, due times and the slots of schedules are by Redis' clock alone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rq_lite.admin import operate, status
from rq_lite.broker import Broker
from rq_lite.duties.reclaim import Reclaimer
from rq_lite.model.schedule import job_id
from tests.acceptance.conftest import Lab
from tests.chaos.conftest import Tell
from tests.chaos.test_t16_schedules import fired, plan
from tests.conftest import until
from tests.steps import KEY, counter, now_ms, put, take

HOUR = 3600
LEASE = 2.0
SHIFTED = """
import os, time
shift = float(os.environ.get("CLOCK_SHIFT", 0))
wall, wall_ns = time.time, time.time_ns
time.time = lambda: wall() + shift
time.time_ns = lambda: wall_ns() + int(shift * 1e9)
"""


@pytest.fixture
def at(lab: Lab, tmp_path: Path) -> Callable[[float], None]:
    """What is started next has a clock that is wrong by so many seconds."""
    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SHIFTED)
    lab.environment["PYTHONPATH"] = os.pathsep.join([str(folder), lab.environment["PYTHONPATH"]])

    lab.commands.fresh = True  # interpreters read sitecustomize.py when they start

    def set_clock(shift: float) -> None:
        lab.environment["CLOCK_SHIFT"] = f"{shift}"
        lab.commands.environment["CLOCK_SHIFT"] = f"{shift}"
        lab.commands.environment["PYTHONPATH"] = lab.environment["PYTHONPATH"]

    return set_clock


def test_wrong_clocks_end_no_lease_and_change_no_order(
    lab: Lab, at: Callable[[float], None], long: bool, tell: Tell
) -> None:
    lab.environment["RQ_LITE_LEASE"] = f"{LEASE:g}"
    for shift in (HOUR, -HOUR, 0, HOUR):
        at(shift)
        assert lab.produce("number", "--count", "50").returncode == 0
    assert lab.arguments() == [*range(50)] * 4
    workers = []
    lab.put("hold", *range(10))
    for shift in (-HOUR, HOUR, 0):
        at(shift)
        workers.append(lab.work("--greenlets", "4"))
    lab.until_seen("begun", 10)
    # What a worker says of its start is by its own clock: that of the second is really wrong.
    until(
        lambda: any((worker.since or 0.0) > HOUR - 60 for worker in status.workers(lab.broker)),
        "its worker has said since when it works",
    )
    least = LEASE
    clock = now_ms(lab.broker)
    while now_ms(lab.broker) < clock + (20 if long else 1.5) * LEASE * 1000:
        leases = lab.broker.tends.consumers("work").values()
        assert len(leases) == 3
        least = min(least, *leases)
    lab.open_gate()
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "everything is done")
    assert [worker.stop() for worker in workers] == [0, 0, 0]
    assert Counter(lab.seen("done")) == Counter([*map(str, range(50))] * 4 + [*map(str, range(10))])
    assert (lab.state().reclaimed, lab.state().stale) == (0, 0)
    tell(f"T9 clocks 2 h apart: order kept, 0 reclaimed, at least {least:.1f} s left of leases of {LEASE:g} s")


def test_a_delay_is_by_the_clock_of_redis(lab: Lab, at: Callable[[float], None]) -> None:
    """Retries of machines that are an hour ahead and an hour behind, promoted by either."""
    at(HOUR)
    ahead = lab.work()
    at(-HOUR)
    behind = lab.work()
    for worker in (ahead, behind):
        worker.says(" ready (pid ")
    lab.put("again", "x", retries=2)
    lab.until_seen("begun", 3)
    until(lambda: lab.state().dead == 1, "it was tried three times")
    assert [ahead.stop(), behind.stop()] == [0, 0]


def test_a_jump_of_redis_clock_takes_nothing_from_who_renews(broker: Broker, tell: Tell) -> None:
    """All leases have ended at once; who lives has renewed by the second look, who is dead has not."""
    broker.puts.declare("q")
    link = broker.link()
    for consumer in ("alive", "dead"):
        broker.takes.register("q", consumer, link=link)
        put(broker, *range(5))
        take(broker, link, 5, consumer=consumer)
    reclaimer = Reclaimer(broker, between=lambda: None)

    def jump() -> None:
        broker.read(("ZADD", KEY.consumers, 1, "alive", 1, "dead"))

    for _ in range(5):
        jump()
        reclaimer.reclaim_expired(["q"])
        assert counter(broker, "reclaimed") == 0
        assert broker.tends.renew("q", ["alive", "dead"]).leases == 2
        reclaimer.reclaim_expired(["q"])
    jump()
    reclaimer.reclaim_expired(["q"])
    assert broker.tends.renew("q", ["alive"]).leases == 1
    reclaimer.reclaim_expired(["q"])
    assert (counter(broker, "reclaimed"), counter(broker, "inflight")) == (5, 5)
    assert set(broker.tends.consumers("q")) == {"alive"}
    link.close()
    tell("T9 six jumps of Redis' clock beyond all leases: 0 jobs taken from a consumer that renews")


def test_slots_are_by_the_clock_of_redis(lab: Lab, at: Callable[[float], None]) -> None:
    """Supervisors that are an hour ahead and behind: no slot comes too early, late, or twice."""
    first = (lab.broker.plans.clock() // 1000 + 1) * 1000
    plan(lab.broker, 1000, first)
    operate.pause(lab.broker, "work")
    for shift in (HOUR, -HOUR, HOUR):
        at(shift)
        lab.work()
    until(lambda: len(fired(lab.broker)) >= 4, "four slots are fired")
    found = fired(lab.broker)
    assert found == [job_id("s", first + n * 1000) for n in range(len(found))]
    assert first + (len(found) - 1) * 1000 <= lab.broker.plans.clock()

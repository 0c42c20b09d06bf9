"""T16: each slot of a schedule is fired once, however many supervisors there are, whenever they die."""

from __future__ import annotations

import random
import signal
from functools import partial
from pathlib import Path

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker, keys
from rq_lite.model.message import as_is, decode
from rq_lite.model.schedule import Schedule, job_id, to_json
from tests.acceptance.conftest import APP, Lab
from tests.chaos.conftest import Tell
from tests.chaos.test_t02_failpoints import ACTIONS, Scene, around
from tests.conftest import until

HOUR = 3_600_000  # ms
RECURRING = "tests.acceptance.apps.recurring"


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Scene:
    return Scene(lab, tmp_path)


def plan(broker: Broker, every: int, slot: int) -> None:
    schedule = Schedule(every=every, queue="work", task=f"{APP}:do", args=["slot"], missed="all")
    broker.puts.declare("work")
    assert broker.plans.plan("s", b"", to_json("s", schedule, as_is), slot)


def fired(broker: Broker) -> list[str]:
    """The ids of the jobs in the queue, in their order."""
    return [decode(raw)[0].id for raw in reversed(broker.read(("LRANGE", keys.of("work").pending, 0, -1))[0])]


def more_fired(broker: Broker, than: int) -> bool:
    return len(fired(broker)) > than


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", around("fire"))
def test_of_a_worker_that_fires(scene: Scene, moment: str, action: str) -> None:
    lab = scene.lab
    slot = lab.broker.plans.clock() - HOUR // 2  # the next one is far
    plan(lab.broker, HOUR, slot)
    scene.arm([moment], action)
    worker = scene.work("--burst")
    until(lambda: scene.reached or worker.process.poll() is not None, "the moment comes")
    scene.rest()
    scene.work("--burst").wait()
    scene.judge()
    planned = lab.broker.plans.planned("s")
    assert planned is not None
    assert planned.last == slot
    assert lab.state().put == 1
    assert set(lab.seen("done")) == {"slot"}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", around("plan"))
def test_of_a_consumer_that_writes_its_apps_schedules(scene: Scene, moment: str, action: str) -> None:
    """Whatever happens to it there, the next one finds or writes what should be there."""
    lab = scene.lab
    scene.arm([moment], action)
    worker = lab.work(app=RECURRING)
    until(lambda: scene.reached, "the moment comes")
    if action in ("raise", "stop"):  # no app that begins like this begins at all; or it was told to go
        worker.wait()
        scene.use(scene.calm)
        lab.work(app=RECURRING)
    lab.until_seen("ticks", 2)
    assert sorted(planned.name for planned in lab.broker.plans.all_planned()) == ["tick", "yearly"]


def test_each_slot_is_fired_once_while_supervisors_come_and_go(
    lab: Lab, chance: random.Random, long: bool, tell: Tell
) -> None:
    """Three workers on a paused queue; with each slot one of them is killed, and another begins."""
    slots, every = (60, 1000) if long else (5, 1000)
    first = (lab.broker.plans.clock() // every + 1) * every
    plan(lab.broker, every, first)
    operate.pause(lab.broker, "work")
    workers = [lab.work() for _ in range(3)]
    killed = 0
    while killed < slots:
        before = len(fired(lab.broker))
        until(partial(more_fired, lab.broker, before), "the next slot is fired")
        worker = workers.pop(chance.randrange(3))
        worker.signal(signal.SIGKILL)
        worker.wait()
        workers.append(lab.work())
        killed += 1
    for worker in workers:
        worker.signal(signal.SIGKILL)
        worker.wait()
    planned = lab.broker.plans.planned("s")
    assert planned is not None
    assert planned.last is not None
    assert fired(lab.broker) == [job_id("s", slot) for slot in range(first, planned.last + 1, every)]
    tell(f"T16 {len(fired(lab.broker))} slots, {killed} of 3 workers killed: 0 left out, 0 fired twice")

"""Getters that are killed again and again: every item is done, `join` ends, and nothing is left of anybody."""

from __future__ import annotations

import random
import signal
import subprocess
import sys

import pytest

from rq_lite import Queue
from rq_lite.chaos.rest import undocumented
from rq_lite.client.defaults import defaults
from tests.acceptance.conftest import Lab
from tests.chaos.conftest import Tell
from tests.conftest import ROOT, until

GETTERS, SHORT, LONG = 3, 8, 60  # processes at a time, deaths


@pytest.fixture
def items(lab: Lab) -> Queue:
    defaults.use(lab.broker.settings, lab.broker)
    return Queue("items", maxsize=0)


def test_getters_are_killed_at_random(lab: Lab, items: Queue, long: bool, chance: random.Random, tell: Tell) -> None:
    count, kills = 600, LONG if long else SHORT
    items.put_many(range(count))
    living = [getter(lab) for _ in range(GETTERS)]
    try:
        for number in range(kills):
            until_more(lab, min(len(lab.runs("got")) + chance.randrange(1, 30), count))
            victim = living.pop(chance.randrange(GETTERS))
            victim.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT]))
            victim.wait()
            living.append(getter(lab))
            if number % 3 == 0:
                items.put_many(range(count, count + 20))
                count += 20
        items.shutdown()
        assert items.join(120), lab.state("items")
        assert [process.wait(60) for process in living] == [0] * GETTERS
    finally:
        for process in living:
            process.kill()
            process.wait()
    seen = lab.seen("got")
    state = lab.state("items")
    buried = state.dead
    assert len(set(map(int, seen)) | buried_items(lab)) == count
    assert (state.done + buried, state.pending, state.inflight, state.suspects) == (count, 0, 0, 0)
    # What was got when its process died is got again; no death takes more than one item with it.
    assert len(seen) - count <= kills
    assert undocumented(lab.broker) == []
    tell(f"{count} items, {kills} deaths, {len(seen) - count} got twice, {buried} buried")


def until_more(lab: Lab, goal: int) -> None:
    until(lambda: len(lab.runs("got")) >= goal, f"{goal} are got")


def buried_items(lab: Lab) -> set[int]:
    return {int(job.raw.rpartition(b"[")[2].partition(b"]")[0]) for job in lab.dead("items")}


def getter(lab: Lab) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.apps.getter", "slow"],
        cwd=ROOT,
        env=lab.environment,
        stderr=subprocess.DEVNULL,
    )

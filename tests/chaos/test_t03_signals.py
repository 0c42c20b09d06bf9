"""T3: stop signals and kills at random moments under a load of short jobs."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

from tests.acceptance.conftest import Lab, Worker, alive, children
from tests.chaos.conftest import Tell
from tests.conftest import until

APP = "tests.chaos.jobs"
LOAD = 200  # jobs per round
GRACE = 5.0
MARGIN = 2.0  # seconds beyond the grace time until a worker has ended
ORDERLY = ("TERM", "INT", "HUP")
KINDS = (*ORDERLY, "double", "kill", "kill a child")


def do(kind: str, lab: Lab, worker: Worker, chance: random.Random) -> None:
    """The signals of a round, and its end."""
    if kind == "HUP":
        worker.signal(signal.SIGHUP)
        if chance.random() < 0.5:
            worker.says("takes the place")
    elif kind == "kill a child":
        os.kill(chance.choice(sorted(children(worker.pid))), signal.SIGKILL)
    if kind == "kill":
        worker.signal(signal.SIGKILL)
    elif kind in ("INT", "double"):
        worker.signal(signal.SIGINT)
        if kind == "double":
            worker.says("stopping")
            worker.signal(signal.SIGTERM)
    else:
        worker.signal(signal.SIGTERM)


def test_whatever_ends_a_worker_loses_nothing_and_leaves_nothing_behind(
    lab: Lab, chance: random.Random, long: bool, tell: Tell
) -> None:
    lab.broker.puts.declare("work", 0)  # what a round leaves behind may pile up
    rounds = [KINDS[number % len(KINDS)] for number in range(100 if long else len(KINDS))]
    chance.shuffle(rounds)
    ends: dict[str, list[float]] = {kind: [] for kind in KINDS}
    marks = []  # lines of evidence at the end of each round
    for number, kind in enumerate(rounds):
        lab.put("nap", *range(number * LOAD, (number + 1) * LOAD), app=APP)
        worker = lab.work("--greenlets", "10", "--grace", f"{GRACE}", app=APP, procs=2)
        lab.until_seen("begun", len(lab.seen("begun")) + chance.randrange(1, LOAD // 2))
        family = children(worker.pid)
        since = time.monotonic()
        do(kind, lab, worker, chance)
        code = worker.wait()
        ends[kind].append(time.monotonic() - since)
        assert code == (-signal.SIGKILL if kind == "kill" else 0), worker.said
        until(lambda family=family: not any(map(alive, family)), "nobody is left of the worker")  # type: ignore[misc]
        assert "Traceback" not in worker.said
        marks.append(len(lab.seen("done")))
    lab.drain(app=APP)
    done = lab.seen("done")
    assert set(done) == {*map(str, range(len(rounds) * LOAD))}
    again = repeated(done, marks, rounds)
    state = lab.state()
    tell(
        f"T3 {len(rounds)} rounds, {len(done):,} runs of {len(set(done)):,} jobs: 0 lost; ran again after "
        + ", ".join(f"{kind}: {again[kind]}" for kind in KINDS)
        + f"; longest until the end, of {GRACE:g} s grace: "
        + ", ".join(f"{kind} {max(times):.2f} s" for kind, times in ends.items())
    )
    assert [again[kind] for kind in ORDERLY] == [0, 0, 0]
    assert max(max(times) for times in ends.values()) < GRACE + MARGIN
    assert (state.inflight, state.suspects, state.dead, state.done) == (0, 0, 0, len(rounds) * LOAD)


def repeated(done: list[str], marks: list[int], rounds: list[str]) -> Counter[str]:
    """How many jobs ran again that had been done in a round of each kind."""
    again: Counter[str] = Counter()
    last: dict[str, str] = {}
    number = 0
    for line, what in enumerate(done):
        while number < len(rounds) and line >= marks[number]:
            number += 1
        if what in last:
            again[last[what]] += 1
        last[what] = rounds[number] if number < len(rounds) else "drain"
    return again

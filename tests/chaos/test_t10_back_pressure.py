"""T10: many producers before a small bound; nobody who consumes; a queue that feeds itself."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rq_lite import Queue, QueueFull
from rq_lite.broker import Broker, keys
from tests.acceptance.conftest import Lab
from tests.chaos.conftest import Tell
from tests.conftest import ROOT, until
from tests.steps import blocked, threads

APP = "tests.chaos.jobs"
BOUND = 100
PRODUCERS = 50
CHAIN, LINKS = 20, 10


@contextmanager
def producers(lab: Lab, processes: int, batch: int, task: str) -> Iterator[list[dict[str, object]]]:
    """50 in so many processes; what they saw is there after the block."""
    found: list[dict[str, object]] = []
    command = [sys.executable, "-m", "tests.chaos.producers", task, f"{PRODUCERS // processes}", f"{batch}"]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=lab.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        for process in started:
            assert process.stdin is not None
            process.stdin.write(b"count\n")
            process.stdin.flush()
        yield found
        found += [json.loads(process.communicate(timeout=60)[0]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()


def push(lab: Lab, total: int, *, processes: int, batch: int, task: str = "nothing") -> tuple[int, int, list[int]]:
    """Push so many in all: the deepest that a look from outside saw, and that a put saw; pushes by producer."""
    lab.broker.puts.declare("work", BOUND)
    seen = 0
    with producers(lab, processes, batch, task) as found:
        total += lab.put_so_far()
        while lab.put_so_far() < total:
            seen = max(seen, lab.broker.puts.size("work")[0])
    pushes = [n for one in found for n in one["pushes"]]  # type: ignore[attr-defined]
    return seen, max(one["deepest"] for one in found), pushes  # type: ignore[type-var,return-value]


def test_the_bound_holds_in_every_observation(lab: Lab, long: bool, tell: Tell) -> None:
    total = 1_000_000 if long else 20_000
    lab.broker.puts.declare("work", BOUND)
    worker = lab.work("--greenlets", "100", "-q", "work", app=APP)
    worker.says("ready")
    began = time.monotonic()
    seen, deepest, pushes = push(lab, total, processes=5 if long else 2, batch=20)
    took = time.monotonic() - began
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "everything is drained")
    assert worker.stop() == 0
    state = lab.state()
    tell(
        f"T10 {PRODUCERS} producers, bound {BOUND}: {state.put:,} pushes in {took:.0f} s, never more than {deepest} "
        f"after a put, {seen} in a look from outside; all {state.done:,} done"
    )
    assert 0 < seen <= BOUND
    assert 0 < deepest <= BOUND
    assert sum(pushes) <= state.put == state.done


def test_producers_that_wait_are_served_in_turn(lab: Lab, long: bool, tell: Tell) -> None:
    total = 50_000 if long else 5000
    lab.broker.puts.declare("work", BOUND)
    # Jobs that take their time: where the queue is not full nobody waits, and the machine says whose turn it is.
    worker = lab.work("--greenlets", "20", "-q", "work", app=APP)
    worker.says("ready")
    _, _, pushes = push(lab, total, processes=2, batch=1, task="nap")
    assert worker.stop() == 0
    tell(
        f"T10 {PRODUCERS} producers that wait, {sum(pushes):,} pushes: {min(pushes)} to {max(pushes)} each, "
        f"max/min {max(pushes) / max(1, min(pushes)):.2f}, deviation "
        f"{statistics.pstdev(pushes) / statistics.mean(pushes):.0%}"
    )
    assert min(pushes) > 0
    assert max(pushes) < 10 * min(pushes)


def test_with_nobody_who_consumes_a_put_fails_at_its_deadline(queue: Queue, tell: Tell) -> None:
    @queue.task(name="t")
    def job(n: int) -> None: ...

    job.put_many(range(10))
    late = []
    with threads() as pool:

        def put(wait: float) -> float:
            began = time.monotonic()
            with pytest.raises(QueueFull, match="0 consumers alive, none was ever seen"):
                job.using(wait=wait).put(1)
            return time.monotonic() - began - wait

        late = list(pool.map(put, [0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 3.0]))
    tell(f"T10 puts without consumers failed {min(late):.3f} to {max(late):.3f} s after their deadlines")
    assert min(late) >= 0.0
    assert max(late) < 5.0
    assert queue.qsize() == 10


def test_a_queue_that_feeds_itself_never_stands_still(lab: Lab, tell: Tell) -> None:
    lab.broker.puts.declare("chain", 2)
    worker = lab.work("--greenlets", "4", "-q", "chain", app=APP)
    producer = lab.commands.start("produce", "--task", f"{APP}:link", "--count", f"{CHAIN}")
    assert producer.wait(60) == 0
    links = sum(n + 1 for n in range(CHAIN))
    lab.until_seen("done", links)
    until(lambda: lab.broker.tends.unfinished("chain")[0] == 0, "all chains have ended")
    assert worker.stop() == 0
    assert (lab.state("chain").put, lab.state("chain").done) == (links, links)
    tell(f"T10 a queue of bound 2 that feeds itself: {links} jobs of {CHAIN} chains done")


def test_producers_that_are_killed_while_they_wait_leave_nothing(lab: Lab, broker: Broker) -> None:
    broker.puts.declare("work", 5)
    doomed = [lab.producer("do", "--count", "50", "--maxsize", "5") for _ in range(3)]
    until(lambda: blocked(broker) == 3, "they wait")
    for process in doomed:
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: blocked(broker) == 0, "Redis knows that they have gone")
    assert lab.state().pending == 5
    survivor = lab.producer("do", "--count", "50", "--maxsize", "5")
    lab.until_blocked(1)
    worker = lab.work()
    assert survivor.wait(60) == 0
    until(lambda: lab.state().done == lab.state().put, "all is done")
    assert worker.stop() == 0
    left = {name.decode() for name in broker.read(("KEYS", "rq:{work}:*"))[0]}
    key = keys.of("work")
    assert {name for name in left if ":producer:" not in name} <= {key.meta, key.room, key.drained, key.bell}

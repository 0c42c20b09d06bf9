"""T18: many producers put unique jobs of few keys, while consumers and whole workers are killed."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from rq_lite.broker import Broker, keys
from rq_lite.chaos.once import breaches
from rq_lite.chaos.rest import look
from rq_lite.client.queue import Queue
from tests.acceptance.conftest import Lab, Worker
from tests.chaos.test_t17_engines import below, kill
from tests.conftest import until

APP = "tests.chaos.jobs"
KEY = keys.of("work")


def counter(broker: Broker, name: str) -> int:
    return int(broker.read(("HGET", KEY.meta, name))[0] or 0)


@pytest.mark.timeout(1200)
def test_never_two_of_a_key_and_no_lock_without_its_job(
    lab: Lab, chance: random.Random, long: bool, tell: Callable[[str], None]
) -> None:
    puts, producers, of_keys, kills = (100_000, 50, 1000, 60) if long else (3_000, 6, 60, 6)
    queue = Queue("work", maxsize=0, broker=lab.broker)
    queue.declare()
    task = queue.task(name=f"{APP}:once", unique="{key}")(lambda key: None)
    accepted = Counter[bool]()
    guard, killed = threading.Lock(), threading.Event()

    def produce(seed: int) -> None:
        mine, left = random.Random(seed), puts // producers
        while left > 0 or not killed.is_set():
            left -= 1
            duplicate = task.put(mine.randrange(of_keys)).duplicate
            with guard:
                accepted[not duplicate] += 1

    threads = [threading.Thread(target=produce, args=(chance.randrange(10**9),)) for _ in range(producers)]
    workers = [lab.work("--procs", "2", "--greenlets", "20", app=APP) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(kills):
        before = counter(lab.broker, "done")
        until(lambda before=before: counter(lab.broker, "done") >= before + 50, "work goes on", seconds=120)  # type: ignore[misc]
        if number % 4 == 3:
            place = chance.randrange(2)
            end_whole(workers[place])
            workers[place] = lab.work("--procs", "2", "--greenlets", "20", app=APP)
        else:
            one = chance.choice(workers)
            kill(chance.choice(until(lambda one=one: below(one.pid, "consumer.boot"), "there is one to kill")))  # type: ignore[misc]
        assert [*breaches(look(lab.broker, "work"))] == []
    killed.set()
    for thread in threads:
        thread.join()
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all is done", seconds=300)
    left, put = look(lab.broker, "work"), counter(lab.broker, "put")
    assert [*breaches(left)] == []
    assert (left.alive, left.locks) == (0, {})
    assert (put, counter(lab.broker, "duplicates")) == (accepted[True], accepted[False])
    assert all(
        dead.report["error"].startswith("poison") for dead in lab.dead()
    )  # of a key that was there at each death
    for worker in workers:
        assert worker.stop() == 0
    tell(
        f"T18 {accepted.total():,} puts of {of_keys:,} keys by {producers} producers, {kills} kills: {put:,} jobs, "
        f"0 beside another of its key, 0 locks left, {counter(lab.broker, 'failed')} buried as poison"
    )


def end_whole(worker: Worker) -> None:
    """kill -9 of a supervisor and all its consumers."""
    for pid in [*below(worker.pid, "consumer.boot"), worker.pid]:
        os.kill(pid, signal.SIGKILL)

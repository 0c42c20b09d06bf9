"""T19: many updates of few keys, of which the newest is to run, while consumers and whole workers are killed."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from rq_lite.broker import Broker, keys
from rq_lite.client.queue import Queue
from rq_lite.model.message import decode, parse
from rq_lite.settings import Settings
from tests.acceptance.conftest import Lab
from tests.chaos.test_t17_engines import below, kill
from tests.chaos.test_t18_unique import APP, end_whole
from tests.conftest import until

KEY = keys.of("work")
ENDS = ("done", "failed", "cancelled", "expired", "overflowed", "purged", "replaced")
# All places in one step: those of a list or a sorted set, in flight, `latest`, the locks, meta.
PLACES = """
local flying, locks = {}, {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  for _, entry in ipairs(redis.call('HVALS', key)) do flying[#flying + 1] = entry end
end
for _, key in ipairs(redis.call('KEYS', ARGV[2])) do
  locks[#locks + 1] = key
  locks[#locks + 1] = redis.call('GET', key)
end
return {
  redis.call('LRANGE', KEYS[1], 0, -1), redis.call('ZRANGE', KEYS[2], 0, -1), redis.call('LRANGE', KEYS[3], 0, -1),
  flying, redis.call('HGETALL', KEYS[4]), locks, redis.call('HGETALL', KEYS[5]),
}
"""


def pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


def check(broker: Broker) -> int:
    """What must hold at any time; returns how many jobs wait to replace others."""
    places = KEY.pending, KEY.scheduled, KEY.suspects, KEY.latest, KEY.meta
    found = broker.read(("EVAL", PLACES, 5, *places, KEY.inflight("*"), KEY.unique("*")))[0]
    pending, scheduled, lone, flying, latest, locks, meta = found
    scheduled = [member[18:] for member in scheduled]
    newer = {name: kept.partition(b"|")[2] for name, kept in pairs(latest).items()}
    counters = Counter({name: int(value) for name, value in pairs(meta).items() if value.lstrip(b"-").isdigit()})
    holders: dict[str, str] = {}
    ids = [decode(entry)[0].id for entry in newer.values()]
    for entry in (*pending, *scheduled, *lone, *flying):
        message, head = decode(entry)[0], parse(entry)
        assert head is not None
        assert head.unique is not None
        name = head.unique[2:].decode()
        assert name not in holders, f"two of {name}, beside one that may wait to replace them"
        holders[name] = message.id
        ids.append(message.id)
    assert len(set(ids)) == len(ids), "a job is in two places"
    held = {name.partition(":unique:")[2]: lock.decode().split("|")[1] for name, lock in pairs(locks).items()}
    assert held == holders, "a lock without its job, or a job without its lock"
    assert newer.keys() <= holders.keys(), "a newer job without the one that it is to replace"
    assert (counters["latest"], counters["latest_bytes"]) == (len(newer), sum(map(len, newer.values())))
    assert (counters["inflight"], counters["suspects"]) == (len(flying), len(lone))
    assert counters["put"] + counters["requeued"] == sum(counters[name] for name in ENDS) + len(ids)
    if pending or scheduled:  # else the next put counts from 0
        assert counters["bytes"] == sum(map(len, (*pending, *scheduled)))
    return len(newer)


def update(url: str, seed: int, of_keys: list[int], updates: int, enough: Any, last: Any) -> None:
    """Of its keys it alone puts updates, so it knows the last of each."""
    mine, numbers = random.Random(seed), Counter[int]()
    with closing(Broker(url, settings=Settings(url=url)).open()) as broker:
        task = Queue("work", maxsize=0, broker=broker).task(
            name=f"{APP}:newest", unique="{key}", on_conflict="replace", result_ttl=1
        )(lambda key, number: None)
        later = task.using(delay=0.02, max_wait=0.2)
        while updates > 0 or not enough.is_set():
            updates -= 1
            key = mine.choice(of_keys)
            numbers[key] += 1
            (later if mine.random() < 0.3 else task).put(key, numbers[key])
            time.sleep(mine.uniform(0.0, 0.02))  # runs begin meanwhile
    last.put(json.dumps(numbers))


@pytest.mark.timeout(1200)
def test_the_last_payload_of_each_key_runs_and_never_two_at_once(
    lab: Lab, chance: random.Random, long: bool, tell: Callable[[str], None]
) -> None:
    updates, producers, of_keys, kills = (10_000, 5, 50, 40) if long else (200, 2, 10, 1)
    Queue("work", maxsize=0, broker=lab.broker).declare()
    processes = multiprocessing.get_context("fork")
    enough, last = processes.Event(), processes.SimpleQueue()
    started = []
    for number in range(producers):
        own = list(range(number, of_keys, producers))
        of_each = chance.randrange(10**9), own, updates // producers, enough, last
        started.append(processes.Process(target=update, args=(lab.broker.url, *of_each)))
        started[-1].start()
    worker = lab.work("--procs", "2", "--greenlets", "20", app=APP)
    checks = most = 0

    def done() -> int:
        nonlocal checks, most
        checks, most = checks + 1, max(most, check(lab.broker))
        return int(lab.broker.read(("HGET", KEY.meta, "done"))[0] or 0)

    for number in range(kills):
        before = done()
        until(lambda before=before: done() >= before + 30, "work goes on", seconds=120)  # type: ignore[misc]
        if number % 8 == 7:
            end_whole(worker)
            worker = lab.work("--procs", "2", "--greenlets", "20", app=APP)
        else:
            kill(chance.choice(until(partial(below, worker.pid, "consumer.boot"), "there is one to kill")))
    enough.set()
    numbers: dict[str, int] = {}
    for _ in started:
        numbers |= json.loads(last.get())
    for process in started:
        process.join()
    until(lambda: done() and lab.broker.tends.unfinished("work")[0] == 0, "all is done", seconds=300)
    assert check(lab.broker) == 0
    assert lab.broker.read(("KEYS", KEY.unique("*"))) == [[]]
    assert lab.state().put == sum(numbers.values()) >= updates
    begun, ended, buried = runs(lab, "begun"), runs(lab, "done"), 0
    for key, number in numbers.items():
        assert begun[key] == sorted(begun[key]), f"an older payload of {key} ran after a newer one"
        assert begun[key][-1] == number, f"the last payload of {key} has not run"
        buried += ended[key][-1:] != [number]
    assert buried <= len(lab.dead())
    assert all(dead.report["error"].startswith("poison") for dead in lab.dead())
    assert worker.stop() == 0
    tell(
        f"T19 {sum(numbers.values()):,} updates of {of_keys} keys by {producers} processes, {kills} kills: "
        f"{sum(map(len, begun.values())):,} runs, the last payload of each key among them; {checks:,} looks, "
        f"never 2 beside the one that waits to replace, of those at most {most}; {len(lab.dead())} buried as poison"
    )


def runs(lab: Lab, file: str) -> dict[str, list[int]]:
    """By key the numbers of the runs that this evidence has, in its order."""
    found: dict[str, list[int]] = {}
    for line in (lab.folder / "evidence" / file).read_text().splitlines():
        key, number, _ = line.split()
        found.setdefault(key, []).append(int(number))
    return found

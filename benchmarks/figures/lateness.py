"""How late delayed jobs begin on an idle machine, and how long one step takes Redis when a million are due at once.

To run it alone: `python -m benchmarks.figures.lateness`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import redis

from benchmarks import redis_server, tally
from benchmarks.figures.figure import Figure, Producer, Site
from benchmarks.measure import SLOTS, RunFailed
from rq_lite.duties.promote import BATCH
from rq_lite.model.message import VERSION, Message, encode, new_id

SOONEST = 1.0  # seconds from the put until a job is due, at least
KEPT = 200_000  # entries of Redis' slow log
WARM_UP = 10  # jobs that are not counted
ARRIVE_WITHIN = 30.0  # seconds after the last one was due


def late(site: Site) -> Iterator[Figure]:
    """Delayed jobs, put in any order, due at random times."""
    n, spread = site.size(1000, 200), float(site.size(20, 4))
    with site.producer() as producer, site.bench() as bench:
        ping = producer.ping()
        ping.queue.declare()
        with bench.workers(2, SLOTS):
            for done in range(1, WARM_UP + 1):  # until both consumers work
                ping.put(time.monotonic())
                wait_for(producer, done, ARRIVE_WITHIN)
            for _ in range(n):
                delay = SOONEST + random.random() * spread
                ping.using(delay=delay).put(time.monotonic() + delay)
            wait_for(producer, WARM_UP + n, SOONEST + spread + ARRIVE_WITHIN)
            times = sorted(1000 * delay for delay in tally.delays(bench.folder)[WARM_UP:])
    how = f"{n:,} jobs due at random times within {spread:g} s, on 2 idle consumers × {SLOTS}: from due time to body"
    rounds = {"p50": [times[n // 2]], "p90": [times[int(n * 0.9)]], "max": [times[-1]]}
    yield Figure("delayed job, late by, p99", times[int(n * 0.99)], "ms", how, 50, "at most", rounds=rounds)
    yield Figure("delayed job, late by, p50", times[n // 2], "ms", how)


def wait_for(producer: Producer, n: int, seconds: float) -> None:
    """Wait until all are done: every job writes its lateness before it is acked. Raises RunFailed."""
    deadline = time.monotonic() + seconds
    while int(producer.client.hget("rq:{bench}:meta", "done") or 0) < n:
        if time.monotonic() > deadline:
            raise RunFailed(f"{n} jobs were not done in time")
        time.sleep(0.2)


def at_once(site: Site) -> Iterator[Figure]:
    """A million jobs that are already due, promoted as a supervisor does it."""
    n = site.size(1_000_000, 100_000)
    with site.producer() as producer:
        fill(producer.client, n)
        producer.client.config_resetstat()
        producer.client.config_set("slowlog-log-slower-than", 0)
        producer.client.config_set("slowlog-max-len", KEPT)
        producer.client.slowlog_reset()
        start = time.monotonic()
        while producer.broker.tends.promote("bench", BATCH)[0] == BATCH:
            pass
        took = time.monotonic() - start
        # The slow log also has the commands that a script calls.
        entries = [entry for entry in producer.client.slowlog_get(KEPT) if entry["command"].startswith(b"EVALSHA")]
        times = sorted(entry["duration"] / 1000 for entry in entries)
        if len(times) < n // BATCH or producer.client.llen("rq:{bench}:pending") != n:
            raise RunFailed("not all were promoted")
        producer.client.flushall()
    how = f"{n:,} jobs due at once in steps of {BATCH}, {n / took:,.0f} a second; times by Redis' slow log"
    rounds = {"p50": [times[len(times) // 2]], "p99": [times[int(len(times) * 0.99)]]}
    yield Figure("promoting many: the longest script", times[-1], "ms", how, 5, "at most", rounds=rounds)


def fill(client: redis.Redis, n: int) -> None:
    """Write the entries that `n` delayed puts would write, but faster."""
    for first in range(0, n, 1000):
        members = {
            b"s%016d|" % number + encode(Message(VERSION, new_id(), "benchmarks.bodies:noop", ["x" * 100])): 1
            for number in range(first, first + 1000)
        }
        client.zadd("rq:{bench}:scheduled", members)


def main() -> None:
    with redis_server.running() as server:
        site = Site(server.url)
        for measured in (late, at_once):
            for figure in measured(site):
                print(f"{figure.name}: {figure.value:.2f} {figure.unit} ({figure.how}) {figure.rounds}", flush=True)


if __name__ == "__main__":
    main()

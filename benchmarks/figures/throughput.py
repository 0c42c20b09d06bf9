"""Jobs per second: no-op jobs beside the minimal loop, jobs that sleep, putting, and a deep queue."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import redis

from benchmarks import tally
from benchmarks.contenders import ALL
from benchmarks.drive import PAYLOAD
from benchmarks.figures.figure import Figure, Producer, Site
from benchmarks.measure import SLOTS, Bench, noops
from rq_lite.broker import Acks, Link

CLOSE = 0.002  # seconds between two reads of the tallies if the time of a single job matters
PEERS = {contender.name for contender in ALL if contender.venv}
LEAD = 1.5  # seconds that one consumer may start before the other, and so take more of the jobs
SLICE = 100  # puts; so few that a disturbance of one of two slices also hits the next one

Rates = Mapping[str, float]  # no-op jobs/s at 2 × 200 by contender, best of all rounds


def rates(contenders: list[dict[str, Any]]) -> dict[str, float]:
    """No-op jobs/s by contender, from the results of the same run."""
    return {c["name"]: n["per_second"] for c in contenders for n in c["noop"] if n["procs"] == 2}


def beside(site: Site, known: Rates) -> Iterator[Figure]:
    """No-op jobs: the rate, and its ratio to the minimal loop's and to the fastest other library's."""
    how = "no-op jobs, 100-byte argument, 2 consumers × 200; each contender's best of interleaved rounds"
    rounds: dict[str, list[float]] = {}
    if not {"ours", "minimal"} <= known.keys():
        rounds = noop_rounds(site)
        known = {**known, **{name: max(found) for name, found in rounds.items()}}
    yield Figure("no-op jobs", known["ours"], "jobs/s", how, rounds=rounds)
    yield Figure("no-op jobs beside the minimal loop", known["ours"] / known["minimal"], "×", how, 0.5)
    peers = {name: rate for name, rate in known.items() if name in PEERS}
    if peers:
        fastest = max(peers, key=lambda name: peers[name])
        how = f"the same; the fastest of {len(peers)} other libraries is {fastest}"
        yield Figure("no-op jobs beside the fastest other library", known["ours"] / peers[fastest], "×", how, 10)


def noop_rounds(site: Site) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"ours": [], "minimal": []}
    for _ in range(site.size(3, 1)):
        for name, per_second in found.items():
            with site.bench(name) as bench:
                sized = Bench(bench.contender, bench.url, bench.folder, jobs=site.size(800_000, 100_000))
                per_second.append(noops(sized, 2)["per_second"])
    return found


def naps_short(site: Site) -> Iterator[Figure]:
    yield steady(site, 0.05, 200, waves=site.size(80, 20), target=0.95)


def naps_second(site: Site) -> Iterator[Figure]:
    yield steady(site, 1.0, 200, waves=site.size(8, 1), target=0.98)


def naps_many(site: Site) -> Iterator[Figure]:
    yield steady(site, 2.0, site.size(5000, 1000), waves=site.size(4, 1), target=0.90)


def steady(site: Site, seconds: float, slots: int, waves: int, target: float) -> Figure:
    """The share of what the slots could do: from the end of the first wave of jobs on, over whole waves.

    Whole waves, because jobs that begin together end together: a window that cuts a wave would count too much
    or too little. Each consumer is timed separately, so that their start-up does not count.
    """
    with site.bench() as bench:
        bench.fresh()
        spare = 2 + round(LEAD / seconds)
        bench.drive("nap", 2 * slots * (waves + spare), seconds)
        with bench.workers(2, slots) as log:
            shares = [waves * seconds / took for took in crossings(bench, log, slots, slots * (1 + waves))]
    how = (
        f"{waves} × {slots:,} jobs on each of 2 consumers × {slots:,}, after the first {slots:,}; "
        "1 is what the slots could do without any queue"
    )
    length = f"{seconds:g} s" if seconds >= 1 else f"{1000 * seconds:g} ms"
    name = f"jobs of {length} on 2 × {slots:,}"
    return Figure(name, statistics.mean(shares), "of the ideal", how, target, rounds={"consumers": shares})


def crossings(bench: Bench, log: Any, first: int, last: int) -> list[float]:
    """For each of two consumers, the seconds from the end of its `first`-th job to the end of its `last`-th."""
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    for _ in bench.watch(log, CLOSE):
        for pid, progress in tally.each(bench.folder).items():
            if progress.done >= first:
                began.setdefault(pid, progress.last)
            if progress.done >= last:
                ended.setdefault(pid, progress.last)
        if len(ended) == 2:
            break
    return [ended[pid] - began[pid] for pid in ended]


def puts(site: Site) -> Iterator[Figure]:
    """put_many, and put beside a bare LPUSH."""
    n, many = site.size(300_000, 50_000), []
    for _ in range(3):
        with site.producer() as producer:
            start = time.monotonic()
            producer.task().put_many(PAYLOAD for _ in range(n))
            many.append(n / (time.monotonic() - start))
    how = f"{n:,} jobs with a 100-byte argument in batches of 500, the default; best of {len(many)} rounds"
    yield Figure("put_many", max(many), "jobs/s", how, 200_000, rounds={"jobs/s": many})
    with site.producer() as producer:
        ours, bare = put_slices(producer, site.size(100, 10))
    how = (
        f"{len(ours)} slices of {SLICE} puts and of {SLICE} LPUSH of 100 bytes through redis-py's default client, "
        "in turn in one process; the ratio of the medians"
    )
    ratio = statistics.median(bare) / statistics.median(ours)
    yield Figure("put beside a bare LPUSH", ratio, "×", how, 0.75)
    yield Figure("put one by one", SLICE / statistics.median(ours), "jobs/s", how)


def put_slices(producer: Producer, slices: int) -> tuple[list[float], list[float]]:
    """Seconds of each slice of puts and of each slice of LPUSH; the first of both warms up and does not count."""
    ours, bare = [], []
    put, push = producer.task().put, producer.client.lpush
    for _ in range(slices + 1):
        start = time.monotonic()
        for _ in range(SLICE):
            put(PAYLOAD)
        between = time.monotonic()
        for _ in range(SLICE):
            push("bare", PAYLOAD)
        ours.append(between - start)
        bare.append(time.monotonic() - between)
    return ours[1:], bare[1:]


def depth(site: Site) -> Iterator[Figure]:
    """Whether a deep queue is slower: jobs per second with the machine's noise, and the server's time alone."""
    deep, some = site.size(1_000_000, 60_000), site.size(300_000, 20_000)
    rounds: dict[str, list[float]] = {f"of {deep:,}": [], f"of {some:,}": []}
    for _ in range(site.size(2, 1)):
        for waiting, found in zip((deep, some), rounds.values(), strict=True):
            found.append(first_jobs(site, waiting, some))
    ratio = max(rounds[f"of {deep:,}"]) / max(rounds[f"of {some:,}"])
    how = (
        f"no-op jobs/s over the first {some:,} of {deep:,} waiting, divided by that of {some:,}; best of interleaved "
        "rounds"
    )
    yield Figure(f"draining {deep:,} beside {some:,}", ratio, "×", how, 0.95, rounds=rounds)
    shallow, below = exchanges(site, deep, site.size(300, 20))
    how = (
        f"the server's own time (INFO commandstats) for exchanges of {SLOTS} jobs, made in turn by one process on a "
        f"queue of {deep:,} and one of 1,000, since a producer that keeps 1,000 waiting would share the cores; the "
        "ratio of the medians"
    )
    yield Figure(
        f"server time per job at {deep:,} waiting beside 1,000",
        statistics.median(below) / statistics.median(shallow),
        "×",
        how,
        1.05,
        "at most",
        rounds={"median µs per job, 1,000 waiting": [statistics.median(shallow)], "deep": [statistics.median(below)]},
    )


def first_jobs(site: Site, waiting: int, some: int) -> float:
    with site.bench() as bench:
        bench.fresh()
        bench.drive("fill", waiting)
        return bench.drain(some, 2, SLOTS).rate


def exchanges(site: Site, deep: int, rounds: int) -> tuple[list[float], list[float]]:
    """The server's microseconds per job taken and acked: on a queue of 1,000 jobs, and on one of `deep`."""
    shallow, below = [], []
    with site.producer() as producer:
        link = producer.broker.link()
        producer.task("deep").put_many(PAYLOAD for _ in range(deep))
        topped_up = producer.task("shallow")
        for _ in range(rounds):
            topped_up.put_many([PAYLOAD] * (1000 - topped_up.queue.qsize()))
            shallow.append(server_time(producer, "shallow", link))
            below.append(server_time(producer, "deep", link))
        link.close()
    return shallow, below


def server_time(producer: Producer, queue: str, link: Link) -> float:
    """The server's microseconds per job, for four takes and the acks of their jobs."""
    broker = producer.broker
    broker.takes.register(queue, "benchmark", link=link)
    before, taken = script_time(producer.client), 0
    acks: list[int] = []
    for want in (SLOTS, SLOTS, SLOTS, SLOTS, 0):
        reply = broker.takes.exchange("benchmark", [Acks(queue, acks)], want, link)[0]
        acks = list(range(reply.tag + 1, reply.tag + 1 + len(reply.jobs)))
        taken += len(acks)
    if taken != 4 * SLOTS:
        raise RuntimeError(f"queue {queue}: {taken} jobs were taken instead of {4 * SLOTS}")
    return (script_time(producer.client) - before) / taken


def script_time(client: redis.Redis) -> float:
    """Microseconds that the server has spent in scripts so far."""
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec"])

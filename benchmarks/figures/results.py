"""Results: one at a time on an idle queue, beside other libraries that acknowledge jobs; and Executor.map."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import click

from benchmarks import bodies
from benchmarks.contenders import ALL
from benchmarks.figures.figure import Figure, Site
from benchmarks.measure import SLOTS, RunFailed
from rq_lite import Executor, Queue

ASKED = ("ours", "dramatiq", "taskiq", "saq", "rq-simple")  # acknowledge or move jobs, and keep results
WARM_UP = 50  # jobs that are not counted
ROUNDS = 3
SETTLE = 3.0  # seconds in which all workers start: SAQ's drop jobs that they find running at their start


def round_trip(site: Site) -> Iterator[Figure]:
    n = site.size(300, 100) + WARM_UP
    medians: dict[str, list[float]] = {}
    for _ in range(1 if site.quick else ROUNDS):
        for contender in (one for one in ALL if one.name in ASKED and one.ready()):
            with site.bench(contender.name) as bench:
                asking = replace(bench, results=True)
                asking.fresh()
                try:
                    with asking.workers(2, SLOTS):
                        time.sleep(SETTLE)
                        took = asking.drive("ask", n)["took"][WARM_UP:]
                except RunFailed as error:
                    click.echo(f"{contender.name}: {error}", err=True)
                    continue
                medians.setdefault(contender.name, []).append(1000 * statistics.median(took))
    best = {name: min(found) for name, found in medians.items()}
    others = {name: value for name, value in best.items() if name != "ours"}
    how = (
        f"medians of {n - WARM_UP} results, one after the other, on 2 idle consumers × {SLOTS}; best of "
        "interleaved rounds"
    )
    rounds = {f"{name}, ms": found for name, found in medians.items()}
    yield Figure("put → result, idle, p50", best["ours"], "ms", how, rounds=rounds)
    if others:
        ratio = best["ours"] / min(others.values())
        yield Figure("put → result beside the fastest peer that acknowledges", ratio, "×", how, 1.0, "at most")


def mapped(site: Site) -> Iterator[Figure]:
    n = site.size(100_000, 10_000)
    rates = []
    for _ in range(1 if site.quick else ROUNDS):
        with site.producer() as producer, site.bench() as ours:
            echo = Queue("bench", maxsize=50_000_000, broker=producer.broker).task(result_ttl=60)(bodies.echo)
            with ours.workers(2, SLOTS), Executor(echo.queue) as executor:
                echo.put(0).result(30)
                start = time.perf_counter()
                count = sum(1 for _ in executor.map(echo, range(n)))
                rates.append(count / (time.perf_counter() - start))
    how = f"{n:,} no-op jobs whose results are read in order; 2 consumers × {SLOTS}; best of {len(rates)}"
    yield Figure("Executor.map", max(rates), "jobs/s", how, 10_000, rounds={"jobs/s": rates})

"""rq-lite status"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import click
import msgspec

from rq_lite.admin import status
from rq_lite.admin.status import QueueState, WorkerState
from rq_lite.broker import Broker
from rq_lite.cli.common import known_queue, open_broker, plural, settings_from, url_option
from rq_lite.cli.table import Column, Paper, bar, in_place, moves, paper, plain, span, table, width_of, wrapped

NO_QUEUE = "no queue yet: the first put makes one, try `rq-lite produce --help` or `rq-lite demo`"
EVERY = 1.0  # seconds between two looks of --watch


class Look(NamedTuple):
    """What there was to see. `warning` is of Redis itself."""

    queues: dict[str, QueueState]
    workers: list[WorkerState]
    warning: str | None = None


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print one object: {queues: {NAME: {pending, …}}, workers: […]}.")
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@url_option
def command(queues: tuple[str, ...], as_json: bool, watch: bool, url: str | None) -> None:
    """Show how full the QUEUEs are (default: all of them), how fast, and who works."""
    try:
        broker = open_broker(settings_from(url=url), quiet=as_json)
        try:
            for name in queues:
                known_queue(broker, name)
            show(broker, queues, as_json=as_json, watch=watch)
        finally:
            broker.close()
    except KeyboardInterrupt:
        if not watch:
            raise


def show(broker: Broker, names: tuple[str, ...], *, as_json: bool, watch: bool) -> None:
    if as_json:
        for _ in ticks(watch):
            seen = look(broker, names)
            warnings = [] if seen.warning is None else [seen.warning]
            facts = {"queues": seen.queues, "workers": seen.workers, "warnings": warnings}
            click.echo(msgspec.json.encode(facts).decode())
    elif not watch:
        click.echo("\n".join(view(look(broker, names), paper(), names)))
    elif paper().terminal and moves():
        with in_place() as put_up:
            for _ in ticks(watch):
                put_up(view(look(broker, names), paper(), names))
    else:
        for _ in ticks(watch):
            for line in lines(look(broker, names)):
                print(time.strftime("%H:%M:%S"), line, flush=True)


def ticks(watch: bool) -> Iterator[None]:
    """Now; then, with --watch, every second."""
    yield
    while watch:
        time.sleep(EVERY)
        yield


def look(broker: Broker, names: tuple[str, ...]) -> Look:
    states = status.states(broker, list(dict.fromkeys(names)) or status.queues(broker))
    return Look(states, status.workers(broker), status.eviction(broker))


# -- for people


def view(seen: Look, on: Paper, names: tuple[str, ...] = ()) -> list[str]:
    """Tables of the queues and of the workers that serve them, and what needs attention."""
    about_redis = [] if seen.warning is None else warned(f"redis: {plain(seen.warning, 300)}", on)
    if not seen.queues:
        return [*wrapped(NO_QUEUE, on.width), *about_redis]
    rows = [row(name, state, on) for name, state in seen.queues.items()]
    if width_of(COLUMNS, rows) <= on.width:
        found = table(COLUMNS, rows, on)
    else:  # numbers that are cut off would be wrong ones
        found = [part for name, state in seen.queues.items() for part in wrapped(sentence(name, state), on.width)]
    found += [*worker_table(seen.workers, names, on), *about_redis]
    for state in seen.queues.values():
        found += [part for text in underway(state) for part in wrapped(text, on.width)]
    for name, state in seen.queues.items():
        for warning in state.warnings:
            found += warned(f"{plain(name)}: {plain(warning, 300)}", on)
    for worker in seen.workers:
        if worker.trouble:
            found += warned(f"worker {plain(worker.host)} {plain(worker.pid)}: {plain(worker.trouble, 300)}", on)
    return found


def warned(text: str, on: Paper) -> list[str]:
    return [on.paint(part, "yellow") for part in wrapped(f"! {text}", on.width)]


COLUMNS = (
    Column("queue", style="bold"),
    *(Column(heading, right=True) for heading in ("pending", "scheduled", "in flight", "dead", "bound")),
    Column("full"),
    *(Column(heading, right=True) for heading in ("done", "failed", "jobs/s", "consumers", "oldest")),
)
WORKER_COLUMNS = tuple(map(Column, ("worker", "pid", "queues", "procs x slots", "since")))


def row(name: str, state: QueueState, on: Paper) -> list[str]:
    parked = f" ({state.parked:,} parked)" if state.parked else ""
    return [
        plain(name),
        f"{state.pending:,}",
        f"{state.scheduled:,}{parked}",
        f"{state.inflight:,}",
        on.paint(f"{state.dead:,}", "red" if state.dead else ""),
        bound(state),
        fullness(state.full, on),
        f"{state.done:,}",
        f"{state.failed:,}",
        f"{state.jobs_per_second:,.0f}",
        f"{state.consumers:,}",
        "" if state.oldest_waiting is None else span(state.oldest_waiting),
    ]


def underway(state: QueueState) -> list[str]:
    """The jobs that say how far they are, a line each."""
    return [
        f"{plain(job.id)} {plain(job.task)}: {amount(job.done, job.total)}"
        + (f", {plain(job.note, 200)}" if job.note else "")
        + f" ({span(job.seconds_ago)} ago)"
        for job in state.progress
    ]


def amount(done: float, total: float | None) -> str:
    """`[#####...............] 25%, 50 of 200`, or `50`."""
    if total is None or total <= 0:
        return f"{done:,.10g}"
    share = min(1.0, done / total)
    full = round(20 * share)
    return f"[{'#' * full}{'.' * (20 - full)}] {share:.0%}, {done:,.10g} of {total:,.10g}"


def bound(state: QueueState) -> str:
    bounds = [f"{state.maxsize:,}"] * bool(state.maxsize) + [f"{state.maxbytes:,} bytes"] * bool(state.maxbytes)
    return ", ".join(bounds) or "none"


def fullness(full: float | None, on: Paper) -> str:
    """A bar and a percentage; over 100 % is possible, for what running jobs put is never refused."""
    if full is None:
        return ""
    return f"{bar(full, 10, 'red' if full >= 1 else 'yellow' if full >= 0.8 else 'green', on)} {full:.0%}"


def worker_table(workers: list[WorkerState], names: tuple[str, ...], on: Paper) -> list[str]:
    """The workers that serve one of these queues; with no names all of them."""
    serving = [worker for worker in workers if not names or not {*names}.isdisjoint(worker.queues)]
    if not serving:
        return ["no worker runs: start one with `rq-lite work APP`"]
    rows = [
        [
            plain(worker.host),
            plain(worker.pid),
            plain(" ".join(worker.queues)),
            plain(f"{worker.procs} x {worker.slots}"),
            "?" if worker.since is None else span(worker.since),
        ]
        for worker in serving
    ]
    return table(WORKER_COLUMNS, rows, on)


def lines(seen: Look) -> list[str]:
    """For a pipe: a line for each queue."""
    about_redis = [] if seen.warning is None else [f"redis: {plain(seen.warning, 300)}"]
    if not seen.queues:
        return [NO_QUEUE, *about_redis]
    return about_redis + [
        "; ".join([sentence(name, state), *(plain(warning, 300) for warning in state.warnings)])
        for name, state in seen.queues.items()
    ]


def sentence(name: str, state: QueueState) -> str:
    full = "" if state.full is None else f" ({state.full:.0%} full)"
    parked = f" ({state.parked:,} parked)" if state.parked else ""
    oldest = "" if state.oldest_waiting is None else f", oldest {span(state.oldest_waiting)}"
    return (
        f"{plain(name)}: {state.pending:,} pending, {state.scheduled:,} scheduled{parked}, "
        f"{state.inflight:,} in flight, {state.dead:,} dead, bound {bound(state)}{full}, "
        f"{state.done:,} done, {state.failed:,} failed, {state.jobs_per_second:,.0f} jobs/s, "
        f"{state.consumers:,} consumer{plural(state.consumers)}{oldest}"
    )

"""rq-lite status"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rq_lite.admin import status
from rq_lite.admin.status import QueueState, WorkerState
from rq_lite.broker import Broker
from rq_lite.cli.common import known_queue, open_broker, settings_from, url_option
from rq_lite.cli.text import json_line, plain, span
from rq_lite.errors import counted

NO_QUEUE = "no queue yet: the first put makes one, try `rq-lite produce --help` or `rq-lite demo`"
EVERY = 1.0  # seconds between two refreshes of --watch
WIDE = 200  # columns where no terminal sets them


class Look(NamedTuple):
    """The state at one time. `warning` is about Redis itself."""

    queues: dict[str, QueueState]
    workers: list[WorkerState]
    warning: str | None = None


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print one object: {queues: {NAME: {pending, …}}, workers: […]}.")
@click.option("--watch", is_flag=True, help="Refresh every second, until Ctrl-C.")
@url_option
def command(queues: tuple[str, ...], as_json: bool, watch: bool, url: str | None) -> None:
    """Show the QUEUEs (default: all of them): how full, how fast, served by which workers."""
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
    console = Console(highlight=False)
    if as_json:
        for _ in ticks(watch):
            seen = look(broker, names)
            warnings = [] if seen.warning is None else [seen.warning]
            facts = {"queues": seen.queues, "workers": seen.workers, "warnings": warnings}
            click.echo(json_line(facts))
    elif watch and not console.is_terminal:
        for _ in ticks(watch):
            for line in lines(look(broker, names)):
                print(time.strftime("%H:%M:%S"), line, flush=True)
    else:
        if not console.is_terminal:
            console.width = WIDE
        with screen(console, watch) as put_up:
            for _ in ticks(watch):
                put_up(view(look(broker, names), console, names))


def ticks(watch: bool) -> Iterator[None]:
    """Yields at once and, with --watch, then every second."""
    yield
    while watch:
        time.sleep(EVERY)
        yield


@contextmanager
def screen(console: Console, watch: bool) -> Iterator[Callable[[RenderableType], None]]:
    """Where to put a view: below the last one, or in its place."""
    if not watch:
        yield console.print
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda content: live.update(content, refresh=True)


def look(broker: Broker, names: tuple[str, ...]) -> Look:
    states = status.states(broker, list(dict.fromkeys(names)) or status.queues(broker))
    return Look(states, status.workers(broker), status.eviction(broker))


# -- for people


def view(seen: Look, console: Console, names: tuple[str, ...] = ()) -> RenderableType:
    """Tables of the queues and of the workers that serve them, the progress of jobs, and warnings."""
    about_redis = [] if seen.warning is None else [Text(f"! redis: {plain(seen.warning, 300)}", style="yellow")]
    if not seen.queues:
        return Group(Text(NO_QUEUE), *about_redis)
    table: RenderableType = queue_table(seen.queues)
    needed = console.measure(table, options=console.options.update(max_width=10 * WIDE)).maximum
    if needed > console.width:  # numbers that are cut off would be wrong
        table = Text("\n".join(sentence(name, state) for name, state in seen.queues.items()))
    parts = [table, worker_table(seen.workers, names), *about_redis]
    parts += [Text(line) for state in seen.queues.values() for line in underway(state)]
    parts += [
        Text(f"! {plain(name)}: {plain(warning, 300)}", style="yellow")
        for name, state in seen.queues.items()
        for warning in state.warnings
    ]
    parts += [
        Text(f"! worker {plain(worker.host)} {plain(worker.pid)}: {plain(worker.trouble, 300)}", style="yellow")
        for worker in seen.workers
        if worker.trouble
    ]
    return Group(*parts)


def queue_table(states: dict[str, QueueState]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("queue", no_wrap=True, style="bold")
    for heading in ("pending", "scheduled", "in flight", "dead", "bound"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("full", no_wrap=True)
    for heading in ("done", "failed", "jobs/s", "consumers", "oldest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, state in states.items():
        parked = f" ({state.parked:,} parked)" if state.parked else ""
        table.add_row(
            Text(plain(name)),
            f"{state.pending:,}",
            f"{state.scheduled:,}{parked}",
            f"{state.inflight:,}",
            Text(f"{state.dead:,}", style="red" if state.dead else ""),
            bound(state),
            bar(state.full),
            f"{state.done:,}",
            f"{state.failed:,}",
            f"{state.jobs_per_second:,.0f}",
            f"{state.consumers:,}",
            "" if state.oldest_waiting is None else span(state.oldest_waiting),
        )
    return table


def underway(state: QueueState) -> list[str]:
    """The jobs that report progress, a line each."""
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
    bounds = [f"{state.maxsize:,}"] * bool(state.maxsize) + [counted(state.maxbytes, "byte")] * bool(state.maxbytes)
    return ", ".join(bounds) or "none"


def bar(full: float | None) -> RenderableType:
    """A bar and a percentage; over 100 % is possible, because running jobs may put beyond the bound."""
    if full is None:
        return ""
    color = "red" if full >= 1 else "yellow" if full >= 0.8 else "green"
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        ProgressBar(total=1.0, completed=min(1.0, full), width=10, complete_style=color, finished_style=color),
        f"{full:.0%}",
    )
    return grid


def worker_table(workers: list[WorkerState], names: tuple[str, ...]) -> RenderableType:
    """The workers that serve one of these queues; with no names all of them."""
    serving = [worker for worker in workers if not names or not {*names}.isdisjoint(worker.queues)]
    if not serving:
        return Text("no worker runs: start one with `rq-lite work APP`")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("worker", "pid", "queues", "procs x slots", "since"):
        table.add_column(heading, overflow="fold")
    for worker in serving:
        facts = (worker.host, worker.pid, " ".join(worker.queues), f"{worker.procs} x {worker.slots}")
        since = "?" if worker.since is None else span(worker.since)
        table.add_row(*(Text(plain(fact)) for fact in facts), since)
    return table


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
        f"{counted(state.consumers, 'consumer')}{oldest}"
    )

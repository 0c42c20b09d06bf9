"""rq-lite status"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click
import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rq_lite.admin import status
from rq_lite.admin.status import QueueState, WorkerState
from rq_lite.broker import Broker
from rq_lite.cli.common import known_queue, open_broker, settings_from, url_option
from rq_lite.cli.screen import Screen
from rq_lite.cli.table import Column, bar, console_of, table
from rq_lite.cli.text import json_line, plain, span
from rq_lite.errors import counted
from rq_lite.logs import escaped

NO_QUEUE = "no queue yet: the first put makes one, try `rq-lite produce --help` or `rq-lite demo`"
EVERY = 1.0  # seconds between two looks of --watch
STALLED = 3.0  # seconds without an answer after which --watch says so
WIDE = 10_000  # cells where no terminal sets them


def if_some(style: str) -> Callable[[str], str]:
    return lambda number: "" if number == "0" else style


QUEUES = (
    Column("queue", 0, least=12, middle=True, style=lambda _: "bold"),
    Column("pending", 1, right=True),
    Column("scheduled", 8, right=True),
    Column("parked", 5, right=True, style=if_some("yellow")),
    Column("in flight", 3, right=True),
    Column("dead", 2, right=True, style=if_some("red")),
    Column("bound", 11, right=True),
    Column("full", 4, right=True),
    Column("", 13),
    Column("done", 9, right=True),
    Column("failed", 7, right=True, style=if_some("red")),
    Column("jobs/s", 6, right=True),
    Column("consumers", 12, right=True),
    Column("oldest", 10, right=True),
)
WORKERS = (
    Column("worker", 0, least=8, middle=True),
    Column("pid", 1, least=6),
    Column("queues", 3, least=10),
    Column("procs x slots", 4, least=13),
    Column("since", 2, right=True),
)


class Look(NamedTuple):
    """The state at one time. `warning` is about Redis itself; `age` is how many seconds ago that was."""

    queues: dict[str, QueueState]
    workers: list[WorkerState]
    warning: str | None = None
    age: float = 0.0


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print one object: {queues: {NAME: {pending, …}}, workers: […]}.")
@click.option("--watch", is_flag=True, help="Refresh every second, full screen, until Ctrl-C.")
@url_option
def command(queues: tuple[str, ...], as_json: bool, watch: bool, url: str | None) -> None:
    """Show the QUEUEs (default: all of them): how full, how fast, served by which workers.

    A terminal that is too narrow gets the more important columns; a pipe gets all of them, --json everything known.
    There `dropped` counts buried jobs that were trimmed from the dead set, `overflowed` jobs that were dropped as their
    queue was full.
    """
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
    console = console_of()
    if as_json:
        for seen in looks(broker, names, watch=watch):
            warnings = [] if seen.warning is None else [seen.warning]
            facts = {"queues": seen.queues, "workers": seen.workers, "warnings": warnings}
            click.echo(json_line(facts))
    elif not watch:
        room = console.width if console.is_terminal else None
        if room is None:
            console.width = WIDE
        console.print(view(look(broker, names), room, names))
    elif not console.is_terminal or console.is_dumb_terminal:
        for seen in looks(broker, names, watch=True):
            for line in lines(seen):
                print(time.strftime("%H:%M:%S"), line, flush=True)
    else:
        with Screen(console, lambda seen: view(seen, console.width, names), aged) as screen:
            for seen in looks(broker, names, watch=True):
                screen.show(seen)


def looks(broker: Broker, names: tuple[str, ...], *, watch: bool) -> Iterator[Look]:
    """A look at once and, with --watch, another every second."""
    yield look(broker, names)
    while watch:
        time.sleep(EVERY)
        yield look(broker, names)


def look(broker: Broker, names: tuple[str, ...]) -> Look:
    states = status.states(broker, list(dict.fromkeys(names)) or status.queues(broker))
    return Look(states, status.workers(broker), status.eviction(broker))


def aged(seen: Look, seconds: float) -> Look:
    """The look as it is so many seconds later, if nothing else has changed."""

    def later(age: float | None) -> float | None:
        return None if age is None else age + seconds

    queues = {
        name: msgspec.structs.replace(
            state,
            oldest_waiting=later(state.oldest_waiting),
            progress=[msgspec.structs.replace(job, seconds_ago=job.seconds_ago + seconds) for job in state.progress],
        )
        for name, state in seen.queues.items()
    }
    workers = [msgspec.structs.replace(worker, since=later(worker.since)) for worker in seen.workers]
    return Look(queues, workers, seen.warning, seconds)


# -- for people


def view(seen: Look, room: int | None, names: tuple[str, ...] = ()) -> RenderableType:
    """Tables of the queues and of the workers that serve them, the progress of jobs, and warnings."""
    troubles = [] if seen.warning is None else [f"redis: {plain(seen.warning, 300)}"]
    if seen.age >= STALLED:
        troubles.append(f"redis has not answered for {span(seen.age)}: these are its last figures")
    troubles += [
        f"{plain(name)}: {plain(warning, 300)}" for name, state in seen.queues.items() for warning in state.warnings
    ]
    troubles += [
        f"worker {plain(worker.host)} {plain(worker.pid)}: {plain(worker.trouble, 300)}"
        for worker in seen.workers
        if worker.trouble
    ]
    about = [Text(f"! {trouble}", style="yellow") for trouble in troubles]
    if not seen.queues:
        return Group(Text(NO_QUEUE), *about)
    jobs = [Text(line) for name, state in seen.queues.items() for line in (*underway(state), *apart(name, state))]
    gap = [Text("")] * bool(jobs or about)
    return Group(queue_table(seen.queues, room), Text(""), worker_table(seen.workers, names, room), *gap, *jobs, *about)


def queue_table(states: dict[str, QueueState], room: int | None) -> Table:
    rows: list[list[str | Text]] = [
        [
            escaped(name),
            f"{state.pending:,}",
            f"{state.scheduled:,}",
            f"{state.parked:,}",
            f"{state.inflight:,}",
            f"{state.dead:,}",
            bound(state),
            "" if state.full is None else Text(f"{state.full:.0%}", colour(state.full)),
            "" if state.full is None else bar(state.full, colour(state.full)),
            f"{state.done:,}",
            f"{state.failed:,}",
            f"{state.jobs_per_second:,.0f}",
            f"{state.consumers:,}",
            "" if state.oldest_waiting is None else span(state.oldest_waiting),
        ]
        for name, state in states.items()
    ]
    parked = any(state.parked for state in states.values())
    shown = [i for i, column in enumerate(QUEUES) if parked or column.heading != "parked"]
    return table([QUEUES[i] for i in shown], [[row[i] for i in shown] for row in rows], room)


def underway(state: QueueState) -> list[str]:
    """The jobs that report progress, a line each."""
    return [
        f"{plain(job.id)} {plain(job.task)}: {amount(job.done, job.total)}"
        + (f", {plain(job.note, 200)}" if job.note else "")
        + f" ({span(job.seconds_ago)} ago)"
        for job in state.progress
    ]


def apart(name: str, state: QueueState) -> list[str]:
    """A line about jobs that did not go the usual way, and what the queue does when it is full; most have none."""
    said = [
        counted(number, noun, many)
        for number, noun, many in (
            (state.expired, "job expired", "jobs expired"),
            (state.overflowed, "job dropped as it was full", "jobs dropped as it was full"),
            (state.replaced, "job replaced", "jobs replaced"),
            (state.replacing, "waits to replace another", "wait to replace others"),
            (state.duplicates, "duplicate kept out", "duplicates kept out"),
            (state.remembered, "key remembered for ever", "keys remembered for ever"),
        )
        if number
    ]
    if state.when_full != "wait":
        said.append(f"when full: {plain(state.when_full, 20)}")
    return [f"{plain(name)}: {', '.join(said)}"] if said else []


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


def colour(full: float) -> str:
    """Of fullness; over 100 % is possible, because running jobs may put beyond the bound."""
    return "red" if full >= 1 else "yellow" if full >= 0.8 else "green"


def worker_table(workers: list[WorkerState], names: tuple[str, ...], room: int | None) -> RenderableType:
    """The workers that serve one of these queues; with no names all of them."""
    serving = [worker for worker in workers if not names or not {*names}.isdisjoint(worker.queues)]
    if not serving:
        return Text("no worker runs: start one with `rq-lite work APP`")
    rows = [
        [
            escaped(worker.host),
            escaped(worker.pid),
            escaped(" ".join(worker.queues)),
            escaped(f"{worker.procs} x {worker.slots}"),
            "?" if worker.since is None else span(worker.since),
        ]
        for worker in serving
    ]
    return table(WORKERS, rows, room)


def lines(seen: Look) -> list[str]:
    """For a pipe: a line for each queue."""
    about_redis = [] if seen.warning is None else [f"redis: {plain(seen.warning, 300)}"]
    if not seen.queues:
        return [NO_QUEUE, *about_redis]
    return about_redis + [
        "; ".join([sentence(name, state), *apart(name, state), *(plain(warning, 300) for warning in state.warnings)])
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

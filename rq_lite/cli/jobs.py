"""rq-lite jobs: list, show, cancel, retry"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote

import click

from rq_lite.admin import dead, jobs, operate
from rq_lite.admin.jobs import Found, Search
from rq_lite.broker import Broker, Cancelled
from rq_lite.cli import jobs_view as view
from rq_lite.cli.common import url_option
from rq_lite.cli.dead import end, fullness, now_of, opened, queue_option, reasons, tag_option
from rq_lite.cli.dead_view import shortened, text_of
from rq_lite.cli.listing import as_lines, put_out
from rq_lite.cli.text import plain, span
from rq_lite.errors import UsageError, counted
from rq_lite.model.message import parse
from rq_lite.model.outcome import stated
from rq_lite.model.states import State
from rq_lite.model.unreadable import UNREADABLE

Place: TypeAlias = tuple[str, State, int]  # a queue, one of its places, how many jobs that holds
SAID = {
    Cancelled.REMOVED: "removed: it will never run",
    Cancelled.INTERRUPTING: "it runs, and is being interrupted",
    Cancelled.MARKED: "it will be dropped when its turn comes",
}


@click.group()
def command() -> None:
    """Show jobs wherever they are; cancel them, or have them run again.

    Places: inflight (a consumer has it), pending, scheduled (due later, or parked), replacing (it waits to replace
    another of its key), suspects, dead.
    """


# -- looking


@command.command("list")
@click.argument("names", nargs=-1, metavar="[QUEUE]...")
@queue_option
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in jobs.PLACES]),
    multiple=True,
    help="Only in this state; repeatable.",
)
@click.option("--task", metavar="TASK", help="Only jobs of this task.")
@tag_option
@click.option(
    "--far",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"With --task or --tag: look at the first N and the last N jobs of each place. Default: {jobs.FAR:,}.",
)
@click.option("--limit", type=click.IntRange(min=0), default=50, metavar="N", help="Default: 50; 0: all.")
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Skip the first N.")
@click.option("--page", type=click.IntRange(min=1), metavar="N", help="The N-th page of --limit jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per job, with everything known.")
@url_option
def list_jobs(
    names: tuple[str, ...],
    queues: tuple[str, ...],
    states: tuple[str, ...],
    task: str | None,
    tags: frozenset[str],
    far: int | None,
    limit: int,
    offset: int,
    page: int | None,
    as_json: bool,
    url: str | None,
) -> None:
    """List jobs, queue by queue.

    In each queue running jobs come first, then waiting ones in the order in which they will be taken or become due,
    then buried ones.

    A table on a terminal; on a pipe a line per job, with tabs between the columns.
    """
    if page is not None:
        if not limit:
            raise UsageError("--page counts pages of --limit jobs, and --limit 0 has no pages: leave one of them out")
        offset += (page - 1) * limit
    searched = task is not None or bool(tags)
    if far is not None and not searched:
        raise UsageError("--far says how far --task and --tag look: say one of these, too")
    with opened(url, names + queues, quiet=as_json) as (broker, asked):
        wanted = [state for state in jobs.PLACES if not states or state.value in states]
        places = [
            (queue, state, count)
            for queue in asked.queues
            for state, count in jobs.sizes(broker, queue).items()
            if state in wanted and count
        ]
        far = far or jobs.FAR
        if searched:
            found, first = fitting(broker, places, task, tags, far), offset
        else:
            found, first = skipping(broker, places, offset), 0
        asked_for = islice(found, first, first + limit if limit else None)
        shown = put_out(asked_for, view.VIEW, now_of(broker), as_json=as_json)
        more = sum(1 for _ in found) if searched else max(0, sum(count for _, _, count in places) - offset - shown)
        if not shown and not as_json:
            click.echo("no job" + (" matches" if states or searched or offset else ""), err=True)
        if more:
            click.echo(f"{more:,} more; --page N, --offset N or --limit 0 shows them", err=True)
        if searched:
            tell_unseen(places, far)


def fitting(broker: Broker, places: list[Place], task: str | None, tags: frozenset[str], far: int) -> Iterator[Found]:
    """The jobs of this task that have these tags, among `far` at each end of each place."""
    for queue, state, count in places:
        for job in jobs.near(broker, queue, state, count, far):
            if task in (None, job.task) and tags.issubset(job.tags):
                yield job


def tell_unseen(places: list[Place], far: int) -> None:
    for queue, state, count in places:
        if count > 2 * far:
            click.echo(
                f"queue {queue!r}: looked at the first and the last {far:,} of {count:,} jobs in {state.value}; "
                "--far N looks further",
                err=True,
            )


def skipping(broker: Broker, places: list[Place], offset: int) -> Iterator[Found]:
    """The jobs of all these places except the first `offset`, which are not read from Redis."""
    for queue, state, count in places:
        first = min(offset, count)
        offset -= first
        if first < count:
            yield from jobs.listed(broker, queue, state, first)


@command.command(short_help="Show everything about jobs.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@queue_option
@url_option
def show(ids: tuple[str, ...], queues: tuple[str, ...], url: str | None) -> None:
    """Show everything about a job: where it is, the progress that it reports, its arguments, its result."""
    problems = []
    with opened(url, queues) as (broker, asked):
        now = now_of(broker)
        pages = 0
        for job_id in dict.fromkeys(ids):
            found = look(broker, asked.queues, job_id)
            for job in found.jobs:
                click.echo(("\n" if pages else "") + view.page(job, now, told(broker, job, now)))
                pages += 1
            for queue, result in found.results:
                click.echo(("\n" if pages else "") + ended(job_id, queue, result))
                pages += 1
            if not (found.jobs or found.results):
                problems.append(missing(job_id, found.unseen, asked.queues))
    end(1, *problems)


class Look(NamedTuple):
    """The jobs with this id or, if there are none, the results; and how many waiting jobs were not searched."""

    jobs: list[Found]
    results: list[tuple[str, bytes]]
    unseen: int


def look(broker: Broker, queues: list[str], job_id: str) -> Look:
    searches: list[Search] = [jobs.find(broker, queue, job_id) for queue in queues]
    found = [search.job for search in searches if search.job is not None]
    results = []
    if not found:
        results = [(queue, result) for queue in queues if (result := broker.puts.result(queue, job_id)) is not None]
    return Look(found, results, sum(search.unseen for search in searches))


def told(broker: Broker, job: Found, now: float) -> list[tuple[str, str]]:
    """What Redis knows about a job beside its entry."""
    lines = [*claims(broker, job, now)]
    if job.id is not None:
        if (said := broker.puts.progress_of(job.queue, job.id)) is not None:
            lines.append(("progress", view.progress(said, now)))
        if broker.takes.marked(job.queue, [job.id]):
            lines.append(("cancelled", "it will be dropped, or interrupted"))
        if (result := broker.puts.result(job.queue, job.id)) is not None:
            lines.append(("result", shortened(text_of(result))))
    return lines


def claims(broker: Broker, job: Found, now: float) -> Iterator[tuple[str, str]]:
    """What its marks say: the lock of a unique job, and when it expires."""
    head = parse(job.entry)
    if head is not None and head.unique is not None and head.id is not None:
        mode, _, name = head.unique.decode().partition(":")
        until = "its end" if mode == "e" else "its start"
        holder = broker.puts.holder(job.queue, name)
        held = "holds the lock" if holder == head.id.decode() else "does not hold the lock"
        if job.state is State.REPLACING:
            held = f"is to replace job {plain(unquote(holder or ''), 200)}"
        key = name.rpartition(":")[2]  # behind its task
        yield "unique", f"{plain(unquote(key), 200)}, until {until}; it {held}"
    if head is not None and head.expires:
        left = head.expires / 1000 - now
        yield "expires", f"in {span(left)}" if left > 0 else "has expired: it ends when its turn comes"


def ended(job_id: str, queue: str, result: bytes) -> str:
    try:
        state = stated(result).state
    except UNREADABLE:
        state = "unknown"
    known = [("id", plain(job_id, 200)), ("queue", queue), ("state", f"ended: {plain(state)}")]
    return "\n".join(as_lines([*known, ("result", shortened(text_of(result)))]))


def missing(job_id: str, unseen: int, queues: list[str]) -> str:
    where = f"queue {queues[0]!r}" if len(queues) == 1 else counted(len(queues), "queue")
    far = f"; {unseen:,} that wait further than {jobs.FAR:,} from both ends were not searched" if unseen else ""
    return f"no job {job_id!r} in {where}: it has ended, or never existed{far}"


# -- acting


@command.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@queue_option
@url_option
def cancel(ids: tuple[str, ...], queues: tuple[str, ...], url: str | None) -> None:
    """Cancel jobs: waiting ones are removed, running ones interrupted.

    A job that waits too far from both ends of its queue to be found is dropped at its turn, if -q names the queue.
    """
    problems: list[str] = []
    with opened(url, queues) as (broker, asked):
        for job_id in dict.fromkeys(ids):
            searches = {queue: jobs.find(broker, queue, job_id) for queue in asked.queues}
            where = [queue for queue, search in searches.items() if search.job is not None]
            if len(searches) == 1:
                where = asked.queues  # it may wait too far from both ends to be found
            elif not where:
                unseen = sum(search.unseen for search in searches.values())
                way_out = "; name the queue with -q to have it dropped at its turn" if unseen else ""
                problems.append(missing(job_id, unseen, asked.queues) + way_out)
            for queue in where:
                cancel_in(broker, queue, job_id, searches[queue], problems)
    end(1, *problems)


def cancel_in(broker: Broker, queue: str, job_id: str, search: Search, problems: list[str]) -> None:
    """Cancel the job in one queue and print the outcome."""
    found = search.job
    if found is not None and found.buried is not None:
        problems.append(f"job {job_id!r} of {queue!r} is buried: `rq-lite dead purge {view.name(found)}` drops it")
        return
    done = operate.cancel(broker, queue, job_id)
    if done is Cancelled.UNKNOWN:
        problems.append(missing(job_id, 0, [queue]))
    elif done is Cancelled.MARKED and found is None and not search.unseen:
        problems.append(f"{missing(job_id, 0, [queue])}; if it turns up nevertheless, it will be dropped")
    else:
        runs = done is Cancelled.MARKED and found is not None and found.state is State.INFLIGHT
        click.echo(f"job {plain(job_id, 200)} of {queue!r}: {SAID[Cancelled.INTERRUPTING if runs else done]}")


@command.command(short_help="Let jobs run soon: buried and scheduled ones.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@queue_option
@url_option
def retry(ids: tuple[str, ...], queues: tuple[str, ...], url: str | None) -> None:
    """Let jobs run soon: buried ones go back to their queue as if they had never run, scheduled ones are due now.

    If its queue is full, a buried job stays where it is, and the exit code is 4.
    """
    problems: list[str] = []
    full: list[str] = []
    with opened(url, queues) as (broker, asked):
        for job_id in dict.fromkeys(ids):
            found = look(broker, asked.queues, job_id)
            if not found.jobs:
                problems.append(missing(job_id, found.unseen, asked.queues))
            for job in found.jobs:
                if job.state is State.DEAD:
                    requeued(broker, job, problems, full)
                elif job.state is State.SCHEDULED and jobs.hasten(broker, job):
                    click.echo(f"job {view.name(job)} of {job.queue!r}: due now")
                else:
                    problems.append(f"job {job_id!r} of {job.queue!r} is {view.state(job)}: there is nothing to retry")
    end(4 if full else 1, *full, *problems)


def requeued(broker: Broker, job: Found, problems: list[str], full: list[str]) -> None:
    step = dead.Requeue(job.queue, [job.tag])
    step.run(broker)
    if step.moved:
        click.echo(f"job {view.name(job)} of {job.queue!r}: waits again")
    elif step.left:
        way_out = f"`rq-lite dead requeue {view.name(job)} -q {job.queue} --wait SECONDS` waits for room"
        full.append(f"{fullness(broker, step)} ({way_out})")
    else:
        problems += [*reasons(step)] or [f"job {view.name(job)} is not dead any more"]

"""rq-lite dead: list, show, requeue, purge"""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import click

from rq_lite.admin import dead, status
from rq_lite.admin.dead import Buried, Filter, Requeue
from rq_lite.broker import Broker
from rq_lite.cli import dead_view as view
from rq_lite.cli.common import duration, known_queue, open_broker, settings_from, url_option
from rq_lite.cli.listing import put_out
from rq_lite.errors import QueueFull, UsageError, counted

F = TypeVar("F", bound=Callable[..., Any])
WHICH = "name job ids, a filter (--id, --task, --error, --tag, --older-than, --newer-than), or --all (of -q QUEUE)"


@click.group()
def command() -> None:
    """Show the jobs that were given up, put them back or drop them.

    A job is named by its id or, if it has none, by tag:NUMBER as `list` shows it. Ages: 90, 90s, 15m, 2h, 7d.
    """


class Asked(NamedTuple):
    """The queues and the jobs that the command line names."""

    queues: list[str]
    wanted: Filter

    def jobs(self, broker: Broker) -> Iterator[Buried]:
        """Newest first, over all queues."""
        each = (dead.buried(broker, queue, self.wanted) for queue in self.queues)
        return merge(*each, key=lambda job: -job.buried_at)


def queue_option(command: F) -> F:
    return click.option(
        "-q", "--queue", "queues", multiple=True, metavar="QUEUE", help="Only jobs of this queue; repeatable."
    )(command)


def as_set(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> frozenset[str]:
    return frozenset(given)


def tag_option(command: F) -> F:
    return click.option(
        "--tag", "tags", multiple=True, callback=as_set, metavar="TAG",
        help="Only jobs that were put with this tag; repeatable: a job must have all.",
    )(command)  # fmt: skip


def filters(command: F) -> F:
    for option in (
        queue_option,
        click.option("--id", "ids", multiple=True, metavar="ID", help="Only this job; repeatable."),
        click.option("--task", metavar="TASK", help="Only jobs of this task, as `list` shows it."),
        click.option("--error", metavar="TEXT", help="Only with this text in the error; case is ignored."),
        tag_option,
        click.option("--older-than", callback=duration, metavar="AGE", help="Only if buried longer ago than this."),
        click.option("--newer-than", callback=duration, metavar="AGE", help="Only if buried within this time."),
        url_option,
    )[::-1]:
        command = option(command)
    return command


@contextmanager
def opened(
    url: str | None, queues: tuple[str, ...], ids: tuple[str, ...] = (), *, quiet: bool = False, **filter_: Any
) -> Iterator[tuple[Broker, Asked]]:
    """A broker and what is asked for, of all queues if none is named. Raises UsageError for an unknown queue."""
    broker = open_broker(settings_from(url=url), quiet=quiet)
    try:
        names = [known_queue(broker, name) for name in dict.fromkeys(queues)] or status.queues(broker)
        yield broker, Asked(names, Filter(ids=frozenset(ids), **filter_))
    finally:
        broker.close()


# -- looking


@command.command("list")
@click.argument("names", nargs=-1, metavar="[QUEUE]...")
@filters
@click.option("--limit", type=click.IntRange(min=0), default=50, metavar="N", help="Default: 50; 0: all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per job, with everything known.")
def list_jobs(
    names: tuple[str, ...], queues: tuple[str, ...], url: str | None, limit: int, as_json: bool, **filter_: Any
) -> None:
    """List buried jobs, the newest first.

    A table on a terminal; on a pipe a line per job, with tabs between the columns.
    """
    with opened(url, names + queues, quiet=as_json, **filter_) as (broker, asked):
        jobs = asked.jobs(broker)
        shown = put_out(islice(jobs, limit or None), view.VIEW, now_of(broker), as_json=as_json)
        if asked.wanted == dead.EVERYTHING:
            more = max(0, sum(dead.count(broker, queue) for queue in asked.queues) - shown)
        else:
            more = sum(1 for _ in jobs)
        if not shown and not as_json:
            click.echo("no buried job" + (" matches" if asked.wanted != dead.EVERYTHING else ""), err=True)
        if more:
            click.echo(f"{more:,} more; --limit 0 lists all", err=True)
        for queue, state in status.states(broker, asked.queues).items():
            if state.dropped:
                click.echo(f"queue {queue!r}: {jobs_(state.dropped)} dropped so far, beyond the caps", err=True)


@command.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@queue_option
@url_option
def show(ids: tuple[str, ...], queues: tuple[str, ...], url: str | None) -> None:
    """Show everything about a buried job.

    Its error and traceback, when and where it ran, its arguments.
    """
    with opened(url, queues, ids) as (broker, asked):
        now, unknown = now_of(broker), dict.fromkeys(ids)
        for number, job in enumerate(asked.jobs(broker)):
            click.echo(("\n" if number else "") + view.page(job, now))
            for name in dead.names(job):
                unknown.pop(name, None)
        end(1, *missing(unknown, asked))


# -- acting


class Chosen(NamedTuple):
    """The arguments of a command that acts: which jobs, and whether to ask first."""

    ids: tuple[str, ...]
    queues: tuple[str, ...]
    url: str | None
    yes: bool
    filter: dict[str, Any]


def named(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that act: which jobs, --all, --yes. They raise UsageError if no job is chosen."""

    @functools.wraps(command)
    def chosen(
        job_ids: tuple[str, ...],
        ids: tuple[str, ...],
        queues: tuple[str, ...],
        url: str | None,
        everything: bool,
        yes: bool,
        wait: float | None = None,
        **filter_: Any,
    ) -> None:
        own = {} if wait is None else {"wait": wait}
        command(Chosen(checked(job_ids, ids, everything, filter_), queues, url, yes, filter_), **own)

    found = click.option("--yes", is_flag=True, help="Do not ask.")(chosen)
    found = click.option("--all", "everything", is_flag=True, help="All jobs that match the other options.")(found)
    return click.argument("job_ids", nargs=-1, metavar="[ID]...")(filters(found))


def checked(
    job_ids: tuple[str, ...], ids: tuple[str, ...], everything: bool, filter_: dict[str, Any]
) -> tuple[str, ...]:
    """All ids. Raises UsageError if there are neither ids, nor a filter, nor --all."""
    if job_ids and everything:
        raise UsageError("name job ids or say --all, not both; a queue is named with -q QUEUE")
    if not (job_ids or ids or everything or Filter(**filter_) != dead.EVERYTHING):
        raise UsageError(f"no jobs chosen: {WHICH}")
    return job_ids + ids


class Found(NamedTuple):
    """The jobs that were asked for: tags by queue, the oldest first; and the ids that no job has."""

    tags: dict[str, list[int]]
    unknown: dict[str, None]

    @property
    def text(self) -> str:
        """For a question: `3 jobs of 'mails'`, `12 jobs of 2 queues`."""
        where = repr(next(iter(self.tags))) if len(self.tags) == 1 else counted(len(self.tags), "queue")
        return f"{jobs_(sum(map(len, self.tags.values())))} of {where}"


def find(broker: Broker, asked: Asked) -> Found:
    found: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    unknown = dict.fromkeys(sorted(asked.wanted.ids))
    for job in asked.jobs(broker):
        found[job.queue].append((job.buried_at, job.tag))
        for name in dead.names(job):
            unknown.pop(name, None)
    return Found({queue: [tag for _, tag in sorted(jobs)] for queue, jobs in found.items()}, unknown)


@command.command()
@named
@click.option("--wait", type=float, default=0.0, metavar="SECONDS", help="Wait up to this long for room. Default: 0.")
def requeue(chosen: Chosen, wait: float) -> None:
    """Put buried jobs back into their queue.

    They wait at its end, the oldest first, as if they had never run. Only as many as the queue's bound allows are put
    back; exit 4 if some are left. On a terminal it asks first, unless job IDs are named.
    """
    if not wait >= 0:
        raise UsageError(f"--wait must be 0 or more, not {wait:g}")
    with opened(chosen.url, chosen.queues, chosen.ids, **chosen.filter) as (broker, asked):
        found = find(broker, asked)
        if found.tags and not (chosen.yes or chosen.ids) and sys.stdin.isatty():
            click.confirm(f"requeue {found.text}?", abort=True, err=True)
        steps = [Requeue(queue, tags) for queue, tags in found.tags.items()]
        try:
            # The first round does not wait, so a full queue does not delay the others.
            for seconds in dict.fromkeys((0.0, wait)):
                for step in steps:
                    step.run(broker, seconds)
        except KeyboardInterrupt:
            end(130, "interrupted")
        finally:
            tell(steps)
        if not steps and not found.unknown:
            click.echo("no job requeued: no buried job matches")
        full = [f"{fullness(broker, step)} (--wait SECONDS waits for room)" for step in steps if step.left]
        why = [line for step in steps for line in reasons(step)]
        end(4 if full else 1, *full, *why, *missing(found.unknown, asked))


def tell(steps: list[Requeue]) -> None:
    for step in steps:
        left = len(step.left) + step.stay
        stay = f", {left:,} left" if left else ""
        gone = f", {step.missing:,} not dead any more" if step.missing else ""
        click.echo(f"queue {step.queue!r}: {jobs_(step.moved)} requeued{stay}{gone}")


def fullness(broker: Broker, step: Requeue) -> str:
    """Why jobs are left in the dead set, as a sentence."""
    alive, seen = status.signs_of_life(broker, step.queue)
    last = step.last
    why = QueueFull(step.queue, size=last.size, maxsize=last.maxsize, consumers=alive, last_seen=seen)
    size = f"; {last.bytes:,} of {last.maxbytes:,} bytes" if last.maxbytes else ""
    return f"{why}{size}; {jobs_(len(step.left))} left in the dead set"


def reasons(step: Requeue) -> Iterator[str]:
    """Why jobs stay in the dead set though there is room, a sentence each."""
    for count, why in (
        (step.oversized, f"larger than its maxbytes, {step.last.maxbytes:,}"),
        (step.expired, "expired"),
        (step.taken, "another job with the same key is there"),
    ):
        if count:
            yield f"queue {step.queue!r}: {jobs_(count)} left in the dead set: {why}"


@command.command()
@named
def purge(chosen: Chosen) -> None:
    """Drop buried jobs for good."""
    if not chosen.yes and not sys.stdin.isatty():
        raise UsageError("purge asks before it drops jobs, and there is no terminal to ask on: say --yes")
    with opened(chosen.url, chosen.queues, chosen.ids, **chosen.filter) as (broker, asked):
        found = find(broker, asked)
        if found.tags and not chosen.yes:
            click.confirm(f"drop {found.text} for good?", abort=True, err=True)
        for queue, tags in found.tags.items():
            click.echo(f"queue {queue!r}: {jobs_(dead.forget(broker, queue, tags))} dropped")
        if not found.tags and not found.unknown:
            click.echo("no job dropped: no buried job matches")
        end(1, *missing(found.unknown, asked))


# -- words


def missing(unknown: dict[str, None], asked: Asked) -> list[str]:
    """An error for each id that no buried job has, with the way out."""
    way_out = "`rq-lite dead list` shows what there is; a queue is named with -q QUEUE"
    fits = "" if asked.wanted == Filter(ids=asked.wanted.ids) else " that fits the filter"
    return [f"no buried job {name!r}{fits}: {way_out}" for name in unknown]


def end(code: int, *problems: str) -> None:
    """End the command with this code if there are problems."""
    for problem in problems:
        click.echo(f"rq-lite: {problem}", err=True)
    if problems:
        sys.exit(code)


def jobs_(count: int) -> str:
    return counted(count, "job")


def now_of(broker: Broker) -> float:
    """Redis' time, in s since 1970."""
    return broker.plans.clock() / 1000

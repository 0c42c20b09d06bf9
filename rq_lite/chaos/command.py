"""rq-lite bench"""

from __future__ import annotations

import contextlib
import math
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from rq_lite.chaos.app import queue
from rq_lite.chaos.check import Verdict, check
from rq_lite.chaos.place import OwnRedis, Place, UsersRedis
from rq_lite.chaos.run import DEMANDS, Sample, run
from rq_lite.chaos.schedule import KILL, KINDS, RESTART, Choices
from rq_lite.cli.common import settings_from, url_option
from rq_lite.cli.text import json_line
from rq_lite.cli.work import cores
from rq_lite.errors import BrokerError, UsageError, counted
from rq_lite.process.background import Interrupted, deferred_signals

KILLS, RESTARTS = 20, 5  # the defaults
NAP = 0.01  # seconds that a job takes at most, under faults
PATIENCE = 2.0  # seconds that one sample may wait for Redis: signals are handled between two samples
EVERY = 2.0  # seconds between two plain lines
SHOWN = 20  # violations that are shown
ASKS = "bench asks before it writes, and there is no terminal to ask on: say --yes"
NO_COMMAND = (
    "--chaos redis-restart needs a command that restarts your Redis: say --restart-command 'systemctl restart redis', "
    "or name no URL for an embedded Redis of its own"
)
FORGETFUL = (
    "  note            a Redis that loses data breaks promises, too: without appendonly at each restart, with "
    "appendfsync everysec when it is killed"
)
Show = Callable[[Sample], None]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints."""

    jobs: int  # that were certainly put
    jobs_per_second: float
    lost: int
    run_twice: int  # runs beyond the first of each job
    run_twice_allowed: int  # jobs that may have been in flight at the faults
    accepted_twice: int
    buried: int  # jobs that three consumers had when they were killed
    recover_seconds: list[float | None]  # after each fault at which jobs waited; None: never
    kills: int
    restarts: int
    seed: int
    violations: list[str]


@click.command()
@click.option("--jobs", type=click.IntRange(1), default=100_000, show_default=True, help="How many jobs.")
@click.option("--procs", type=click.IntRange(1), help="Consumer processes. Default: one per core, at least two.")
@click.option("--greenlets", type=click.IntRange(1), default=200, show_default=True, help="Jobs at a time in each.")
@click.option("--chaos", metavar="FAULTS", help=f"Inject faults at random, as in {','.join(KINDS)}.")
@click.option("--kills", type=click.IntRange(1), metavar="N", help=f"How many kills. Default: {KILLS}.")
@click.option("--restarts", type=click.IntRange(1), metavar="N", help=f"How many restarts. Default: {RESTARTS}.")
@click.option("--seed", type=int, metavar="N", help="Inject the same faults as the run that printed this seed.")
@click.option("--json", "as_json", is_flag=True, help="Print only one JSON object, at the end.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@url_option
@click.option(
    "--db", type=click.IntRange(0), default=15, show_default=True, help="Database at the URL; it must be empty."
)
@click.option("--restart-command", metavar="CMD", help="Command that restarts the Redis at the URL.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep the history of the run here.")
def command(
    jobs: int,
    procs: int | None,
    greenlets: int,
    chaos: str | None,
    kills: int | None,
    restarts: int | None,
    seed: int | None,
    as_json: bool,
    yes: bool,
    url: str | None,
    db: int,
    restart_command: str | None,
    keep: Path | None,
) -> None:
    """Run jobs on this machine and Redis, with faults on request, and prove that each was run.

    Every process writes down what it does; at the end bench checks whether a job was lost, run twice without a
    fault, or accepted twice. Without a URL it uses an embedded Redis of its own; with one, an empty database, where
    it leaves nothing behind. Exit 0: every promise was kept; 1: one was broken.
    """
    settings = msgspec.structs.replace(settings_from(url=url), patience=PATIENCE)
    kinds = faults(chaos)
    choices = Choices(
        jobs=jobs,
        procs=procs or max(2, cores()),
        greenlets=greenlets,
        kills=number("--kills", kills, KILLS, KILL in kinds, KILL),
        restarts=number("--restarts", restarts, RESTARTS, RESTART in kinds, RESTART),
        seed=random.randrange(10**6) if seed is None else seed,
        nap=NAP if kinds else 0.0,
        mixed=bool(kinds),
    )
    if settings.url is not None and choices.restarts and restart_command is None:
        raise UsageError(NO_COMMAND)
    if settings.url is not None and not yes and not sys.stdin.isatty():
        raise UsageError(ASKS)
    with tempfile.TemporaryDirectory(prefix="rq_lite-bench-") as scratch:
        history = history_folder(keep, Path(scratch))
        given = None if settings.url is None else UsersRedis(settings.url, settings, db, restart_command)
        if given is not None and not yes:
            ask(given, choices, db, restart_command)
        # From here on signals are only recorded, until everything is cleaned up.
        with (
            deferred_signals() as caught,
            shown(choices, quiet=as_json) as show,
            leaving(given or OwnRedis(settings, Path(scratch))) as place,
        ):
            run(choices, place, Path(scratch), history, show, caught)
        report = judged(choices, history)
    click.echo(json_line(report) if as_json else told(report))
    sys.exit(1 if report.violations else 0)


def faults(chaos: str | None) -> set[str]:
    """The kinds of faults that --chaos names. Raises UsageError for an unknown one."""
    kinds = set(chaos.split(",")) if chaos is not None else set()
    if unknown := kinds - set(KINDS):
        raise UsageError(f"--chaos {chaos}: {sorted(unknown)[0]!r} is not one of {', '.join(KINDS)}")
    return kinds


def number(option: str, given: int | None, default: int, wanted: bool, kind: str) -> int:
    """How many faults of a kind. Raises UsageError if --chaos does not name the kind."""
    if given is not None and not wanted:
        raise UsageError(f"{option} needs faults to count: say --chaos {kind} too")
    return (given or default) if wanted else 0


def history_folder(keep: Path | None, scratch: Path) -> Path:
    """The folder for the history, which must not have one. Raises UsageError."""
    folder = scratch / "history" if keep is None else keep
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--keep {folder}: {error.strerror}") from None
    if next(folder.glob("*.jsonl"), None) is not None:
        raise UsageError(f"--keep {folder}: it has a history already; name another folder")
    return folder.resolve()


def ask(place: UsersRedis, choices: Choices, db: int, restart_command: str | None) -> None:
    """Print what will be done, and ask whether to go on. Raises click.Abort."""
    does = f"put {counted(choices.jobs, 'job')} on a queue {queue.name!r}, run them here, remove what is left"
    if choices.restarts:
        does += f"; restart it {counted(choices.restarts, 'time')} by {place.broker.core.veiled(repr(restart_command))}"
    text = f"Redis at {place.broker.shown}, database {db} (empty): {does}. Go on?"
    try:
        click.confirm(text, abort=True, err=True)
    except click.Abort:
        place.broker.close()
        raise


@contextlib.contextmanager
def leaving(place: Place) -> Iterator[Place]:
    """The place, which is left as it was found."""
    try:
        yield place
    except BaseException:
        # The error that ended the run is the one to raise.
        try:
            place.leave(queue.name)
        except BrokerError as error:
            click.echo(f"rq-lite: the run's keys are left there: {error}", err=True)
        raise
    place.leave(queue.name)


def judged(choices: Choices, history: Path) -> Report:
    """The report on the history; for a million jobs that takes a while. Raises Interrupted."""
    try:
        return report_of(choices, check(history, DEMANDS))
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT) from None


# -- output


@contextlib.contextmanager
def shown(choices: Choices, *, quiet: bool) -> Iterator[Show]:
    """The function to call with each sample: a live line on a terminal, a plain one every 2 s elsewhere."""
    if quiet:
        yield lambda _: None
        return
    console = Console(stderr=True)
    click.echo(plan(choices), err=True)
    if not console.is_terminal:
        yield now_and_then(lambda sample: click.echo(line(choices, sample), err=True))
        return
    with Live(console=console, transient=True) as live:
        yield lambda sample: live.update(Text(line(choices, sample)))


def now_and_then(show: Show) -> Show:
    due = EVERY

    def show_if_due(sample: Sample) -> None:
        nonlocal due
        if sample.elapsed >= due or sample.last:
            due = sample.elapsed + EVERY
            show(sample)

    return show_if_due


def plan(choices: Choices) -> str:
    """The run in one line."""
    kinds = [(choices.kills, "kill of a consumer or supervisor"), (choices.restarts, "restart of Redis")]
    chaos = ", ".join(f"{count} × {what}" for count, what in kinds if count)
    return (
        f"seed {choices.seed}: {counted(choices.jobs, 'job')} on {choices.procs} × "
        f"{counted(choices.greenlets, 'greenlet')}; {chaos or 'no faults'}"
    )


def line(choices: Choices, sample: Sample) -> str:
    """One sample in one line."""
    total = choices.kills + choices.restarts
    parts = [
        f"{sample.done:,} of {choices.jobs:,} done",
        f"{sample.inflight:,} in flight",
        counted(sample.consumers, "consumer"),
        *([f"{sample.faults} of {counted(total, 'fault')}"] if total else []),
        *(["judging the history"] if sample.last else []),
    ]
    return f"{sample.elapsed:6.1f} s  {', '.join(parts)}"


def report_of(choices: Choices, verdict: Verdict) -> Report:
    return Report(
        jobs=verdict.put,
        jobs_per_second=round(verdict.jobs_per_second, 1),
        lost=verdict.lost,
        run_twice=verdict.runs - verdict.distinct,
        run_twice_allowed=verdict.inflight,
        accepted_twice=verdict.accepted_twice,
        buried=verdict.buried,
        recover_seconds=[None if math.isinf(gap) else round(gap, 3) for gap in verdict.gaps],
        kills=choices.kills,
        restarts=choices.restarts,
        seed=choices.seed,
        violations=list(verdict.violations),
    )


def told(report: Report) -> str:
    """The report as text."""
    lines = [
        f"{counted(report.jobs, 'job')}, {report.jobs_per_second:,.0f} jobs/s (with every step logged)",
        f"  lost            {report.lost:,}",
        f"  run twice       {report.run_twice:,} (in flight at the faults: {report.run_twice_allowed:,} at most)",
        f"  accepted twice  {report.accepted_twice:,}",
    ]
    if report.buried:
        lines.append(f"  buried          {report.buried:,} (three consumers were killed while they had the job)")
    if report.recover_seconds:
        lines.append(f"  working again   after {recovered(report.recover_seconds)}")
    lines.append(f"  verdict         {'BROKEN' if report.violations else 'every promise was kept'}; seed {report.seed}")
    lines += [f"    {violation}" for violation in report.violations[:SHOWN]]
    if (more := len(report.violations) - SHOWN) > 0:
        lines.append(f"    and {more:,} more")
    if report.violations and report.restarts:
        lines.append(FORGETFUL)
    return "\n".join(lines)


def recovered(seconds: list[float | None]) -> str:
    gaps = [math.inf if each is None else each for each in seconds]
    longest = "never after at least one fault" if None in seconds else f"{max(gaps):.2f} s (longest)"
    return f"{statistics.median(gaps):.2f} s (median), {longest}"

"""rq-lite produce"""

from __future__ import annotations

import logging
import re
import signal
import stat
import threading
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from rq_lite.admin import operate
from rq_lite.cli.common import open_broker, setting_options, settings_from, url_option
from rq_lite.cli.progress import shown
from rq_lite.cli.text import json_line
from rq_lite.client.app import find_task
from rq_lite.client.defaults import defaults
from rq_lite.client.put import Progress
from rq_lite.client.task import Task
from rq_lite.errors import RqLiteError, UsageError, counted
from rq_lite.feeds import encoding
from rq_lite.feeds.feeder import Feeder
from rq_lite.feeds.sources import START, Format, OnError, Source, guess, numbers, open_source
from rq_lite.settings import Settings

UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

HELP = {
    "encoding": "The encoding of SOURCE, as in utf-16, latin-1 or cp1252. Default: utf-8.",
    "template": "Put TEXT with each line or number in place of {}: http://localhost:8000/page/{}",
    "watch": "Instead of SOURCE: the packages (folders NAME with a NAME.zip) that arrive in a folder, each once.",
    "wait": "Give up (exit 4) after this long without room. Default: never.",
    "resume": "Remember under this name how far SOURCE was put; continue there, and print where that is.",
    "on_error": "What to do at a bad line; skipped lines are kept in SOURCE.skipped, reasons beside it. Default: stop.",
}


@click.command()
@click.argument("source", required=False)
@setting_options("task")
@click.option("--format", type=click.Choice(["lines", "ndjson", "csv", "tsv"]), help="Default: guessed from the name.")
@click.option("--encoding", metavar="NAME", help=HELP["encoding"])
@click.option("--count", type=int, help="Instead of SOURCE: the numbers 0 to COUNT - 1.")
@click.option("--template", metavar="TEXT", help=HELP["template"])
@click.option("--watch", type=click.Path(path_type=Path), metavar="DIR", help=HELP["watch"])
@click.option("--rate", metavar="N/s", help="Put at most this many, as in 500/s or 30/min.")
@setting_options("batch")
@click.option("--wait", type=float, metavar="SECONDS", help=HELP["wait"])
@click.option("--maxsize", type=int, help="Set the queue's bound first (0: unbounded).")
@click.option("--resume", metavar="NAME", help=HELP["resume"])
@click.option("--on-error", type=click.Choice(["stop", "skip"]), default="stop", help=HELP["on_error"])
@click.option("--no-progress", is_flag=True, help="Print only warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print only one JSON object, at the end.")
@url_option
def command(as_json: bool, **options: Any) -> None:
    """Put a job for each line of SOURCE: a file, or - for standard input (default: the setting `source`).

    Waits while the queue is full, and warns if no consumer runs. Lines: the line is the task's argument. NDJSON: an
    object holds keyword arguments, an array positional ones, anything else is the argument. CSV: the header names the
    arguments. Blank lines are left out.
    """
    chosen = {name: options.pop(name) for name in ("task", "batch", "url")}
    given = Given(as_json=as_json, **options)
    settings = settings_from(**chosen, maxsize=given.maxsize)
    asked = checked(given, settings)
    logging.basicConfig(
        level=logging.WARNING if asked.quiet else logging.INFO,
        format="%(asctime)s produce %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it would log every change
    task = ready_task(asked, settings)
    outcome = Outcome(task.queue.name)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        feed(asked, task, outcome)
    except KeyboardInterrupt as error:
        outcome.failure = Interrupted(*error.args, unanswered=outcome.progress.unanswered)
    except RqLiteError as error:
        outcome.failure = error
    report(asked, outcome)
    defaults.broker.close()
    if outcome.failure is not None:
        raise outcome.failure


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """The options, as the command line names them."""

    source: str | None
    format: Format | None
    encoding: str | None
    count: int | None
    template: str | None
    watch: Path | None
    rate: str | None
    wait: float | None
    maxsize: int | None
    resume: str | None
    on_error: OnError
    no_progress: bool
    as_json: bool

    @property
    def quiet(self) -> bool:
        return self.no_progress or self.as_json

    @property
    def kind(self) -> Format:
        """The format of the source; numbers are lines."""
        return "lines" if self.source is None else self.format or guess(self.source)


class Outcome:
    """What the feed has done, even if it ends early."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.progress = Progress()
        self.began = time.monotonic()
        self.skipped = 0
        self.skipped_unit = "line"
        self.before = ""  # what earlier runs of a resumed feed have put: `5,000 lines were`
        self.failure: RqLiteError | None = None


def checked(given: Given, settings: Settings) -> Given:
    """The options, with the setting `source` if no source is given. Raises UsageError for options that do not fit."""
    if sum(way is not None for way in (given.source, given.count, given.watch)) > 1:
        raise UsageError("give one of SOURCE, --count and --watch")
    if given.count is None and given.watch is None and given.source is None:
        given = msgspec.structs.replace(given, source=settings.source)
        if given.source is None:
            raise UsageError("no source: name a file, - for standard input, --count N or --watch DIR")
    check_place(given)
    if given.encoding is not None:
        if given.source is None:
            raise UsageError("--encoding is for SOURCE; numbers and folders have no encoding")
        encoding.known(given.encoding)
    if settings.task is None:
        raise UsageError("no task: say --task APP:TASK, or set task in [tool.rq-lite]")
    for name, number in (("count", given.count), ("wait", given.wait)):
        if number is not None and number < 0:
            raise UsageError(f"--{name} must be 0 or more, not {number:g}")
    if given.template is not None and ("{}" not in given.template or given.watch is not None or given.kind != "lines"):
        raise UsageError("--template is for lines and numbers, and needs a {} where they go")
    if given.rate is not None:
        parse_rate(given.rate)
    return given


def check_place(given: Given) -> None:
    """Raises UsageError if the source is not a file, or the folder to watch is not a folder."""
    name = given.source if given.watch is None else given.watch
    if name is None or name == "-":
        return
    try:
        folder = stat.S_ISDIR(Path(name).stat().st_mode)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    if folder and given.watch is None:
        raise UsageError(f"{name} is a folder, not a file; --watch feeds the packages in a folder")
    if given.watch is not None and not folder:
        raise UsageError(f"{name} is a file, not a folder to watch")


def ready_task(given: Given, settings: Settings) -> Task[Any, Any]:
    """The task; its queue is declared in Redis and has the bound of the options."""
    defaults.use(settings)
    task = find_task(settings.task or "")
    broker = open_broker(settings, quiet=given.quiet)
    if not given.quiet:
        broker.core.announce()
    defaults.use(settings, broker)
    task.queue.declare()
    if given.maxsize is not None:
        operate.configure(task.queue.broker, task.queue.name, maxsize=given.maxsize)
    return task


def feed(given: Given, task: Task[Any, Any], outcome: Outcome) -> None:
    feeder = Feeder(
        task,
        batch=task.queue.sender.settings.batch,
        wait=given.wait,
        rate=None if given.rate is None else parse_rate(given.rate),
        template=given.template,
        progress=outcome.progress,
    )
    if given.watch is not None:
        with shown(outcome.queue, outcome.progress, None, quiet=given.quiet):
            feeder.feed_folder(given.watch, stop_event(), name=given.resume)
        return
    file = resumable(given.source)
    at = feeder.resumed_at(given.resume, file) if given.resume else ""
    items = opened(given, at or START)
    with items, shown(outcome.queue, outcome.progress, items, quiet=given.quiet):
        try:
            feeder.feed(items, resume=given.resume, at=at, typed=given.kind not in ("csv", "tsv"), file=file)
        finally:
            outcome.skipped, outcome.skipped_unit = items.rejects.count, items.rejects.unit
            if at and items.read:
                outcome.before = counted(items.read, items.unit) + (" was" if items.read == 1 else " were")


class Interrupted(RqLiteError):
    """The feed was ended by Ctrl-C or SIGTERM; what was put stays. The exit code is the shell's for that signal."""

    def __init__(self, number: int = signal.SIGINT, *, unanswered: int = 0) -> None:
        how = "interrupted" if number == signal.SIGINT else "terminated"
        if unanswered == 1:
            how += " while a job was being put: it is not known whether it was"
        elif unanswered:
            how += f" while {unanswered:,} jobs were being put: it is not known how many were"
        super().__init__(how)
        self.exit_code = 128 + number


def interrupt(number: int, _frame: object) -> None:
    """A signal ends the feed as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def opened(given: Given, start: str) -> Source:
    if given.source is None:
        return numbers(given.count or 0, start=start, on_error=given.on_error)
    return open_source(
        given.source, format=given.format, start=start, on_error=given.on_error, encoding=given.encoding or "utf-8"
    )


def resumable(source: str | None) -> Path | None:
    """The file whose first bytes show that a resumed feed has the same file; None for a pipe, readable only once."""
    file = None if source in (None, "-") else Path(str(source))
    return file if file is not None and file.is_file() else None


def stop_event() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set: they are the usual end of watching a folder."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def parse_rate(text: str) -> float:
    """Jobs per second from "500/s", "30/min" or "500". Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/(s|sec|m|min|h))?", text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--rate {text!r}: say a number above 0 per second, minute or hour, as in 500/s or 30/min")
    return float(match[1]) / UNITS[match[2] or "s"]


class Result(msgspec.Struct):
    """What --json prints. Times are seconds."""

    queue: str
    put: int
    duplicates: int
    replaced: int
    dropped: int
    skipped: int
    seconds: float
    put_per_second: float
    waited: float
    deepest: int
    size: int
    maxsize: int
    error: str | None


def report(given: Given, outcome: Outcome) -> None:
    progress, seconds = outcome.progress, time.monotonic() - outcome.began
    result = Result(
        queue=outcome.queue,
        put=progress.put,
        duplicates=progress.duplicates,
        replaced=progress.replaced,
        dropped=progress.dropped,
        skipped=outcome.skipped,
        seconds=round(seconds, 3),
        put_per_second=round(progress.put / seconds, 1) if seconds else 0.0,
        waited=round(progress.waited, 3),
        deepest=progress.deepest,
        size=progress.size,
        maxsize=progress.maxsize,
        error=None if outcome.failure is None else str(outcome.failure),
    )
    if given.as_json:
        click.echo(json_line(result))
    elif given.quiet or (result.error and not result.put + result.duplicates):
        return
    elif outcome.before and not result.put + result.duplicates + result.skipped:
        click.echo(f"feed {given.resume!r}: {outcome.before} put before, nothing new", err=True)
    else:
        left_out = f", {counted(result.skipped, outcome.skipped_unit)} skipped" if result.skipped else ""
        kept_out = f", {counted(result.duplicates, 'duplicate')} kept out" if result.duplicates else ""
        replaced = f", {counted(result.replaced, 'job')} replaced" if result.replaced else ""
        dropped = f", {counted(result.dropped, 'job')} dropped as it was full" if result.dropped else ""
        click.echo(
            f"{counted(result.put, 'job')} put into {result.queue!r} in {seconds:.1f} s "
            f"({result.put_per_second:,.0f}/s), waited {result.waited:.1f} s for room"
            f"{kept_out}{replaced}{dropped}{left_out}",
            err=True,
        )

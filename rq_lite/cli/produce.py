"""rq-lite produce"""

from __future__ import annotations

import logging
import re
import signal
import sys
import threading
import time
from pathlib import Path

import click
import msgspec

from rq_lite.app import find_task
from rq_lite.cli.common import open_broker, private_option, settings_from, url_option
from rq_lite.cli.progress import shown
from rq_lite.errors import RqLiteError, UsageError
from rq_lite.feed import Feeder
from rq_lite.process import this
from rq_lite.queue import Progress
from rq_lite.sources import START, Format, OnError, Source, guess, numbers, open_source

UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

HELP = {
    "template": "Put each line or number into TEXT, where {} stands: http://localhost:8000/page/{}",
    "watch": "Instead of SOURCE: the packages that arrive in a folder, each once.",
    "wait": "Give up (exit 4) after so long without room. Default: never.",
    "resume": "Remember under this name how far the source was fed, and go on there.",
    "on_error": "What a bad line does; skipped lines are kept in SOURCE.skipped. Default: stop.",
}


@click.command()
@click.argument("source", required=False)
@click.option("--task", metavar="APP:TASK", help="The task to put jobs of, as in workers.crawl:fetch.")
@click.option("--format", type=click.Choice(["lines", "ndjson", "csv", "tsv"]), help="Default: guessed from the name.")
@click.option("--count", type=int, help="Instead of SOURCE: the numbers 0 to COUNT - 1.")
@click.option("--template", metavar="TEXT", help=HELP["template"])
@click.option("--watch", type=click.Path(path_type=Path), metavar="DIR", help=HELP["watch"])
@click.option("--rate", metavar="N/s", help="At most so many, as in 500/s or 30/min.")
@click.option("--batch", type=int, help="Jobs per round trip. Default: 500.")
@click.option("--wait", type=float, metavar="SECONDS", help=HELP["wait"])
@click.option("--maxsize", type=int, help="Set the queue's bound first (0: unbounded).")
@click.option("--resume", metavar="NAME", help=HELP["resume"])
@click.option("--on-error", type=click.Choice(["stop", "skip"]), default="stop", help=HELP["on_error"])
@click.option("--no-progress", is_flag=True, help="Say nothing.")
@click.option("--json", "as_json", is_flag=True, help="Say nothing, print one object at the end.")
@url_option
@private_option
def command(
    source: str | None,
    task: str | None,
    format: Format | None,
    count: int | None,
    template: str | None,
    watch: Path | None,
    rate: str | None,
    batch: int | None,
    wait: float | None,
    maxsize: int | None,
    resume: str | None,
    on_error: OnError,
    no_progress: bool,
    as_json: bool,
    url: str | None,
    allow_private: bool,
) -> None:
    """Put a job for each line of SOURCE: a file, or - for standard input (default: the setting `source`).

    Waits while the queue is full. Lines: the line is the task's argument. NDJSON: an object holds keyword arguments,
    an array positional ones, anything else is the argument. CSV: the header names the arguments.
    """
    if sum(given is not None for given in (source, count, watch)) > 1:
        raise UsageError("give one of SOURCE, --count and --watch")
    if count is not None and count < 0:
        raise UsageError(f"--count must be 0 or more, not {count}")
    if template is not None and ("{}" not in template or watch is not None):
        raise UsageError("--template is for lines and numbers, and {} in it stands for one")
    settings = settings_from(task=task, batch=batch, maxsize=maxsize, url=url, allow_private=allow_private)
    if settings.task is None:
        raise UsageError("no task: say --task APP:TASK, or set task in [tool.rq-lite]")
    source = source if count is not None or watch is not None else source or settings.source
    if source is None and count is None and watch is None:
        raise UsageError("no source: name a file, - for standard input, --count N or --watch DIR")
    if wait is not None and wait < 0:
        raise UsageError(f"--wait must be 0 or more, not {wait:g}")
    pace = None if rate is None else parse_rate(rate)
    quiet = no_progress or as_json
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(asctime)s produce %(message)s", datefmt="%H:%M:%S"
    )
    this.use(settings)
    found = find_task(settings.task)
    this.use(settings, open_broker(settings, quiet=quiet))
    found.queue.declare()
    if maxsize is not None:
        found.queue.broker.configure(found.queue.name, maxsize=maxsize)
    progress = Progress()
    feeder = Feeder(found, batch=settings.batch, wait=wait, rate=pace, template=template, progress=progress)
    began, skipped = time.monotonic(), 0
    failure: RqLiteError | None = None
    try:
        if watch is not None:
            with shown(found.queue.name, progress, None, quiet=quiet):
                feeder.feed_folder(watch, stop_event(), name=resume)
        else:
            at = feeder.resumed_at(resume, resumable(source)) if resume else ""
            items = opened(source, count, format, at or START, on_error)
            with items, shown(found.queue.name, progress, items, quiet=quiet):
                kind = "lines" if source is None else format or guess(source)
                if template is not None and kind != "lines":
                    raise UsageError(f"--template is for lines and numbers, not for {kind}")
                try:
                    feeder.feed(items, resume=resume, at=at, typed=kind not in ("csv", "tsv"))
                finally:
                    skipped = items.rejects.count
    except KeyboardInterrupt:
        failure = Interrupted("interrupted")
    except RqLiteError as error:
        failure = error
    report(found.queue.name, progress, skipped, time.monotonic() - began, failure, as_json=as_json, quiet=quiet)
    this.broker.close()
    if failure is not None:
        raise failure


class Interrupted(RqLiteError):
    """Ctrl-C; what was put stays put."""

    exit_code = 130


def opened(source: str | None, count: int | None, format: Format | None, start: str, on_error: OnError) -> Source:
    if source is None:
        return numbers(count or 0, start=start, on_error=on_error)
    return open_source(source, format=format, start=start, on_error=on_error)


def resumable(source: str | None) -> Path | None:
    """The file whose first bytes tell whether a resumed feed has the same one before it."""
    return None if source in (None, "-") else Path(str(source))


def stop_event() -> threading.Event:
    """Set by SIGTERM and Ctrl-C: for a folder that is watched they are the usual end."""
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
    skipped: int
    seconds: float
    put_per_second: float
    waited: float
    deepest: int
    size: int
    maxsize: int
    error: str | None


def report(
    queue: str,
    progress: Progress,
    skipped: int,
    seconds: float,
    failure: RqLiteError | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    result = Result(
        queue=queue,
        put=progress.put,
        skipped=skipped,
        seconds=round(seconds, 3),
        put_per_second=round(progress.put / seconds, 1) if seconds else 0.0,
        waited=round(progress.waited, 3),
        deepest=progress.deepest,
        size=progress.size,
        maxsize=progress.maxsize,
        error=None if failure is None else str(failure),
    )
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    elif not quiet:
        left_out = f", {skipped:,} lines skipped" if skipped else ""
        print(
            f"{result.put:,} jobs put into {queue!r} in {seconds:.1f} s ({result.put_per_second:,.0f}/s), "
            f"waited {result.waited:.1f} s for room{left_out}",
            file=sys.stderr,
        )

"""rq-lite work"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from rq_lite import __version__, events
from rq_lite.admin import status
from rq_lite.cli.common import open_broker, setting_options, settings_from, url_option
from rq_lite.errors import UsageError
from rq_lite.logs import logger
from rq_lite.process.protocol import ConsumerConfig
from rq_lite.supervisor.supervisor import Supervisor
from rq_lite.supervisor.watchdog import Limits

log = logger("rq_lite.worker")

QUEUES = "Serve only these: in strict order or, with weights, in proportion. Default: all queues of the app."
CHDIR = "Import APP, and run jobs, in this folder; a symbolic link is followed again whenever a consumer starts."
BURST = "Exit 0 when no job is left: scheduled jobs are awaited, parked ones are not."


@click.command()
@click.argument("app", required=False)
@click.option("-q", "--queue", "queues", multiple=True, metavar="QUEUE[=WEIGHT]", help=QUEUES)
@setting_options("procs", "greenlets", "cpu_procs")
@click.option("--burst", is_flag=True, help=BURST)
@setting_options("grace", "stall", "max_jobs", "max_rss")
@click.option("-v", "--verbose", is_flag=True, help="Log a line per job.")
@click.option("--chdir", metavar="DIR", help=CHDIR)
@url_option
def command(
    app: str | None, queues: tuple[str, ...], burst: bool, verbose: bool, chdir: str | None, **chosen: Any
) -> None:
    """Run the jobs of APP, a module that registers tasks (default: the setting `app`).

    Name it as producers import it: the module's name is part of its tasks' names. In a src layout src.shop.tasks and
    src/shop/tasks.py are taken for shop.tasks.

    SIGTERM and Ctrl-C: take no more, wait up to --grace for running jobs, give back the rest, exit 0. Again: at once.
    SIGHUP: replace the consumers one by one by new ones, which import APP again. A closed terminal is like SIGTERM.
    """
    folder = named_folder(chdir)
    settings = settings_from(app=app, **chosen)
    if settings.app is None:
        raise UsageError("no APP: name the module that registers your tasks, or set app in [tool.rq-lite]")
    weights, strict = parse_queues(queues)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker [%(process)d] %(message)s", datefmt="%H:%M:%S")
    events.begin("supervisor")
    broker = open_broker(settings)
    broker.core.announce()
    procs = settings.procs or cores()
    cpu_procs = settings.cpu_procs or max(1, cores() // procs)
    if warning := status.eviction(broker):
        log.warning("WARNING: %s", warning)

    def plan(number: int) -> ConsumerConfig:
        return ConsumerConfig(
            settings=msgspec.structs.replace(settings, url=broker.url, cpu_procs=cpu_procs),
            app=settings.app or "",
            queues=weights,
            strict=strict,
            verbose=verbose,
            number=number,
            parent=os.getpid(),
            folder=folder,
            embedded=settings.url is None,
        )

    limits = Limits(settings.stall, settings.idle, settings.grace, settings.max_jobs, settings.max_rss * 1_000_000)
    code = Supervisor(broker, plan, procs, limits, version=__version__, burst=burst).run()
    broker.close()
    sys.exit(code)


def parse_queues(given: tuple[str, ...]) -> tuple[dict[str, float], bool]:
    """Queues with their weights, in the order given, and whether that order is strict. Raises UsageError."""
    weights: dict[str, float] = {}
    weighted = 0
    for text in given:
        name, equals, weight = text.partition("=")
        weighted += bool(equals)
        try:
            weights[name] = float(weight) if equals else 1.0
        except ValueError:
            raise UsageError(f"-q {text}: the weight must be a number") from None
        if not 0 < weights[name] < float("inf"):
            raise UsageError(f"-q {text}: the weight must be above 0")
    if weighted not in (0, len(given)):
        raise UsageError("-q: give all queues a weight (in proportion), or none of them (in strict order)")
    if len(weights) < len(given):
        raise UsageError("-q: a queue is named twice")
    return weights, not weighted


def named_folder(chosen: str | None) -> str:
    """The folder that consumers start in, as the user names it; this process goes to a `chosen` one, too.

    The shell names the current folder in PWD, through symbolic links: a deployment may switch one of these later, and
    consumers that start then are to follow it. Raises UsageError.
    """
    folder, named = str(Path.cwd()), os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if Path(named).is_absolute() and Path(named).samefile(folder):
            folder = named
    if chosen is not None:
        folder = str(Path(folder, chosen))
        try:
            os.chdir(folder)
        except OSError as error:
            raise UsageError(f"--chdir {chosen}: {error.strerror}") from None
        os.environ["PWD"] = folder
    return folder


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""rq-lite demo"""

from __future__ import annotations

import os
import sys
from shutil import which

import click
from rich.console import Console

from rq_lite.cli.common import settings_from
from rq_lite.cli.text import json_line
from rq_lite.demo.facts import Choices
from rq_lite.demo.run import run
from rq_lite.demo.view import shown, told

URL = "Redis; the demo removes its keys there at the end. Default: an embedded one of its own, not RQ_LITE_URL."
NEXT = """
Next, in two terminals{first}:
  rq-lite work rq_lite.demo.app
  rq-lite produce --count 100000 --task rq_lite.demo.app:nothing"""


@click.command(context_settings={"show_default": True})
@click.option("--jobs", type=click.IntRange(1), default=2000, help="Pages to fetch.")
@click.option("--delay", type=click.FloatRange(0), default=1.2, help="Seconds that a page takes.")
@click.option("--maxsize", type=click.IntRange(1), default=200, help="Bound of the queue.")
@click.option("--procs", type=click.IntRange(1), default=2, help="Consumer processes.")
@click.option("--greenlets", type=click.IntRange(1), default=100, help="Jobs at a time in each.")
@click.option("--plain", is_flag=True, help="Print a line per second, as without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print only one JSON object, at the end.")
@click.option("--url", help=URL)
def command(
    jobs: int,
    delay: float,
    maxsize: int,
    procs: int,
    greenlets: int,
    plain: bool,
    as_json: bool,
    url: str | None,
) -> None:
    """Fetch 2,000 slow pages of a local website through a queue that holds 200 jobs.

    You see the producer fill the queue and wait. At the end the website's counts show whether each page was requested
    exactly once. Exit 0: it was, and the queue never held more than its bound; else 1.
    """
    settings = settings_from(url=url)
    choices = Choices(jobs=jobs, delay=delay, maxsize=maxsize, procs=procs, greenlets=greenlets, url=url)
    console = Console()
    plain = plain or not sys.stdout.isatty() or console.is_dumb_terminal
    with shown(choices, console, plain=plain, quiet=as_json) as show:
        summary = run(choices, settings, show)
    if as_json:
        click.echo(json_line(summary))
    else:
        click.echo("\n" + told(summary))
        if not summary.problems:
            click.echo(NEXT.format(first=first()))
    sys.exit(1 if summary.problems else 0)


def first() -> str:
    """What to do in a new shell before `rq-lite` is found: `make demo` runs without activating its environment."""
    return "" if which("rq-lite") else f", after `. {os.path.relpath(sys.prefix)}/bin/activate`"

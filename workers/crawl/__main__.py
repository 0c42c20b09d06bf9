"""`python -m workers.crawl report`: wait until the crawl is complete, and say what it has found."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from rq_lite import admin
from workers.crawl import pages
from workers.crawl.report import in_words, report
from workers.crawl.results import pages as pages_in
from workers.crawl.settings import settings_from

FOLDER = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=lambda: settings_from().results,
    help="The folder that the workers write to. Default: RQ_LITE_CRAWL_RESULTS, or crawl-results.",
)


@click.group()
def main() -> None:
    """What a crawl has found."""


@main.command("report")
@FOLDER
@click.option("--no-wait", is_flag=True, help="Say what there is so far.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def report_command(results: Path, no_wait: bool, as_json: bool) -> None:
    """Wait until no job of the queue is unfinished, then print pages, hosts, errors by kind, the slowest pages."""
    if not no_wait:
        pages.join()
    found = report(results)
    state = admin.states(pages.broker, [pages.name])[pages.name]
    found.unfinished = state.pending + state.scheduled + state.inflight + state.suspects
    found.dead = state.dead
    click.echo(msgspec.json.encode(found) if as_json else in_words(found))


@main.command("pages")
@FOLDER
def pages_command(results: Path) -> None:
    """Print each page once, as a line of JSON."""
    for visit in pages_in(results):
        click.echo(msgspec.json.encode(visit))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.crawling`: pages per second and core, of one local page; contenders take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks import machine
from benchmarks.contenders import VENVS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Contender(NamedTuple):
    label: str
    python: Path
    script: Path
    path: Path  # where its modules are


@click.command()
@click.option("--pages", default=3000, show_default=True, help="For each contender and round.")
@click.option("--slots", default=50, show_default=True, help="Fetches at the same time.")
@click.option("--rounds", default=3, show_default=True, help="The best round counts.")
@click.option("--before", metavar="REVISION", help="Measure workers/ of this commit, too.")
def main(pages: int, slots: int, rounds: int, before: str | None) -> None:
    """Pages per second of CPU: fetched from one local server, title and links read. Writes a table."""
    best: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, server() as url:
        for number in range(1, rounds + 1):
            for contender in contenders(Path(folder), before):
                click.echo(f"round {number}: {contender.label} ({machine.busy_share():.0%} busy)", err=True)
                found = measured(contender, url, pages, slots)
                if contender.label not in best or found["cpu"] < best[contender.label]["cpu"]:
                    best[contender.label] = found
    click.echo("| | pages/s per core | CPU per page | pages/s beside the server |\n| --- | ---: | ---: | ---: |")
    for label, found in best.items():
        rate, each = pages / found["cpu"], 1e6 * found["cpu"] / pages
        click.echo(f"| {label} | {rate:,.0f} | {each:,.0f} µs | {pages / found['seconds']:,.0f} |")


def contenders(folder: Path, before: str | None) -> Iterator[Contender]:
    yield Contender("workers/crawl", Path(sys.executable), HERE / "ours.py", ROOT)
    if before is not None:
        if not (folder / "workers").exists():
            packed = subprocess.run(
                ["git", "archive", before, "workers", "rq_lite"], cwd=ROOT, stdout=subprocess.PIPE, check=True
            )
            subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        yield Contender(f"workers/crawl at {before}", Path(sys.executable), HERE / "ours.py", folder)
    scrapy = VENVS / "scrapy" / "bin" / "python"
    if scrapy.exists():
        yield Contender("Scrapy", scrapy, HERE / "on_scrapy.py", ROOT)
    else:
        click.echo("Scrapy is left out: `python -m benchmarks.venvs scrapy`", err=True)


def measured(contender: Contender, url: str, pages: int, slots: int) -> dict[str, Any]:
    environ = {**os.environ, "PYTHONPATH": str(contender.path), "RQ_LITE_ALLOW_PRIVATE": "1"}
    command = [str(contender.python), str(contender.script), url, str(pages), str(slots)]
    ran = subprocess.run(command, env=environ, cwd=contender.path, stdout=subprocess.PIPE, check=True, timeout=600)
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["links"] == [60], found
    return found


@contextmanager
def server() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.crawling.server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


if __name__ == "__main__":
    main()

"""What the demo prints: a live view on a terminal, elsewhere a plain line per second; and the summary."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rq_lite.demo.facts import Choices, Sample, Summary
from rq_lite.errors import counted

Show = Callable[[Sample], None]
REFRESH = 0.1  # seconds between two refreshes
EVERY = 1.0  # seconds between two lines


@contextlib.contextmanager
def shown(choices: Choices, console: Console, *, plain: bool, quiet: bool) -> Iterator[Show]:
    """The function to call with each sample."""
    if quiet:
        yield lambda _: None
        return
    title = f"{counted(choices.jobs, 'page')} through a queue that holds {counted(choices.maxsize, 'job')}"
    console.print(title, highlight=False)
    if plain:
        yield seldom(EVERY, lambda sample: click.echo(line(sample)))
        return
    with Live(console=console, auto_refresh=False) as live:
        # Not up to the edge: the ^C that a terminal echoes would start a new line and shift the picture.
        width = min(100, console.width - 4)
        yield seldom(REFRESH, lambda sample: live.update(picture(choices, sample, width), refresh=True))


def seldom(pause: float, show: Show) -> Show:
    """`show`, called with the last sample, and with earlier ones that are at least `pause` seconds apart."""
    due = 0.0

    def show_if_due(sample: Sample) -> None:
        nonlocal due
        if sample.elapsed >= due or sample.last:
            due = sample.elapsed + pause
            show(sample)

    return show_if_due


def line(sample: Sample) -> str:
    """One sample in one line."""
    parts = [
        f"queue {sample.size:,}/{sample.maxsize:,}{' (full)' if sample.size >= sample.maxsize else ''}",
        f"producer {sample.producer} (waited {sample.waited:.1f} s)",
        f"{sample.done:,} done",
        f"{sample.jobs_per_second:,.0f} jobs/s",
        f"{sample.inflight:,} in flight",
        f"consumers {sample.consumers}",
    ]
    return f"{sample.elapsed:5.1f} s  {', '.join(parts)}"


def picture(choices: Choices, sample: Sample, width: int) -> Table:
    """One sample as a table; the widths of its columns do not change with the figures."""
    grid = Table.grid(padding=(0, 2))
    grid.width = width
    grid.add_column(width=9, style="bold")
    grid.add_column(ratio=1)
    grid.add_column(width=26, no_wrap=True)
    full = sample.size >= sample.maxsize
    waits = sample.producer.startswith("waiting")
    held, put, busy, done = (
        Text(f"{amount:,} of {total:,} {what}".rstrip())
        for amount, total, what in (
            (sample.size, sample.maxsize, "(full)" if full else ""),
            (sample.put, choices.jobs, "put"),
            (sample.inflight, choices.procs * choices.greenlets, "in flight"),
            (sample.done, choices.jobs, "done"),
        )
    )
    producer = f"{sample.producer}, waited {sample.waited:.1f} s so far"
    waited = Text(producer, style="yellow" if waits else "cyan")
    grid.add_row("queue", bar(sample.size, sample.maxsize, "yellow" if full else "cyan"), held)
    grid.add_row("producer", waited, put)
    grid.add_row("consumers", Text(crew(sample, choices)), busy)
    grid.add_row("jobs", bar(sample.done, choices.jobs, "green"), done)
    grid.add_row("", Text(f"{sample.jobs_per_second:,.0f} jobs/s"), Text(f"{sample.elapsed:.1f} s"))
    return grid


def bar(amount: int, total: int, style: str) -> ProgressBar:
    return ProgressBar(total=total, completed=amount, complete_style=style, finished_style=style)


def crew(sample: Sample, choices: Choices) -> str:
    if not sample.consumers:
        return "starting"
    return f"{sample.consumers} with {choices.greenlets:,} greenlets each"


def told(summary: Summary) -> str:
    """The summary as text."""
    lines = [
        f"{counted(summary.done, 'job')} in {summary.seconds:.1f} s ({summary.jobs_per_second:,.0f}/s)",
        f"  queue     at most {counted(summary.deepest, 'job')}, bound {summary.maxsize:,} "
        f"(by every put and {summary.looks:,} samples from outside)",
        f"  producer  waited {summary.waited:.1f} s for room",
        f"  pages     lost {summary.lost}, twice {summary.twice}: the website counted its requests",
    ]
    return "\n".join([*lines, *(f"  failed    {problem}" for problem in summary.problems)])

"""rq-lite queue: set, pause, resume, shutdown, open, purge, delete"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from rq_lite.admin import operate, status
from rq_lite.broker import Broker
from rq_lite.broker.replies import FULL
from rq_lite.checks import MOST
from rq_lite.cli.common import known_queue, open_broker, settings_from, url_option
from rq_lite.errors import RqLiteError, UsageError, counted
from rq_lite.logs import one_line

WAYS_OUT = (
    "Stop what uses it; `rq-lite queue purge {0}` and `rq-lite dead purge --all -q {0}` drop jobs, "
    "`rq-lite schedule remove` a schedule"
)


@click.group()
def command() -> None:
    """Change a queue, for all processes that use it."""


@contextmanager
def opened(name: str, url: str | None) -> Iterator[Broker]:
    """A broker with this queue. Raises UsageError, which lists the known queues, if there is no such queue."""
    broker = open_broker(settings_from(url=url))
    try:
        known_queue(broker, name)
        yield broker
    finally:
        broker.close()


@command.command("set", short_help="Set its bound.")
@click.argument("name")
@click.option("--maxsize", type=int, metavar="N", help="Bound in jobs; 0: no bound.")
@click.option("--maxbytes", type=int, metavar="N", help="Bound in bytes; 0: no bound.")
@click.option(
    "--headroom",
    metavar="N|none",
    help="Jobs beyond the bound that running jobs of its own workers may put; none: any number.",
)
@click.option("--full", type=click.Choice(FULL), help="What a put does that finds no room.")
@url_option
def set_bound(
    name: str, maxsize: int | None, maxbytes: int | None, headroom: str | None, full: str | None, url: str | None
) -> None:
    """Set the bound of queue NAME; it counts at once, also for producers that wait."""
    if maxsize is None and maxbytes is None and headroom is None and full is None:
        raise UsageError("nothing to set: say --maxsize N, --maxbytes N, --headroom N, --full WORD or several of them")
    beyond = None if headroom is None else headroom_of(headroom)
    for option, number in (("--maxsize", maxsize), ("--maxbytes", maxbytes)):
        if number is not None and not 0 <= number <= MOST:
            raise UsageError(f"{option} must be 0 (no bound) to {MOST:,}, not {number}")
    with opened(name, url) as broker:
        operate.configure(broker, name, maxsize, maxbytes, beyond, full)
        now = status.states(broker, [name])[name]
    jobs = counted(now.maxsize, "job") if now.maxsize else "no bound in jobs"
    size = counted(now.maxbytes, "byte") if now.maxbytes else "no bound in bytes"
    beyond_it = "" if now.headroom is None else f", {counted(now.headroom, 'job')} of headroom"
    policy = "" if now.when_full == "wait" else f", when full: {now.when_full}"
    click.echo(f"queue {name!r}: {jobs}, {size}{beyond_it}{policy}; {waiting(now.pending + now.scheduled)}")


def headroom_of(text: str) -> int:
    """Headroom in jobs; -1 for "none", as `operate.configure` takes it."""
    if text == "none":
        return -1
    if not text.isascii() or not text.isdigit() or int(text) > MOST:
        raise UsageError(f"--headroom must be a number of jobs, 0 to {MOST:,}, or none, not {text!r}")
    return int(text)


@command.command(short_help="Let workers take nothing more from it.")
@click.argument("name")
@url_option
def pause(name: str, url: str | None) -> None:
    """Let workers take nothing more from queue NAME; running jobs go on, and so do puts, up to the bound."""
    change(name, url, operate.pause, "paused")


@command.command()
@click.argument("name")
@url_option
def resume(name: str, url: str | None) -> None:
    """Undo a pause."""
    change(name, url, operate.resume, "not paused")


@command.command(short_help="Refuse further puts.")
@click.argument("name")
@click.option("--immediate", is_flag=True, help="Drop waiting jobs, too.")
@click.option("--yes", is_flag=True, help="Do not ask before dropping.")
@url_option
def shutdown(name: str, immediate: bool, yes: bool, url: str | None) -> None:
    """Refuse further puts into queue NAME; waiting jobs are still taken. Undone by `rq-lite queue open`."""
    with opened(name, url) as broker:
        if immediate:
            ask("shutdown --immediate", broker, name, yes)
        count = operate.shutdown(broker, name, immediate=immediate)
        left = broker.puts.size(name)[0]
    outcome = f"{counted(count, 'job')} dropped" if immediate else waiting(left)
    click.echo(f"queue {name!r} is shut down; {outcome}")


@command.command("open")
@click.argument("name")
@url_option
def reopen(name: str, url: str | None) -> None:
    """Undo a shutdown."""
    change(name, url, operate.reopen, "open")


@command.command(short_help="Drop its waiting jobs.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--expired", is_flag=True, help="Only jobs that have expired: they make room before their turn comes.")
@url_option
def purge(name: str, yes: bool, expired: bool, url: str | None) -> None:
    """Drop every waiting or scheduled job of queue NAME; running ones go on.

    --expired asks nothing, as these jobs are never run. It looks at the first 10,000 jobs that wait, and that are
    scheduled.
    """
    with opened(name, url) as broker:
        if expired:
            count = operate.purge_expired(broker, name)
            click.echo(f"queue {name!r}: {counted(count, 'expired job')} dropped")
            return
        ask("purge", broker, name, yes)
        count = operate.purge(broker, name)
    click.echo(f"queue {name!r}: {counted(count, 'job')} dropped")


@command.command(short_help="Forget it, if nothing is in it.")
@click.argument("name")
@url_option
def delete(name: str, url: str | None) -> None:
    """Forget queue NAME: its bound, its counters, and how far its feeds are.

    Refused while a job is in it (waiting, scheduled, running or dead), a consumer serves it, or a schedule puts
    into it. A program that still uses the queue makes it again.
    """
    with opened(name, url) as broker:
        found = operate.delete(broker, name)
    if found:
        raise RqLiteError(f"queue {name!r} is not deleted: {', '.join(map(one_line, found))}. {WAYS_OUT.format(name)}")
    click.echo(f"queue {name!r} is deleted")


def change(name: str, url: str | None, step: Callable[[Broker, str], object], now: str) -> None:
    """Run a step on the queue and print its new state."""
    with opened(name, url) as broker:
        step(broker, name)
        count = broker.puts.size(name)[0]
    click.echo(f"queue {name!r} is {now}; {waiting(count)}")


def ask(what: str, broker: Broker, name: str, yes: bool) -> None:
    """Ask whether jobs may be dropped, unless `yes`; Ctrl-C and "no" end the command."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{what} asks before it drops jobs, and there is no terminal to ask on: say --yes")
    count = broker.puts.size(name)[0]
    click.confirm(f"queue {name!r}: drop {counted(count, 'job')} for good?", abort=True, err=True)


def waiting(count: int) -> str:
    return f"{counted(count, 'job')} waiting"

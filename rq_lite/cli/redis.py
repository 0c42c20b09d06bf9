"""`rq-lite redis`: show the embedded Redis, stop it, open redis-cli on it."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import click

from rq_lite import settings
from rq_lite.cli.text import json_line
from rq_lite.embedded import server
from rq_lite.embedded.program import find_server
from rq_lite.errors import BrokerUnavailable, counted
from rq_lite.logs import escaped


@click.group("redis")
def command() -> None:
    """The embedded Redis of this user, which commands use without RQ_LITE_URL."""


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.pass_context
def show_status(ctx: click.Context, as_json: bool) -> None:
    """Show whether it runs and where its data is. Exit code 0: it runs, 1: it does not."""
    found = server.status(settings.load_settings())
    if as_json:
        click.echo(json_line(found))
    else:
        for name, value in lines(found):
            click.echo(f"{name:<12} {escaped(value)}")
    ctx.exit(0 if found.running else 1)


def lines(found: server.Status) -> list[tuple[str, str]]:
    """The lines to show, as names and values."""
    place = [("data folder", found.folder), ("data", size(found.data_size)), ("socket", found.socket)]
    if not found.running:
        hangs = f"not answering, though its keeper (process {found.keeper}) is alive; `rq-lite redis stop` ends both"
        return [("state", hangs if found.keeper else "not running"), *place]
    return [
        ("state", "running"),
        ("version", f"{found.product} {found.version}"),
        ("pid", str(found.pid)),
        *place,
        ("memory", size(found.memory or 0)),
        ("users", "unknown" if found.users is None else str(found.users)),
        ("connections", str(found.connections)),
    ]


def size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else counted(count, "byte")


@command.command("stop", short_help="Stop it cleanly.")
def stop_server() -> None:
    """Stop it cleanly, even while it is in use. Exit code 0 also if it was not running."""
    before = server.stop(settings.load_settings())
    if not before.running:
        click.echo("the embedded Redis was not running")
        return
    count = before.connections if before.users is None else before.users
    used = f"; it was in use ({counted(count, 'process', 'processes')})" if count else ""
    pid = "" if before.pid is None else f" (pid {before.pid})"
    click.echo(f"stopped the embedded Redis{pid}, data stay in {before.folder}{used}")


@command.command("cli", context_settings={"ignore_unknown_options": True}, short_help="Open redis-cli on it.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def open_client(arguments: tuple[str, ...]) -> None:
    """Open redis-cli on it, starting it if necessary; ARGUMENTS go to redis-cli."""
    current = settings.load_settings()
    client = find_client(current)
    attached = server.attach(current)
    attached.keep_across_exec()
    os.execv(client, [client, "-s", str(attached.place.socket), *arguments])


def find_client(current: settings.Settings) -> str:
    """The redis-cli beside the server program, else one on PATH. Raises BrokerUnavailable."""
    names = ["redis-cli", "valkey-cli"]
    beside: list[str] = []
    # If the server runs already, its program need not be found.
    with contextlib.suppress(BrokerUnavailable):
        program = Path(find_server(current.redis_server).path)
        beside = [str(program.with_name(name)) for name in names]
    for name in beside + names:
        path = shutil.which(name)
        if path is not None:
            return path
    raise BrokerUnavailable("no redis-cli was found: apt install redis-tools, or brew install redis")

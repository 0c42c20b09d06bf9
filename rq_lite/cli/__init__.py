"""The command `rq-lite`. Each subcommand is a module of its own, imported when it is called."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from difflib import get_close_matches
from typing import Any

import click

from rq_lite import __version__
from rq_lite.errors import AppFailed, RqLiteError, UsageError
from rq_lite.logs import escaped
from rq_lite.process.streams import of_command
from rq_lite.redis_url import redacted

# Names and help lines of the commands, so that `rq-lite --help` need not import them.
COMMANDS = {
    "produce": "Put a job for each line of a file, each package in a folder, each number.",
    "work": "Run jobs: processes × greenlets.",
    "status": "Show queues: how full, how fast, served by which workers.",
    "jobs": "Jobs wherever they are: list, show, cancel, retry.",
    "dead": "Buried jobs: list, show, requeue, purge.",
    "queue": "Change a queue: its bound, pause, purge, delete.",
    "schedule": "Recurring jobs: list, add, remove, run.",
    "health": "Check that a consumer of this host works, for healthchecks.",
    "redis": "The embedded Redis: status, stop, cli.",
    "bench": "Measure jobs/s and count jobs lost or run twice, with faults on request.",
    "demo": "See it work: 2,000 pages through a queue bounded at 200.",
}


# Commands whose modules are beside the code that they run.
HOMES = {"bench": "rq_lite.chaos.command", "demo": "rq_lite.demo.command"}


class Lazy(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        gc.disable()  # collecting is a fifth of the time that imports take, and they leave no garbage
        try:
            command: click.Command = importlib.import_module(HOMES.get(name, f"rq_lite.cli.{name}")).command
        finally:
            gc.freeze()  # modules stay: no collection needs to look at them
            gc.enable()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # click itself suggests only commands that are already imported.
        near = [] if args[0] in COMMANDS or ctx.resilient_parsing else get_close_matches(args[0], COMMANDS)
        if near:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(map(repr, near))}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would call it aborted, with exit code 1
            ctx.exit(130)
        except click.Abort as error:  # a question without an answer, or Ctrl-C at one
            if isinstance(error.__context__, KeyboardInterrupt):
                ctx.exit(130)
            raise
        except click.ClickException as error:
            error.message = redacted(error.message)  # type: ignore[misc]
            raise

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 Redis unavailable or full, 4 queue stayed full. "
    "Redis: each command's --url, or RQ_LITE_URL; with neither, an embedded one is started on demand.",
)
@click.version_option(__version__, prog_name="rq-lite")
def cli() -> None:
    """A work queue on Redis whose queues are bounded: a producer that is too fast waits."""


def check_folder() -> None:
    """Raises UsageError if the current folder was removed: much of Python fails there, with a traceback."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        raise UsageError("the current folder was removed: cd to another one, or to the same name again") from None


def main(args: list[str] | None = None) -> Any:
    """Run the command; an RqLiteError ends it with one line and the error's exit code."""
    of_command()
    try:
        check_folder()
        return cli.main(args, prog_name="rq-lite", standalone_mode=True)
    except RqLiteError as error:
        if isinstance(error, AppFailed) and error.__cause__ is not None:
            click.echo(importlib.import_module("rq_lite.client.app").own_traceback(error.__cause__), nl=False, err=True)
        said = "\n".join(map(escaped, redacted(str(error)).split("\n")))  # some errors quote lines of a log
        click.echo(f"rq-lite: {said}", err=True)
        sys.exit(error.exit_code)

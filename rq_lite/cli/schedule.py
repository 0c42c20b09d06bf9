"""rq-lite schedule: list, add, remove, run"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import click
import msgspec

from rq_lite.admin import status
from rq_lite.broker import Broker
from rq_lite.broker.scheduling import Planned
from rq_lite.cli.common import duration, known_queue, open_broker, settings_from, url_option
from rq_lite.cli.listing import View, put_out
from rq_lite.cli.table import Column
from rq_lite.client import schedules
from rq_lite.client.app import find_task
from rq_lite.client.defaults import defaults
from rq_lite.client.put import Verdicts
from rq_lite.client.queue import Queue
from rq_lite.errors import Duplicate, PutRefused, UsageError
from rq_lite.logs import escaped, one_line
from rq_lite.model.arguments import json_trouble
from rq_lite.model.message import as_is, new_id
from rq_lite.model.put_options import Options
from rq_lite.model.schedule import MISSED, Recurrence, Schedule, checked_name, defined, from_json, recurring, zone

F = TypeVar("F", bound=Callable[..., Any])
COLUMNS = (
    Column("name", 0, least=14, middle=True),
    Column("when", 2, least=15),
    Column("task", 3, least=16, middle=True),
    Column("queue", 4, least=10, middle=True),
    Column("missed", 6),
    Column("from", 7),
    Column("last", 5),
    Column("next", 1),
)


@click.group()
def command() -> None:
    """Recurring jobs: by cron lines or at intervals.

    An app's own schedules (@queue.task(cron=…)) are stored when its workers start, and named like their tasks.
    """


@contextmanager
def opened(url: str | None, *, quiet: bool = False) -> Iterator[Broker]:
    settings = settings_from(url=url)
    broker = open_broker(settings, quiet=quiet)
    defaults.use(settings, broker)
    try:
        yield broker
    finally:
        broker.close()


# -- looking


@command.command("list", short_help="List schedules, the next one first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per schedule, with everything known.")
@url_option
def list_schedules(as_json: bool, url: str | None) -> None:
    """List schedules, the next one first; times are in each schedule's zone.

    A table on a terminal; on a pipe a line per schedule, with tabs between the columns.
    """
    with opened(url, quiet=as_json) as broker:
        known = [
            (planned, from_json(planned.name, planned.definition, broker.core.opened))
            for planned in broker.plans.all_planned()
        ]
    if not put_out(known, VIEW, 0.0, as_json=as_json) and not as_json:
        click.echo("no schedules", err=True)


def row(pair: tuple[Planned, Schedule | None], _now: float) -> list[str]:
    planned, schedule = pair
    if schedule is None:
        return [escaped(planned.name), f"({trouble(planned)})", *"-" * (len(COLUMNS) - 2)]
    texts = (planned.name, schedule.shown, schedule.task, schedule.queue, schedule.missed, schedule.origin)
    return [*map(escaped, texts), shown(planned.last, schedule), shown(planned.slot, schedule)]


def unsigned(planned: Planned) -> bool:
    """Whether the schedule could be read but for its signature."""
    return from_json(planned.name, planned.definition, as_is) is not None


def trouble(planned: Planned) -> str:
    """Why the schedule cannot be read."""
    return "not signed with this secret" if unsigned(planned) else "not understood by this version"


def shown(slot: int | None, schedule: Schedule) -> str:
    return "-" if slot is None else moment(slot, schedule).strftime("%Y-%m-%d %H:%M:%S %Z")


def moment(slot: int, schedule: Schedule) -> datetime:
    return datetime.fromtimestamp(slot / 1000, zone(schedule.tz))


def facts(pair: tuple[Planned, Schedule | None]) -> dict[str, Any]:
    """For JSON; times are ISO 8601 in the schedule's zone."""
    planned, schedule = pair
    if schedule is None:
        signed = {"signed": False} if unsigned(planned) else {}
        return {"name": planned.name, "definition": planned.definition.decode(errors="replace"), **signed}
    return {
        "name": planned.name,
        **msgspec.to_builtins(schedule),
        "tz": schedule.tz,
        "missed": schedule.missed,
        "origin": schedule.origin,
        "last": None if planned.last is None else moment(planned.last, schedule).isoformat(),
        "next": moment(planned.slot, schedule).isoformat(),
    }


VIEW = View(COLUMNS, row, facts)


# -- changing


@command.command()
@click.argument("name")
@click.option("--task", required=True, help="MODULE:TASK; with --queue only a task's name, and nothing is imported.")
@click.option("-q", "--queue", metavar="QUEUE", help="Where its jobs go, for a task that is not imported here.")
@click.option("--cron", metavar="LINE", help='Five fields, as in "*/5 * * * *"; a sixth, in front, is seconds.')
@click.option("--tz", metavar="ZONE", help="The zone of the cron line. Default: UTC.")
@click.option("--every", callback=duration, metavar="TIME", help="30, 30s, 15m, 2h, 7d; counted from 1970.")
@click.option(
    "--missed",
    type=click.Choice(MISSED),
    help="What to do about times without a worker. Default: once, for all of them.",
)
@click.option(
    "--args", "arguments", default="[]", metavar="JSON", help="An array of arguments, or an object: arguments by name."
)
@url_option
def add(
    name: str,
    task: str,
    queue: str | None,
    cron: str | None,
    tz: str | None,
    every: float | None,
    missed: str | None,
    arguments: str,
    url: str | None,
) -> None:
    """Add schedule NAME, or replace it if this command added it."""
    checked_name(name)
    when = recurring(cron, every, tz, missed)
    if when is None:
        raise UsageError("no time: say --cron LINE or --every TIME")
    args, kwargs = parsed(arguments)
    with opened(url) as broker:
        defaults.use(broker.settings, broker)  # the app's queues are in this Redis
        schedule = made(broker, when, task, queue, args, kwargs)
        if not schedules.write(broker, name, schedule):
            raise UsageError(f"schedule {name!r} belongs to the app; choose another name, or change it there")
        planned = broker.plans.planned(name)
    upcoming = "" if planned is None else f"; next: {shown(planned.slot, schedule)}"
    click.echo(f"schedule {name!r}: {schedule.shown}{upcoming}")


def parsed(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Arguments from JSON, by position or by name."""
    try:
        value = json.loads(text)
        trouble = json_trouble(value)  # Python reads NaN and 1e400, too
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--args {text!r:.80} is not JSON: {error}") from None
    if trouble:
        raise UsageError(f"--args {text!r:.80}: {trouble}")
    if isinstance(value, dict):
        return [], value
    if isinstance(value, list):
        return value, {}
    raise UsageError(f"--args takes an array or an object, not {text!r:.80}")


def made(
    broker: Broker, when: Recurrence, name: str, queue: str | None, args: list[Any], kwargs: dict[str, Any]
) -> Schedule:
    if queue is not None:
        return defined(when, known_queue(broker, queue), name, args, kwargs, origin="operator")
    task = find_task(name)
    try:
        found = task.scheduled(when, args, kwargs)
    except PutRefused as error:
        raise UsageError(str(error)) from None
    if found.queue not in status.queues(broker):
        task.queue.declare()
    return msgspec.structs.replace(found, origin="operator")


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@url_option
def remove(names: tuple[str, ...], url: str | None) -> None:
    """Remove schedules; jobs that they have put stay."""
    with opened(url) as broker:
        found = [known(broker, name) for name in dict.fromkeys(names)]
        for planned in found:
            current: Planned | None = planned
            while current is not None and not broker.plans.plan(current.name, current.definition, b"", None):
                current = broker.plans.planned(planned.name)
            schedule = from_json(planned.name, planned.definition, broker.core.opened)
            comes_back = schedule is not None and schedule.origin == "app"
            note = "; it belongs to an app, whose workers add it again when they start" if comes_back else ""
            click.echo(f"schedule {planned.name!r} is removed{note}")


@command.command(short_help="Put the job of a schedule once, now.")
@click.argument("name")
@url_option
def run(name: str, url: str | None) -> None:
    """Put the job of schedule NAME once, now; its slots stay as they are."""
    with opened(url) as broker:
        planned = known(broker, name)
        schedule = from_json(name, planned.definition, broker.core.opened)
        if schedule is None:
            way_out = ": set the RQ_LITE_SECRET it was added with, or add it again" if unsigned(planned) else ""
            raise UsageError(f"schedule {name!r} is {trouble(planned)}{way_out}")
        job_id = new_id()
        sender, verdicts = Queue(schedule.queue, broker=broker).sender, Verdicts()
        sender.marks = True
        sender.put_entries([schedule.entry(job_id, broker.core.seal)], Options(), wait=0.0, verdicts=verdicts)
    if verdicts.kept_out:
        raise Duplicate(f"schedule {name!r}: nothing was put: job {verdicts.kept_out[0]} with the same key is there")
    click.echo(f"schedule {name!r}: job {job_id} is put on queue {schedule.queue!r}")


def known(broker: Broker, name: str) -> Planned:
    """The schedule of this name. Raises UsageError, which lists the known schedules, if it is unknown."""
    planned = broker.plans.planned(name)
    if planned is None:
        names = ", ".join(one_line(one.name) for one in broker.plans.all_planned()) or "none yet"
        raise UsageError(f"unknown schedule {name!r}; known schedules: {names}")
    return planned

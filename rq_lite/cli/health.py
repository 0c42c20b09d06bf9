"""rq-lite health"""

from __future__ import annotations

import click
import msgspec

from rq_lite.admin import status
from rq_lite.broker import Broker
from rq_lite.cli.common import open_broker, settings_from, url_option
from rq_lite.cli.text import plain
from rq_lite.embedded import server
from rq_lite.errors import BrokerError, RqLiteError, counted
from rq_lite.process.identity import machine, parse
from rq_lite.settings import Settings

PATIENCE = 2.0  # seconds; a healthcheck is repeated anyway


class Unwell(RqLiteError):
    """No consumer works here; exit code 1."""


@click.command()
@click.option("--any", "anywhere", is_flag=True, help="A consumer on any host will do.")
@url_option
def command(anywhere: bool, url: str | None) -> None:
    """Exit 0 if a consumer of this host (container, pod) serves a queue, 1 if not: for healthchecks and probes.

    Exit 1 also if a consumer takes nothing although jobs wait and its slots are free.
    """
    settings = msgspec.structs.replace(settings_from(url=url), patience=PATIENCE)
    try:
        count, trouble = living(settings, anywhere=anywhere)
    except BrokerError as error:
        raise Unwell(str(error)) from None
    where = "on any host" if anywhere else "on this host"
    if not count:
        raise Unwell(f"no consumer {where} serves a queue")
    if trouble:
        click.echo(f"at work, but with a problem: {trouble}", err=True)
    click.echo(f"{counted(count, 'consumer')} {where}")


def living(settings: Settings, *, anywhere: bool) -> tuple[int, str]:
    """How many consumers hold a lease, and the workers' problems. Raises Unwell if a consumer takes nothing."""
    # A healthcheck must not start an embedded Redis: where none runs, there are no consumers.
    if settings.url is None and not server.status(settings).running:
        raise Unwell("the embedded Redis is not running")
    broker = open_broker(settings, quiet=True)
    try:
        workers = status.workers(broker, "" if anywhere else f".{machine()}:")
        trouble = "; ".join(plain(worker.trouble, 300) for worker in workers if worker.trouble)
        if any(worker.idle for worker in workers):
            raise Unwell(trouble)
        return len(consumers(broker, None if anywhere else machine())), trouble
    finally:
        broker.close()


def consumers(broker: Broker, host: str | None) -> set[str]:
    """The live consumers of one machine (see `identity.machine`) or, with None, of all machines."""
    found = {consumer for queue in status.queues(broker) for consumer in status.consumers(broker, queue)}
    if host is None:
        return found
    return {consumer for consumer in found if (who := parse(consumer)) is not None and who.machine == host}

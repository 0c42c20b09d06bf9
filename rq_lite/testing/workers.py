"""Real workers, for the time of a block or until nothing is left to do."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rq_lite.admin import dead, status
from rq_lite.admin.dead import Buried
from rq_lite.broker import Broker
from rq_lite.client.defaults import defaults
from rq_lite.client.registry import registry
from rq_lite.errors import RqLiteError, counted
from rq_lite.process.background import BackgroundProcess
from rq_lite.testing.folders import temporary_folder
from rq_lite.testing.puts import entries, is_job

READY = 30.0  # seconds that a worker has to get ready
PAUSE = 0.02  # seconds between two checks


@contextlib.contextmanager
def worker(
    app: str, *, queues: Sequence[str] = (), procs: int = 1, greenlets: int = 20, broker: Broker | None = None
) -> Iterator[BackgroundProcess]:
    """Run a real `rq-lite work APP` on this process's Redis (or another), in a process of its own, during the block.

    It is ready when the block begins, and it is stopped at the end of the block. Raises RqLiteError, with the worker's
    output, if it does not get ready. Its output, `said`, can be read after the block, too.
    """
    with started(app, queues, procs, greenlets, broker or defaults.broker) as part:
        until = time.monotonic() + READY
        while part.said.count(" ready (pid ") < procs:
            trouble = part.trouble()
            if trouble or time.monotonic() > until:
                raise RqLiteError(trouble or f"the worker was not ready within {READY:g} s: {part.said}")
            time.sleep(PAUSE)
        yield part


def drain(app: str, *, queues: Sequence[str] = (), greenlets: int = 20, timeout: float = 60.0) -> list[Buried]:
    """Run a real worker until nothing is left to do; returns the jobs in the dead sets of all queues (or of these).

    Raises RqLiteError, with the worker's output, if the worker fails or is not done within `timeout` seconds, if it
    does not know a task, and, unless `queues` are named, if jobs wait in a queue of this process that the app does
    not serve.
    """
    with started(app, queues, 1, greenlets, defaults.broker, "--burst") as part:
        until = time.monotonic() + timeout
        while part.exit_code is None:
            if time.monotonic() > until:
                raise RqLiteError(f"the worker was not done within {timeout:g} s; its output: {part.said}")
            time.sleep(PAUSE)
        if part.exit_code:
            raise RqLiteError(part.trouble() or "")
    states = status.states(defaults.broker, list(queues) or status.queues(defaults.broker))
    unknown = [one.task for state in states.values() for one in state.unknown_tasks]
    if unknown:
        raise RqLiteError(f"app {app!r} has no task {', '.join(unknown)}: its jobs wait; a task is called MODULE:NAME")
    if not queues:
        check_served(app, defaults.broker, list(states))
    return [job for queue in states for job in dead.buried(defaults.broker, queue)]


def check_served(app: str, broker: Broker, names: Sequence[str]) -> None:
    """Raise RqLiteError if jobs wait in one of these queues that this process knows, although the app is done."""
    for name in names:
        if name in registry.queues:
            pending, scheduled = entries(broker, name)
            left = sum(is_job(broker, name, entry) for entry in (*pending, *(entry for entry, _ in scheduled)))
            if left:
                raise RqLiteError(
                    f"app {app!r} does not serve queue {name!r}, which holds {counted(left, 'job')}; "
                    f"name the queues to drain: drain({app!r}, queues=[{name!r}, …])"
                )


@contextlib.contextmanager
def started(
    app: str, queues: Sequence[str], procs: int, greenlets: int, broker: Broker, *options: str
) -> Iterator[BackgroundProcess]:
    """Run `rq-lite work` with the broker's Redis and secret and this process's import path; stop it after the block."""
    command = ["rq_lite.testing.work", app, "--procs", str(procs), "--greenlets", str(greenlets), *options]
    command += [word for queue in queues for word in ("--queue", queue)]
    environ = {"RQ_LITE_URL": broker.url, "PYTHONPATH": os.pathsep.join(own_places())}
    if broker.settings.secret is not None:
        environ["RQ_LITE_SECRET"] = broker.settings.secret
    with temporary_folder() as folder:
        part = BackgroundProcess("worker", command, folder, environ=environ)
        try:
            yield part
        finally:
            part.stop()
            part.keep()


def own_places() -> list[str]:
    """This process's import path, without what every interpreter here has anyway: pytest adds to it."""
    usual = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    usual |= {f"{sysconfig.get_path('platstdlib')}/lib-dynload"}
    return [place or str(Path.cwd()) for place in sys.path if place not in usual and not place.endswith(".zip")]

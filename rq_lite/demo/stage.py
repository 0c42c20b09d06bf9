"""What the demo starts and ends: a Redis, a website, a worker. Nothing of them is left afterwards."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from rq_lite.admin import operate
from rq_lite.broker import Broker, keys
from rq_lite.demo import app
from rq_lite.demo.facts import Choices
from rq_lite.embedded import server
from rq_lite.embedded.program import ANOTHER
from rq_lite.errors import RqLiteError
from rq_lite.process.background import BackgroundProcess
from rq_lite.settings import Settings

PATIENCE = 5.0  # seconds without an answer from Redis after which the demo gives up: its user would not wait longer


@contextlib.contextmanager
def redis(settings: Settings, url: str | None, folder: Path) -> Iterator[tuple[Broker, str]]:
    """A broker and the name of a new queue on it: of a new Redis, or of the one at `url`."""
    if url is not None:
        broker = Broker(url, settings=settings).open()
        queue = f"demo-{secrets.token_hex(4)}"
        try:
            yield broker, queue
        finally:
            with contextlib.closing(broker):
                forget(broker, queue)
        return
    settings = msgspec.structs.replace(settings, url=None, home=str(folder / "redis"))
    broker = Broker(settings=settings, quiet=True)
    try:
        try:
            broker.open()
        except RqLiteError as error:
            error.args = (str(error).replace(ANOTHER, "give the demo one of your own: --url URL (not RQ_LITE_URL)"),)
            raise
        yield broker, "demo"
    finally:
        broker.close()
        # The server stops by itself when its last user leaves; wait for that before its folder is removed.
        server.stop(settings)


def forget(broker: Broker, queue: str) -> None:
    """Remove a queue that only the demo used; its worker has ended."""
    key = keys.of(queue)
    left = [key.inflight(consumer) for consumer in broker.tends.consumers(queue)]
    operate.purge(broker, queue)
    names = [key.meta, key.consumers, key.bell, key.room, key.drained, key.dead, key.dead_index, *left]
    broker.read(("SREM", keys.QUEUES, queue), ("DEL", *names))


class Website(BackgroundProcess):
    """The site of rq_lite.demo.site, on a free port."""

    def __init__(self, choices: Choices, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
            self._base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self.pages = [f"{self._base}/page/{number + 1}" for number in range(choices.jobs)]
            number = listener.fileno()
            command = ["rq_lite.demo.site", str(number), str(choices.jobs), str(choices.delay)]
            super().__init__("website", command, folder, pass_fds=(number,))

    def counts(self) -> list[int]:
        """How often each page was requested."""
        with app.opener.open(f"{self._base}/counts", timeout=30) as answer:
            counts: list[int] = json.load(answer)
        return counts


class Worker(BackgroundProcess):
    """`rq-lite work rq_lite.demo.app`, on the demo's queue."""

    def __init__(self, choices: Choices, folder: Path, broker: Broker, queue: str) -> None:
        command = ["rq_lite.testing.work", "rq_lite.demo.app", "-q", queue]
        # No grace: jobs still run at its stop only if the demo was interrupted.
        command += ["--procs", str(choices.procs), "--greenlets", str(choices.greenlets), "--grace", "0"]
        # The URL is not an option: it may hold a password.
        environ = {"RQ_LITE_URL": broker.url, "RQ_LITE_PATIENCE": str(broker.settings.patience)}
        super().__init__("worker", command, folder, environ=environ)

"""The Redis of a run under faults: one of its own, or a database that the user names."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Protocol

import msgspec

from rq_lite.broker import Broker, keys
from rq_lite.embedded import server
from rq_lite.errors import BrokerUnavailable, RqLiteError, UsageError, counted
from rq_lite.redis_url import with_database
from rq_lite.settings import Settings

RESTART = 120.0  # seconds that a restart may take


class RestartFailed(RqLiteError):
    """Redis could not be restarted."""


class Place(Protocol):
    """A Redis that can be restarted; `broker` is for the process that makes the run."""

    broker: Broker

    def restart(self, away: float) -> None:
        """Restart it and wait until it answers, at least `away` s. Raises RestartFailed, BrokerUnavailable."""

    def leave(self, queue: str) -> None:
        """Remove everything that belongs to the queue, and close the broker."""


class OwnRedis:
    """A Redis in a temporary folder, with an append-only file that is written before every answer.

    With `appendfsync everysec` Redis delays the write itself, for up to 2 s, while an fsync is under way; if it is
    killed then, it loses what it has answered. With `no` it writes at once and leaves the fsync to the kernel, which
    is not killed.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = msgspec.structs.replace(settings, url=None, home=str(folder / "redis"))
        self.broker = Broker(settings=self._settings, quiet=True).open()
        self._write_at_once()

    def _write_at_once(self) -> None:
        self.broker.read(("CONFIG", "SET", "appendfsync", "no"))

    def restart(self, away: float) -> None:
        """Restart it by `kill -9`."""
        pid = server.status(self._settings).pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        time.sleep(away)
        self.broker.core.revive()
        self._write_at_once()

    def leave(self, _queue: str) -> None:
        """Stop it; its data are in a folder that is removed."""
        self.broker.close()
        # The server stops by itself when its last user leaves; wait for that before its folder is removed.
        server.stop(self._settings)


class UsersRedis:
    """A database of the user's Redis. Raises UsageError if it is not empty."""

    def __init__(self, url: str, settings: Settings, database: int, command: str | None) -> None:
        self._command = command
        self.broker = Broker(with_database(url, database), settings=settings).open()
        self._named = self.broker.core.veiled(repr(command))
        count = self.broker.read(("DBSIZE",))[0]
        if count:
            self.broker.close()
            raise UsageError(
                f"database {database} of Redis at {self.broker.shown} holds {counted(count, 'key')}, and bench "
                "needs an empty one: say --db N, or name no URL for an embedded Redis of its own"
            )

    def restart(self, _away: float) -> None:
        """Restart it by the user's command, which decides how long it is away."""
        assert self._command is not None
        before = self._run_id()
        ended = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            ended = subprocess.run(
                self._command, shell=True, capture_output=True, errors="replace", timeout=RESTART, check=False
            )
        if ended is None:
            raise RestartFailed(f"{self._named} did not end within {RESTART:g} s")
        if ended.returncode:
            said = (ended.stderr or ended.stdout).strip() or "nothing"
            raise RestartFailed(
                self.broker.core.veiled(f"{self._named} ended with exit code {ended.returncode} and said: {said}")
            )
        if self._run_id_after_restart() == before:
            raise RestartFailed(
                f"{self._named} has not restarted Redis at {self.broker.shown}: the same server still runs"
            )

    def _run_id_after_restart(self) -> str:
        """The run id, once Redis answers and has loaded its data."""
        until = time.monotonic() + RESTART
        while True:
            try:
                return self._run_id()
            except BrokerUnavailable:
                if time.monotonic() > until:
                    raise

    def _run_id(self) -> str:
        info = self.broker.read(("INFO", "server"))[0].decode()
        return str(next(line for line in info.splitlines() if line.startswith("run_id:")))

    def leave(self, queue: str) -> None:
        """Remove only what the run has put there: another program may use the database by now."""
        try:
            ours = [name for name in scan(self.broker, *keys.OURS) if is_of(self.broker, name, queue)]
            workers = [name.removeprefix(keys.worker("")) for name in ours if name.startswith(keys.worker(""))]
            lists = (("SREM", keys.QUEUES, queue), *(("ZREM", keys.WORKERS, worker) for worker in workers))
            self.broker.read(*lists, *(("DEL", name) for name in ours))
        finally:
            self.broker.close()


def is_of(broker: Broker, name: str, queue: str) -> bool:
    """Whether the key belongs to the queue, or to a worker that served it alone."""
    if name.startswith(keys.worker("")):
        return bool(broker.read(("HGET", name, "queues"))[0] == queue.encode())
    return name.startswith(keys.of(queue).prefix)


def scan(broker: Broker, *patterns: str) -> list[str]:
    """The names of all keys that match a pattern, each once."""
    found: set[bytes] = set()
    for pattern in patterns:
        cursor: bytes | None = None
        while cursor != b"0":
            cursor, names = broker.read(("SCAN", cursor or 0, "MATCH", pattern, "COUNT", 1000))[0]
            found.update(names)
    return sorted(name.decode(errors="replace") for name in found)

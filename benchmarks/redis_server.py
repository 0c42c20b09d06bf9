"""A private Redis for one run: on loopback and on a Unix socket, in a temporary folder, nothing written to disk."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from rq_lite.embedded.program import find_server

START_WITHIN = 10.0  # seconds


@dataclass(frozen=True)
class Server:
    """The server's addresses and version."""

    url: str
    unix_url: str
    version: str


@contextmanager
def running() -> Iterator[Server]:
    """Run a server during the block; stop it and remove its folder afterwards.

    Raises BrokerUnavailable if there is no server program, RuntimeError if the server does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="rq-lite-bench-") as folder:
        port, path = free_port(), Path(folder) / "redis.sock"
        with (Path(folder) / "redis.log").open("w+") as log:
            process = subprocess.Popen(command(port, path), stdout=log, stderr=log, cwd=folder)
            try:
                version = wait_until_up(process, path)
                yield Server(f"redis://127.0.0.1:{port}/0", f"unix://{path}", version)
            finally:
                process.kill()
                process.wait()


def command(port: int, path: Path) -> list[str]:
    return [
        find_server(None).path,
        *("--bind", "127.0.0.1", "--port", str(port), "--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until_up(process: subprocess.Popen[bytes], path: Path) -> str:
    """The server's version, once it answers."""
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with redis.Redis(unix_socket_path=str(path)) as client:
                return str(client.info("server")["redis_version"])
        except redis.ConnectionError:
            time.sleep(0.02)
    raise RuntimeError(f"redis-server did not answer within {START_WITHIN:g} s (exit code {process.poll()})")

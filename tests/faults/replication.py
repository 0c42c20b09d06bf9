"""A primary and its replica."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from rq_lite.broker import Broker
from rq_lite.errors import BrokerUnavailable
from rq_lite.settings import Settings
from tests.conftest import Server, until

REPLICATED = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")


def free_ports(count: int = 2) -> list[int]:
    with contextlib.ExitStack() as held:
        taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


class Watched:
    """A primary with a replica, and three sentinels that watch them; `url` finds the present primary."""

    DOWN = 500  # ms without an answer after which a sentinel regards a server as down

    def __init__(self, private: Callable[..., Server], folder: Path, *options: str) -> None:
        *ports, first, second, third = free_ports(5)
        self.servers = {port: private("--port", str(port), *REPLICATED, *options) for port in ports}
        follow(self.servers[ports[1]], ports[0])
        until_replicated(*self.servers.values())
        self._ports = (first, second, third)
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self._ports)}/watched"
        self._processes = [self._sentinel(folder, port, ports[0]) for port in self._ports]
        until(lambda: all(map(self._knows_all, self._ports)), "the sentinels know the replica and each other")

    def _sentinel(self, folder: Path, port: int, primary: int) -> subprocess.Popen[bytes]:
        own = folder / f"sentinel-{port}"
        own.mkdir()
        (own / "conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {own}\nsentinel monitor watched 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds watched {self.DOWN}\nsentinel failover-timeout watched 3000\n"
        )
        program = next(iter(self.servers.values())).program
        with (own / "log").open("wb") as log:
            return subprocess.Popen([program, str(own / "conf"), "--sentinel"], stdout=log, stderr=log)

    def _knows_all(self, port: int) -> bool:
        with contextlib.suppress(redis.ConnectionError), redis.Redis(port=port, decode_responses=True) as client:
            state = client.sentinel_master("watched")
            return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == len(self._ports) - 1)
        return False

    def broker(self) -> Broker:
        return Broker(self.url, settings=Settings(url=self.url, patience=10.0))

    def ask(self, *command: str) -> Any:
        """A sentinel's answer."""
        with redis.Redis(port=self._ports[0], decode_responses=True) as client:
            return client.execute_command("SENTINEL", *command)

    @property
    def primary(self) -> Server:
        return self.servers[int(self.ask("GET-MASTER-ADDR-BY-NAME", "watched")[1])]

    def port_of(self, server: Server) -> int:
        return next(port for port, one in self.servers.items() if one is server)

    @property
    def others(self) -> list[Server]:
        primary = self.primary
        return [server for server in self.servers.values() if server is not primary]

    def until_taken_over(self, before: Server) -> None:
        until(lambda: self.primary is not before, "the sentinels have made the replica the primary")

    def until_settled(self) -> None:
        """Wait until the primary has its replica again, and the replica has everything."""
        # Both are asked for each time: on a busy machine the sentinels may change their mind.
        until(lambda: has_everything(self.primary, *self.others), "the replica has everything")

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers.values():
            if server.process is not None and server.process.poll() is None:
                server.process.send_signal(signal.SIGCONT)


def follow(server: Server, port: int) -> None:
    server.broker().read(("REPLICAOF", "127.0.0.1", port))


def until_replicated(old: Server, new: Server) -> None:
    until(lambda: has_everything(old, new), "the replica has everything")


def has_everything(primary: Server, replica: Server) -> bool:
    """Whether the replica has everything that the primary had sent when it was asked."""
    sent, got = progress(primary, "master_repl_offset"), progress(replica, "slave_repl_offset")
    return sent is not None and got is not None and got >= sent


def progress(server: Server, field: str) -> int | None:
    """The replication offset; None: the server does not answer, or is changing its role."""
    try:
        text: bytes = server.broker().read(("INFO", "replication"))[0]
    except BrokerUnavailable:
        return None
    facts = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    return int(facts[field]) if field in facts and facts.get("master_link_status", "up") == "up" else None

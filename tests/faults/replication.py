"""A primary and its replica."""

from __future__ import annotations

import socket

from tests.conftest import Server, until

REPLICATED = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def follow(server: Server, port: int) -> None:
    server.broker().read(("REPLICAOF", "127.0.0.1", port))


def until_replicated(old: Server, new: Server) -> None:
    def done() -> bool:
        sent = progress(old, "master_repl_offset")
        return sent is not None and sent == progress(new, "slave_repl_offset")

    until(done, "the replica has everything")


def progress(server: Server, field: str) -> int | None:
    """How far replication is."""
    text: bytes = server.broker().read(("INFO", "replication"))[0]
    facts = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    return int(facts[field]) if field in facts and facts.get("master_link_status", "up") == "up" else None

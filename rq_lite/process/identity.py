"""The id of a consumer or worker: it is never used again, and its own host can tell by it that the process is gone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Identity(NamedTuple):
    """`host.machine:pid:start:random`; `machine` tells one boot and one pid namespace from another."""

    host: str
    machine: str
    pid: int
    start: str  # when the process began, in the kernel's ticks since boot; "0" where /proc does not tell
    random: str  # 64 bits

    def __str__(self) -> str:
        return f"{self.host}.{self.machine}:{self.pid}:{self.start}:{self.random}"


def mine() -> Identity:
    """A new identity of this process."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:60] or "host"
    return Identity(host, machine(), os.getpid(), start_of(os.getpid()) or "0", os.urandom(8).hex())


def parse(text: str) -> Identity | None:
    """The identity from its text; None if the text is not an identity."""
    match = re.fullmatch(r"([A-Za-z0-9-]+)\.([0-9a-f]{12}):([0-9]+):([0-9]+):([0-9a-f]{16})", text)
    return Identity(match[1], match[2], int(match[3]), match[4], match[5]) if match else None


def surely_dead(text: str) -> bool:
    """True if this was a process of this machine, boot and pid namespace, and has ended."""
    who = parse(text)
    if who is None or who.machine != machine() or who.start == "0":
        return False
    started = start_of(who.pid)
    return gone(who.pid) if started is None else started != who.start


def machine() -> str:
    """12 hex digits for this boot of this machine and this pid namespace."""
    facts = socket.gethostname()
    with contextlib.suppress(OSError):
        facts += (PROC / "sys/kernel/random/boot_id").read_text("ascii") + str((PROC / "self/ns/pid").readlink())
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def start_of(pid: int) -> str | None:
    """When the process began; None if there is no such process, only its zombie, or /proc hides it (another user's)."""
    try:
        # The name in brackets may hold anything, so count from behind it.
        fields = (PROC / str(pid) / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def gone(pid: int) -> bool:
    """True if no process of another user has this pid; call it only when `start_of` found none of one's own."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True

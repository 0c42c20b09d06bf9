"""Who a consumer is: an id that is never used again, and by which its own host can tell that it is dead."""

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
    """The identity from its text; None for a text that is none."""
    match = re.fullmatch(r"([A-Za-z0-9-]+)\.([0-9a-f]{12}):([0-9]+):([0-9]+):([0-9a-f]{16})", text)
    return Identity(match[1], match[2], int(match[3]), match[4], match[5]) if match else None


def surely_dead(text: str) -> bool:
    """Whether this was a process of this very machine (and boot, and pid namespace) that is no more."""
    who = parse(text)
    if who is None or who.machine != machine() or who.start == "0":
        return False
    started = start_of(who.pid)
    return gone(who.pid) if started is None else started != who.start


def machine() -> str:
    """12 hex digits for this boot of this machine and this pid namespace."""
    facts = socket.gethostname()
    with contextlib.suppress(OSError):
        facts += (PROC / "sys/kernel/random/boot_id").read_text() + str((PROC / "self/ns/pid").readlink())
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def start_of(pid: int) -> str | None:
    """When the process began; None if there is none, only its zombie, or one that /proc hides: of another user."""
    try:
        # The name in brackets may hold anything, so count from behind it.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def gone(pid: int) -> bool:
    """Whether there is no process of that number that this user may not see; one's own are seen, if only as zombies."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True

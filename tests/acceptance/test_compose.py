"""The compose stack without an engine: its files are read, and its commands run as local processes.

What only an engine can show: that the images can be had and built (pip's part was tried by hand), that
`configs`, `volumes`, `cap_drop`, `depends_on` and the restart policies do what they say, name resolution between
containers, and the worker as PID 1 of a container.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import OLDEST, ROOT, until, with_redis_cli

PASSWORD = "a-password_of.this-test"
URLS = 2000

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("site", "producer", "worker")


PATH = with_redis_cli()


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments; its lines are not continued."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    parts = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(name, rest) for name, _, rest in parts]


DOCKERFILE = instructions()
LAST_STAGE = DOCKERFILE[max(i for i, (name, _) in enumerate(DOCKERFILE) if name == "FROM") :]


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s", text)
    assert match is not None
    return float(match[1])


# -- the files


def test_services_and_the_order_they_start_in() -> None:
    assert set(SERVICES) == {"redis", *OURS}
    waits = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    assert waits == {"redis": set(), "site": set(), "producer": {"redis", "site"}, "worker": {"redis"}}
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[needed]


def test_one_image_for_all_of_ours() -> None:
    assert {(SERVICES[name]["build"], SERVICES[name]["image"]) for name in OURS} == {(".", "rq_lite")}
    assert {service["image"] for service in SERVICES.values()} == {"rq_lite", "redis:7-alpine"}


def test_redis_keeps_what_it_accepted() -> None:
    arguments = SERVICES["redis"]["command"]
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    volume, folder = SERVICES["redis"]["volumes"][0].split(":")
    assert folder == "/data"
    assert volume in COMPOSE["volumes"]
    assert options["--requirepass"].startswith("${REDIS_PASSWORD:-")


def test_no_password_in_our_command_lines() -> None:
    for service in (SERVICES[name] for name in OURS):
        commands = [*service["command"], *service.get("healthcheck", {}).get("test", [])]
        assert not [part for part in commands if "PASSWORD" in part or "redis://" in part or "only-for" in part]
    assert {SERVICES[name]["environment"]["RQ_LITE_URL"] for name in ("producer", "worker")} == {
        "redis://:${REDIS_PASSWORD:-only-for-trying-out}@redis:6379/0"
    }


def test_a_worker_has_time_to_stop() -> None:
    worker = SERVICES["worker"]
    grace = float(worker["command"][worker["command"].index("--grace") + 1])
    assert seconds(worker["stop_grace_period"]) >= grace + 10
    assert worker["deploy"]["replicas"] == 2
    assert worker["restart"] == "unless-stopped"


def test_the_image_runs_as_nobody_in_particular_and_hears_signals() -> None:
    named = dict(LAST_STAGE)
    user, _, group = named["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    for name, argument in DOCKERFILE:
        if name in ("CMD", "ENTRYPOINT"):  # a shell in between would keep SIGTERM to itself
            assert all(isinstance(part, str) for part in json.loads(argument))
    assert "CMD" in named
    assert "PYTHONUNBUFFERED=1" in named["ENV"].split()
    assert {argument.split()[0] for name, argument in DOCKERFILE if name == "FROM"} == {"python:3.13-slim"}
    assert not [argument for _, argument in DOCKERFILE if re.search(r"\b(apt|apt-get|gcc|build-essential)\b", argument)]


def copied() -> list[str]:
    """What the Dockerfile takes from the checkout."""
    copies = [argument.split() for name, argument in DOCKERFILE if name == "COPY"]
    return [source for sources in copies if not sources[0].startswith("--from") for source in sources[:-1]]


def test_what_is_copied_is_there_and_nothing_else_is_sent() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line[0] == "!"} == set(copied())
    assert [name for name in copied() if not (ROOT / name).exists()] == []


# -- the stack


class Stack:
    """The services as processes of this machine; `redis` and `site` are ports of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = folder / "app"
        self.variables = {"REDIS_PASSWORD": PASSWORD, "SITE_DELAY": "0.2"}
        self.addresses: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.build()

    def build(self) -> None:
        """/app as the last stage of the Dockerfile makes it, and rq_lite to be imported from elsewhere."""
        self.app.mkdir()
        for name, argument in LAST_STAGE:
            if name == "COPY" and "--from" not in argument:
                source, target = argument.split()
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, self.app / target)
            elif name == "RUN":
                subprocess.run(["/bin/sh", "-c", argument], cwd=self.app, check=True)
        (self.folder / "installed").mkdir()
        (self.folder / "installed" / "rq_lite").symlink_to(ROOT / "rq_lite")

    def put_in(self, text: str) -> str:
        """The text with its variables filled in, as Compose does, and addresses of this machine."""
        text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: self.variables.get(found[1], found[2]), text)
        for there, here in self.addresses.items():
            text = text.replace(there, here)
        return text

    def arguments(self, command: list[str]) -> list[str]:
        programs = {
            "python": [sys.executable],
            "rq-lite": [sys.executable, "-m", "rq_lite"],
            "redis-server": [OLDEST],
        }
        first, *rest = (self.put_in(part) for part in command)
        return [*programs.get(first, [str(shutil.which(first, path=PATH))]), *rest]

    def environment(self, service: str) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
        given = {name: self.put_in(value) for name, value in SERVICES[service].get("environment", {}).items()}
        image = dict(part.split("=") for name, rest in LAST_STAGE if name == "ENV" for part in rest.split())
        return {**inherited, **image, "PATH": PATH, "PYTHONPATH": str(self.folder / "installed"), **given}

    def start(self, service: str, name: str = "", arguments: list[str] | None = None) -> subprocess.Popen[bytes]:
        name = name or service
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                arguments or self.arguments(SERVICES[service]["command"]),
                cwd=self.app,
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.processes[name]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start_redis(self) -> None:
        """On a free port; somebody else may be faster there, then on another."""
        arguments = self.arguments(SERVICES["redis"]["command"])
        if not any(self.redis_began(arguments) for _ in range(5)):
            raise AssertionError(self.log("redis").read_text())

    def redis_began(self, arguments: list[str]) -> bool:
        port = str(free_port())
        self.addresses = {"redis:6379": f"127.0.0.1:{port}", "-p 6379": f"-p {port}"}
        place = ["--bind", "127.0.0.1", "--port", port, "--dir", str(self.folder)]
        process = self.start("redis", arguments=[*arguments, *place])
        until(lambda: process.poll() is not None or self.healthy("redis"), "redis is healthy, or could not begin")
        return process.poll() is None

    def start_site(self) -> None:
        command = ["0" if part == "8000" else part for part in SERVICES["site"]["command"]]
        self.start("site", arguments=self.arguments(command))
        log = self.log("site")
        found: re.Match[str] = until(lambda: re.search(r"http://[^/]+:(\d+)/", log.read_text()), "the site's port")
        here = f"127.0.0.1:{found[1]}"
        self.addresses |= {"site:8000": here, "127.0.0.1:8000": here}

    def healthy(self, service: str) -> bool:
        """The healthcheck's exit code as Docker would see it, made in the same environment."""
        kind, *command = SERVICES[service]["healthcheck"]["test"]
        arguments = ["/bin/sh", "-c", self.put_in(command[0])] if kind == "CMD-SHELL" else self.arguments(command)
        done = subprocess.run(
            arguments, cwd=self.app, env=self.environment(service), capture_output=True, timeout=30, check=False
        )
        assert done.returncode in (0, 1)  # all others are reserved
        return done.returncode == 0

    def queue(self) -> dict[str, Any]:
        """The figures of the queue of pages."""
        shown = subprocess.run(
            self.arguments(["rq-lite", "status", "--json"]),
            cwd=self.app,
            env=self.environment("producer"),
            stdout=subprocess.PIPE,
            timeout=30,
            check=True,
        )
        found: dict[str, Any] = json.loads(shown.stdout)["queues"]["pages"]
        return found

    def stop(self, name: str) -> int:
        """As `docker compose stop` does it; the exit code."""
        service = SERVICES[name.partition("-")[0]]
        self.processes[name].send_signal(signal.SIGTERM)
        return self.processes[name].wait(timeout=seconds(service.get("stop_grace_period", "10s")))

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    if shutil.which("redis-cli", path=PATH) is None:
        pytest.skip("no redis-cli, which the health check asks with")
    made = Stack(tmp_path)
    yield made
    made.end()


def test_the_stack_fetches_every_page_once_and_stops_in_order(stack: Stack) -> None:
    stack.start_redis()
    stack.start_site()
    until(lambda: stack.healthy("site"), "the site is healthy")
    last = f"http://{stack.addresses['site:8000']}/page/{URLS - 1}"
    with urllib.request.urlopen(last, timeout=30) as answer:  # a 404 would be a result, too
        assert answer.status == 200
    assert not stack.healthy("worker")
    workers = [f"worker-{n + 1}" for n in range(SERVICES["worker"]["deploy"]["replicas"])]
    producer = stack.start("producer")
    until(lambda: b"pages" in redis_says(stack, "SMEMBERS", "rq-lite:queues"), "the producer has begun")
    for name in workers:
        stack.start("worker", name)
    until(lambda: stack.healthy("worker"), "the workers are healthy")
    assert producer.wait(timeout=60) == 0, stack.log("producer").read_text()
    assert f"{URLS:,} jobs put into 'pages'" in stack.log("producer").read_text()

    done = until(lambda: finished(stack.queue()), "all pages are fetched")
    figures = {name: done[name] for name in ("put", "done", "failed", "retried", "reclaimed", "stale", "dead")}
    assert figures == {"put": URLS, "done": URLS, "failed": 0, "retried": 0, "reclaimed": 0, "stale": 0, "dead": 0}
    assert done["maxsize"] == 200
    assert done["consumers"] == 4
    ours = [process for name, process in stack.processes.items() if name != "redis"]
    assert not [process.args for process in ours if PASSWORD in str(process.args)]

    for name in workers:
        assert stack.stop(name) == 0, stack.log(name).read_text()
        assert PASSWORD not in stack.log(name).read_text()
    assert not stack.healthy("worker")
    assert stack.stop("site") == 0
    assert stack.stop("redis") == 0
    assert list(stack.folder.glob("appendonly*"))


def test_redis_is_only_healthy_with_the_right_password(stack: Stack) -> None:
    stack.start_redis()
    stack.variables["REDIS_PASSWORD"] = "another"
    assert not stack.healthy("redis")
    assert not stack.healthy("worker")


def finished(queue: dict[str, Any]) -> dict[str, Any] | None:
    return queue if queue["done"] + queue["failed"] >= URLS else None


def redis_says(stack: Stack, *command: str) -> bytes:
    """The answer to a command, through redis-cli and as the healthcheck asks."""
    host, port = stack.addresses["redis:6379"].split(":")
    return subprocess.run(
        [str(shutil.which("redis-cli", path=PATH)), "-h", host, "-p", port, *command],
        env=stack.environment("redis"),
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    ).stdout

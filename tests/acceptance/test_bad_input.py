"""Whatever is wrong is said in one line that names it, with its own exit code, and never the password."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import Lab
from tests.conftest import DEADLINE, Server, each_server, until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def old_redis() -> Iterator[int]:
    """The port of a server that says it is Redis 5.0.0, and OK to everything else."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while request := connection.recv(4096):
                    info = b"# Server\r\nredis_version:5.0.0\r\n"
                    for command in re.split(rb"(?:^|\r\n)\*\d+\r\n", request)[1:]:
                        connection.sendall(b"$%d\r\n%s\r\n" % (len(info), info) if b"INFO" in command else b"+OK\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    "name", ["work", "status", "health", "dead list", "jobs list", "schedule list", "queue pause q"]
)
def test_ctrl_c_ends_a_command_with_130_and_without_a_word(lab: Lab, name: str) -> None:
    lab.environment["RQ_LITE_APP"] = lab.app
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(DEADLINE)
        lab.environment["RQ_LITE_URL"] = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        process = lab.commands.start(*name.split())
        with silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=DEADLINE) == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (None, 1)], ids=["ctrl-c", "no"])
def test_ctrl_c_at_a_question_is_no_answer(lab: Lab, number: signal.Signals | None, code: int) -> None:
    lab.put("fail", 1)
    lab.drain()
    keyboard, terminal = os.openpty()
    process = lab.commands.start("dead", "purge", "--all", stdin=terminal)
    assert process.stderr is not None
    assert process.stderr.read(5) == "drop "
    if number is None:
        os.write(keyboard, b"n\n")
    while number is not None and process.poll() is None:  # one that comes just before the read is seen after it
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    assert process.wait(DEADLINE) == code
    assert len(lab.dead()) == 1
    for end in (keyboard, terminal):
        os.close(end)


def said(lab: Lab, code: int, *arguments: str) -> str:
    """The one line with which a command that ends with this code says why."""
    ended = lab.commands.run(*arguments)
    assert "Traceback" not in ended.stderr
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("rq-lite: ")
    assert "s3cret" not in line
    return line.removeprefix("rq-lite: ")


def test_a_name_that_is_no_text(lab: Lab) -> None:
    lab.put("do", 1)
    name = os.fsdecode(b"\xff")
    for command in (["jobs", "show"], ["jobs", "cancel"], ["jobs", "retry"], ["schedule", "run"]):
        assert said(lab, 2, *command, name).endswith("\\udcff' is not valid UTF-8")


@pytest.fixture(params=["produce", "work"])
def command(request: pytest.FixtureRequest, lab: Lab) -> list[str]:
    """A command that needs Redis, without the URL."""
    return {"produce": ["produce", "--task", f"{lab.app}:do", "--count", "1"], "work": ["work", lab.app]}[request.param]


def test_redis_that_is_not_there(lab: Lab, command: list[str]) -> None:
    lab.environment["RQ_LITE_PATIENCE"] = "0.1"
    port = free_port()
    line = said(lab, 3, *command, "--url", f"redis://:s3cret@127.0.0.1:{port}/0")
    assert line.startswith(f"Redis at redis://:***@127.0.0.1:{port}/0 cannot be reached: ")


def test_a_socket_that_is_not_there(lab: Lab) -> None:
    lab.environment["RQ_LITE_PATIENCE"] = "0.1"
    line = said(lab, 3, "status", "--url", "unix:///nowhere/redis.sock?password=s3cret")
    assert line.startswith("Redis at unix:///nowhere/redis.sock?password=*** cannot be reached: ")


def test_a_password_in_the_place_of_the_user(lab: Lab, private: Callable[..., Server]) -> None:
    port = free_port()
    private("--port", str(port)).broker().open().read(("CONFIG", "SET", "requirepass", "s3cret"))
    line = said(lab, 3, "status", "--url", f"redis://s3cret@127.0.0.1:{port}")
    assert line.startswith(f"Redis at redis://***@127.0.0.1:{port} refuses the user name or password: ")
    assert line.endswith("; a password alone is written redis://:PASSWORD@host")


def test_a_wrong_password(lab: Lab, private: Callable[..., Server]) -> None:
    port = free_port()
    private("--port", str(port)).broker().open().read(("CONFIG", "SET", "requirepass", "right"))
    put = ("produce", "--task", f"{lab.app}:do", "--count", "1", "--url")
    line = said(lab, 3, *put, f"redis://:s3cret@127.0.0.1:{port}")
    assert line.startswith(f"Redis at redis://:***@127.0.0.1:{port} refuses the user name or password: ")
    assert "refuses the user name or password" in said(lab, 3, *put, f"redis://127.0.0.1:{port}")
    assert lab.commands.run(*put, f"redis://:right@127.0.0.1:{port}").returncode == 0


def test_a_server_that_says_what_it_was_sent(lab: Lab, private: Callable[..., Server]) -> None:
    """One without AUTH does."""
    port = free_port()
    private("--port", str(port), "--rename-command", "AUTH", "")
    for url in (f"redis://:s3cret%2Fhalf@127.0.0.1:{port}", f"redis://127.0.0.1:{port}?password=s3cret/half"):
        line = said(lab, 3, "status", "--url", url)
        assert "unknown command" in line
        assert "'***'" in line or "`***`" in line


@pytest.mark.parametrize("name", ["redis://:s3cret@h/0", "redis://:s3cret@h/0:name"])
def test_a_url_in_the_place_of_an_app(lab: Lab, name: str) -> None:
    ended = lab.commands.run("work", name, "--procs", "1")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "redis://***@h/0" in ended.stderr
    assert "s3cret" not in ended.stderr


UNQUOTED = (
    "redis://[:s3cret@localhost",
    "redis://:s3cret/half@localhost:6379",
    "redis://user:one@s3cret@localhost:port",
    "redis://:123/s3cret@localhost:6379",
    "redis://s3cret/half:b@localhost:6379",
    "redis://s3cret?half=1@localhost:6379",
)


@pytest.mark.parametrize(
    "url",
    [
        "http://:s3cret@localhost",
        "localhost:6379",
        "redis://:s3cret@localhost:port",
        "redis://:s3cret@localhost:6379/?no_such_option=1",
        "redis://user:one:s3cret@localhost:port",
        *UNQUOTED,
    ],
)
def test_a_url_that_cannot_be_one(lab: Lab, url: str) -> None:
    assert said(lab, 2, "status", "--url", url).startswith("Redis URL ")


def test_a_redis_that_is_too_old(lab: Lab, command: list[str], old_redis: int) -> None:
    line = said(lab, 3, *command, "--url", f"redis://127.0.0.1:{old_redis}")
    assert line == f"Redis at redis://127.0.0.1:{old_redis} is version 5.0.0; 6.2 or newer is needed"


def test_what_is_no_redis(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        lab.environment["RQ_LITE_PATIENCE"] = "0.1"
        line = said(lab, 3, "status", "--url", f"redis://127.0.0.1:{port}")
    assert line.startswith(f"Redis at redis://127.0.0.1:{port} ")


def test_a_job_above_max_payload_is_refused_with_its_line(lab: Lab) -> None:
    lab.environment["RQ_LITE_MAX_PAYLOAD"] = "300"
    (lab.folder / "a.txt").write_text("short\n" + "x" * 300 + "\nafter\n")
    ended = lab.produce("do", "a.txt", "--no-progress")
    assert ended.returncode == 1
    assert ended.stderr.startswith("rq-lite: a.txt, line 2: task tests.acceptance.apps.jobs:do: the encoded job has ")
    assert "max_payload is 300" in ended.stderr
    assert lab.arguments() == ["short"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"name":"a"}', "missing a required argument: 'size'"),
        ('{"name":"a","size":1,"more":2}', "got an unexpected keyword argument 'more'"),
        ('["a",1,2]', "too many positional arguments"),
    ],
)
def test_arguments_that_the_task_does_not_take_are_refused_at_put(lab: Lab, line: str, reason: str) -> None:
    (lab.folder / "a.ndjson").write_text(line)
    ended = lab.produce("row", "a.ndjson", "--no-progress")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"rq-lite: a.ndjson, line 1: task {lab.app}:row: {reason}; it takes (name: ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--count", "-1"], "--count must be 0 or more, not -1"),
        (["--count", "1", "--rate", "fast"], "--rate 'fast': say a number"),
        (["--count", "1", "--rate", "0/s"], "--rate '0/s': say a number above 0"),
        (["--count", "1", "--wait", "-1"], "--wait must be 0 or more, not -1"),
        (["--count", "1", "--batch", "0"], "batch must be at least 1, not 0"),
        (["--count", "1", "--batch", "1001"], "batch must be at most 1000, not 1001"),
        (["--count", "1", "--maxsize", "-1"], "maxsize must be at least 0, not -1"),
        (["--count", "1", "a.txt"], "give one of SOURCE, --count and --watch"),
        (["--count", "1", "--resume", "a b"], "feed 'a b': a name has "),
        (["--count", "1", "--encoding", "utf-16"], "--encoding is for SOURCE"),
        (["-", "--encoding", "utf17"], "--encoding 'utf17': Python knows no such encoding"),
        (["-", "--encoding", "cp037"], "--encoding 'cp037' is not supported: convert it first, as in iconv -f cp037"),
        ([], "no source: name a file"),
    ],
)
def test_options_that_cannot_be_right(lab: Lab, arguments: list[str], reason: str) -> None:
    assert said(lab, 2, "produce", "--no-progress", "--task", f"{lab.app}:do", *arguments).startswith(reason)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("tests.acceptance.apps.jobs", "task 'tests.acceptance.apps.jobs': say MODULE:TASK"),
        ("tests.acceptance.apps.jobs:color", "'tests.acceptance.apps.jobs:color' is no task; the tasks there are: "),
        ("no.such:task", "'no.such' cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_task_that_is_none(lab: Lab, task: str, reason: str) -> None:
    assert said(lab, 2, "produce", "--task", task, "--count", "1").startswith(reason)


def test_a_source_that_is_not_there(lab: Lab) -> None:
    put = ("produce", "--task", f"{lab.app}:do")
    assert said(lab, 2, *put, "no\x1b[31m\u202e.txt") == r"no\x1b[31m\u202e.txt: No such file or directory"
    assert said(lab, 2, *put, ".") == ". is a folder, not a file; --watch feeds the packages in a folder"
    (lab.folder / "bad.ndjson").write_text("{")
    assert said(lab, 1, *put, "bad.ndjson").startswith("bad.ndjson, line 1: not JSON")


@each_server
def test_at_maxmemory_puts_fail_and_a_worker_drains_the_queue(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab], program: str
) -> None:
    lab = lab_at(private(program=program))
    lab.put("do", *range(50))
    lab.put("fail", "one")
    lab.put("fail", "two", retries=1)
    lab.broker.read(("CONFIG", "SET", "maxmemory", 1))
    line = said(lab, 3, "produce", "--no-progress", "--task", f"{lab.app}:do", "--count", "1")
    assert "is at its maxmemory" in line
    assert "nothing more was put" in line
    worker = lab.work("--burst")
    assert worker.wait() == 0, worker.said
    assert len(lab.seen("done")) == 50
    assert lab.seen("begun").count("two") == 2
    assert [dead.report["task"] for dead in lab.dead()] == [f"{lab.app}:fail"] * 2
    until(lambda: lab.state().inflight == 0, "nothing in flight")

"""rq-lite status, queue and health, as somebody at a shell meets them."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from rq_lite.admin import operate
from rq_lite.admin import status as inspection
from rq_lite.admin.status import QueueState
from rq_lite.broker import Broker, keys
from rq_lite.cli import status
from rq_lite.client.queue import Queue
from rq_lite.client.task import Task
from rq_lite.process.identity import mine, start_of
from tests.conftest import Commands, until
from tests.faults.proxy import Proxy

# What a terminal understands: another screen, and back; the cursor to its top, and visible again.
ENTER, LEAVE, HOME, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H", "\x1b[?25h"
OTHER_HOST = "elsewhere.0123456789ab:1:1:0123456789abcdef"

APP = """
from rq_lite import Queue
queue = Queue("q", maxsize=10)

@queue.task
def double(n: int) -> int:
    return 2 * n
"""


@pytest.fixture
def task(queue: Queue) -> Task[[int], int]:
    @queue.task(name="app:double")
    def double(n: int) -> int:
        return 2 * n

    return double


def state_of(commands: Commands, queue: str = "q") -> dict[str, Any]:
    result = commands.run("status", "--json", queue)
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)["queues"][queue]
    return found


class Terminal:
    """A command that believes it talks to somebody; `seen` is everything it wrote."""

    def __init__(self, commands: Commands, *arguments: str, columns: int = 150) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        sizeless = {name: value for name, value in commands.environment.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rq_lite", *arguments],
            cwd=commands.folder,
            env={**sizeless, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.seen = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # how Linux says that the other side has closed
            while data := os.read(self._ours, 65_536):
                self.seen += data.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        until(lambda: text in self.seen, f"{text!r} on the terminal")

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        code = self.process.wait(timeout=30)
        self._reader.join(timeout=30)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(timeout=30)
        os.close(self._ours)


@contextlib.contextmanager
def terminal(commands: Commands, *arguments: str, columns: int = 150) -> Iterator[Terminal]:
    made = Terminal(commands, *arguments, columns=columns)
    try:
        yield made
    finally:
        made.close()


# -- status


def test_json_has_every_figure(commands: Commands, task: Task[[int], int]) -> None:
    task.put_many(range(3))
    task.using(delay=3600).put(1)
    found = state_of(commands)
    assert set(found) == set(QueueState.__struct_fields__)
    figures = {name: found[name] for name in ("pending", "scheduled", "inflight", "dead", "done", "failed", "put")}
    assert figures == {"pending": 3, "scheduled": 1, "inflight": 0, "dead": 0, "done": 0, "failed": 0, "put": 4}
    assert (found["maxsize"], found["maxbytes"], found["full"], found["consumers"]) == (10, 0, 0.4, 0)


def test_json_is_one_object_also_where_redis_has_to_be_started(commands: Commands, tmp_path: Path) -> None:
    del commands.environment["RQ_LITE_URL"]
    commands.environment["RQ_LITE_HOME"] = str(tmp_path / "own")
    result = commands.run("status", "--json")
    commands.run("redis", "stop")
    assert (result.returncode, json.loads(result.stdout), result.stderr) == (
        0,
        {"queues": {}, "workers": [], "warnings": []},
        "",
    )


def test_no_queue_is_a_friendly_line(commands: Commands) -> None:
    result = commands.run("status")
    assert result.returncode == 0
    assert result.stdout == status.NO_QUEUE + "\n"


def test_the_table_shows_queues_workers_and_what_to_look_at(
    commands: Commands, task: Task[[int], int], broker: Broker
) -> None:
    task.put_many(range(5))
    operate.pause(broker, "q")
    broker.puts.declare("wide", 0)
    broker.tends.announce("w", {"host": "box", "pid": 77, "queues": "q", "procs": 4, "slots": 200, "since": 1}, 60)
    result = commands.run("status")
    assert result.returncode == 0
    row = next(line.split() for line in result.stdout.splitlines() if line.split()[:1] == ["q"])
    assert row[1:6] == ["5", "0", "0", "0", "10"]
    assert "50%" in row
    assert "4 x 200" in next(line for line in result.stdout.splitlines() if "box" in line)
    assert "! q: paused: nothing is taken" in result.stdout
    assert "! q: jobs wait and no consumer runs" in result.stdout
    assert "! wide: unbounded" in result.stdout


def test_only_the_named_queues_and_their_workers(commands: Commands, broker: Broker) -> None:
    for name in ("a", "b"):
        broker.puts.declare(name)
        facts: dict[str, str | int] = {"host": f"serves-{name}", "pid": 1, "queues": name}
        broker.tends.announce(name, facts, 60)
    shown = commands.run("status", "b").stdout
    assert "serves-b" in shown
    assert "serves-a" not in shown
    assert list(json.loads(commands.run("status", "--json", "b").stdout)["queues"]) == ["b"]


def test_names_of_others_cannot_write_on_the_terminal(commands: Commands, broker: Broker) -> None:
    broker.puts.declare("q")
    evil = "[red]\x1b[2J\u202e\r\nfake\x9b\u2028"
    broker.read(("HSET", keys.of("q").meta, f"unknown:{evil}", "1 [bold]w\x07", "parked", 1))
    # A name that was cut in the middle of a character, as the script does with long ones.
    broker.read(("HSET", keys.of("q").meta, b"unknown:\xc3", "1 w"))
    broker.tends.announce("w", {"host": evil, "pid": evil, "queues": f"q,{evil}"}, 60)
    broker.read(("SADD", keys.QUEUES, "no {queue} \x1b[2J"))
    for arguments in (["status"], ["status", "q"]):
        shown = commands.run(*arguments)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "[red]" in shown.stdout
        assert r"\x1b[2J\u202e\r\nfake\x9b\u2028" in shown.stdout
        assert "[bold]w" in shown.stdout
        assert not {"\x1b", "\x07", "\r", "\u202e", "\x9b", "\u2028"} & set(shown.stdout)
        assert "no {queue}" not in shown.stdout
    as_json = commands.run("status", "--json").stdout
    assert as_json.isascii()
    assert as_json.removesuffix("\n").isprintable()
    tasks = [found["task"] for found in state_of(commands)["unknown_tasks"]]
    assert sorted(tasks) == [evil, "\ufffd"]


def drawn(seen: status.Look, room: int | None, **options: Any) -> str:
    console = Console(width=room or 500, file=io.StringIO(), **options)
    console.print(status.view(seen, room))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def seen(broker: Broker, task: Task[[int], int]) -> status.Look:
    """One queue with large numbers, and a worker."""
    task.put_many(range(3))
    state = msgspec.structs.replace(
        inspection.states(broker, ["q"])["q"], done=1_234_567_890, parked=2, dead=7, failed=9, oldest_waiting=42.0
    )
    worker = inspection.worker_state(100.0, [b"host", b"box", b"pid", b"77", b"queues", b"q", b"since", b"58"])
    return status.Look({"q": state}, [worker])


@pytest.mark.parametrize(
    ("room", "headings"),
    [
        (None, "queue pending scheduled parked in flight dead bound full done failed jobs/s consumers oldest"),
        (80, "queue pending scheduled parked in flight dead full failed jobs/s"),
        (36, "queue pending in flight dead"),
    ],
)
def test_a_narrow_terminal_gets_a_table_of_fewer_columns(seen: status.Look, room: int | None, headings: str) -> None:
    heading, rule, row, *_ = drawn(seen, room).splitlines()
    assert heading.split() == headings.split()
    assert set(rule.strip()) == {"─"}
    assert len(rule) <= (room or 500)
    assert ("1,234,567,890" in row.split()) == ("done" in headings)
    assert row.split()[:2] == ["q", "3"]


def test_parked_jobs_have_a_column_if_there_are_any(seen: status.Look) -> None:
    state = msgspec.structs.replace(seen.queues["q"], parked=0)
    assert "parked" not in drawn(status.Look({"q": state}, []), None)


def test_dead_and_failed_are_red_unless_there_are_none_or_no_color_is_wanted(
    seen: status.Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"force_terminal": True, "color_system": "standard"}
    red = "\x1b[31m"
    assert re.findall(r"\x1b\[31m *(\S+)\x1b", drawn(seen, 200, **options)) == ["7", "9"]
    healthy = status.Look({"q": msgspec.structs.replace(seen.queues["q"], dead=0, failed=0, parked=0)}, [])
    assert red not in drawn(healthy, 200, **options)
    monkeypatch.setenv("NO_COLOR", "1")
    assert red not in drawn(seen, 200, **options)


def test_ages_go_on_between_two_looks(seen: status.Look) -> None:
    progress = [inspection.Underway("id", "t", 1, 2, "", 5.0)]
    look = seen._replace(queues={"q": msgspec.structs.replace(seen.queues["q"], progress=progress)})
    shown = drawn(status.aged(look, 2.0), 200)
    assert ("44 s" in shown, "(7 s ago)" in shown) == (True, True)
    assert "has not answered" not in shown
    assert "! redis has not answered for 9 s" in drawn(status.aged(look, 9.0), 200)


def test_watch_on_a_pipe_is_a_line_a_second_until_ctrl_c(commands: Commands, task: Task[[int], int]) -> None:
    process = commands.start("status", "--watch")
    assert process.stdout is not None
    assert " q: 0 pending" in process.stdout.readline()
    task.put(1)
    until(lambda: " q: 1 pending" in (process.stdout.readline() if process.stdout else ""), "the job is shown")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_watch_fills_another_screen_and_gives_the_old_one_back(
    commands: Commands, task: Task[[int], int], number: signal.Signals, code: int
) -> None:
    with terminal(commands, "status", "--watch") as shown:
        shown.wait_for("jobs/s")
        task.put_many(range(7))
        shown.wait_for("70%")
        shown.process.send_signal(number)  # the terminal is not the one that controls it
        assert shown.end() == code
        assert shown.seen.startswith(ENTER)
        assert shown.seen.rstrip().endswith(SHOW_CURSOR + LEAVE)
        assert (shown.seen.count(ENTER), shown.seen.count(LEAVE)) == (1, 1)
        assert "Traceback" not in shown.seen


def test_watch_fills_a_terminal_of_another_size_from_its_top(commands: Commands, task: Task[[int], int]) -> None:
    task.put_many(range(3))
    with terminal(commands, "status", "--watch", columns=150) as shown:
        shown.wait_for("consumers")
        shown.resize(40, 6)
        until(lambda: len(picture(shown.seen)) == 6, "the view has as many lines as the terminal")
        assert picture(shown.seen)[0].split() == ["queue", "pending", "in", "flight", "dead", "full"]
        assert all(len(line) <= 40 for line in picture(shown.seen))
        assert "more lines" in picture(shown.seen)[-1]
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == 0


def test_watch_says_that_redis_does_not_answer_and_nothing_shifts_the_view(
    commands: Commands, proxy: Proxy, queue: Queue
) -> None:
    commands.environment["RQ_LITE_URL"] = proxy.url
    with terminal(commands, "status", "--watch") as shown:
        shown.wait_for("jobs/s")
        with proxy.freeze():
            shown.wait_for("! redis has not answered for 7 s")
            assert "cannot be reached" not in shown.seen
        until(lambda: "has not answered" not in picture(shown.seen)[-1], "it goes on")
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == 0
    assert queue.name == "q"


def test_watch_that_is_stopped_gives_the_old_screen_back_meanwhile(commands: Commands, queue: Queue) -> None:
    with terminal(commands, "status", "--watch") as shown:
        shown.wait_for("jobs/s")
        shown.process.send_signal(signal.SIGTSTP)
        shown.wait_for(LEAVE)
        # It stops a moment after it has written that: what woke it before would be lost.
        stat = Path(f"/proc/{shown.process.pid}/stat")
        until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it has stopped")
        shown.process.send_signal(signal.SIGCONT)
        until(lambda: shown.seen.count(ENTER) == 2, "it goes on")
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == 0
    assert queue.name == "q"


def picture(seen: str) -> list[str]:
    """The lines of the last whole view, without codes."""
    *_, last, _ = seen.split(HOME)
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip("\r") for line in last.split("\n")]


def test_watch_with_json_is_an_object_a_line(commands: Commands, queue: Queue) -> None:
    process = commands.start("status", "--watch", "--json")
    assert process.stdout is not None
    for _ in range(2):
        assert list(json.loads(process.stdout.readline())["queues"]) == [queue.name]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


# -- queue


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "typo"],
        ["status", "--json", "q", "typo"],
        ["queue", "set", "typo", "--maxsize", "1"],
        ["queue", "pause", "typo"],
        ["queue", "resume", "typo"],
        ["queue", "purge", "typo", "--yes"],
    ],
    ids=" ".join,
)
def test_an_unknown_queue_is_refused_and_not_made(commands: Commands, broker: Broker, arguments: list[str]) -> None:
    for name in ("mails", "q"):
        broker.puts.declare(name)
    result = commands.run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "rq-lite: unknown queue 'typo'; known queues: mails, q\n"
    assert broker.read(("KEYS", "*typo*"))[0] == []


def test_set_changes_the_bound_for_everybody(commands: Commands, task: Task[[int], int], queue: Queue) -> None:
    task.put_many(range(10))
    assert queue.full()
    result = commands.run("queue", "set", "q", "--maxsize", "20", "--maxbytes", "100000")
    assert (result.returncode, result.stdout) == (0, "queue 'q': 20 jobs, 100,000 bytes; 10 jobs waiting\n")
    assert not queue.full()
    found = state_of(commands)
    assert (found["maxsize"], found["maxbytes"]) == (20, 100_000)
    assert commands.run("queue", "set", "q", "--maxsize", "0").stdout.startswith("queue 'q': no bound in jobs, 100,000")


def test_set_wakes_a_producer_that_waits(commands: Commands, task: Task[[int], int], broker: Broker) -> None:
    task.put_many(range(10))
    waiter = threading.Thread(target=task.put, args=(11,))
    waiter.start()
    until(lambda: broker.read(("HEXISTS", keys.of("q").meta, "wanted"))[0], "the producer waits")
    assert commands.run("queue", "set", "q", "--maxsize", "11").returncode == 0
    waiter.join(timeout=30)
    assert not waiter.is_alive()
    assert state_of(commands)["pending"] == 11


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to set"),
        (["--maxsize", "-3"], "--maxsize must be 0 (no bound) to"),
        (["--maxbytes", "-1"], "--maxbytes must be 0 (no bound) to"),
        (["--maxsize", str(10**18)], "--maxsize must be 0 (no bound) to"),
    ],
)
def test_set_refuses_what_cannot_be(commands: Commands, queue: Queue, options: list[str], said: str) -> None:
    result = commands.run("queue", "set", "q", *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"rq-lite: {said}")
    assert result.stderr.count("\n") == 1
    assert queue.declare() == (10, 0)


def test_pause_and_resume(commands: Commands, queue: Queue) -> None:
    for command, said, paused in (
        ("pause", "queue 'q' is paused; 0 jobs waiting\n", True),
        ("pause", "queue 'q' is paused; 0 jobs waiting\n", True),
        ("resume", "queue 'q' is not paused; 0 jobs waiting\n", False),
    ):
        result = commands.run("queue", command, queue.name)
        assert (result.returncode, result.stdout) == (0, said)
        assert state_of(commands)["paused"] is paused


def test_purge_with_yes(commands: Commands, task: Task[[int], int]) -> None:
    task.put_many(range(3))
    task.using(delay=3600).put(1)
    result = commands.run("queue", "purge", "q", "--yes")
    assert (result.returncode, result.stdout) == (0, "queue 'q': 4 jobs dropped\n")
    assert state_of(commands)["purged"] == 4


def test_purge_refuses_without_anybody_to_ask(commands: Commands, task: Task[[int], int]) -> None:
    task.put(1)
    result = commands.run("queue", "purge", "q", stdin="y\n")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--yes" in result.stderr
    assert state_of(commands)["pending"] == 1


@pytest.mark.parametrize(("answer", "left", "code"), [("y", 0, 0), ("n", 3, 1), ("", 3, 1)])
def test_purge_asks_naming_how_many(
    commands: Commands, task: Task[[int], int], answer: str, left: int, code: int
) -> None:
    task.put_many(range(3))
    with terminal(commands, "queue", "purge", "q") as shown:
        shown.wait_for("queue 'q': drop 3 jobs for good? [y/N]")
        shown.type(answer + "\n")
        assert shown.end() == code
    assert state_of(commands)["pending"] == left


# -- health


def test_health_follows_the_worker(commands: Commands, tmp_path: Path, queue: Queue) -> None:
    before = commands.run("health")
    assert (before.returncode, before.stderr) == (1, "rq-lite: no consumer on this host serves a queue\n")
    (tmp_path / "app.py").write_text(APP)
    worker = commands.start("work", "app", "--procs", "1", "--greenlets", "2")
    until(lambda: commands.run("health").returncode == 0, "the worker is healthy")
    assert commands.run("health").stdout == "1 consumer on this host\n"
    worker.terminate()
    worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert commands.run("health").returncode == 1
    assert queue.name == "q"


def test_health_tells_this_host_from_others(commands: Commands, broker: Broker, queue: Queue) -> None:
    broker.takes.register("q", OTHER_HOST)
    assert commands.run("health").returncode == 1
    anywhere = commands.run("health", "--any")
    assert (anywhere.returncode, anywhere.stdout) == (0, "1 consumer on any host\n")
    broker.takes.register(queue.name, str(mine()))
    assert commands.run("health").returncode == 0


def test_a_lease_that_ended_is_no_health(commands: Commands, broker: Broker, queue: Queue) -> None:
    broker.takes.register(queue.name, str(mine()))
    broker.read(
        ("ZADD", keys.of("q").consumers, 1, str(mine())), ("ZREMRANGEBYSCORE", keys.of("q").consumers, 2, "inf")
    )
    assert commands.run("health", "--any").returncode == 1


def test_what_was_killed_here_counts_as_dead_though_its_lease_goes_on(
    commands: Commands, broker: Broker, queue: Queue
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    alive = str(mine()._replace(pid=child.pid, start=start_of(child.pid) or ""))
    broker.takes.register("q", alive)
    # It knows of a trouble that would make its host unhealthy.
    facts: dict[str, str | int] = {"host": "here", "pid": child.pid, "queues": "q", "idle": 1, "trouble": "it idles"}
    broker.tends.announce(alive, {**facts, "idle": 0}, 60)
    assert commands.run("health").returncode == 0
    assert inspection.signs_of_life(broker, "q")[0] == state_of(commands)["consumers"] == 1
    broker.tends.announce(alive, facts, 60)
    child.communicate()
    assert commands.run("health", "--any").stderr == "rq-lite: no consumer on any host serves a queue\n"
    assert inspection.workers(broker) == []
    assert inspection.signs_of_life(broker, "q")[0] == state_of(commands)["consumers"] == 0
    successor = str(mine())
    broker.takes.register("q", successor)
    broker.tends.announce(successor, {**facts, "pid": os.getpid(), "idle": 0, "trouble": ""}, 60)
    assert [worker.pid for worker in inspection.workers(broker)] == [str(os.getpid())]
    assert commands.run("health").stdout == "1 consumer on this host\n"
    broker.tends.unannounce(alive)
    broker.tends.reclaim("q", alive, certain=True)


def test_health_is_bad_without_redis(commands: Commands, tmp_path: Path) -> None:
    away = commands.run("health", "--url", f"unix://{tmp_path}/nothing.sock")
    assert away.returncode == 1
    assert away.stderr.count("\n") == 1
    assert "cannot be reached" in away.stderr


def test_health_starts_no_embedded_redis(commands: Commands, tmp_path: Path) -> None:
    home = tmp_path / "untouched"
    del commands.environment["RQ_LITE_URL"]
    commands.environment["RQ_LITE_HOME"] = str(home)
    result = commands.run("health")
    assert (result.returncode, result.stderr) == (1, "rq-lite: the embedded Redis is not running\n")
    assert not home.exists()


def test_health_is_a_command_that_help_names(commands: Commands) -> None:
    assert "health" in commands.run("--help").stdout

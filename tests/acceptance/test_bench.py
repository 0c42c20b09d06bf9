"""`rq-lite bench` as a process: its figures, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from rq_lite.broker import Broker
from rq_lite.chaos import command as bench
from rq_lite.chaos.check import check
from rq_lite.chaos.command import Report
from rq_lite.chaos.run import DEMANDS
from rq_lite.cli import cli
from rq_lite.model.message import VERSION, Message, decode, encode
from rq_lite.redis_url import with_database
from tests.acceptance.test_status import terminal
from tests.conftest import DURABLE, Commands, Server, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")

DB = 15  # unless it is told otherwise
SMALL = ["--jobs", "2000", "--procs", "2", "--greenlets", "10"]
ENDLESS = ["--jobs", "100000000", "--procs", "2", "--greenlets", "10"]


@pytest.fixture
def alone(commands: Commands) -> Commands:
    """Commands that no Redis is named to."""
    del commands.environment["RQ_LITE_URL"]
    # A run that is killed cannot remove its temporary folder.
    commands.environment["TMPDIR"] = str(commands.folder)
    return commands


@pytest.fixture
def database(server: Server, broker: Broker) -> Iterator[Broker]:
    """The database that a run is given."""
    made = Broker(with_database(server.url, DB), settings=broker.settings).open()
    yield made
    made.close()


def keys_in(database: Broker) -> list[bytes]:
    return sorted(database.read(("KEYS", "*"))[0])


def processes(commands: Commands) -> dict[int, str]:
    """The command lines of all that were started with this test's environment, by pid."""
    mark = f"RQ_LITE_HOME={commands.environment['RQ_LITE_HOME']}".encode()
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (place / "environ").read_bytes().split(b"\0"):
                found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def report_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# -- a Redis of its own


def test_without_faults_nothing_runs_twice(alone: Commands) -> None:
    result = alone.run("bench", *SMALL, "--json")
    found = report_of(result)
    assert result.stderr == ""
    assert found.pop("jobs_per_second") > 0
    assert type(found.pop("seed")) is int
    assert found == {
        "jobs": 2000, "lost": 0, "run_twice": 0, "run_twice_allowed": 0, "accepted_twice": 0, "buried": 0,
        "recover_seconds": [], "kills": 0, "restarts": 0, "violations": [],
    }  # fmt: skip
    until(lambda: processes(alone) == {}, "nothing of it is left")


def test_under_faults_every_promise_is_kept_and_the_history_shows_it(alone: Commands, tmp_path: Path) -> None:
    faults = ["--chaos", "kill,redis-restart", "--kills", "3", "--restarts", "1"]
    result = alone.run("bench", *SMALL, *faults, "--seed", "4", "--keep", str(tmp_path / "kept"))
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith(
        "seed 4: 2,000 jobs on 2 × 10 greenlets; 3 × kill of a consumer or supervisor, 1 × restart of Redis\n"
    )
    assert "lost            0\n" in result.stdout
    assert "every promise was kept; seed 4\n" in result.stdout
    verdict = check(tmp_path / "kept", DEMANDS)
    assert (verdict.violations, verdict.faults) == ((), 4)
    assert verdict.put + verdict.recovered == verdict.distinct >= 2000
    until(lambda: processes(alone) == {}, "nothing of it is left")


# -- a Redis that was named


def test_an_empty_database_is_left_as_empty(commands: Commands, database: Broker) -> None:
    found = report_of(commands.run("bench", *SMALL, "--yes", "--json", "--chaos", "kill", "--kills", "2"))
    assert (found["jobs"], found["lost"], found["kills"], found["violations"]) == (2000, 0, 2, [])
    assert keys_in(database) == []
    assert database.read(("INFO", "keyspace"))[0].count(b"db") == 0


def test_another_database_is_used_if_it_is_said(commands: Commands, database: Broker) -> None:
    database.read(("SET", "mine", 1))
    assert report_of(commands.run("bench", *SMALL, "--yes", "--json", "--db", "9"))["lost"] == 0
    assert keys_in(database) == [b"mine"]


def test_a_database_with_something_in_it_is_refused(commands: Commands, database: Broker) -> None:
    database.read(("SET", "mine", 1))
    result = commands.run("bench", *SMALL, "--yes")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"database {DB} of Redis at " in result.stderr
    assert "holds 1 key," in result.stderr
    assert "--db N" in result.stderr
    assert keys_in(database) == [b"mine"]


def test_what_others_put_there_meanwhile_stays(commands: Commands, database: Broker) -> None:
    process = commands.start("bench", *ENDLESS, "--yes")
    until(lambda: keys_in(database), "it has begun")
    database.read(("SET", "mine", 1))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert keys_in(database) == [b"mine"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "bench asks before it writes, and there is no terminal to ask on: say --yes"),
        (["--yes", "--chaos", "redis-restart"], "say --restart-command 'systemctl restart redis'"),
        (["--yes", "--chaos", "kill,earthquake"], "'earthquake' is not one of kill, redis-restart"),
        (["--yes", "--kills", "3"], "--kills needs faults to count: say --chaos kill too"),
        (["--yes", "--restarts", "3", "--chaos", "kill"], "say --chaos redis-restart too"),
        (["--yes", "--keep", "."], "it has a history already"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_written(
    commands: Commands, database: Broker, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "producer.jsonl").touch()
    result = commands.run("bench", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert keys_in(database) == []


def test_it_asks_and_takes_no_for_an_answer(commands: Commands, database: Broker) -> None:
    with terminal(commands, "bench", *SMALL, columns=400) as shown:
        shown.wait_for(f"database {DB} (empty): put 2,000 jobs on a queue 'chaos', run them here, remove what is left")
        shown.type("n\n")
        assert shown.end() == 1
    assert keys_in(database) == []


# -- restarts by a command


def script(folder: Path, text: str) -> str:
    file = folder / "restart.sh"
    file.write_text(f"#!/bin/sh\nset -e\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return shlex.quote(str(file))


def test_the_users_command_restarts_redis(commands: Commands, private: Callable[..., Server], tmp_path: Path) -> None:
    server = private(*DURABLE, "--pidfile", str(tmp_path / "pid"))
    again = [server.program, "--port", "0", "--unixsocket", server.socket, "--dir", str(server.folder)]
    again += ["--save", "", *DURABLE, "--daemonize", "yes", "--pidfile", str(tmp_path / "pid")]
    # A killed server's pid is there until it was waited for, and so is its socket: the new one replaces that.
    command = script(tmp_path, f"kill -9 $(cat {tmp_path / 'pid'})\n{shlex.join(again)}")
    (tmp_path / "pid").write_text(str(server.process.pid if server.process else 0))
    options = ["--chaos", "redis-restart", "--restarts", "2", "--restart-command", command]
    try:
        found = report_of(commands.run("bench", *SMALL, "--yes", "--json", "--url", server.url, *options))
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (found["restarts"], found["lost"], found["violations"]) == (2, 0, [])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("true", "'true' has not restarted Redis at "),
        ("echo no such unit; exit 5", "exit code 5 and said: no such unit"),
    ],
)
def test_a_command_that_restarts_nothing_is_reported(
    commands: Commands, database: Broker, command: str, said: str
) -> None:
    result = commands.run(
        "bench", *SMALL, "--yes", "--chaos", "redis-restart", "--restarts", "1", "--restart-command", command
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert said in result.stderr
    assert keys_in(database) == []
    until(lambda: processes(commands) == {}, "nothing of it is left")


# -- what it finds


@pytest.mark.parametrize(
    ("copies", "kind", "figures"),
    [
        (0, "I1 LOST: ", {"lost": 1, "accepted_twice": 0, "run_twice": 0}),
        (2, "I5 DOUBLED ACCEPTANCE: ", {"lost": 0, "accepted_twice": 1, "run_twice": 1}),
    ],
    ids=["stolen", "copied"],
)
def test_a_job_that_was_tampered_with_is_found(
    commands: Commands, database: Broker, copies: int, kind: str, figures: dict[str, int]
) -> None:
    process = commands.start("bench", "--jobs", "20000", "--procs", "2", "--greenlets", "10", "--yes", "--json")
    entry = until(lambda: database.read(("RPOP", "rq:{chaos}:pending"))[0], "a job waits")
    database.read(*[("LPUSH", "rq:{chaos}:pending", entry)] * copies, ("SET", "rq:{chaos}:unique:k", "e|no-job"))
    foreign = encode(Message(VERSION, "foreign", "rq_lite.chaos.app:follow", [decode(entry)[0].id, 1]))
    database.read(("LPUSH", "rq:{chaos}:pending", foreign))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")
    found = json.loads(out)
    assert {name: found[name] for name in figures} == figures
    assert any(text.startswith(kind) and decode(entry)[0].id in text for text in found["violations"])
    kinds = {text.partition(":")[0] for text in found["violations"]}
    assert {"I14 LOCK WITHOUT ITS JOB", "I16 FOLLOWS NOTHING"} <= kinds
    # Where one was stolen, the foreign one makes up for it in the sums.
    assert ("I15 ENDED TWICE" in kinds) == (copies > 0)


def test_a_part_that_dies_by_itself_is_reported(commands: Commands, database: Broker) -> None:
    process = commands.start("bench", *ENDLESS, "--yes")
    producers = until(
        lambda: [pid for pid, command in processes(commands).items() if "rq_lite.chaos.producer" in command],
        "there are producers",
    )
    os.kill(producers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert re.search(r"the producer-[12] was killed by signal 9", err)
    assert keys_in(database) == []
    until(lambda: processes(commands) == {}, "nothing of it is left")


# -- its end


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_everything(commands: Commands, database: Broker, number: signal.Signals, code: int) -> None:
    process = commands.start("bench", *ENDLESS, "--yes")
    until(lambda: int(database.read(("HGET", "rq:{chaos}:meta", "done"))[0] or 0) > 0, "jobs are done")
    assert len(processes(commands)) > 4  # itself, producers, workers, consumers
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert f"interrupted by {number.name}" in err
    assert "Traceback" not in err
    assert keys_in(database) == []
    until(lambda: processes(commands) == {}, "nothing of it is left")


def test_a_signal_is_heard_also_while_redis_is_gone(commands: Commands, private: Callable[..., Server]) -> None:
    server = private()
    process = commands.start("bench", *ENDLESS, "--yes", "--url", server.url)
    until(lambda: len(processes(commands)) > 6, "everything has begun")
    server.kill()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the run's keys are left there: Redis at " in err
    until(lambda: processes(commands) == {}, "nothing of it is left")


def test_its_processes_end_also_when_it_is_killed(alone: Commands) -> None:
    process = alone.start("bench", *ENDLESS)
    until(lambda: len(processes(alone)) > 6, "everything has begun")
    process.kill()
    process.communicate(timeout=60)
    until(lambda: processes(alone) == {}, "nothing of it is left")


# -- what it says

KEPT = Report(
    jobs=10, jobs_per_second=5.0, lost=0, run_twice=0, run_twice_allowed=0, accepted_twice=0, buried=0,
    recover_seconds=[], kills=0, restarts=0, seed=1, violations=[],
)  # fmt: skip


def test_broken_promises_are_told_and_make_the_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = msgspec.structs.replace(
        KEPT, lost=30, violations=[f"I1 LOST: job {n}" for n in range(30)], recover_seconds=[1.0, None, 3.0]
    )
    text = bench.told(broken)
    assert "lost            30\n" in text
    assert "BROKEN; seed 1\n" in text
    assert "I1 LOST: job 19\n    and 10 more" in text
    assert "after 3.00 s (median), never after at least one fault" in text
    monkeypatch.setattr(bench, "run", lambda *_: None)
    monkeypatch.setattr(bench, "judged", lambda *_: broken)
    monkeypatch.delenv("RQ_LITE_URL", raising=False)
    result = CliRunner().invoke(cli, ["bench", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["recover_seconds"] == [1.0, None, 3.0]


def test_what_was_kept_is_told() -> None:
    text = bench.told(msgspec.structs.replace(KEPT, buried=1, recover_seconds=[0.5, 1.5]))
    assert "buried          1 (three consumers were killed" in text
    assert "after 1.00 s (median), 1.50 s (longest)" in text
    assert "every promise was kept; seed 1" in text

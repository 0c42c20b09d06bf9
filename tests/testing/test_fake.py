"""The fake Redis of rq_lite.testing: one within this process, on a port; tests/broker/test_walk.py compares it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from rq_lite import Queue, UsageError
from rq_lite.client.defaults import defaults
from rq_lite.testing import fake, put_jobs
from tests.conftest import ROOT, until, with_fakeredis
from tests.steps import blocked

pytestmark = with_fakeredis


def serving() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "rq-lite fake"]


def test_for_the_time_of_a_block_it_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_LITE_URL", "redis://127.0.0.1:1")
    before = defaults.use(None)
    try:
        queue = Queue("fake", maxsize=3)
        with fake(maxsize=7, secret="a secret for this test") as broker:
            assert queue.broker is broker
            assert (queue.sender.settings.wait, queue.sender.settings.maxsize, bool(queue.sender.seal)) == (
                5.0,
                7,
                True,
            )
            assert os.environ["RQ_LITE_URL"] == broker.url
            queue.put_many(["a", "b", "c"])
            assert queue.full()
            assert [queue.get(), queue.get_nowait()] == ["a", "b"]
        assert os.environ["RQ_LITE_URL"] == "redis://127.0.0.1:1"
        assert defaults.broker.shown == "redis://127.0.0.1:1"
        assert (queue.sender.settings.wait, bool(queue.sender.seal)) == (600, False)
        assert serving() == []
        with pytest.raises(redis.ConnectionError):
            broker.core.link().call("PING")
    finally:
        defaults.use(*before)


def test_two_at_once_know_nothing_of_each_other() -> None:
    queue = Queue("fake", maxsize=3)
    with fake() as outer:
        queue.put("outer")
        with fake() as inner:
            assert queue.broker is inner is not outer
            assert queue.empty()
            queue.put_many(["inner"] * 2)
            assert (queue.qsize(), Queue("fake", broker=outer).qsize()) == (2, 1)
        assert queue.broker is outer
        assert queue.get_nowait() == "outer"
    with fake():
        assert put_jobs(queue) == []


@fake()
def fails() -> None:
    raise ZeroDivisionError


def test_it_is_gone_after_an_error_too() -> None:
    for _ in range(2):
        before = os.environ.get("RQ_LITE_URL")
        with pytest.raises(ZeroDivisionError):
            fails()
        assert os.environ.get("RQ_LITE_URL") == before
        assert serving() == []


def test_a_wait_is_ended_by_another_connection_and_with_the_block() -> None:
    queue = Queue("fake")
    with ThreadPoolExecutor(1) as pool:
        with fake() as broker:
            got = pool.submit(queue.get, timeout=30)
            until(lambda: blocked(broker) == 2, "it waits, and the alarm")
            queue.put("item")
            assert got.result(10) == "item"
            link = broker.link()
            lost = pool.submit(link.call, "BRPOP", "a", "b", 1000)
            until(lambda: blocked(broker) == 2, "it waits, and the alarm")
            began = time.monotonic()
        assert time.monotonic() - began < 30
        assert isinstance(lost.exception(10), redis.ConnectionError)
    assert serving() == []


def test_a_client_that_has_gone_takes_nothing() -> None:
    with fake() as broker, ThreadPoolExecutor(1) as pool:
        link = broker.link()
        lost = pool.submit(link.call, "BRPOP", "list", 1000)
        until(lambda: blocked(broker), "it waits")
        link.drop()
        assert isinstance(lost.exception(10), redis.ConnectionError)
        broker.read(("LPUSH", "list", "token"))
        until(lambda: not blocked(broker), "it has noticed")
        assert broker.read(("LLEN", "list")) == [1]


def test_a_large_answer_comes_whole() -> None:
    text = os.urandom(1000) * 20_000
    with fake() as broker:
        link = broker.link()
        link.call("SET", "large", text)
        assert link.pipe([("GET", "large"), ("STRLEN", "large")]) == [text, len(text)]
        link.close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("HGET", "text", "field"), "^WRONGTYPE Operation"),
        (("NO", "such"), "^unknown command"),
        (("EVAL", "error('one\\ntwo')", 0), "one two"),
        (("EVALSHA", "0" * 40, 0), "^No matching script"),
    ],
)
def test_an_error_is_said_as_a_server_says_it(command: tuple[str, ...], said: str) -> None:
    with fake() as broker:
        link = broker.link()
        link.call("SET", "text", "x")
        with pytest.raises(redis.ResponseError, match=said):
            link.call(*command)
        assert link.call("GET", "text") == b"x"
        link.close()


def test_the_url_is_its_own() -> None:
    with pytest.raises(UsageError, match=r"fake\(\) makes a Redis of its own, url cannot be chosen"), fake(url="x"):
        pytest.fail("it began")


@pytest.mark.parametrize("package", ["fakeredis", "lupa"])
def test_without_fakeredis_it_says_what_to_install(package: str) -> None:
    program = f"import sys; sys.modules['{package}'] = None\nfrom rq_lite.testing import fake\nwith fake(): pass"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "UsageError: fake() needs fakeredis (" in done.stderr
    assert "pip install 'fakeredis[lua]'" in done.stderr


PATCHED = """
from gevent import monkey; monkey.patch_all()
import gevent
from rq_lite import Queue
from rq_lite.testing import fake

queue = Queue("fake")
with fake():
    got = [gevent.spawn(queue.get, timeout=30) for _ in range(3)]
    gevent.sleep(0.1)
    queue.put_many(range(3))
    print(sorted(one.get(timeout=30) for one in got))
"""


def test_it_serves_a_process_that_gevent_has_patched() -> None:
    done = subprocess.run([sys.executable, "-c", PATCHED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[0, 1, 2]\n"), done.stderr

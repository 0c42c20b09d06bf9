"""RQ and rq_lite in one database: each runs its jobs and lists its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from rq_lite.admin import operate, status
from rq_lite.broker import keys
from rq_lite.cli import cli
from tests.acceptance.conftest import APP, Lab
from tests.conftest import undocumented, until

rq = pytest.importorskip("rq")
redis = pytest.importorskip("redis")


def for_rq(lab: Lab) -> str:
    """The URL for redis-py's own client: with protocol 3 release 8.0.0 connects to no Unix socket."""
    return lab.environment["RQ_LITE_URL"] + "?protocol=2"


@pytest.fixture
def theirs(lab: Lab) -> Iterator[Any]:
    """RQ's client of the same database. Its workers set signal handlers, which go with the test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with redis.Redis.from_url(for_rq(lab)) as client:
        yield client
        client.flushall()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def info(lab: Lab) -> list[str]:
    """What `rq info` says, line by line."""
    command = [sys.executable, "-m", "rq.cli", "info", "--raw", "--url", for_rq(lab)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def said(lab: Lab, *arguments: str) -> str:
    """What one of our commands says, in this process."""
    done = CliRunner().invoke(cli, arguments, env=lab.environment)
    assert done.exception is None, done.output
    return done.stdout


def test_both_put_run_and_list_only_their_own(lab: Lab, theirs: Any) -> None:
    their_queue = rq.Queue("reports", connection=theirs)
    job = their_queue.enqueue("operator.add", 40, 2)
    lab.put("do", "ours")
    lab.broker.puts.declare("high")
    operate.pause(lab.broker, "high")
    lab.put("do_high", "waits", queue="high")
    lab.broker.plans.plan("nightly", b"", b"{}", 1 << 50)
    worker = lab.work("-q", "work", "-q", "high")
    lab.until_seen("done", 1)
    until(lambda: status.workers(lab.broker), "our worker is announced")
    their_worker = rq.SimpleWorker([their_queue], connection=theirs)
    their_worker.register_birth()

    assert [queue.name for queue in rq.Queue.all(connection=theirs)] == ["reports"]
    assert [one.name for one in rq.Worker.all(connection=theirs)] == [their_worker.name]
    queues, workers = ([line for line in info(lab) if line.startswith(kind)] for kind in ("queue", "worker"))
    assert [line.split()[:2] for line in queues] == [["queue", "reports"]]
    assert [line.split()[:2] for line in workers] == [["worker", their_worker.name]]

    state = json.loads(said(lab, "status", "--json"))
    assert (sorted(state["queues"]), len(state["workers"]), state["warnings"]) == (["high", "work"], 1, [])
    assert said(lab, "health") == "1 consumer on this host\n"
    (line,) = said(lab, "jobs", "list").splitlines()
    assert line.split("\t")[1:3] == ["high", f"{APP}:do_high"]
    refused = CliRunner().invoke(cli, ["queue", "pause", "reports"], env=lab.environment)
    assert str(refused.exception) == "unknown queue 'reports'; known queues: high, work"

    their_worker.register_death()
    assert rq.SimpleWorker([their_queue], connection=theirs).work(burst=True)
    assert job.return_value() == 42
    lab.put("do", "ours again")
    lab.until_seen("done", 2)
    assert worker.stop() == 0
    assert lab.seen("done") == ["ours", "ours again"]
    assert "rq:queues" not in worker.said  # no false alarm about keys of an older rq_lite
    assert undocumented(lab.broker, *keys.OURS) == []


def test_a_worker_says_once_that_an_older_version_has_left_keys(lab: Lab, theirs: Any) -> None:
    theirs.sadd("rq:queues", "pages")
    # Its consumers and engines do not say it again, though an engine puts.
    lab.put("spread_process", 3, app="tests.acceptance.apps.cpu")
    worker = lab.work("--burst", app="tests.acceptance.apps.cpu", procs=2)
    assert worker.wait() == 0
    assert lab.state().done == 4
    assert worker.said.count("rq:queues with pages") == 1

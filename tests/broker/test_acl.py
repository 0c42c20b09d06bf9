"""The user that docs/operations.md describes may do all that rq_lite does, and nothing to others' keys."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from rq_lite import Settings
from rq_lite.broker import Broker
from rq_lite.cli import cli
from rq_lite.errors import BrokerError
from tests.acceptance.conftest import APP
from tests.broker.test_scripts import run_every_script
from tests.conftest import Commands, Server

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
PASSWORD = "S3cret/pass@word"

# With a worker's run (`fail` buries, `do` is done) between the two.
BEFORE = (
    f"produce --task {APP}:do --count 3 --maxsize 100 --resume numbers",
    f"produce --task {APP}:fail --count 2",
    "schedule add often -q work --task greet --every 1s",
    "schedule list",
    "schedule run often",
    "schedule remove often",
    "jobs list",
    "queue set work --maxsize 50",
    "queue pause work",
    "queue resume work",
)
AFTER = (
    "status",
    "status --json",
    "dead list",
    "dead requeue --all --yes",
    "jobs list",
    "jobs cancel {waiting}",
    "queue purge work --yes",
    "queue shutdown work",
    "queue open work",
)


@pytest.fixture
def url(server: Server, broker: Broker) -> Iterator[str]:
    """Of the server, for that user."""
    found = re.search(r"^    ACL SETUSER worker on >PASSWORD (.*)$", OPERATIONS.read_text(), re.MULTILINE)
    assert found
    broker.read(("ACL", "SETUSER", "worker", "reset", "on", f">{PASSWORD}", *found[1].split()), ("ACL", "LOG", "RESET"))
    yield f"unix://worker:{quote(PASSWORD, '')}@{server.socket}"
    broker.read(("ACL", "DELUSER", "worker"), ("ACL", "LOG", "RESET"))


@pytest.fixture
def worker(url: str) -> Iterator[Broker]:
    with closing(Broker(url, settings=Settings(url=url, patience=0.1)).open()) as made:
        yield made


def denied(broker: Broker) -> list[bytes]:
    """What Redis has refused."""
    entries: list[list[bytes]] = broker.read(("ACL", "LOG"))[0]
    return [entry[entry.index(b"object") + 1] for entry in entries]


def test_others_keys_are_out_of_reach(broker: Broker, worker: Broker) -> None:
    with pytest.raises(BrokerError, match=r"(?i)no permissions to access (one of the keys|a key)"):
        worker.read(("GET", "other"))
    with pytest.raises(BrokerError, match="has no permissions to run"):
        worker.read(("SHUTDOWN",))
    assert sorted(denied(broker)) == [b"other", b"shutdown"]


def test_every_script_may_run(broker: Broker, worker: Broker) -> None:
    with closing(worker.link()) as link:
        run_every_script(worker, link)
    worker.tends.unannounce("w")
    assert denied(broker) == []


def test_a_worker_and_all_commands_get_along(broker: Broker, url: str, commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    commands.environment.update(RQ_LITE_URL=url, EVIDENCE=str(tmp_path / "evidence"))
    run(commands, *BEFORE)
    work = commands.run("work", APP, "--burst", "--procs", "1")
    assert work.returncode == 0, work.stderr
    assert PASSWORD not in work.stderr + work.stdout
    assert sorted((tmp_path / "evidence" / "done").read_text().split()[::2]) == ["0", "1", "2"]
    run(commands, *AFTER)
    assert denied(broker) == []


def run(commands: Commands, *lines: str) -> None:
    """Each of these commands, in this process."""
    runner, waiting = CliRunner(), ""
    for line in lines:
        result = runner.invoke(cli, shlex.split(line.format(waiting=waiting)), env=commands.environment)
        assert result.exception is None, (line, result.output, result.exception)
        if line == "jobs list":
            waiting = result.output.split("\t")[0]

"""`rq-lite demo` as a process: its figures, its end, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rq_lite import Broker, Settings
from rq_lite.broker import keys
from rq_lite.cli import cli
from rq_lite.demo import command as command_line
from rq_lite.demo.facts import Choices, Summary, problems_of
from rq_lite.embedded import server
from tests.acceptance.conftest import marked
from tests.conftest import until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")

DEADLINE = 60.0
SMALL = ["--jobs", "200", "--maxsize", "20", "--delay", "0.05", "--greenlets", "10"]
ENDLESS = ["--plain", "--jobs", "100000", "--maxsize", "50", "--delay", "0.5", "--greenlets", "10"]


class Demo:
    """How to start the demo so that everything of it can be found again."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.home = folder / "home"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RQ_LITE_")}
        # A URL that leads nowhere: the demo must not use one that was not given to it as an option.
        self.environ = kept | {
            "DEMO_MARK": self.mark,
            "TMPDIR": str(self.temporary),
            "RQ_LITE_HOME": str(self.home),
            "RQ_LITE_URL": "redis://127.0.0.1:1",
        }

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "rq_lite", "demo", *options],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str) -> tuple[int, str, str]:
        process = self.start(*options)
        out, err = process.communicate(timeout=DEADLINE)
        return process.returncode, out, err

    def processes(self) -> dict[int, str]:
        return marked(f"DEMO_MARK={self.mark}")

    def leftovers(self) -> list[object]:
        return [*self.processes().values(), *self.temporary.iterdir(), *self.home.parent.glob("home")]


@pytest.fixture
def demo() -> Iterator[Demo]:
    # Not tmp_path: its names are too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="rq-"))
    demo = Demo(folder)
    yield demo
    for pid in demo.processes():
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)


def until_it_works(process: subprocess.Popen[str]) -> None:
    """Read what it says until consumers run jobs while the producer waits."""
    assert process.stdout is not None
    for line in process.stdout:
        if "waiting for room" in line and "consumers 2" in line and " 0 in flight" not in line:
            return
    raise AssertionError(f"the demo ended too soon: {process.communicate()[1]}")


def test_every_page_is_asked_for_once_and_the_bound_holds(demo: Demo) -> None:
    code, out, err = demo.run(*SMALL, "--json")
    assert (code, err) == (0, "")
    summary: dict[str, Any] = json.loads(out)
    assert (summary["jobs"], summary["done"], summary["failed"]) == (200, 200, 0)
    assert (summary["lost"], summary["twice"], summary["problems"]) == (0, 0, [])
    # The producer was there before the consumers: it has filled the queue and waited.
    assert summary["deepest"] == summary["deepest_put"] == summary["maxsize"] == 20
    assert 0 < summary["deepest_seen"] <= 20
    assert summary["waited"] > 0
    assert summary["jobs_per_second"] > 0
    assert demo.leftovers() == []


def test_without_a_terminal_it_says_plain_lines_and_the_summary(demo: Demo) -> None:
    code, out, err = demo.run(*SMALL)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "consumers" in out
    assert "200 jobs in" in out
    assert "at most 20 jobs, bound 20" in out
    assert "lost 0, twice 0" in out
    assert out.endswith(command_line.NEXT.partition("{first}")[2] + "\n")


def test_the_way_out_without_a_server_is_its_own_option(demo: Demo) -> None:
    demo.environ["RQ_LITE_REDIS_SERVER"] = str(demo.temporary / "none")
    code, out, err = demo.run(*SMALL, "--json")
    assert (code, out) == (2, "")
    assert err.endswith(", or give the demo one of your own: --url URL (not RQ_LITE_URL)\n")
    assert "set RQ_LITE_URL" not in err
    assert demo.leftovers() == []


@pytest.mark.parametrize(
    ("number", "group", "code"),
    [(signal.SIGINT, False, 130), (signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)],
    ids=["interrupt", "ctrl-c in a terminal", "terminate"],
)
def test_a_signal_ends_everything(demo: Demo, number: signal.Signals, group: bool, code: int) -> None:
    process = demo.start(*ENDLESS)
    until_it_works(process)
    assert len(demo.processes()) > 4  # itself, website, worker, two consumers, a Redis
    assert [place.name.startswith("rq_lite-demo-") for place in demo.temporary.iterdir()] == [True]
    # A terminal sends its signals to all processes in the foreground.
    (os.killpg if group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == code
    assert f"interrupted by {number.name}" in err
    assert "Traceback" not in out + err
    assert demo.leftovers() == []


def test_its_processes_end_also_when_it_is_killed(demo: Demo) -> None:
    process = demo.start(*ENDLESS)
    until_it_works(process)
    process.kill()
    process.communicate(timeout=DEADLINE)
    until(lambda: demo.processes() == {}, "none of its processes is left")


@pytest.mark.parametrize("part", ["website", "worker"])
def test_a_part_that_dies_is_reported(demo: Demo, part: str) -> None:
    process = demo.start(*ENDLESS)
    until_it_works(process)
    module = {"website": "rq_lite.demo.site", "worker": "rq_lite.testing.work"}[part]
    (pid,) = [pid for pid, command in demo.processes().items() if module in command]
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert f"the {part} was killed by signal 9" in err
    assert demo.leftovers() == []


def test_a_redis_that_was_named_is_left_as_it_was(demo: Demo) -> None:
    settings = Settings(home=str(demo.temporary.parent / "redis"))
    broker = Broker(settings=settings, quiet=True).open()
    try:
        broker.puts.declare("mine")
        before = {key: broker.read(("TTL", key))[0] for key in broker.read(("KEYS", "*"))[0]}
        code, out, _ = demo.run(*SMALL, "--json", "--url", broker.url)
        assert code == 0
        assert json.loads(out)["done"] == 200
        after = {key: broker.read(("TTL", key))[0] for key in broker.read(("KEYS", "*"))[0]}
        assert broker.read(("SMEMBERS", keys.QUEUES))[0] == [b"mine"]
    finally:
        broker.close()
        server.stop(settings)
    # What remembers a producer's last put goes by itself.
    assert {key: ttl for key, ttl in after.items() if ttl < 0} == before
    assert demo.leftovers() == []


def test_what_it_says_to_try_next_is_true(demo: Demo) -> None:
    hints = [shlex.split(line)[1:] for line in command_line.NEXT.splitlines() if "rq-lite" in line]
    work, produce = hints
    assert produce[2] == "100000"
    produce[2] = "500"
    settings = Settings(home=str(demo.temporary.parent / "redis"))
    broker = Broker(settings=settings, quiet=True).open()
    try:
        for words in (produce, [*work, "--burst"]):
            subprocess.run(
                [sys.executable, "-m", "rq_lite", *words],
                env={**demo.environ, "RQ_LITE_URL": broker.url},
                capture_output=True,
                timeout=DEADLINE,
                check=True,
            )
        done = broker.read(("HGET", "rq:{demo}:meta", "done"))[0]
    finally:
        broker.close()
        server.stop(settings)
    assert int(done) == 500


CHOICES = Choices(jobs=10, maxsize=5, delay=0.0, procs=1, greenlets=1, url=None)


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"done": 9}, "9 of 10"),
        ({"lost": 1}, "never requested: 1"),
        ({"twice": 2}, "more than once: 2"),
        ({"deepest": 6}, "held 6 jobs, but its bound is 5"),
    ],
)
def test_what_is_not_as_promised_is_a_problem(figures: dict[str, int], words: str) -> None:
    right = {"done": 10, "lost": 0, "twice": 0, "deepest": 5}
    assert problems_of(CHOICES, **right) == []
    (problem,) = problems_of(CHOICES, **{**right, **figures})
    assert words in problem


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_problem_makes_the_exit_code_1(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    summary = Summary(
        jobs=10, done=10, failed=0, lost=1, twice=0, seconds=1.0, jobs_per_second=10.0, maxsize=5, deepest=5,
        deepest_put=5, deepest_seen=5, looks=20, waited=0.5, problems=["pages never requested: 1"],
    )  # fmt: skip
    monkeypatch.setattr(command_line, "run", lambda *_: summary)
    result = CliRunner().invoke(cli, ["demo", *options])
    assert result.exit_code == 1
    assert "pages never requested: 1" in result.stdout
    assert "Next" not in result.stdout


@pytest.mark.parametrize("found", [True, False])
def test_what_comes_next_can_be_typed(found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if found:
        (tmp_path / "rq-lite").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(Path(sys.prefix).parent)
    assert command_line.first() == ("" if found else f", after `. {Path(sys.prefix).name}/bin/activate`")

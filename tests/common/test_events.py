"""Named moments, and who listens to them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from rq_lite import events
from rq_lite.errors import UsageError

ROOT = Path(events.__file__).parents[1]
CALLS = re.compile(r"events\.(emit|span)\(\s*f?\"([a-z_.]+)\"")


@pytest.fixture(autouse=True)
def watchers() -> Iterator[None]:
    yield
    events.subscribers.clear()


class Cable:
    dropped = 0

    def drop(self) -> None:
        self.dropped += 1


def watch(text: str, role: str = "producer", **more: str) -> None:
    events.subscribers[:] = events.asked_for(role, {"RQ_LITE_FAILPOINT": text, **more})


def test_nobody_listens_by_default() -> None:
    assert events.asked_for("producer", {}) == []
    events.emit("put.before", None)


def test_every_name_is_reached_somewhere_and_no_other() -> None:
    files = {*(ROOT / "rq_lite").rglob("*.py")} - {ROOT / "rq_lite/chaos/app.py"}  # its jobs tell the judge of more
    calls = [call for file in files for call in CALLS.findall(file.read_text())]
    steps = {name for how, name in calls if how == "span"} | {"put", "take", "ack", "settle", "give_back"}
    reached = {name for how, name in calls if how == "emit"}
    assert steps == set(events.STEPS)
    assert reached <= events.NAMES
    assert reached | {f"{step}.{end}" for step in steps for end in ("before", "after", "failed")} == events.NAMES


def test_a_failpoint_acts_at_its_moment_and_only_then() -> None:
    watch("put.after:raise@2")
    events.emit("put.before", None)
    events.emit("put.after", None)
    with pytest.raises(events.Failed, match=r"put\.after"):
        events.emit("put.after", None)
    events.emit("put.after", None)


def test_of_several_processes_only_the_first_acts(tmp_path: Path) -> None:
    cable = Cable()
    for _ in range(3):
        watch("put.before:drop", RQ_LITE_FAILPOINT_ONCE=str(tmp_path))
        events.emit("put.before", cable)
    assert cable.dropped == 1


@pytest.mark.parametrize(
    ("action", "code"), [("kill", -signal.SIGKILL), ("stop", -signal.SIGTERM), ("raise", 1), ("sleep=0.01", 0)]
)
def test_what_a_failpoint_does_to_a_process(action: str, code: int) -> None:
    program = "from rq_lite import events; events.begin('producer'); events.emit('put.before', None)"
    environment = {"RQ_LITE_FAILPOINT": f"put.before:{action}", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert ended.returncode == code


@pytest.mark.parametrize(
    "text", ["put.before", "put.before:explode", "no.such:kill", "put.before:kill@", "put.before:kill@x"]
)
def test_what_is_no_failpoint_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text))):
        watch(text)


def test_a_history_has_a_line_for_each_moment(tmp_path: Path) -> None:
    events.subscribers[:] = events.asked_for("producer", {"RQ_LITE_HISTORY": str(tmp_path)})
    with suppress(ValueError), events.span("settle", None, tags=[1]) as facts:
        facts["stale"] = 1
        raise ValueError
    with events.span("settle", None, tags=[2]):
        pass
    (file,) = tmp_path.iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["at"] for line in lines] == [
        "process.begin", "settle.before", "settle.failed", "settle.before", "settle.after",
    ]  # fmt: skip
    assert lines[0]["role"] == "producer"
    assert (lines[2]["tags"], lines[2]["stale"]) == ([1], 1)
    assert all(line["t"] <= after["t"] for line, after in pairwise(lines))


def test_a_moment_that_kills_is_in_the_history(tmp_path: Path) -> None:
    environment = {"RQ_LITE_HISTORY": str(tmp_path), "RQ_LITE_FAILPOINT": "put.before:raise"}
    events.subscribers[:] = events.asked_for("producer", environment)
    with pytest.raises(events.Failed):
        events.emit("put.before", None)
    (file,) = tmp_path.iterdir()
    assert "put.before" in file.read_text()

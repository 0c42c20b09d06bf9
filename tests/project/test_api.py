"""docs/api.md names what programs may use, and says of every other attribute that it is internal."""

from __future__ import annotations

import re
from typing import Any

import pytest

import rq_lite
from rq_lite import Broker, LifoQueue, PriorityQueue, Queue, Settings, admin
from rq_lite.client.registry import registry
from tests.project.test_docs import DOCS

SECTIONS = {
    title.strip("`"): text
    for title, _, text in (part.partition("\n") for part in (DOCS / "api.md").read_text().split("\n## ")[1:])
}
LOOKING = "Looking at queues, jobs and the dead set"


def named(section: str) -> list[str]:
    """The names in the first column of a section's table."""
    rows = [line for line in SECTIONS[section].splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]


def internal(section: str) -> list[str]:
    (line,) = re.findall(r"^Internal: (.*)\.$", SECTIONS[section], re.MULTILINE)
    return re.findall(r"`(\w+)`", line)


def attributes(thing: object) -> set[str]:
    """Without a look at their values: a property may ask Redis."""
    return {name for name in {*dir(type(thing)), *vars(thing)} if not name.startswith("_")}


@pytest.fixture
def things(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(registry, "queues", {})
    monkeypatch.setattr(registry, "tasks", {})
    broker = Broker("redis://nowhere", settings=Settings())
    queue = Queue("api", broker=broker)

    @queue.task(name="api")
    def task() -> None: ...

    return {"Queue": queue, "Task": task, "Job": task.job("1"), "Broker": broker}


def test_every_public_name_is_on_the_page_and_no_other() -> None:
    assert sorted(named("rq_lite")) == sorted(rq_lite.__all__)
    assert sorted(named(LOOKING)) == sorted(admin.__all__)


@pytest.mark.parametrize("section", ["Queue", "Task", "Job", "Broker"])
def test_every_attribute_is_on_the_page_as_public_or_as_internal(section: str, things: dict[str, Any]) -> None:
    # Of a task also those of its function, under names that begin with an underscore.
    listed = named(section) + internal(section)
    assert sorted(listed) == sorted(attributes(things[section]))


def test_the_other_queues_have_the_same_attributes(things: dict[str, Any]) -> None:
    for kind in (LifoQueue, PriorityQueue):
        assert attributes(kind("other", broker=things["Broker"])) == attributes(things["Queue"])


@pytest.mark.parametrize("name", admin.__all__)
def test_every_name_of_admin_is_there(name: str) -> None:
    assert getattr(admin, name) is not None


def test_any_other_name_of_admin_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bury'"):
        admin.bury  # noqa: B018


def test_the_example_of_the_page_runs(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", SECTIONS[LOOKING], re.DOTALL)
    broker.puts.declare("pages", 10, 0)
    exec(code.replace("Broker()", "given"), {"given": broker})
    assert capsys.readouterr().out == ("pages 0 0 0 []\n")

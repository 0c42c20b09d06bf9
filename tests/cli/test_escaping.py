"""Names that other programs wrote into Redis: no command prints what could change a terminal, --json says the same."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from rq_lite import Queue
from rq_lite.broker import Broker, keys
from rq_lite.cli import cli
from rq_lite.cli.text import json_line
from rq_lite.model.message import VERSION, Message, encode

EVIL = "E[red]\x1b[31m\x7f\x9b\u061c\u200f\u202e\u2028\ufeff\nx"
SHOWN = r"E[red]\x1b[31m\x7f\x9b\u061c\u200f\u202e\u2028\ufeff\nx"


@pytest.fixture(autouse=True)
def evil(broker: Broker) -> None:
    broker.puts.declare("q")
    of = keys.of("q")
    entry = encode(Message(VERSION, EVIL, EVIL, [EVIL]))
    report = json.dumps({"id": EVIL, "task": EVIL, "error": EVIL, "traceback": EVIL, "consumer": EVIL}).encode()
    schedule = {"task": EVIL, "queue": EVIL, "args": [EVIL], "kwargs": {}, "every": 60_000, "origin": EVIL}
    broker.read(
        ("SADD", keys.QUEUES, f"no {EVIL}"),
        ("LPUSH", of.pending, b"0 0 " + entry),
        ("HSET", of.dead, 1, report + b"\n" + entry),
        ("ZADD", of.dead_index, 1, 1),
        ("HSET", of.meta, f"unknown:{EVIL}", f"1 {EVIL}", "parked", 1, f"order-{EVIL}", 1),
        ("HSET", keys.SCHEDULES, EVIL, json.dumps(schedule), f"{EVIL}2", EVIL),
        ("ZADD", keys.SCHEDULES_DUE, 1, EVIL, 2, f"{EVIL}2"),
    )
    broker.takes.register("q", "c")
    broker.tends.announce("w", {"host": EVIL, "pid": EVIL, "queues": f"q,{EVIL}", "trouble": EVIL}, 60)


def printed(broker: Broker, *command: str) -> str:
    done = CliRunner().invoke(cli, [*command, "--url", broker.url])
    assert isinstance(done.exception, SystemExit | None), done.output
    return done.output


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("status", "q"),
        ("jobs", "list"),
        ("jobs", "show", EVIL),
        ("jobs", "cancel", f"{EVIL}0"),
        ("dead", "list"),
        ("dead", "show", "tag:1"),
        ("dead", "show", EVIL),
        ("dead", "requeue", f"{EVIL}0"),
        ("schedule", "list"),
        ("schedule", "remove", EVIL),
        ("health", "--any"),
    ],
    ids=" ".join,
)
def test_what_others_wrote_is_shown_escaped(broker: Broker, command: tuple[str, ...]) -> None:
    text = printed(broker, *command)
    assert all(char.isprintable() or char in "\n\t" for char in text), text
    assert SHOWN in text.replace("\n", "")  # a table folds it


@pytest.mark.parametrize(
    "command", [("status",), ("jobs", "list"), ("dead", "list"), ("schedule", "list")], ids=" ".join
)
def test_json_has_the_same_text_in_ascii(broker: Broker, command: tuple[str, ...]) -> None:
    text = printed(broker, *command, "--json")
    lines = text.splitlines()
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert json.dumps(EVIL)[1:-1] in json.dumps([json.loads(line) for line in lines])


def test_a_key_is_shown_as_its_template_makes_it(broker: Broker) -> None:
    task = Queue("q", broker=broker).task(name="shop:buy", unique="{who}: {euro} €")(lambda who, euro: None)
    job = task.put("Ada\x1b", 7)
    assert "unique     Ada\\x1b: 7 €, until its end; it holds the lock\n" in printed(broker, "jobs", "show", job.id)


def test_json_may_name_a_file_that_is_not_utf8() -> None:
    assert json_line({"error": "caf\udce9.txt: No such file"}) == r'{"error":"caf\udce9.txt: No such file"}'

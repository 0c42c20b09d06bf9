"""rq-lite dead, as somebody at a shell meets it."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import click
import pytest

from rq_lite.admin import operate
from rq_lite.broker import keys
from rq_lite.cli.common import duration
from rq_lite.cli.dead_view import ran_for
from rq_lite.errors import UsageError
from rq_lite.model.message import VERSION, Message, encode
from tests.acceptance.conftest import APP, Lab
from tests.acceptance.test_status import terminal
from tests.conftest import until

CONTEXT = click.Context(click.Command("list"))
OLDER = click.Option(["--older-than"])
EVIL = "[red]\x1b[2J\x9b2J\u202e\r\nfake\x00"


def dead(lab: Lab, *arguments: str, code: int = 0) -> str:
    """What `rq-lite dead …` prints; nobody is asked."""
    ended = lab.commands.run("dead", *arguments)
    assert "Traceback (most" not in ended.stderr
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


# ms; one for all of a test, or the clock's next second would change their order
YESTERDAY = round(time.time() * 1000) - 86_400_000


def bury(lab: Lab, *ids: str, queue: str = "work", **report: Any) -> None:
    """Jobs in the dead set as a worker left them yesterday; each is younger than the one before."""
    lab.broker.puts.declare(queue)
    key = keys.of(queue)
    for job_id in ids:
        tag = lab.broker.read(("HINCRBY", key.meta, "tag", 1))[0]
        told = {"id": job_id, "task": "m:t", "error": "ValueError: no", "attempts": 1} | report
        entry = encode(Message(VERSION, job_id, str(told["task"]), [job_id]))
        lab.broker.read(("HSET", key.dead, tag, json.dumps(told).encode() + b"\n" + entry))
        lab.broker.read(("ZADD", key.dead_index, YESTERDAY + tag, tag))


def listed(lab: Lab, *arguments: str) -> list[str]:
    """The ids that `list` shows, in its order."""
    ended = lab.commands.run("dead", "list", *arguments)
    assert ended.returncode == 0, ended.stderr
    return [line.split("\t")[0] for line in ended.stdout.splitlines()]


def buried_ids(lab: Lab, queue: str = "work") -> list[str]:
    return [job.report["id"] for job in lab.dead(queue)]


# -- what a worker leaves


def test_what_a_worker_gave_up_is_seen_and_runs_again(lab: Lab) -> None:
    lab.put("fail", "one", retries=1)
    lab.drain()
    (job_id,) = buried_ids(lab)
    (line,) = dead(lab, "list").splitlines()
    assert line.split("\t")[:3] == [job_id, "work", f"{APP}:fail"]
    assert line.split("\t")[4:] == ["2", "0", "ValueError: cannot do one"]
    shown = dead(lab, "show", job_id)
    facts = dict(line.split(maxsplit=1) for line in shown.partition("traceback")[0].splitlines())
    assert (facts["id"], facts["error"], facts["runs"].strip()) == (job_id, "ValueError: cannot do one", "2 failed")
    assert (facts["arguments"], facts["retries"]) == ('["one"]', "1")
    assert f"ran on     {os.uname().nodename}, pid {lab.runs('begun')[-1].pid}\n" in shown
    assert 'raise ValueError(f"cannot do {what}")\n' in shown.partition("traceback\n")[2]
    assert dead(lab, "requeue", job_id) == "queue 'work': 1 job requeued\n"
    lab.drain()
    assert lab.seen("begun") == ["one"] * 4  # its attempts began anew
    assert buried_ids(lab) == [job_id]
    assert dead(lab, "purge", job_id, "--yes") == "queue 'work': 1 job dropped\n"
    assert (lab.state().dead, lab.state().requeued, lab.state().purged) == (0, 1, 1)


def test_json_has_every_field(lab: Lab) -> None:
    lab.put("fail", "ä")
    lab.drain()
    found = json.loads(dead(lab, "list", "--json"))
    assert set(found) == {
        "queue", "tag", "id", "task", "error", "traceback", "attempts", "crashes", "consumer", "seconds", "buried_at",
        "payload", "tags", "worker_deaths",
    }  # fmt: skip
    assert (found["queue"], found["attempts"], found["crashes"], found["task"]) == ("work", 1, 0, f"{APP}:fail")
    assert json.loads(found["payload"])["args"] == ["ä"]
    assert "cannot do ä" in found["traceback"]


def test_an_error_of_any_text_is_buried_and_shown(lab: Lab) -> None:
    lab.put("fail", EVIL)
    lab.put("end_badly", "surrogate")  # as the name of a file may be that is no UTF-8
    lab.drain()
    assert {job.report["error"] for job in lab.dead()} == {
        "ValueError: cannot do [red]\\x1b[2J\\x9b2J\\u202e\\r\\nfake\\x00",
        "FileNotFoundError: \\udc80",
    }
    assert len(listed(lab)) == 2


def test_a_worker_holds_the_dead_set_to_its_caps(lab: Lab) -> None:
    bury(lab, "old", "older")
    lab.environment["RQ_LITE_DEAD_AGE"] = "60"
    lab.work()
    until(lambda: lab.state().dropped == 2, "the old ones are dropped")
    assert dead(lab, "list") == "no buried job\nqueue 'work': 2 jobs dropped so far, beyond the caps\n"


# -- list


def test_the_newest_come_first_over_all_queues_and_the_rest_is_counted(lab: Lab) -> None:
    bury(lab, *(f"w{number}" for number in range(60)))
    bury(lab, "h1", queue="high")
    assert listed(lab) == [f"w{number}" for number in range(59, 9, -1)]
    assert dead(lab, "list").splitlines()[-1] == "11 more; --limit 0 lists all"
    assert len(listed(lab, "--limit", "0")) == 61
    assert listed(lab, "high") == listed(lab, "-q", "high") == ["h1"]
    assert dead(lab, "list", "--error", "NO", "--limit", "2").splitlines()[-1] == "59 more; --limit 0 lists all"
    assert [json.loads(line)["id"] for line in dead(lab, "list", "--json", "high").splitlines()] == ["h1"]


def test_nothing_is_said_in_a_line(lab: Lab) -> None:
    assert dead(lab, "list") == "no buried job\n"
    bury(lab, "a")
    assert dead(lab, "list", "--task", "other") == "no buried job matches\n"
    assert dead(lab, "list", "--id", "b", "--json") == ""


def test_options_choose(lab: Lab) -> None:
    bury(lab, "a", "b")
    bury(lab, "c", task="m:other", error="KeyError: 1")
    assert listed(lab, "--id", "a", "--id", "tag:2") == ["b", "a"]
    assert listed(lab, "--task", "m:other", "--older-than", "2h") == ["c"]
    assert listed(lab, "--error", "value", "--newer-than", "2h") == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "unknown"), (0.000_123, "less than 1 ms"), (1.5, "1.500 s"), (4000.0, "4,000.000 s")]
)
def test_how_long_it_ran(seconds: float, text: str) -> None:
    assert ran_for(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5m", 90),
        ("2h", 7200),
        ("7d", 604_800),
        ("0", 0),
        ("9" * 12 + "d", 999_999_999_999 * 86_400),
    ],
)
def test_an_age(text: str, seconds: float) -> None:
    assert duration(CONTEXT, OLDER, text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "5w", "1e3", "5 m", "\u0663", "9" * 30, "1\n2"])
def test_an_age_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"--older-than .*: say seconds, or a number with s, m, h or d"):
        duration(CONTEXT, OLDER, text)


@pytest.mark.parametrize("columns", [200, 80, 40])
def test_a_terminal_gets_a_table_and_a_pipe_lines_in_full(lab: Lab, columns: int) -> None:
    job_id, task, error = "0123456789a-0123456789abcdef", "shop.mails:" + "x" * 90, "ValueError: " + "no " * 120
    bury(lab, job_id, error=error.strip(), task=task, attempts=3, crashes=1)
    with terminal(lab.commands, "dead", "list", columns=columns) as shown:
        assert shown.end() == 0
    heading, rule, row = re.sub(r"\x1b\[[0-9;]*m", "", shown.seen).splitlines()
    assert all(len(line) <= columns for line in (heading, rule, row))
    assert set(rule) == {"─"}
    assert row.startswith(job_id + "  ")
    assert row.rstrip().endswith("…")
    assert ("crashed" in heading, "task" in heading) == (columns == 200, columns > 40)
    assert dead(lab, "list").rstrip("\n").split("\t")[2:] == [task, "24 h ago", "3", "1", error.strip()]
    assert "runs       3: 2 failed, 1 crashed (the process died)\n" in dead(lab, "show", job_id)


# -- what is in them


def test_nothing_of_a_job_can_write_on_the_terminal(lab: Lab) -> None:
    bury(lab, EVIL, task=EVIL, error=EVIL, traceback=f"a{EVIL}\n\tb", consumer=EVIL)
    lab.broker.read(("HSET", keys.of("work").dead, 1, lab.dead()[0].raw + b"\n" + EVIL.encode()))
    bury(lab, EVIL, task=EVIL, error=EVIL, traceback=f"a{EVIL}\n\tb", consumer=EVIL)
    for arguments in (["list"], ["list", "--json"], ["show", "tag:1", "tag:2"]):
        shown = dead(lab, *arguments)
        assert "[red]" in shown
        assert not {"\x1b", "\x9b", "\x00", "\r", "\u202e"} & set(shown)
    assert listed(lab) == ["tag:2", "tag:1"]
    traceback = dead(lab, "show", "tag:2").partition("traceback\n")[2]
    assert traceback == "  a[red]\\x1b[2J\\x9b2J\\u202e\\r\n  fake\\x00\n          b\n"


def test_what_is_no_job_and_what_is_huge_is_shown_and_requeued(lab: Lab) -> None:
    lab.put_raw(b"\x00\xff no job", encode(Message(VERSION, "huge", f"{APP}:fail", ["x" * 900_000])))
    lab.drain()
    assert sorted(listed(lab)) == ["huge", "tag:1"]
    assert "bytes      \\x00\\xff no job\n" in dead(lab, "show", "tag:1")
    shown = dead(lab, "show", "huge")
    assert "more characters: `rq-lite dead list --id ID --json` prints all" in shown
    assert len(shown) < 60_000
    assert "x" * 900_000 in dead(lab, "list", "--id", "huge", "--json")
    assert dead(lab, "requeue", "--all") == "queue 'work': 2 jobs requeued\n"
    assert sorted(map(len, lab.waiting())) == sorted(map(len, [b"\x00\xff no job", lab.waiting()[1]]))


def test_ids_that_repeat_are_all_meant(lab: Lab) -> None:
    bury(lab, "same", "other", "same")
    bury(lab, "same", queue="high")
    assert dead(lab, "show", "same").count("\nqueue ") == 3
    assert dead(lab, "show", "same", "-q", "high").count("\nqueue ") == 1
    assert dead(lab, "requeue", "same") == "queue 'work': 2 jobs requeued\nqueue 'high': 1 job requeued\n"
    assert buried_ids(lab) == ["other"]


# -- requeue


def test_requeue_respects_the_bound(lab: Lab) -> None:
    bury(lab, *"abcde")
    operate.configure(lab.broker, "work", 3)
    said = dead(lab, "requeue", "--all", code=4)
    out, error = said.splitlines()
    assert out == "queue 'work': 3 jobs requeued, 2 left"
    assert error.startswith("rq-lite: queue 'work' is full: 3 jobs waiting, bound 3; 0 consumers alive, none was ever")
    assert error.endswith("; 2 jobs left in the dead set (--wait SECONDS waits for room)")
    assert lab.arguments() == ["a", "b", "c"]
    assert buried_ids(lab) == ["d", "e"]
    assert "0 jobs requeued, 2 left" in dead(lab, "requeue", "--all", "--wait", "0.01", code=4)


def test_requeue_waits_for_room(lab: Lab) -> None:
    lab.put("do", *range(3))
    bury(lab, *"abcde", task=f"{APP}:do")
    operate.configure(lab.broker, "work", 3)
    waits = lab.commands.start("dead", "requeue", "--all", "--wait", "60")
    lab.until_blocked(1)
    worker = lab.work()
    out, err = waits.communicate(timeout=60)
    assert (waits.returncode, out, err) == (0, "queue 'work': 5 jobs requeued\n", "")
    assert worker.stop() == 0
    assert lab.state().dead == 0


def test_a_queue_that_is_full_keeps_no_other_waiting(lab: Lab) -> None:
    bury(lab, "a", "b")
    bury(lab, "h", queue="high")
    operate.configure(lab.broker, "work", 1)
    said = dead(lab, "requeue", "--all", "--wait", "0.01", code=4)
    assert "queue 'work': 1 job requeued, 1 left\n" in said
    assert "queue 'high': 1 job requeued\n" in said


def test_a_job_that_never_fits_is_named(lab: Lab) -> None:
    bury(lab, "x" * 200, "b")
    operate.configure(lab.broker, "work", maxbytes=100)
    said = dead(lab, "requeue", "--all", code=1)
    assert said.startswith("queue 'work': 1 job requeued, 1 left\n")
    assert said.endswith("1 job left in the dead set: larger than its maxbytes, 100\n")


def test_filters_choose_what_is_requeued(lab: Lab) -> None:
    bury(lab, "a", "b", error="Timeout: 1")
    bury(lab, "c")
    assert dead(lab, "requeue", "--error", "timeout") == "queue 'work': 2 jobs requeued\n"
    assert lab.arguments() == ["a", "b"]
    assert dead(lab, "requeue", "--newer-than", "90s") == "no job requeued: no buried job matches\n"


# -- purge


def test_purge_takes_what_is_named(lab: Lab) -> None:
    bury(lab, *"abc")
    bury(lab, "h", queue="high")
    assert dead(lab, "purge", "a", "--yes") == "queue 'work': 1 job dropped\n"
    assert dead(lab, "purge", "-q", "work", "--all", "--yes") == "queue 'work': 2 jobs dropped\n"
    assert buried_ids(lab, "high") == ["h"]
    assert dead(lab, "purge", "-q", "work", "--all", "--yes") == "no job dropped: no buried job matches\n"


@pytest.mark.parametrize(("answer", "left", "code"), [("y", 0, 0), ("n", 2, 1)])
@pytest.mark.parametrize("verb", ["purge", "requeue"])
def test_both_ask_naming_how_many(lab: Lab, verb: str, answer: str, left: int, code: int) -> None:
    bury(lab, "a", "b")
    with terminal(lab.commands, "dead", verb, "--all") as shown:
        shown.wait_for("2 jobs of 'work'")
        shown.type(answer + "\n")
        assert shown.end() == code
    assert lab.state().dead == left


def test_purge_refuses_without_anybody_to_ask(lab: Lab) -> None:
    bury(lab, "a")
    assert "--yes" in dead(lab, "purge", "--all", code=2)
    assert buried_ids(lab) == ["a"]


# -- what cannot be right


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["requeue"], 2, "no jobs chosen: name job ids, a filter (--id, --task"),
        (["purge", "-q", "work", "--yes"], 2, "no jobs chosen: "),
        (["requeue", "work", "--all"], 2, "name job ids or say --all, not both; a queue is named with -q QUEUE"),
        (["requeue", "--all", "--wait", "nan"], 2, "--wait must be 0 or more, not nan"),
        (["list", "--newer-than", "soon"], 2, "--newer-than 'soon': say seconds, or "),
        (["list", "typo"], 2, "unknown queue 'typo'; known queues: work"),
        (["show", "a", "-q", "typo"], 2, "unknown queue 'typo'; known queues: work"),
        (["show", "b"], 1, "no buried job 'b': `rq-lite dead list` shows what there is"),
        (["purge", "b", "--yes"], 1, "no buried job 'b': "),
        (["requeue", "a", "--task", "other"], 1, "no buried job 'a' that fits the filter: "),
    ],
)
def test_what_cannot_be_right(lab: Lab, arguments: list[str], code: int, said: str) -> None:
    bury(lab, "a")
    assert dead(lab, *arguments, code=code).splitlines()[-1].startswith(f"rq-lite: {said}")
    assert buried_ids(lab) == ["a"]


def test_what_there_is_is_done_before_the_rest_is_named(lab: Lab) -> None:
    bury(lab, "a")
    said = dead(lab, "requeue", "a", "b", code=1).splitlines()
    assert said[0] == "queue 'work': 1 job requeued"
    assert said[1].startswith("rq-lite: no buried job 'b'")

"""rq-lite jobs, as somebody at a shell meets it."""

from __future__ import annotations

import json
import os
from typing import Any

from rq_lite.admin import jobs, operate
from rq_lite.broker import keys
from rq_lite.model.message import VERSION, Message, encode, marked
from rq_lite.model.states import State
from tests.acceptance.conftest import APP, Lab
from tests.conftest import until

KEY = keys.of("work")
EVIL = "[red]\x1b[2J\u202e\r\nfake\x00"


def put(lab: Lab, task: str, *ids: str, queue: str = "work", delay: int = 0, **fields: Any) -> None:
    lab.broker.puts.declare(queue)
    entries = [encode(Message(VERSION, each, f"{APP}:{task}", [each], **fields)) for each in ids]
    assert lab.broker.puts.put(queue, entries, delay=delay).accepted == len(ids)


def run(lab: Lab, *arguments: str, code: int = 0) -> str:
    """What `rq-lite jobs …` prints."""
    done = lab.commands.run("jobs", *arguments)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr if code else done.stdout


def listed(lab: Lab, *arguments: str) -> list[list[str]]:
    return [line.split("\t") for line in run(lab, "list", *arguments).splitlines()]


def everywhere(lab: Lab) -> None:
    """A job in each place: r runs, p1 and p2 wait, s is due later, d is dead, l is a suspect."""
    put(lab, "fail", "d")
    lab.drain()
    put(lab, "hold", "r")
    lab.work("--greenlets", "1")
    lab.until_seen("begun", 2)
    put(lab, "do", "p1", "p2")
    put(lab, "do", "s", delay=3_600_000)


def test_every_place_is_listed_in_its_order(lab: Lab) -> None:
    everywhere(lab)
    rows = listed(lab)
    assert [(row[0], row[3]) for row in rows] == [
        ("r", "inflight"), ("p1", "pending"), ("p2", "pending"), ("s", "scheduled"), ("d", "dead"),
    ]  # fmt: skip
    assert {row[1] for row in rows} == {"work"}
    assert rows[0][2] == f"{APP}:hold"
    assert rows[0][7] == f"on {os.uname().nodename}, pid {lab.runs('begun')[-1].pid}"
    assert rows[3][7].startswith("due in 5")
    assert rows[4][5:] == ["1", "0", "ValueError: cannot do d", ""]
    assert [row[0] for row in listed(lab, "--state", "dead", "--state", "inflight")] == ["r", "d"]
    assert [row[0] for row in listed(lab, "--task", f"{APP}:do")] == ["p1", "p2", "s"]
    found = [json.loads(line) for line in run(lab, "list", "--json").splitlines()]
    assert [(one["id"], one["state"]) for one in found] == [(row[0], row[3]) for row in rows]
    assert json.loads(found[1]["payload"])["args"] == ["p1"]
    assert found[-1]["error"] == "ValueError: cannot do d"


def test_pages(lab: Lab) -> None:
    put(lab, "do", *(f"{n:04}" for n in range(250)))
    put(lab, "do", *(f"s{n}" for n in range(3)), delay=60_000)
    put(lab, "other", *(f"o{n}" for n in range(4)), queue="high")
    assert [row[0] for row in listed(lab, "-q", "work", "--limit", "2", "--page", "3")] == ["0004", "0005"]
    assert [row[0] for row in listed(lab, "work", "--limit", "3", "--offset", "248")] == ["0248", "0249", "s0"]
    assert len(listed(lab, "--limit", "0")) == 257
    assert "leave one of them out" in run(lab, "list", "--limit", "0", "--page", "2", code=2)
    assert [row[0] for row in listed(lab, "--task", f"{APP}:other", "--limit", "2", "--page", "2")] == ["o2", "o3"]
    done = lab.commands.run("jobs", "list", "--limit", "7")
    assert done.stderr == "250 more; --page N, --offset N or --limit 0 shows them\n"
    assert lab.commands.run("jobs", "list", "--offset", "900").stderr == "no job matches\n"


def test_everything_about_a_job(lab: Lab) -> None:
    everywhere(lab)
    shown = {each: run(lab, "show", each) for each in ("r", "p1", "s", "d")}
    facts = {
        each: dict(line.split(maxsplit=1) for line in text.partition("traceback")[0].splitlines() if " " in line)
        for each, text in shown.items()
    }
    assert (facts["r"]["state"], facts["r"]["arguments"]) == (
        f"inflight, on {os.uname().nodename}, pid {lab.runs('begun')[-1].pid}", '["r"]',
    )  # fmt: skip
    assert facts["p1"]["state"] == "pending"
    assert facts["s"]["state"].startswith("scheduled, due in 5")
    assert (facts["d"]["state"], facts["d"]["error"]) == ("dead", "ValueError: cannot do d")
    assert "no job 'x' in queue 'work': it has ended, or never existed" in run(lab, "show", "x", "-q", "work", code=1)
    assert run(lab, "show", "p1", "x", code=1).startswith(shown["p1"])


def test_how_far_it_is_and_how_it_ended(lab: Lab) -> None:
    entry = encode(Message(VERSION, "w", f"{APP}:introduce", ["w"], result_ttl=60))
    lab.put_raw(marked(entry, "w", tracked=True))
    lab.work("--greenlets", "1")
    until(lambda: "progress   [##########..........] 50%, 100 of 200, half of w" in run(lab, "show", "w"), "it says so")
    status = lab.commands.run("status").stdout
    assert "50%, 100 of 200, half of w" in status
    found = json.loads(lab.commands.run("status", "--json").stdout)
    assert [(one["id"], one["done"], one["total"]) for one in found["queues"]["work"]["progress"]] == [("w", 100, 200)]
    lab.open_gate()
    until(lambda: lab.broker.puts.result("work", "w"), "it ends")
    assert 'state      ended: done\nresult     {"state":"done","value":null}\n' in run(lab, "show", "w")
    until(lambda: "50%" not in lab.commands.run("status").stdout, "status has nothing to say of it any more")


def test_what_others_wrote_is_harmless(lab: Lab) -> None:
    lab.put_raw(encode(Message(VERSION, EVIL, EVIL, [EVIL])), b"\x00 no job \xff")
    assert [len(row) for row in listed(lab)] == [9, 9]
    for shown in (run(lab, "list"), run(lab, "show", EVIL.replace("\x00", ""), code=1)):
        assert not {"\x1b", "\u202e", "\r", "\x00"} & set(shown)


def test_cancelling(lab: Lab) -> None:
    everywhere(lab)
    assert run(lab, "cancel", "p1", "s") == (
        "job p1 of 'work': removed: it will never run\njob s of 'work': removed: it will never run\n"
    )
    assert run(lab, "cancel", "r") == "job r of 'work': it runs, and is being interrupted\n"
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all has ended")
    assert lab.seen("done") == ["p2"]
    assert "no job 'r' in queue 'work'" in run(lab, "cancel", "r", "-q", "work", code=1)
    assert "no job 'r' in 4 queues: it has ended, or never existed" in run(lab, "cancel", "r", code=1)
    assert "job 'd' of 'work' is buried: `rq-lite dead purge d` drops it" in run(lab, "cancel", "d", code=1)
    assert lab.state().cancelled == 3


def test_a_job_too_far_off_to_be_found_is_cancelled_where_the_queue_is_named(lab: Lab) -> None:
    lab.broker.puts.declare("work")
    operate.configure(lab.broker, "work", 0)
    for first in range(0, 20_500, 500):
        put(lab, "do", *(f"{n:05}" for n in range(first, first + 500)))
    lab.broker.puts.declare("other")
    far = "10250"
    told = run(lab, "cancel", far, code=1)
    assert "500 that wait further than 10,000 from both ends were not searched; name the queue with -q" in told
    assert run(lab, "cancel", far, "-q", "work") == f"job {far} of 'work': it will be dropped when its turn comes\n"
    assert "500 that wait further" in run(lab, "show", far, code=1)
    search = jobs.find(lab.broker, "work", "20400")
    assert search.job is not None
    assert search.job.state is State.PENDING


def test_retrying(lab: Lab) -> None:
    everywhere(lab)
    lab.open_gate()
    assert run(lab, "retry", "s", "d") == "job s of 'work': due now\njob d of 'work': waits again\n"
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "all has ended")
    assert "s" in lab.seen("done")
    assert lab.seen("begun").count("d") == 2
    assert "no job 's'" in run(lab, "retry", "s", code=1)


def test_there_must_be_something_to_retry_and_room_for_it(lab: Lab) -> None:
    everywhere(lab)
    assert "job 'p1' of 'work' is pending: there is nothing to retry" in run(lab, "retry", "p1", code=1)
    operate.configure(lab.broker, "work", 3)
    assert run(lab, "retry", "d", code=4).endswith(
        "; 1 job left in the dead set (`rq-lite dead requeue d -q work --wait SECONDS` waits for room)\n"
    )
    assert lab.state().dead == 1


def test_bad_usage(lab: Lab) -> None:
    lab.broker.puts.declare("work")
    assert "unknown queue 'nope'; known queues: work" in run(lab, "list", "nope", code=2)
    assert "nowhere" in run(lab, "list", "--state", "nowhere", code=2)
    assert run(lab, "list", "--page", "0", code=2)
    assert run(lab, "cancel", code=2)

"""Schedules from the outside: an app's own, and those of `rq-lite schedule`."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker
from rq_lite.model.schedule import job_id
from tests.acceptance.conftest import Lab
from tests.conftest import Commands, until

APP = "tests.acceptance.apps.recurring"


def listed(commands: Commands) -> list[dict[str, Any]]:
    return [json.loads(line) for line in commands.run("schedule", "list", "--json").stdout.splitlines()]


def test_an_apps_schedules_run_by_themselves(lab: Lab, commands: Commands) -> None:
    worker = lab.work(app=APP)
    lab.until_seen("ticks", 3)
    assert worker.stop() == 0
    assert set(lab.seen("ticks")) == {"tick"}
    tick, yearly = listed(commands)
    assert (tick["name"], tick["every"], tick["args"], tick["origin"]) == ("tick", 1000, ["tick"], "app")
    assert tick["last"].endswith("+00:00")
    assert (yearly["cron"], yearly["tz"], yearly["missed"]) == ("0 0 1 1 *", "Europe/Berlin", "skip")
    assert yearly["next"].endswith("-01-01T00:00:00+01:00")
    assert yearly["last"] is None


def test_an_apps_schedules_are_there_again_when_redis_was_emptied(lab: Lab, commands: Commands) -> None:
    worker = lab.work(app=APP)
    lab.until_seen("ticks", 1)
    lab.broker.read(("FLUSHALL",))
    before = len(lab.seen("ticks"))
    lab.until_seen("ticks", before + 2)
    assert [one["name"] for one in listed(commands)] == ["tick", "yearly"]
    assert worker.stop() == 0


def test_an_operator_adds_lists_runs_and_removes(lab: Lab, commands: Commands) -> None:
    added = commands.run(
        "schedule", "add", "nightly", "--task", f"{APP}:greet", "--cron", "30 2 * * *", "--tz", "Asia/Tokyo",
        "--args", '{"name": "Ada", "times": 2}',
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("schedule 'nightly': 30 2 * * * Asia/Tokyo; next: 20")
    row = commands.run("schedule", "list").stdout.rstrip("\n").split("\t")
    assert row[:-1] == ["nightly", "30 2 * * * Asia/Tokyo", "greet", "work", "once", "operator", "-"]
    assert row[-1].endswith("02:30:00 JST")
    assert commands.run("schedule", "run", "nightly").returncode == 0
    worker = lab.work("--burst", app=APP)
    assert worker.wait() == 0, worker.said
    assert lab.seen("greeted") == ["Ada×2"]
    removed = commands.run("schedule", "remove", "nightly", "tick")
    assert removed.stdout.splitlines() == [
        "schedule 'nightly' is removed",
        "schedule 'tick' is removed; it belongs to an app, whose workers add it again when they start",
    ]
    assert [one["name"] for one in listed(commands)] == ["yearly"]


def test_a_worker_that_waits_hears_of_a_new_schedule_at_once(lab: Lab, commands: Commands) -> None:
    lab.work(app="tests.acceptance.apps.jobs").says(" ready (pid ")
    added = commands.run("schedule", "add", "s", "--task", f"{APP}:greet", "--every", "1s", "--args", '["Ada"]')
    assert added.returncode == 0, added.stderr
    until(lambda: lab.state().put >= 2, "two slots are fired")
    planned = lab.broker.plans.planned("s")
    assert planned is not None
    assert planned.last is not None
    assert planned.last % 1000 == 0


def test_a_task_of_another_program_is_named_with_its_queue(lab: Lab, commands: Commands) -> None:
    refused = commands.run("schedule", "add", "s", "--task", "shop:bill", "-q", "nowhere", "--every", "5m")
    assert (refused.returncode, refused.stderr) == (2, "rq-lite: unknown queue 'nowhere'; known queues: none yet\n")
    lab.broker.puts.declare("bills")
    for arguments, number in (("[1]", 1), ("[2]", 2)):  # the second replaces the first
        done = commands.run(
            "schedule", "add", "s", "--task", "shop:bill", "-q", "bills", "--every", "5m", "--args", arguments
        )
        assert done.returncode == 0, done.stderr
        (one,) = listed(commands)
        assert (one["task"], one["queue"], one["every"], one["args"]) == ("shop:bill", "bills", 300_000, [number])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ((), "no time: say --cron LINE or --every TIME"),
        (("--cron", "0 0 31 2 *"), "no such day"),
        (("--cron", "* * * * *", "--every", "5"), "not both"),
        (("--cron", "* * * * *", "--tz", "Mars"), "tz 'Mars': no such time zone"),
        (("--every", "5x"), "--every '5x': say seconds, or a number with s, m, h or d"),
        (("--every", "0"), "every must be 1 second to 10 years"),
        (("--every", "5", "--args", "[1"), "is not JSON"),
        (("--every", "5", "--args", "5"), "takes an array or an object"),
        (("--every", "5", "--args", "[NaN]"), "JSON has no word for nan"),
        (("--every", "5", "--args", '{"name": 1e400}'), "JSON has no word for inf"),
        (("--every", "5", "--args", '["a", 2, 3]'), "too many positional arguments"),
        (("--every", "5"), "missing a required argument: 'name'"),
    ],
    ids=str,
)
def test_what_cannot_be_added(commands: Commands, broker: Broker, options: tuple[str, ...], what: str) -> None:
    done = commands.run("schedule", "add", "s", "--task", f"{APP}:greet", *options)
    assert done.returncode == 2
    assert what in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert broker.plans.all_planned() == []


def test_unknown_names(commands: Commands, lab: Lab) -> None:
    for verb in ("run", "remove"):
        done = commands.run("schedule", verb, "nothing")
        assert (done.returncode, done.stderr) == (2, "rq-lite: unknown schedule 'nothing'; known schedules: none yet\n")
    assert commands.run("schedule", "list").stderr == "no schedules\n"


def test_an_apps_own_is_not_replaced_by_hand(lab: Lab, commands: Commands) -> None:
    lab.work(app=APP).says(" ready (pid ")
    done = commands.run("schedule", "add", "tick", "--task", f"{APP}:greet", "--every", "5", "--args", '["x"]')
    assert done.returncode == 2
    assert done.stderr == "rq-lite: schedule 'tick' belongs to the app; choose another name, or change it there\n"
    assert next(one for one in listed(commands) if one["name"] == "tick")["task"] == "tick"


def test_a_schedule_of_a_later_version_is_listed_all_the_same(lab: Lab, commands: Commands) -> None:
    lab.broker.plans.plan("new", b"", b'{"v":9}', 1)
    assert commands.run("schedule", "list").stdout == "new\t(not understood by this version)" + "\t-" * 6 + "\n"
    assert listed(commands) == [{"name": "new", "definition": '{"v":9}'}]
    assert commands.run("schedule", "run", "new").returncode == 2
    assert commands.run("schedule", "remove", "new").returncode == 0


def test_a_schedule_that_is_not_signed_with_this_secret_is_called_so(lab: Lab, commands: Commands) -> None:
    lab.broker.puts.declare("work")
    assert commands.run(
        "schedule", "add", "s", "--task", "t", "-q", "work", "--every", "1h"
    ).returncode == 0  # fmt: skip
    lab.environment["RQ_LITE_SECRET"] = "the key of these tests"
    lab.broker.plans.plan("new", b"", b'{"v":9}', 1)
    new, known = (line.split("\t")[:2] for line in commands.run("schedule", "list").stdout.splitlines())
    assert new == ["new", "(not understood by this version)"]
    assert known == ["s", "(not signed with this secret)"]
    assert [one.get("signed") for one in listed(commands)] == [None, False]
    done = commands.run("schedule", "run", "s")
    assert (done.returncode, lab.waiting()) == (2, [])
    assert "schedule 's' is not signed with this secret" in done.stderr
    assert "understood" not in done.stderr
    assert "is not understood by this version" in commands.run("schedule", "run", "new").stderr


def test_sighup_removes_the_schedule_that_a_task_has_lost(lab: Lab) -> None:
    app = 'from rq_lite import Queue\nqueue = Queue("work")\n@queue.task(name="t"{})\ndef t(): ...\n'
    file = lab.folder / "shrinking.py"
    file.write_text(app.format(", every=3600"))
    worker = lab.work(app="shrinking")
    until(lambda: lab.broker.plans.planned("t"), "the schedule is there")
    file.write_text(app.format(""))
    worker.signal(signal.SIGHUP)
    until(lambda: lab.broker.plans.planned("t") is None, "it is gone")


def test_what_was_missed_is_made_up_for_after_a_restart(lab: Lab) -> None:
    """The schedule's last worker was killed hours ago."""
    lab.work(app=APP).says(" ready (pid ")
    until(lambda: lab.broker.plans.planned("yearly"), "the schedules are there")
    lab.end()
    known = lab.broker.plans.planned("tick")
    assert known is not None
    slot = known.slot - 3_600_000
    assert lab.broker.plans.plan("tick", known.definition, known.definition, slot)
    before = lab.put_so_far()
    operate.pause(lab.broker, "work")
    lab.work(app=APP)
    until(lambda: lab.put_so_far() > before, "it is fired")
    planned = lab.broker.plans.planned("tick")
    assert planned is not None
    assert planned.last is not None
    ids = [job_id("tick", slot + n * 1000) for n in range(3600)]
    assert not {*ids[:3500]} & {message_id(raw) for raw in lab.waiting()}


def message_id(raw: bytes) -> str:
    found: str = json.loads(raw)["id"]
    return found

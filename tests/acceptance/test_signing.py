"""A worker with a secret: what was put with it is run; everything else is buried, with the reason, and never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rq_lite import Job, JobFailed
from rq_lite.broker import keys
from rq_lite.model.message import VERSION, Message, encode, new_id
from rq_lite.model.signing import UNFIT, UNSIGNED, Signer
from tests.acceptance.conftest import APP, Lab
from tests.conftest import until

KEY, NEW = "the key of these tests", "the key after that one"


@pytest.fixture
def signer(lab: Lab) -> Signer:
    lab.environment["RQ_LITE_SECRET"] = KEY
    return Signer([KEY.encode()])


def job(task: str, *args: object, **fields: object) -> bytes:
    return encode(Message(VERSION, new_id(), f"{APP}:{task}", list(args), **fields))  # type: ignore[arg-type]


def test_only_what_is_signed_for_this_queue_is_run(lab: Lab, signer: Signer) -> None:
    good = signer.seal("work", job("do", "good"))
    altered = signer.seal("work", job("do", "harmless")).replace(b"harmless", b"my words")
    elsewhere = signer.seal("other", job("do", "elsewhere"))
    stranger = Signer([NEW.encode()]).seal("work", job("do", "stranger"))
    bad = [job("do", "unsigned"), altered, elsewhere, stranger, b"no job at all"]
    lab.put_raw(good, *bad, b"2.0" + signer.seal("work", job("do", "third")), signer.seal("work", b'{"v":1}'))
    worker = lab.drain()
    assert sorted(lab.seen("done")) == ["good", "third"]
    found = {dead.raw: dead.report for dead in lab.dead()}
    assert {raw: report["error"] for raw, report in found.items() if raw in bad} == {
        bad[0]: f"refused: {UNSIGNED}",
        altered: f"refused: {UNFIT}",
        elsewhere: f"refused: {UNFIT}",
        stranger: f"refused: {UNFIT}",
        bad[4]: f"refused: {UNSIGNED}",
    }
    assert all(report["id"] is None and report["task"] is None for report in found.values())
    assert [report["error"][:10] for raw, report in found.items() if raw not in bad] == ["not a job:"]
    assert KEY not in worker.said


def test_who_waits_for_a_job_that_is_refused_hears_of_it(lab: Lab, signer: Signer) -> None:
    """Nobody vouches for its callbacks: they are not put."""
    then = {"done": ["work", f"{APP}:do"]}
    entry = encode(Message(VERSION, "id-1", f"{APP}:do", ["unsigned"], result_ttl=60.0, then=then))
    job = Job(id="id-1", queue="work", task=f"{APP}:do", broker=lab.broker, result_ttl=60.0)
    assert not job.done()
    lab.put_raw(b"0.0#id-1" + entry)
    lab.drain()
    error = job.exception(timeout=30)
    assert isinstance(error, JobFailed)
    assert (error.type, error.message) == ("Refused", UNSIGNED)
    assert (lab.seen("done"), lab.waiting()) == ([], [])


def test_dead_requeue_puts_it_back_as_it_was(lab: Lab, signer: Signer) -> None:
    forged = job("do", "forged")
    signed = signer.seal("work", job("fail", "signed"))
    lab.put_raw(forged, signed)
    lab.drain()
    assert sorted(dead.raw for dead in lab.dead()) == sorted([forged, signed])
    assert lab.commands.run("dead", "requeue", "--all").returncode == 0
    assert sorted(lab.waiting()) == sorted([forged, signed])


def test_without_a_secret_a_signed_job_is_run(lab: Lab) -> None:
    lab.put_raw(Signer([KEY.encode()]).seal("work", job("do", "signed")), job("do", "plain"))
    lab.drain()
    assert sorted(lab.seen("done")) == ["plain", "signed"]


def test_the_old_key_is_accepted_while_it_is_listed(lab: Lab, signer: Signer) -> None:
    lab.put_raw(signer.seal("work", job("do", "old")), Signer([NEW.encode()]).seal("work", job("do", "new")))
    lab.environment["RQ_LITE_SECRET"] = f"{NEW},{KEY}"
    lab.drain()
    assert sorted(lab.seen("done")) == ["new", "old"]


def test_produce_signs(lab: Lab, signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a\nb\n")
    ended = lab.commands.run("produce", "lines.txt", "--task", f"{APP}:do")
    assert ended.returncode == 0, ended.stderr
    assert len(lab.waiting()) == 2
    for entry in lab.waiting():
        signer.opened("work", entry)


def test_a_job_put_by_a_job_is_signed_and_so_run(lab: Lab, signer: Signer) -> None:
    lab.put_raw(signer.seal("tiny", job("spread", 3)), queue="tiny")
    lab.drain()
    assert sorted(lab.seen("done")) == ["0", "0", "0", "3"]


def test_the_attempts_of_a_signed_job_are_counted(lab: Lab, signer: Signer) -> None:
    entry = signer.seal("work", job("fail", "x", retries=2))
    lab.put_raw(entry)
    lab.drain()
    (dead,) = lab.dead()
    assert dead.report["attempts"] == 3
    assert dead.raw == b"2.0" + entry


def test_poison_that_is_signed_has_its_id_in_the_report(lab: Lab, signer: Signer) -> None:
    entry = signer.seal("work", job("crash", "x"))
    lab.put_raw(entry)
    lab.drain()
    (dead,) = lab.dead()
    assert dead.report["task"] == f"{APP}:crash"
    assert dead.report["error"].startswith("poison")


def test_a_job_that_is_killed_for_its_time_was_looked_at_first(lab: Lab, signer: Signer) -> None:
    """Altered in Redis while it runs: nothing that it says counts, and who gets it next buries it."""
    entry = signer.seal("work", job("hog", "python", timeout=0.5))
    lab.put_raw(entry)
    worker = lab.work("--grace", "0.5")
    lab.until_seen("begun", 1)
    (name,) = lab.broker.read(("KEYS", keys.of("work").inflight("*")))[0]
    (tag,) = lab.broker.read(("HKEYS", name))[0]
    lab.broker.read(("HSET", name, tag, entry.replace(b'"timeout":0.5', b'"timeout":0.5,"retries":999')))
    until(lambda: lab.dead(), "it is buried")
    (dead,) = lab.dead()
    assert dead.report["error"] == f"refused: {UNFIT}"
    worker.stop()


@pytest.mark.parametrize("command", [["work", APP], ["status"], ["produce", "x"]])
def test_a_short_secret_is_refused_by_every_command_and_not_shown(lab: Lab, command: list[str]) -> None:
    lab.environment["RQ_LITE_SECRET"] = "hunter2hunter2"
    ended = lab.commands.run(*command)
    assert ended.returncode == 2
    assert "shorter than 16 characters" in ended.stderr
    assert "hunter2" not in ended.stderr + ended.stdout


CALLING = """
from pathlib import Path
from rq_lite import Ended, Queue

work, after = Queue("work"), Queue("after")

@after.task
def good(result): note(f"good {result}")

@after.task
def bad(ended: Ended): note(f"bad {ended.error}")

@work.task(on_success=good, on_failure=bad, result_ttl=60)
def half(n): return 10 / n

@after.task(every=1, args=["again"])
def tick(what): note(what)

def note(what):
    with open("notes", "a") as file:
        file.write(f"{what}\\n")
"""


def test_callbacks_and_schedules_are_run_too(lab: Lab, signer: Signer) -> None:
    (lab.folder / "calling.py").write_text(CALLING)
    for n in (2, 0):
        message = Message(
            VERSION, f"id-{n}", "calling:half", [n], result_ttl=60.0,
            then={"success": ["after", "calling:good"], "failure": ["after", "calling:bad"]},
        )  # fmt: skip
        lab.put_raw(b"0.0#id-%d" % n + signer.seal("work", encode(message)))
    worker = lab.work(app="calling")
    notes = lab.folder / "notes"
    wanted = {"good 5.0", "bad ZeroDivisionError: division by zero", "again"}
    until(lambda: notes.exists() and set(notes.read_text().splitlines()) == wanted, "all of it is run")
    worker.stop()
    assert [dead.report["error"][:17] for dead in lab.dead()] == ["ZeroDivisionError"]
    assert lab.dead("after") == []

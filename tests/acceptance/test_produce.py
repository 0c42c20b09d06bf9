"""`rq-lite produce`: every line becomes a job, once, and a full queue makes it wait."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from rq_lite.admin import operate
from rq_lite.broker import keys
from tests.acceptance.conftest import Lab
from tests.conftest import DURABLE, Server, each_server, until
from tests.faults.proxy import Proxy

ALONE = "queue 'work' is full and no consumer runs: start one with `rq-lite work APP`"


@pytest.mark.parametrize(
    ("name", "task", "text", "done"),
    [
        ("things.txt", "do", "a b\n\n  c\r\nd", ["a b", "  c", "d"]),
        ("things.ndjson", "row", '{"name":"a","size":1}\n["b",2]\n', ["a1", "b2"]),
        ("things.csv", "row", 'size,name\n1,a\n\n2,"b,\nc"\n', ["a1", "b,", "c2"]),
        ("things.tsv", "row", "size\tname\n1\ta\n", ["a1"]),
    ],
)
def test_a_file_becomes_jobs(lab: Lab, name: str, task: str, text: str, done: list[str]) -> None:
    (lab.folder / name).write_text(text, newline="")
    made = lab.produce(task, name)
    assert (made.returncode, made.stdout) == (0, "")
    lab.drain("--greenlets", "1")
    evidence = (lab.folder / "evidence" / "done").read_text().splitlines()
    assert [line.rsplit(" ", 1)[0] if line[-1:].isdigit() else line for line in evidence] == done


def test_standard_input_becomes_jobs_before_it_ends(lab: Lab) -> None:
    producer = lab.commands.start("produce", "--task", f"{lab.app}:do", "-", stdin=subprocess.PIPE)
    assert producer.stdin is not None
    lines = 0

    def some_are_put() -> bool:
        nonlocal lines
        assert producer.stdin is not None
        producer.stdin.write(f"{lines}\n")
        producer.stdin.flush()
        lines += 1
        return lab.put_so_far() >= 3

    until(some_are_put, "3 jobs")
    producer.communicate(timeout=60)
    assert producer.returncode == 0
    assert lab.arguments() == [str(i) for i in range(lines)]


def test_numbers_become_jobs_in_their_order(lab: Lab) -> None:
    made = lab.produce("number", "--count", "1700")
    assert made.returncode == 0
    assert made.stderr.startswith("1,700 jobs put into 'work' in ")
    assert lab.arguments() == list(range(1700))


@pytest.mark.parametrize(
    ("number", "code", "how"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_rate_holds_jobs_back_and_a_signal_keeps_what_was_put(lab: Lab, number: int, code: int, how: str) -> None:
    producer = lab.producer("number", "--count", "3", "--rate", "1/h")
    assert producer.stderr is not None
    assert producer.stderr.readline().startswith("work: 33 %, ")  # it knows
    producer.send_signal(number)
    out, err = producer.communicate(timeout=60)
    assert (producer.returncode, out) == (code, "")
    assert err.splitlines()[-1] == f"rq-lite: {how}"
    assert err.splitlines()[-2].startswith("1 job put into 'work' in ")
    assert "Traceback" not in err
    assert lab.arguments() == [0]


@pytest.mark.parametrize(
    ("number", "code", "how"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("batch", [1, 500])
def test_a_signal_before_the_answer_to_a_put_is_told_as_that(
    lab: Lab, proxy: Proxy, number: int, code: int, how: str, batch: int
) -> None:
    lab.put("number", "first")  # Redis knows the script
    proxy.swallow_replies(":producer:", hang_up=False)
    producer = lab.producer("number", "--count", "1000", "--batch", str(batch), "--url", proxy.url)
    lab.until_put(2)
    put = lab.put_so_far() - 1
    producer.send_signal(number)
    _, err = producer.communicate(timeout=60)
    what = (
        "a job was being put: it is not known whether it was"
        if put == 1
        else f"{put} jobs were being put: it is not known how many were"
    )
    assert (producer.returncode, err) == (code, f"rq-lite: {how} while {what}\n")
    assert lab.arguments() == ["first", *range(put)]


def test_no_room_for_too_long_is_exit_code_4(lab: Lab) -> None:
    made = lab.produce("number", "--count", "5", "--maxsize", "2", "--wait", "0.2")
    assert made.returncode == 4
    assert made.stderr.splitlines()[-1] == (
        "rq-lite: queue 'work' is full: 2 jobs waiting, bound 2; 0 consumers alive, none was ever seen"
    )
    assert lab.arguments() == [0, 1]


def test_json_is_one_object_and_nothing_else(lab: Lab) -> None:
    made = lab.produce("number", "--count", "5", "--json")
    assert (made.returncode, made.stderr) == (0, "")
    result = json.loads(made.stdout)
    assert (result["queue"], result["put"], result["size"], result["error"]) == ("work", 5, 5, None)

    made = lab.produce("number", "--count", "5", "--json", "--maxsize", "8", "--wait", "0")
    assert made.returncode == 4
    result = json.loads(made.stdout)
    assert (result["put"], result["size"], result["maxsize"], result["deepest"]) == (3, 8, 8, 8)
    assert result["error"] in made.stderr


def test_what_was_kept_out_or_dropped_is_counted_apart(lab: Lab) -> None:
    lab.produce("once", "--count", "3")
    made = lab.produce("once", "--count", "5")
    assert made.returncode == 0
    assert made.stderr.splitlines()[-1].startswith("2 jobs put into 'work' in ")
    assert made.stderr.splitlines()[-1].endswith(", 3 duplicates kept out")
    operate.configure(lab.broker, "work", maxsize=6, full="drop-new")
    result = json.loads(lab.produce("number", "--count", "5", "--json").stdout)
    assert (result["put"], result["duplicates"], result["dropped"], result["size"]) == (5, 0, 4, 6)


def test_no_progress_says_nothing(lab: Lab) -> None:
    made = lab.produce("number", "--count", "5", "--no-progress")
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")


def test_on_a_pipe_a_plain_line_comes_now_and_then(lab: Lab) -> None:
    producer = lab.producer("number", "--count", "5", "--maxsize", "2")
    assert producer.stderr is not None
    assert producer.stderr.readline().endswith(f" produce {ALONE}\n")
    line = producer.stderr.readline()
    assert line.startswith("work: 40 %, ")
    assert "2 put, " in line
    assert "queue 2/2" in line
    assert line.endswith("waiting for room\n")
    producer.send_signal(signal.SIGINT)
    _, err = producer.communicate(timeout=60)
    assert producer.returncode == 130
    assert "\x1b" not in err
    assert ALONE not in err
    assert lab.arguments() == [0, 1]


def test_who_waits_for_room_in_a_paused_queue_is_told(lab: Lab) -> None:
    lab.broker.puts.declare("work", 2)
    operate.pause(lab.broker, "work")
    producer = lab.producer("number", "--count", "5")
    assert producer.stderr is not None
    assert "queue 'work' is full and paused: `rq-lite queue resume work`" in producer.stderr.readline()
    operate.resume(lab.broker, "work")
    producer.send_signal(signal.SIGINT)
    producer.communicate(timeout=60)


def test_a_producer_says_that_redis_is_away(private: Callable[..., Server], lab_at: Callable[[Server], Lab]) -> None:
    server = private("--appendonly", "yes")
    lab = lab_at(server)
    lab.broker.puts.declare("work", 0)
    producer = lab.producer("number", "--count", "1000000", "--rate", "50")
    until(lambda: lab.put_so_far() > 0, "something is put")
    server.kill()
    assert producer.stderr is not None
    while "cannot be reached" not in (line := producer.stderr.readline()):
        assert line
    assert "trying again for up to" in line
    producer.send_signal(signal.SIGINT)
    producer.communicate(timeout=60)


def test_who_waits_beside_a_consumer_hears_nothing_of_it(lab: Lab) -> None:
    lab.work("--greenlets", "1", app="tests.acceptance.apps.jobs").says("ready")
    producer = lab.producer("hold", "--count", "5", "--maxsize", "2")
    assert producer.stderr is not None
    assert producer.stderr.readline().startswith("work: ")
    lab.open_gate()
    assert ALONE not in producer.communicate(timeout=60)[1]
    assert producer.returncode == 0


def test_on_a_terminal_what_is_said_stands_above_the_live_line(lab: Lab) -> None:
    ours, theirs = os.openpty()
    shown = b""
    command = [
        sys.executable,
        "-m",
        "rq_lite",
        "produce",
        "--task",
        f"{lab.app}:number",
        "--count",
        "5",
        "--maxsize",
        "2",
    ]
    terminal = {**lab.environment, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, cwd=lab.folder, env=terminal, stderr=theirs) as producer:
        os.close(theirs)
        while ALONE.encode() not in shown:
            shown += os.read(ours, 4096)
        producer.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the end of a terminal
            while more := os.read(ours, 4096):
                shown += more
    os.close(ours)
    assert producer.returncode == 130
    # Erased and begun anew: nothing of the live line is left in front of it.
    assert re.search(rb"\x1b\[2K\d\d:\d\d:\d\d produce " + re.escape(ALONE.encode()), shown)


def test_a_bad_line_stops_after_what_came_before_it(lab: Lab) -> None:
    (lab.folder / "things.ndjson").write_text('"a"\n"b"\n{broken\n"d"\n')
    made = lab.produce("do", "things.ndjson")
    assert (made.returncode, made.stdout) == (1, "")
    assert made.stderr.splitlines()[-1].startswith("rq-lite: things.ndjson, line 3: not JSON")
    assert "--on-error skip" in made.stderr.splitlines()[-1]
    assert lab.arguments() == ["a", "b"]


def test_a_file_of_another_encoding_is_put_when_it_is_named(lab: Lab) -> None:
    (lab.folder / "urls.txt").write_text("http://a/\nhttp://b/ù\n", encoding="utf-16")
    refused = lab.produce("do", "urls.txt", "--on-error", "skip", "--resume", "r")
    assert refused.returncode == 1
    assert "begins with the byte order mark of UTF-16, and is read as UTF-8: say --encoding utf-16" in refused.stderr
    assert lab.state().put == 0
    for _ in range(2):
        assert lab.produce("do", "urls.txt", "--encoding", "utf-16", "--resume", "r").returncode == 0
    with (lab.folder / "urls.txt").open("a", encoding="utf-16-le") as out:
        out.write("http://c/\n")
    assert lab.produce("do", "urls.txt", "--encoding", "UTF16", "--resume", "r").returncode == 0
    assert lab.arguments() == ["http://a/", "http://b/ù", "http://c/"]


def test_bad_lines_are_skipped_counted_and_kept(lab: Lab) -> None:
    (lab.folder / "things.csv").write_text("name,size\na,1\nb,many\nc\nd,4\n")
    made = lab.produce("row", "things.csv", "--on-error", "skip", "--json")
    assert made.returncode == 0
    result = json.loads(made.stdout)
    assert (result["put"], result["skipped"]) == (2, 2)
    assert (lab.folder / "things.csv.skipped").read_text() == "name,size\nb,many\nc\n"
    reasons = (lab.folder / "things.csv.skipped.reasons").read_text().splitlines()
    assert [reason.split(": ")[0] for reason in reasons] == ["line 3", "line 4"]
    assert reasons[1] == "line 4: 1 column where the header has 2"
    made = lab.produce("row", "things.csv", "--on-error", "skip")
    assert made.stderr.endswith(", 2 rows skipped\n")


def test_a_blocked_producer_goes_on_with_a_worker_and_never_beyond_the_bound(lab: Lab) -> None:
    producer = lab.producer("do", "--count", "500", "--maxsize", "20", "--no-progress")
    until(lambda: lab.state().pending == 20, "the queue is full")
    worker = lab.work("--greenlets", "5")
    lengths = set()

    def done() -> bool:
        lengths.add(lab.broker.read(("LLEN", keys.of("work").pending))[0])
        return len(lab.runs("done")) >= 500

    until(done, "all jobs done")
    assert producer.wait(60) == 0
    assert worker.stop() == 0
    assert max(lengths) <= 20
    assert sorted(map(int, lab.seen("done"))) == list(range(500))


@each_server
def test_redis_gone_in_the_middle_neither_loses_nor_doubles_a_job(
    private: Callable[..., Server], lab_at: Callable[[Server], Lab], program: str
) -> None:
    server = private(*DURABLE, program=program)
    lab = lab_at(server)
    producer = lab.producer("number", "--count", "3000", "--rate", "3000", "--no-progress")
    for reached in (500, 1500):
        lab.until_put(reached)
        server.kill()
        server.start(*DURABLE)
    assert producer.wait(60) == 0
    assert lab.arguments() == list(range(3000))


def test_lost_answers_to_puts_neither_lose_nor_double_a_job(lab: Lab, proxy: Proxy) -> None:
    proxy.swallow_replies(":producer:", nth=4)
    assert lab.produce("number", "--count", "2000", "--batch", "50", "--url", proxy.url).returncode == 0
    assert proxy.counters.swallowed >= 10
    assert lab.arguments() == list(range(2000))


def test_the_end_of_a_pipe_of_output_is_no_traceback(lab: Lab) -> None:
    producer = lab.producer("number", "--count", "1", "--json")
    assert producer.stdout is not None
    producer.stdout.close()
    producer.stdout = None
    _, err = producer.communicate(timeout=60)
    assert "Traceback" not in err
    assert lab.arguments() == [0]

"""`rq-lite produce --resume`: however often it is killed, every line is put once."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Lab
from tests.conftest import until
from tests.warm import Process

LINES = 2000
Write = Callable[[Path], set[str]]


def write_lines(file: Path) -> set[str]:
    """With blank lines, and some that are no text."""
    with file.open("wb") as out:
        for i in range(LINES):
            out.write(b"\n" * (i % 7 == 0) + (b"\xff bad\n" if i % 11 == 0 else b"") + b"line-%d\n" % i)
        out.write(b"\n\xff bad at the end\n\n")
    return {f"line-{i}" for i in range(LINES)}


def write_csv(file: Path) -> set[str]:
    """With blank rows, rows of another width, sizes that are no numbers, and a long row of several lines."""
    with file.open("w") as out:
        out.write("name,size\n")
        for i in range(LINES):
            out.write("\n" * (i % 7 == 0) + "too,many,columns\n" * (i % 11 == 0) + "x,none\n" * (i % 13 == 0))
            out.write(f'"line-",{i}\n')
    return {f"line-{i}" for i in range(LINES)}


def kill_at(lab: Lab, producer: Process, put: int) -> None:
    until(lambda: lab.put_so_far() >= put or producer.poll() is not None, f"{put} put")
    producer.kill()
    producer.wait()


@pytest.mark.parametrize(("name", "task", "write"), [("a.txt", "do", write_lines), ("a.csv", "row", write_csv)])
def test_a_feed_killed_at_any_moment_puts_every_line_once(lab: Lab, name: str, task: str, write: Write) -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    expected = write(lab.folder / name)
    options = (name, "--resume", "r", "--on-error", "skip", "--no-progress", "--maxsize", "30", "--batch", "17")
    lab.work("--greenlets", "20")
    for target in sorted(chance.sample(range(LINES), 5)):
        producer = lab.producer(task, *options)
        kill_at(lab, producer, target)
    ended = lab.produce(task, *options)
    assert ended.returncode == 0, ended.stderr
    until(lambda: len({*lab.seen("done")}) >= LINES, "every line done")
    again = lab.produce(task, *options, "--json")
    assert '"put":0' in again.stdout
    until(lambda: lab.state().inflight == lab.state().pending == 0, "nothing left")
    assert Counter(lab.seen("done")) == Counter(expected)


def test_a_finished_feed_puts_what_was_added_since_and_no_more(lab: Lab) -> None:
    file = lab.folder / "a.txt"
    file.touch()
    for added, says in (
        ("", "0 jobs put into 'work' in "),
        ("a\n", "1 job put into 'work' in "),
        ("", "feed 'r': 1 line was put before, nothing new"),
        ("b\n", "feed 'r': going on at line 2\n1 job put into 'work' in "),
        ("\n", "feed 'r': 3 lines were put before, nothing new"),
        ("c\n", "feed 'r': going on at line 4\n1 job put into 'work' in "),
    ):
        with file.open("a") as out:
            out.write(added)
        made = lab.produce("do", "a.txt", "--resume", "r")
        assert made.returncode == 0
        assert re.sub(r"\d\d:\d\d:\d\d produce ", "", made.stderr).startswith(says)
    assert lab.arguments() == ["a", "b", "c"]


def test_numbers_can_be_resumed_too(lab: Lab) -> None:
    assert lab.produce("number", "--count", "5", "--resume", "r", "--maxsize", "3", "--wait", "0").returncode == 4
    made = lab.produce("number", "--count", "5", "--resume", "r", "--maxsize", "9")
    assert made.returncode == 0
    assert "produce feed 'r': going on at number 3\n2 jobs put" in made.stderr
    made = lab.produce("number", "--count", "5", "--resume", "r")
    assert (made.returncode, made.stderr) == (0, "feed 'r': 5 numbers were put before, nothing new\n")
    assert lab.arguments() == list(range(5))


def test_a_pipe_is_read_from_its_first_byte_on(lab: Lab) -> None:
    """As the shell makes one for `<(zcat lines.gz)`: what is read of it to know it again is gone."""
    pipe = lab.folder / "pipe"
    os.mkfifo(pipe)
    for count in (2, 3):  # the second time with one line more
        with subprocess.Popen(f"seq {count} > pipe", shell=True, cwd=lab.folder) as writer:
            ended = lab.produce("do", "pipe", "--resume", "r", "--no-progress")
            writer.wait(30)
        assert ended.returncode == 0, ended.stderr
    assert lab.arguments() == ["1", "2", "3"]


def test_another_file_under_the_name_of_a_feed_is_refused(lab: Lab) -> None:
    (lab.folder / "a.txt").write_text("a\nb\n")
    (lab.folder / "b.txt").write_text("x\ny\n")
    assert lab.produce("do", "a.txt", "--resume", "r").returncode == 0
    refused = lab.produce("do", "b.txt", "--resume", "r")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("rq-lite: b.txt is not the file that feed 'r' was begun with")
    assert lab.arguments() == ["a", "b"]


def test_a_feed_whose_file_was_cut_is_refused(lab: Lab) -> None:
    (lab.folder / "a.txt").write_text("a\n" * 5000)
    assert lab.produce("do", "a.txt", "--resume", "r").returncode == 0
    (lab.folder / "a.txt").write_text("a\n" * 4000)
    refused = lab.produce("do", "a.txt", "--resume", "r")
    assert refused.returncode == 1
    assert "ends before the place where the feed stopped" in refused.stderr
    assert lab.state().pending == 5000


def test_two_producers_of_the_same_feed_put_every_line_once(lab: Lab) -> None:
    expected = write_lines(lab.folder / "a.txt")
    options = ("a.txt", "--resume", "r", "--on-error", "skip", "--no-progress", "--maxsize", "5")
    producers = []
    for count in (1, 2):
        producers.append(lab.producer("do", *options))
        lab.until_blocked(count)
    lab.work("--greenlets", "20")
    for producer in producers:
        producer.wait(60)
    assert sorted(producer.returncode for producer in producers) == [0, 1]
    said = "".join(producer.stderr.read() for producer in producers if producer.stderr is not None)
    assert "rq-lite: feed 'r' was moved by another producer" in said
    until(lambda: len(lab.seen("done")) >= LINES, "every line done")
    until(lambda: lab.state().inflight == lab.state().pending == 0, "nothing left")
    assert Counter(lab.seen("done")) == Counter(expected)


def test_a_feed_that_was_interrupted_goes_on_behind_what_was_put(lab: Lab) -> None:
    (lab.folder / "a.txt").write_text("a\nb\nc\n")
    producer = lab.producer("do", "a.txt", "--resume", "r", "--maxsize", "2")
    lab.until_put(2)
    lab.until_blocked(1)
    producer.send_signal(signal.SIGINT)
    assert producer.wait(60) == 130
    assert lab.produce("do", "a.txt", "--resume", "r", "--maxsize", "9").returncode == 0
    assert lab.arguments() == ["a", "b", "c"]

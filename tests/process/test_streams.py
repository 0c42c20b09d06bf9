"""Standard streams that take nothing more, or not just now."""

from __future__ import annotations

import io
import os
import select
import threading
from pathlib import Path

import pytest

from rq_lite.process.streams import LACKING, Outlet, Stream


class Heard:
    """What became of the writes."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def __call__(self, _file: int, error: OSError) -> None:
        self.errors.append(type(error).__name__ if error.strerror is None else error.strerror)


def stream_on(file: int, heard: Heard, *, buffered: bool = True) -> Stream:
    outlet = Outlet(file, heard, select.poll)
    return Stream(io.BufferedWriter(outlet) if buffered else outlet, line_buffering=True)


def test_what_nobody_reads_goes_nowhere_and_is_told_once() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    heard = Heard()
    stream = stream_on(writer, heard)
    for number in range(3):
        print(number, "x" * 100_000, file=stream)
    os.close(writer)
    print("to a file that is closed", file=stream)
    assert heard.errors == ["Broken pipe"]


def test_a_reader_that_comes_again_hears_what_is_printed_from_then_on(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", Heard()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY)
    stream = stream_on(writer, heard)
    os.close(reader)
    print("before", file=stream)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    print("after", file=stream)
    assert os.read(reader, 100) == b"after\n"
    assert heard.errors == ["Broken pipe"]
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("buffered", [True, False])
def test_a_slow_reader_gets_all_of_it_also_where_the_pipe_does_not_block(buffered: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    heard, read = Heard(), bytearray()

    def slowly() -> None:
        while piece := os.read(reader, 10_000):
            read.extend(piece)

    thread = threading.Thread(target=slowly)
    stream = stream_on(writer, heard, buffered=buffered)
    text = "".join(f"{number}\n" for number in range(100_000))
    thread.start()
    stream.write(text)
    stream.flush()
    os.close(writer)
    thread.join()
    os.close(reader)
    assert read.decode() == text
    assert heard.errors == []


def test_who_closes_a_stream_closes_it_for_no_other() -> None:
    reader, writer = os.pipe()
    stream = stream_on(writer, Heard())
    with stream:
        stream.write("one ")
    print("two", file=stream)
    assert os.read(reader, 100) == b"one two\n"
    os.close(reader)
    os.close(writer)


def test_what_is_raised_for_a_failure_is_raised_once() -> None:
    def refuse(_file: int, error: OSError) -> None:
        raise error

    full = os.open("/dev/full", os.O_WRONLY)
    stream = Stream(io.BufferedWriter(Outlet(full, refuse, select.poll)), line_buffering=True)
    with pytest.raises(OSError, match="No space left"):
        print("one", file=stream)
    print("two", file=stream)
    stream.flush()
    os.close(full)


def test_signs_that_a_locale_lacks_have_others_of_the_same_width() -> None:
    line = "mails…long-name ━━── 2 × 3 · ✗ é"
    assert line.encode("ascii", LACKING) == rb"mails~long-name ##-- 2 x 3 - \u2717 \xe9"
    assert line.encode("latin-1", LACKING) == b"mails~long-name ##-- 2 \xd7 3 \xb7 \\u2717 \xe9"
    assert line.encode("gbk", LACKING).decode("gbk") == line.replace("✗", r"\u2717")

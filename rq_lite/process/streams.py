"""The standard streams of our processes: no print is lost at the end, and none fails because its reader is gone.

What jobs print is written line by line as it comes. If a stream cannot be written any more (its reader is gone, the
disk is full), the output is dropped, with one line that says this: no job is to blame for it. For a command's own
output the write fails, once.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any

from rq_lite.errors import RqLiteError

NAMES = {1: "stdout", 2: "stderr"}
# What a locale that lacks our own signs gets instead: an escape would be longer, and shift the columns of tables.
SIGNS = {"…": "~", "━": "#", "─": "-", "·": "-", "×": "x"}
LACKING = "rq_lite.lacking"


def lacking(error: UnicodeError) -> tuple[str, int]:
    """For `codecs`: what is printed in the place of characters that the locale lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(SIGNS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing), error.end


codecs.register_error(LACKING, lacking)


class Unwritten(RqLiteError):
    """A command's output cannot be written."""


class Outlet(io.RawIOBase):
    """The file of a standard stream. `failed` is called for the first error of a write, and may raise."""

    def __init__(self, file: int, failed: Callable[[int, OSError], None], poll: Callable[[], Any]) -> None:
        self._file = file
        self._failed = failed
        self._poll = poll
        self._told = False
        self.name = f"<{NAMES.get(file, file)}>"

    def write(self, data: Any, /) -> int:
        """Write all of it: an unbuffered text stream ignores the count."""
        view = left = memoryview(data).cast("B")
        while left:
            try:
                left = left[os.write(self._file, left) :]
            except BlockingIOError:  # another process, with the same terminal or pipe, has set it to non-blocking
                ready = self._poll()
                ready.register(self._file, select.POLLOUT)
                ready.poll()
            except OSError as error:
                if not self._told:
                    self._told = True
                    self._failed(self._file, error)
                break
        return view.nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file

    def isatty(self) -> bool:
        return os.isatty(self._file)


class Stream(io.TextIOWrapper):
    """A standard stream that a job cannot close: its neighbours go on using it."""

    def close(self) -> None:
        self.flush()


def by_line(poll: Callable[[], Any] = select.poll) -> None:
    """For a process in which jobs run: from now on a line is written whole and at once, or dropped.

    `poll` must wait without letting another greenlet write meanwhile.
    """
    for number in NAMES:
        _replace(number, goes_nowhere, poll, line_buffering=True)


def of_command() -> None:
    """For a command: a failure of standard output ends it, with one line; one of standard error is ignored."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # it is closed: the next file would take its number, and get what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            if number in NAMES:  # not None: what is printed to None goes to the other stream
                setattr(sys, NAMES[number], os.fdopen(number, "w", closefd=False))
    _replace(1, fails, select.poll)
    _replace(2, lambda *_: None, select.poll)


def _replace(
    number: int,
    failed: Callable[[int, OSError], None],
    poll: Callable[[], Any],
    *,
    line_buffering: bool | None = None,
) -> None:
    name = NAMES[number]
    now = getattr(sys, name)
    if not isinstance(now, io.TextIOWrapper) or now is not getattr(sys, f"__{name}__") or now.fileno() != number:
        return  # closed from the beginning, or not the system's
    with contextlib.suppress(OSError):
        now.flush()
    outlet: Any = Outlet(number, failed, poll)
    stream = Stream(
        outlet if isinstance(now.buffer, io.RawIOBase) else io.BufferedWriter(outlet),
        encoding=now.encoding,
        errors=LACKING,  # of what a name or an error holds, too
        newline="\n",
        line_buffering=now.line_buffering if line_buffering is None else line_buffering,
        write_through=now.write_through,
    )
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def goes_nowhere(number: int, error: OSError) -> None:
    """Say it on standard error, past Python's streams: one of them is in the middle of a write."""
    if number == 1:
        line = f"rq-lite [{os.getpid()}]: standard output: {error.strerror}; what jobs print there goes nowhere\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode())


def fails(_number: int, error: OSError) -> None:
    if isinstance(error, BrokenPipeError):  # click then ends the command without a word
        raise error
    raise Unwritten(f"standard output: {error.strerror}")


def flush() -> None:
    """Write what has no line end yet. Never raises: an app may have replaced the streams by anything."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.flush()

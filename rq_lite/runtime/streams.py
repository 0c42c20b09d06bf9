"""What jobs print: line by line as it comes, also into a pipe or a file, and nothing of it is lost at the end."""

from __future__ import annotations

import contextlib
import io
import sys


def by_line() -> None:
    """From now on a whole line goes out at once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def flush() -> None:
    """Out with what has no line end yet. Never raises: nobody may be left who reads it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.flush()

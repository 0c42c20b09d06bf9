"""For tests and examples of programs that use rq_lite."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rq_lite.errors import RqLiteError
from rq_lite.parts import Part
from rq_lite.process import this

READY = 30.0  # seconds that a worker has to begin


@contextlib.contextmanager
def worker(app: str, *, procs: int = 1, greenlets: int = 20) -> Iterator[Part]:
    """A real `rq-lite work APP` on this process's Redis, in a process of its own, for the time of the block.

    It is ready when the block begins, and was told to stop and has ended when the block has. Raises RqLiteError, with
    what it said, when it does not begin.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["rq_lite", "work", app, "--procs", str(procs), "--greenlets", str(greenlets)]
        part = Part("worker", command, Path(folder), environ={"RQ_LITE_URL": this.broker.url})
        try:
            until = time.monotonic() + READY
            while part.said.count(" ready (pid ") < procs:
                trouble = part.trouble()
                if trouble or time.monotonic() > until:
                    raise RqLiteError(trouble or f"the worker was not ready within {READY:g} s: {part.said}")
                time.sleep(0.02)
            yield part
        finally:
            part.stop()

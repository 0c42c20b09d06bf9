"""A bounded queue, through which a file is fed: `rq-lite work benchmarks.bounded`."""

from __future__ import annotations

from benchmarks import bodies
from rq_lite import Queue

BOUND = 10_000
PENDING, META = "rq:{bounded}:pending", "rq:{bounded}:meta"

line = Queue("bounded", maxsize=BOUND).task(name="benchmarks.bounded:line")(bodies.noop)

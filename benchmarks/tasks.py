"""The jobs as rq_lite's tasks, for `rq-lite work benchmarks.tasks`."""

from __future__ import annotations

from benchmarks import bodies
from rq_lite import Queue

queue = Queue("bench", maxsize=50_000_000)

noop = queue.task()(bodies.noop)
nap = queue.task()(bodies.nap)
ping = queue.task()(bodies.ping)
echo = queue.task(result_ttl=60)(bodies.echo)

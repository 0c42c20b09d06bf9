"""SAQ on Redis.

From its readme: `saq settings --workers P`, `concurrency` jobs at a time in each, hiredis installed.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from saq import Queue

from benchmarks import bodies, tally


async def noop(_: Any, *, argument: str) -> None:
    bodies.noop(argument)


async def nap(_: Any, *, argument: float) -> None:
    await asyncio.sleep(argument)
    tally.count()


async def ping(_: Any, *, argument: float) -> None:
    bodies.ping(argument)


async def echo(_: Any, *, argument: float) -> float:
    return bodies.echo(argument)


queue = Queue.from_url(os.environ["BENCH_REDIS"], name="benchmark")

settings = {
    "queue": queue,
    "functions": [noop, nap, ping, echo],
    "concurrency": int(os.environ.get("BENCH_GREENLETS", "200")),
}


async def put(task: str, argument: object) -> None:
    await queue.enqueue(task, argument=argument)


async def ask(argument: float) -> Any:
    # SAQ polls for the result: here every millisecond (by default every 0.5 s).
    return await queue.apply("echo", argument=argument, poll_interval=0.001)

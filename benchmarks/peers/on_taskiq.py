"""Taskiq on Redis streams.

From its documentation: RedisStreamBroker, the one that acknowledges; `--workers P --max-async-tasks N`; the extra
`uv` (uvloop), which its worker uses when it is installed; `startup` before the first put.
"""

from __future__ import annotations

import asyncio
import os

from taskiq_redis import RedisStreamBroker

from benchmarks import bodies, tally

broker = RedisStreamBroker(url=os.environ["BENCH_REDIS"], queue_name="benchmark", max_connection_pool_size=1000)


async def noop(argument: str) -> None:
    bodies.noop(argument)


async def nap(argument: float) -> None:
    await asyncio.sleep(argument)
    tally.count()


async def ping(argument: float) -> None:
    bodies.ping(argument)


TASKS = {body.__name__: broker.register_task(body, task_name=body.__name__) for body in (noop, nap, ping)}


async def start() -> None:
    await broker.startup()


async def put(task: str, argument: object) -> None:
    await TASKS[task].kiq(argument)

"""Taskiq on Redis streams.

From its documentation: RedisStreamBroker, the one that acknowledges; `--workers P --max-async-tasks N`; the extra
`uv` (uvloop), which its worker uses when it is installed; `startup` before the first put.
"""

from __future__ import annotations

import asyncio
import os

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks import bodies, tally

broker = RedisStreamBroker(url=os.environ["BENCH_REDIS"], queue_name="benchmark", max_connection_pool_size=1000)


# For runs that read results: Taskiq can only poll for them; here every millisecond (by default every 0.2 s).
if os.environ.get("BENCH_RESULTS"):
    broker = broker.with_result_backend(RedisAsyncResultBackend(redis_url=os.environ["BENCH_REDIS"], result_ex_time=60))


async def noop(argument: str) -> None:
    bodies.noop(argument)


async def nap(argument: float) -> None:
    await asyncio.sleep(argument)
    tally.count()


async def ping(argument: float) -> None:
    bodies.ping(argument)


async def echo(argument: float) -> float:
    return bodies.echo(argument)


TASKS = {body.__name__: broker.register_task(body, task_name=body.__name__) for body in (noop, nap, ping, echo)}


async def start() -> None:
    await broker.startup()


async def put(task: str, argument: object) -> None:
    await TASKS[task].kiq(argument)


async def ask(argument: float) -> object:
    task = await TASKS["echo"].kiq(argument)
    return (await task.wait_result(check_interval=0.001, timeout=30)).return_value

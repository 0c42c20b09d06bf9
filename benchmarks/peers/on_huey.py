"""Huey on Redis, greenlet workers.

From its guide: RedisHuey (blocking pop) and `-k greenlet -w N` for I/O. It has no option for several processes of
greenlets, so several consumers are started, each patched by gevent before anything else is imported. Each greenlet
waits on a connection of its own, more than redis-py's pool gives by default.
"""

from __future__ import annotations

import os

from huey import RedisHuey
from redis import ConnectionPool

from benchmarks import bodies

POOL = ConnectionPool.from_url(os.environ["BENCH_REDIS"], max_connections=1000)

huey = RedisHuey("benchmark", connection_pool=POOL)

TASKS = {name: huey.task(name=name)(getattr(bodies, name)) for name in ("noop", "nap", "ping")}


def put(task: str, argument: object) -> None:
    TASKS[task](argument)

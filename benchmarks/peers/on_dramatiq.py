"""dramatiq on Redis, `dramatiq-gevent`.

From its guide: `dramatiq-gevent app -p P -t N`, N greenlets in each of P processes (advanced); the middleware
that is on by default, the default prefetch (two messages per greenlet). Each greenlet acknowledges on a connection
of its own, more than redis-py's pool gives by default: at 100 it fails with "Too many connections" and stalls.
"""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import ConnectionPool, Redis

from benchmarks import bodies

POOL = ConnectionPool.from_url(os.environ["BENCH_REDIS"], max_connections=1000)

broker = RedisBroker(client=Redis(connection_pool=POOL))
if os.environ.get("BENCH_RESULTS"):
    broker.add_middleware(Results(backend=RedisBackend(client=Redis(connection_pool=POOL))))
dramatiq.set_broker(broker)

ACTORS = {name: dramatiq.actor(getattr(bodies, name)) for name in ("noop", "nap", "ping")}


def put(task: str, argument: object) -> None:
    ACTORS[task].send(argument)


if os.environ.get("BENCH_RESULTS"):
    echo = dramatiq.actor(bodies.echo, store_results=True)


def ask(argument: float) -> object:
    return echo.send(argument).get_result(block=True, timeout=30_000)

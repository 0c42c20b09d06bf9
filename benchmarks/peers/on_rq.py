"""RQ: the worker that forks per job, and SimpleWorker.

    python -m benchmarks.peers.on_rq Worker|SimpleWorker

From its documentation: a worker runs one job at a time, for more start more workers; a custom worker script
that imports the application before the fork (workers, performance notes); `result_ttl=0` if no program reads
results.
"""

from __future__ import annotations

import os
import sys

import rq
from redis import Redis

from benchmarks import bodies, tally

queue = rq.Queue("benchmark", connection=Redis.from_url(os.environ["BENCH_REDIS"]))


def put(task: str, argument: object) -> None:
    queue.enqueue(getattr(bodies, task), argument, result_ttl=0)


def put_many(task: str, arguments: list[object]) -> None:
    body = getattr(bodies, task)
    queue.enqueue_many([rq.Queue.prepare_data(body, (argument,), result_ttl=0) for argument in arguments])


def ask(argument: float) -> object:
    result = queue.enqueue(bodies.echo, argument, result_ttl=60).latest_result(timeout=30)
    return result and result.return_value


if __name__ == "__main__":
    tally.open_cells()
    worker = getattr(rq, sys.argv[1])([queue], connection=queue.connection)
    worker.work(logging_level="WARNING")

"""No queue at all, for the ratios: LPUSH one by one, and BRPOP one by one, without any promise.

python -m benchmarks.bare       one consumer; BENCH_REDIS is the URL of Redis
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import redis

from benchmarks import bodies

KEY = "bare"


def connect() -> redis.Redis:
    return redis.Redis.from_url(os.environ["BENCH_REDIS"])


client = connect()


def put(task: str, argument: object) -> None:
    client.lpush(KEY, json.dumps([task, argument]))


def put_many(task: str, arguments: Sequence[object]) -> None:
    client.lpush(KEY, *(json.dumps([task, argument]) for argument in arguments))


def consume() -> None:
    while True:
        popped = client.brpop([KEY], timeout=1)
        if popped:
            task, argument = json.loads(popped[1])
            getattr(bodies, task)(argument)


if __name__ == "__main__":
    consume()

"""Celery on Redis, gevent pool.

From its guides: `-P gevent -c N` for I/O (concurrency/gevent), results ignored if no program reads them, and a
prefetch multiplier above 1 for short tasks, 1 for long ones (optimizing). Acknowledges before running, the default.
"""

from __future__ import annotations

import os

from celery import Celery

from benchmarks import bodies

app = Celery("benchmark", broker=os.environ["BENCH_REDIS"])
app.conf.task_ignore_result = True

TASKS = {name: app.task(getattr(bodies, name), name=name) for name in ("noop", "nap", "ping")}


def put(task: str, argument: object) -> None:
    TASKS[task].delay(argument)

"""Many producers in one process, for T10: `python -m tests.chaos.producers TASK THREADS BATCH`, until its input ends.

Prints a line when all have begun, and at the end one JSON object: `pushes`, the jobs that each thread has put since a
line came on standard input; and `deepest`, the largest size of the queue after any of their puts.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from rq_lite import events
from rq_lite.broker import Broker
from rq_lite.client.defaults import defaults
from tests.chaos import jobs


def main(task: str, threads: int, batch: int) -> None:
    put_many = getattr(jobs, task).put_many
    broker = Broker()
    defaults.use(broker.settings, broker)
    deepest = 0
    pushes = [0] * threads

    def watch(name: str, _link: object, facts: Mapping[str, Any]) -> None:
        nonlocal deepest
        if name == "put.after":
            deepest = max(deepest, facts["size"])

    events.subscribers.append(watch)

    def produce(number: int) -> None:
        while True:
            pushes[number] += put_many(range(batch))

    for number in range(threads):
        threading.Thread(target=produce, args=(number,), daemon=True).start()
    print("begun", flush=True)
    sys.stdin.readline()
    before = list(pushes)
    sys.stdin.read()
    since = [now - then for now, then in zip(pushes, before, strict=True)]
    print(json.dumps({"pushes": since, "deepest": deepest}), flush=True)
    os._exit(0)  # in the middle of their puts


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

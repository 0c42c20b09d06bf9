"""The producer of a contender, run inside that contender's environment; prints one JSON object.

    python -m benchmarks.drive MODULE versions PACKAGE...
    python -m benchmarks.drive MODULE put N           no-op jobs one by one, timed
    python -m benchmarks.drive MODULE fill N          no-op jobs in batches where the library can, timed
    python -m benchmarks.drive MODULE nap N SECONDS   jobs that sleep
    python -m benchmarks.drive MODULE ping N          one job at a time, each put after the previous one has arrived
    python -m benchmarks.drive MODULE ask N           one job at a time, waiting for each result

MODULE has `put(task, argument)`, plain or async, and perhaps `put_many(task, arguments)`, `start()`, and
`ask(argument)`, which returns the result of `echo`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import tally

PAYLOAD = "x" * 100
BATCH = 500
ARRIVE_WITHIN = 30.0  # seconds
PAUSE = 0.005  # seconds between two pings, so that all processes are idle again


class Producer:
    """`put`, `put_many` and `ask` for plain and async libraries."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.is_async = inspect.iscoroutinefunction(module.put)

    async def start(self) -> None:
        if hasattr(self.module, "start"):
            await self.module.start()

    async def put(self, task: str, arguments: list[object]) -> None:
        put = self.module.put
        if self.is_async:
            for argument in arguments:
                await put(task, argument)
        else:
            for argument in arguments:
                put(task, argument)

    async def put_many(self, task: str, arguments: list[object]) -> None:
        if not hasattr(self.module, "put_many"):
            return await self.put(task, arguments)
        for start in range(0, len(arguments), BATCH):
            self.module.put_many(task, arguments[start : start + BATCH])
        return None

    async def ask(self, n: int) -> list[float]:
        """Seconds from put to result, for each of `n` jobs."""
        took = []
        for number in range(n):
            start = time.perf_counter()
            answer = self.module.ask(float(number))
            if inspect.isawaitable(answer):
                answer = await answer
            took.append(time.perf_counter() - start)
            if answer != number:
                raise ValueError(f"asked for {number}, got {answer!r}")
            await asyncio.sleep(PAUSE)
        return took


async def run(action: str, producer: Producer, arguments: list[str]) -> dict[str, Any]:
    await producer.start()
    n, start = int(arguments[0]), time.monotonic()
    if action == "put":
        await producer.put("noop", [PAYLOAD])  # connects; not counted
        start = time.monotonic()
        await producer.put("noop", [PAYLOAD] * n)
    elif action == "fill":
        await producer.put_many("noop", [PAYLOAD] * n)
    elif action == "nap":
        await producer.put_many("nap", [float(arguments[1])] * n)
    elif action == "ask":
        return {"took": await producer.ask(n)}
    else:
        for arrived in range(n):
            await producer.put("ping", [time.monotonic()])
            wait_for_arrival(arrived + 1)
            time.sleep(PAUSE)
    return {"seconds": time.monotonic() - start, "batched": hasattr(producer.module, "put_many")}


def wait_for_arrival(number: int) -> None:
    """Wait until the file of delays has that many entries. Raises TimeoutError."""
    path = Path(os.environ[tally.FOLDER]) / "delays"
    deadline = time.monotonic() + ARRIVE_WITHIN
    while not path.exists() or path.stat().st_size < number * tally.DELAY.size:
        if time.monotonic() > deadline:
            raise TimeoutError(f"ping {number} did not arrive within {ARRIVE_WITHIN:g} s")
        time.sleep(0.0005)


def version(package: str) -> str:
    """The installed version; rq_lite may run from the checkout without being installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(importlib.import_module(package).__version__)


def main() -> None:
    module, action, *arguments = sys.argv[1:]
    if action == "versions":
        print(json.dumps({package: version(package) for package in arguments}))
    else:
        print(json.dumps(asyncio.run(run(action, Producer(importlib.import_module(module)), arguments))))


if __name__ == "__main__":
    main()

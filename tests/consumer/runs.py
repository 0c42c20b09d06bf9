"""Tasks that end in every way, and the app of an engine: for test_run.py."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import msgspec

from rq_lite import Bury, Queue, Retry, current_job

runs = Queue("runs")


@runs.task
def double(n: int) -> int:
    return 2 * n


@runs.task(result_ttl=60)
def own_tags() -> list[str]:
    job = current_job()
    return [] if job is None else [*job.tags]


@runs.task
def tomorrow(day: date) -> date:
    return day + timedelta(days=1)


@runs.task(retries=1, backoff=0)
def fail(what: str) -> None:
    raise ValueError(f"cannot do {what}\nat all")


@runs.task(retries=2)
def again() -> None:
    raise Retry("not yet", delay=0)


@runs.task(retries=5)
def hopeless() -> None:
    raise Bury("it cannot be helped")


@runs.task(retries=5, retry_on=ConnectionError)
def picky() -> None:
    raise KeyError("no retry")


@runs.task(retries=1, backoff=0)
def leave() -> None:
    raise SystemExit(3)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@runs.task
def mumble() -> None:
    raise Unspeakable


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


@runs.task(retries=5)
def wrapped(kind: str) -> Any:
    return {"coroutine": coroutine, "generator": generator}[kind]()


@runs.task(retries=5)
def odd(kind: str) -> Any:
    return {"object": object(), "long": "x" * 2000, "raw": msgspec.Raw(b"5")}[kind]

"""Plain functions that seem done at once: the coroutine or generator that they return has not run yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from rq_lite import Queue

work = Queue("work")


async def coroutine() -> None: ...


async def asynchronous() -> AsyncIterator[int]:
    yield 1


def generator() -> Iterator[int]:
    yield 1


HIDDEN = {"coroutine": coroutine, "async generator": asynchronous, "generator": generator}


@work.task(retries=5)
def greenlet(what: str) -> object:
    return HIDDEN[what]()


@work.task(retries=5, run_in="thread")
def thread(what: str) -> object:
    return HIDDEN[what]()


@work.task(retries=5, run_in="process")
def process(what: str) -> object:
    return HIDDEN[what]()

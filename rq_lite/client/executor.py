"""`concurrent.futures.Executor` on a queue: what is submitted runs in the queue's workers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from rq_lite.checks import integer
from rq_lite.client.job import Job
from rq_lite.client.queue import Queue
from rq_lite.client.registry import name_of
from rq_lite.client.task import Task
from rq_lite.client.wait import wait, watch
from rq_lite.errors import UsageError
from rq_lite.model.policy import Policy

BATCH = 500  # jobs that are watched at once


class Executor(concurrent.futures.Executor):
    """Submits to one queue; takes tasks, and plain functions that can be imported and that the workers' app registers.

    `result_ttl`: for how many seconds a result is kept, if the task does not say so itself.
    """

    def __init__(self, queue: Queue | str, *, result_ttl: float = 3600.0) -> None:
        if not isinstance(queue, (Queue, str)):
            raise UsageError(f"an Executor takes a Queue, or the name of one, not {queue!r}")
        self._queue = Queue(queue) if isinstance(queue, str) else queue
        if result_ttl is None:
            raise UsageError("an Executor's jobs have results: result_ttl must be above 0 seconds, not None")
        self._result_ttl = Policy(result_ttl=result_ttl).result_ttl  # refused here if it is invalid
        self._tasks: dict[Any, Task[..., Any]] = {}
        self._shut = False
        self._open: set[Job] = set()  # submitted, and not known to have ended
        self._unwatched: deque[Job] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job:
        """Put a job; waits while the queue is full. Raises as `Task.put` does, and RuntimeError after `shutdown`."""
        task = self._task(fn)
        self._check_open()
        job = task.put(*args, **kwargs)
        self._open.add(job)
        self._unwatched.append(job)
        if len(self._unwatched) >= BATCH:
            self._watch()
        return job

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = BATCH,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """The results in the order of the arguments, which are read lazily.

        `chunksize` jobs are put at once, and at most `buffersize` (four times as many) are under way at a time. The
        first are put now. Raises TimeoutError if a result is not there `timeout` seconds from now.
        """
        integer("chunksize", chunksize, least=1)
        if buffersize is not None:
            integer("buffersize", buffersize, least=1)
        self._check_open()
        until = None if timeout is None else time.monotonic() + timeout
        most = 4 * chunksize if buffersize is None else buffersize
        feeding = Feeding(self._task(fn), zip(*iterables, strict=False), min(chunksize, most), most, self._open)
        feeding.fill()
        return feeding.results(until)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; wait until all jobs have ended. `cancel_futures` cancels those that have not begun."""
        self._shut = True
        left = list(self._open)
        if cancel_futures:
            for job in left:
                job.cancel(interrupt=False)
        if wait:
            _wait(left)

    def _check_open(self) -> None:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _watch(self) -> None:
        """Watch a batch, with one request to Redis, so that jobs that have ended can be forgotten."""
        some: list[Job] = []
        with contextlib.suppress(IndexError):
            while len(some) < BATCH:
                some.append(self._unwatched.popleft())
        watch(some)
        for job in some:
            job.add_done_callback(self._open.discard)

    def _task(self, fn: Callable[..., Any]) -> Task[..., Any]:
        task = self._tasks.get(fn)
        if task is None:
            task = self._tasks[fn] = self._made(fn)
        return task

    def _made(self, fn: Callable[..., Any]) -> Task[..., Any]:
        if isinstance(fn, Task):
            return fn.onto(self._queue, self._result_ttl)
        return Task(fn, self._queue, importable(fn), Policy(result_ttl=self._result_ttl))


_wait = wait


class Feeding:
    """A map under way: jobs are put by the chunk, at most `most` ahead of the reader of the results."""

    def __init__(
        self, task: Task[..., Any], items: Iterator[tuple[Any, ...]], chunk: int, most: int, open_: set[Job]
    ) -> None:
        self._task = task
        self._items = items
        self._chunk = chunk
        self._most = most
        self._open = open_  # the executor's: what its shutdown waits for
        self._jobs: deque[Job] = deque()
        self._more = True

    def fill(self) -> None:
        """Put chunks while there is room for a whole one."""
        while self._more and len(self._jobs) + self._chunk <= self._most:
            some = list(islice(self._items, self._chunk))
            self._more = len(some) == self._chunk
            if some:
                jobs = self._task.put_jobs(some)
                watch(jobs)
                self._jobs.extend(jobs)
                self._open.update(jobs)
                for job in jobs:
                    job.add_done_callback(self._open.discard)

    def results(self, until: float | None) -> Iterator[Any]:
        try:
            while self._jobs:
                job = self._jobs.popleft()
                yield job.result(None if until is None else max(0.0, until - time.monotonic()))
                self.fill()
        finally:
            drop(self._jobs)


def drop(jobs: Iterable[Job]) -> None:
    """Cancel those of these jobs that have not begun, since their results will not be read."""
    with contextlib.suppress(Exception):
        for job in jobs:
            job.cancel(interrupt=False)


def importable(fn: Any) -> str:
    """The name by which workers find the function; UsageError if it has none, as a lambda."""
    name = getattr(fn, "__qualname__", None)
    module = getattr(fn, "__module__", None)
    if not (callable(fn) and isinstance(name, str) and isinstance(module, str)):
        raise UsageError(f"{fn!r} cannot be submitted: give a task, or a function that is defined in a module")
    found: Any = None
    if module != "__main__":
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part, None)
    if "<" in name or (module != "__main__" and found is not fn and getattr(found, "function", None) is not fn):
        raise UsageError(
            f"{name} cannot be submitted: workers find functions by name, so define it at the top of a module (no "
            "lambda, nothing inside another function), and register it in the workers' app: queue.task(fn)"
        )
    return name_of(fn)

"""The producer's side of a queue: put, and what to do while it is full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from rq_lite.broker import Broker, Code, Feed, Put, inspection, keys
from rq_lite.broker.connection import LONGEST_BLOCK
from rq_lite.errors import BrokerError, BrokerUnavailable, FeedMoved, PayloadTooLarge, QueueFull, UsageError
from rq_lite.job import Job
from rq_lite.process import this
from rq_lite.settings import Settings
from rq_lite.task import UNSET, Options, Policy, Task, TaskOptions, name_of, registry, types

if TYPE_CHECKING:
    from typing_extensions import Unpack

P = ParamSpec("P")
R = TypeVar("R")


class Progress:
    """What a producer has done so far, kept up to date while it puts; for whoever shows it."""

    def __init__(self) -> None:
        self.put = 0
        self._waited = 0.0
        self._waiting_since: float | None = None
        self.size = 0  # jobs in the queue after the last put
        self.maxsize = 0
        self.deepest = 0

    @property
    def waiting(self) -> bool:
        """Whether the producer waits for room just now."""
        return self._waiting_since is not None

    @property
    def waited(self) -> float:
        """Seconds without room so far."""
        since = self._waiting_since
        return self._waited + (0.0 if since is None else time.monotonic() - since)

    def note(self, reply: Put) -> None:
        self.put += reply.accepted
        self.size, self.maxsize = reply.size, reply.maxsize
        self.deepest = max(self.deepest, reply.size)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """The time in the block is time without room."""
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waited, self._waiting_since = self.waited, None


class Queue:
    """A bounded queue by its name; the bound lives in Redis, every producer everywhere sees the same one.

    `maxsize` jobs (0: unbounded) and `maxbytes` (0: no bound) may wait; where no program names a bound it is
    the settings' (10,000 jobs). With no `broker` it is the process's default one.
    """

    def __init__(
        self,
        name: str,
        maxsize: int | None = None,
        maxbytes: int | None = None,
        *,
        broker: Broker | None = None,
    ) -> None:
        self.name = keys.checked_name(name, "queue")
        for what, number in (("maxsize", maxsize), ("maxbytes", maxbytes)):
            if number is not None and number < 0:
                raise UsageError(f"queue {name!r}: {what} must be 0 (no bound) or more, not {number}")
        self._declared = (maxsize, maxbytes)
        self._broker = broker
        registry.queues.setdefault(name, self)

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    @property
    def broker(self) -> Broker:
        return self._broker or this.broker

    @property
    def chosen_broker(self) -> Broker | None:
        """The one it was given; None: the process's default one, whichever that is then."""
        return self._broker

    @cached_property
    def settings(self) -> Settings:
        return self.broker.settings

    # -- defining tasks

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptions]) -> Any:
        """Make a function a task of this queue: as `@queue.task` or `@queue.task(retries=5, timeout=30)`.

        name         what jobs call it; `module:function` unless given
        timeout      seconds after which a run is ended (600; None: never)
        retries      how often a run that raised is repeated (0)
        retry_on     only for errors of these types (any)
        no_retry_on  and never for these
        backoff, backoff_max  the wait before attempt n + 1 is by chance between 0 and `backoff`·2^(n-1) seconds (1),
                     at most `backoff_max` (600)
        result_ttl   seconds for which results are kept (None: there are none)
        on_success   a task that is put with the result, in the step that ends the job
        on_failure   a task that is put when the job is given up, with an `Ended`
        on_done      a task that is put in either case, with an `Ended`
        run_in       "greenlet", or "thread" or "process" for what computes

        Raises UsageError for what cannot be right.
        """
        chosen: dict[str, Any] = dict(options)
        name = chosen.pop("name", None)
        for kinds, default in (("retry_on", (BaseException,)), ("no_retry_on", ())):
            chosen[kinds] = types(kinds, chosen.get(kinds), default)
        unknown = sorted(chosen.keys() - set(Policy.__struct_fields__))
        if unknown:
            raise UsageError(f"@queue.task: no option is called {', '.join(unknown)}")
        policy = Policy(**chosen)

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            task: Task[..., Any] = Task(function, self, name or name_of(function), policy)
            registry.add(task)
            return task

        return decorate if function is None else decorate(function)

    # -- putting

    def put_entries(
        self,
        entries: Sequence[bytes],
        options: Options,
        *,
        wait: Any = UNSET,
        before: int = 0,
        feed: Feed | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Put encoded jobs in their order, waiting for room as long as the options (or `wait`) say; how many.

        The wait begins anew with every job that found room. `before` is what QueueFull adds to its count,
        `feed` moves with the jobs.
        """
        for candidate in (wait, options.wait, self.settings.wait):
            if candidate is not UNSET:
                patience_for_room = candidate
                break
        done, woken, since = 0, False, time.monotonic()
        while True:
            try:
                reply = self._put_step(entries[done:], options, woken, feed)
            except BrokerUnavailable as error:
                error.put = before + done
                raise
            done += reply.accepted
            if progress is not None:
                progress.note(reply)
            if done == len(entries):
                return done
            if reply.accepted:
                since = time.monotonic()
                if feed is not None:
                    feed = feed._replace(expected=feed.values[reply.accepted - 1], values=feed.values[reply.accepted :])
            if 0 < reply.maxbytes < len(entries[done]):
                raise PayloadTooLarge(
                    f"queue {self.name!r}: a job of {len(entries[done]):,} bytes never fits its maxbytes, "
                    f"{reply.maxbytes:,}"
                )
            left = LONGEST_BLOCK if patience_for_room is None else since + patience_for_room - time.monotonic()
            # A job that waited for room in a queue that its own pool drains would wait for itself.
            if left <= 0 or this.overdraft:
                raise self._full(reply, before + done)
            woken = self._wait_room(left, progress)

    def _put_step(self, entries: Sequence[bytes], options: Options, woken: bool, feed: Feed | None) -> Put:
        """One put, after making the queue known where Redis does not know it."""
        for _ in range(3):
            reply = self.broker.put(
                self.name,
                entries,
                delay=round(options.delay * 1000),
                woken=woken,
                overdraft=this.overdraft,
                feed=feed,
            )
            if reply.code is not Code.UNDECLARED:
                break
            self.declare()
        if reply.code is Code.MOVED:
            assert feed is not None
            raise FeedMoved(f"feed {feed.name!r} was moved by another producer meanwhile; only one may feed it")
        if reply.code is not Code.OK:
            raise BrokerError(f"queue {self.name!r}: put was answered with {reply.code.name}")
        return reply

    def _wait_room(self, seconds: float, progress: Progress | None) -> bool:
        with progress.wait() if progress is not None else nullcontext():
            return self.broker.wait_room(self.name, seconds)

    def _full(self, reply: Put, put: int) -> QueueFull:
        alive, last_seen = inspection.signs_of_life(self.broker, self.name)
        return QueueFull(
            self.name, size=reply.size, maxsize=reply.maxsize, consumers=alive, last_seen=last_seen, put=put
        )

    def declare(self) -> tuple[int, int]:
        """Make the queue known in Redis; the bounds in force, in jobs and in bytes."""
        return self.broker.declare(self.name, *self._declared)

    def job(self, job_id: str) -> Job:
        """A handle for a job that any process has put here with a `result_ttl`.

        A job that was never put, or whose result is kept no more, looks like one that has not ended yet.
        """
        return Job(id=job_id, queue=self.name, task="", broker=self._broker, result_ttl=0.0)

    # -- the whole queue

    def qsize(self) -> int:
        """How many jobs wait (pending and scheduled)."""
        return inspection.size(self.broker, self.name)

    def empty(self) -> bool:
        """Whether no job waits; some may still be running (`join` waits for these)."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        return inspection.is_full(self.broker, self.name)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every job is finished: acked, or buried. False if that took longer than `timeout` s."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.broker.unfinished(self.name)[0] > 0:
            left = LONGEST_BLOCK if until is None else until - time.monotonic()
            if left <= 0:
                return False
            self.broker.wait_drained(self.name, left)
        return True

    def clear(self) -> int:
        """Drop every job that waits or is scheduled; how many. Running ones go on."""
        return self.broker.purge(self.name)

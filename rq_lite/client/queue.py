"""A queue, as a program uses it: its tasks, puts and gets, and what all processes share of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, Unpack, overload

import msgspec

from rq_lite.broker import Broker
from rq_lite.broker.replies import FULL
from rq_lite.checks import integer, one_of
from rq_lite.client.defaults import defaults
from rq_lite.client.items import Items, seconds
from rq_lite.client.job import Job
from rq_lite.client.put import Bounds, Sender
from rq_lite.client.registry import name_of, registry, runnable
from rq_lite.client.shared_queue import SharedQueue, checked_bound
from rq_lite.client.task import BatchTaskOptions, Task, TaskOptions
from rq_lite.model.batch import arguments_of
from rq_lite.model.definition import OF_TASK, options_of_task
from rq_lite.model.names import checked_name
from rq_lite.model.option import documented
from rq_lite.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


class Queue(SharedQueue):
    """A bounded queue by its name. The bound is in Redis, the same for every producer.

    `maxsize` jobs (0 or less: unbounded) and `maxbytes` (0: no bound) may wait; if no program names a bound the
    settings' one holds (10,000 jobs). A running job that puts into a queue which its own workers serve neither waits
    nor is refused by the bound; `headroom` limits such puts to that number of jobs beyond `maxsize`. Without `broker`
    the process's default one is used. `pickle`: items may be whatever can be pickled, which needs a `secret` in the
    settings. `ahead`: a `get` takes up to this number of further items for the next calls in this process, which is
    faster for many small items. `full`: what a put does that finds no room: "wait" (the default), "raise" QueueFull at
    once, "drop-new" or "drop-old" (docs/unique.md).

    Tasks' jobs and plain items may wait in it: workers run the former, `get` returns either. The interface is that of
    `queue.Queue`; docs/queue.md says where it differs.
    """

    order = "fifo"

    def __init__(
        self,
        name: str,
        maxsize: int | None = None,
        maxbytes: int | None = None,
        *,
        headroom: int | None = None,
        full: str | None = None,
        broker: Broker | None = None,
        pickle: bool = False,
        ahead: int = 0,
    ) -> None:
        declared = Bounds(
            None if maxsize is None else checked_bound(name, maxsize),
            None if maxbytes is None else integer(f"queue {name!r}: maxbytes", maxbytes),
            None if headroom is None else integer(f"queue {name!r}: headroom", headroom),
            checked_full(name, full),
        )
        sender = Sender(checked_name(name, "queue"), self.order, declared, broker)
        super().__init__(sender, Items(sender, pickled=pickle, ahead=integer(f"queue {name!r}: ahead", ahead)))
        registry.queues.setdefault(name, self)

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: the same queue, also if the program itself has chosen the broker.

        The default broker's URL is pickled only for a process that is being started, since it may hold a password. A
        chosen broker's URL is always pickled, its secret only for a process that is being started.
        """
        broker = self.sender.chosen_broker
        if broker is None and spawning():
            broker = defaults.broker
        where = None if broker is None else (broker.url, broker.settings if spawning() else without(broker.settings))
        return _unpickled, (type(self), self.name, self.sender.declared, where, self.items.pickled, self.items.ahead)

    # -- defining tasks

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    @overload
    def task(self, /, **options: Unpack[BatchTaskOptions]) -> Callable[[Callable[..., R]], Task[..., R]]: ...

    @documented(OF_TASK)
    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task of this queue: as `@queue.task` or `@queue.task(retries=5, timeout=30)`.

        Raises UsageError for options that cannot be right.
        """
        definition, policy = options_of_task(options)
        name, repeated = definition.name, definition.again

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            function = runnable(function)
            called = name or name_of(function)
            if repeated is not None:
                arguments_of(called, function, policy.batch).check(repeated.args, repeated.kwargs)
            task: Task[..., Any] = Task(function, self, called, policy, repeated)
            registry.add(task)
            return task

        return decorate if function is None else decorate(function)

    # -- items, as in the standard library

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item, waiting for room for ever, or up to `timeout` s, or (without `block`) not at all.

        Raises Full after that, ShutDown if the queue was shut down, BadArgument and PayloadTooLarge for what can
        never be put, and BrokerError when Redis does not answer.
        """
        self.items.put(item, None, block, timeout)

    def put_nowait(self, item: Any) -> None:
        """Put an item, or raise Full at once."""
        self.items.put(item, None, False, None)

    def put_many(self, those: Iterable[Any]) -> int:
        """Put items, lazily, in batches, waiting for room as long as the settings' `wait` says; how many were put.

        The lines of a text file come without their line ends. Raises UsageError for a str or bytes.
        """
        return self.items.put_many(those)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next item (of a task's job: the Job), waiting for ever, or up to `timeout` s, or not at all.

        The item is leased to this process until `task_done`: if the process dies first, the item waits again, for any
        consumer.
        Raises Empty after the wait, and ShutDown once the queue was shut down and nothing waits.
        """
        return self.items.value(self.items.take(seconds(block, timeout)))

    def get_nowait(self) -> Any:
        """The next item, or raise Empty at once."""
        return self.get(False)

    def task_done(self) -> None:
        """Settle the oldest item that this thread has got and not settled, or else the process's oldest.

        Raises ValueError if every item was settled.
        """
        self.items.getter.task_done()

    @contextmanager
    def lease(self, timeout: float | None = None) -> Iterator[Any]:
        """An item for the time of a block: settled at its end, given back to the head of the queue on an exception.

        Waits like `get`: for ever, or up to `timeout` s.
        """
        one = self.items.take(seconds(True, timeout))
        try:
            yield self.items.value(one)
        except BaseException:
            one.getter.give_back(one)
            raise
        one.getter.settle(one)

    def __iter__(self) -> Iterator[Any]:
        """Items, until the queue was shut down and is empty, and no other consumer holds one that it may give back.

        Each is settled when the loop asks for the next; if the loop is left before, the item is given back, unless
        `task_done` was called for it.
        """
        return self.items.each()

    def close(self) -> None:
        """End this process's use of the queue: give back what it holds, and refuse further puts and gets.

        Threads that wait in a `put` or `get` of this queue raise the same UsageError as later calls.
        """
        self.items.close()

    def forget_all(self) -> int:
        """Let all jobs be put again that were put once, `until="forever"`; returns how many were remembered."""
        return self.broker.puts.forget_all(self.name)

    def join_thread(self) -> None:
        """Nothing to wait for: what `put` has put is in Redis."""

    def cancel_join_thread(self) -> None:
        """Nothing to cancel."""

    def job(self, job_id: str) -> Job:
        """A handle for a job that any process has put here with a `result_ttl`.

        A job that was never put, or whose result is kept no more, looks like one that has not ended yet.
        """
        return Job(id=job_id, queue=self.name, task="", broker=self.sender.chosen_broker, result_ttl=0.0)


class LifoQueue(Queue):
    """A queue from which the newest is taken first, by `get` and by workers."""

    order = "lifo"


class PriorityQueue(Queue):
    """A queue from which the lowest priority is taken first, the oldest among equals, by `get` and by workers.

    An item that is a number, or a tuple or list that begins with one, has that priority, unless `put(item, priority=…)`
    gives another; of tuples and lists nothing else is compared. Jobs get theirs with `task.using(priority=…)`: any
    number. Whatever has none counts as 0.
    """

    order = "priority"

    def put(
        self, item: Any, block: bool = True, timeout: float | None = None, *, priority: float | None = None
    ) -> None:
        """As Queue.put; the lowest `priority` is got first."""
        self.items.put(item, priority, block, timeout)

    def put_nowait(self, item: Any, *, priority: float | None = None) -> None:
        """Put an item, or raise Full at once."""
        self.items.put(item, priority, False, None)


def checked_full(name: str, full: str | None) -> str | None:
    return None if full is None else one_of(f"queue {name!r}: full", full, FULL)


def spawning() -> bool:
    """Whether multiprocessing pickles for a process that it starts just now."""
    context = sys.modules.get("multiprocessing.context")
    return context is not None and context.get_spawning_popen() is not None


def without(settings: Settings) -> Settings:
    """The settings without their secret: a pickle may end up anywhere, also in Redis."""
    return msgspec.structs.replace(settings, secret=None)


def with_secret(settings: Settings) -> Settings:
    """These settings; if they were pickled without a secret, with this process's own."""
    return (
        settings if settings.secret is not None else msgspec.structs.replace(settings, secret=defaults.settings.secret)
    )


def _unpickled(
    kind: type[Queue],
    name: str,
    declared: Bounds,
    where: tuple[str, Settings] | None,
    pickle: bool,
    ahead: int,
) -> Queue:
    known = registry.queues.get(name)
    if type(known) is kind and where is None:
        items = known.items
        if (items.sender.declared, items.pickled, items.ahead) == (declared, pickle, ahead):
            return known
    broker = None if where is None else Broker(where[0], settings=with_secret(where[1]))
    return kind(name, **declared._asdict(), broker=broker, pickle=pickle, ahead=ahead)

"""A queue: what a program puts and gets, what waits when it is full or empty, and the whole of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, NamedTuple, ParamSpec, TypeVar, Unpack, overload

import msgspec

from rq_lite.admin import operate, status
from rq_lite.broker import Broker, Feed, keys
from rq_lite.broker.link import LONGEST_BLOCK
from rq_lite.broker.producing import before_put
from rq_lite.checks import integer, number
from rq_lite.client import items, leases
from rq_lite.client.batches import batches, each_of
from rq_lite.client.defaults import defaults
from rq_lite.client.get import Closed, Getter
from rq_lite.client.job import Job
from rq_lite.client.put import Progress, put_patiently
from rq_lite.client.registry import name_of, registry
from rq_lite.client.shelf import Delivery
from rq_lite.client.task import Task, TaskOptions
from rq_lite.errors import RqLiteError, UsageError
from rq_lite.model.arguments import Arguments
from rq_lite.model.message import Seal
from rq_lite.model.names import checked_name
from rq_lite.model.option import documented
from rq_lite.model.policy import OF_TASK, UNSET, Options, options_of_task
from rq_lite.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")
NO_OPTIONS = Options()


class Declared(NamedTuple):
    """The bounds that the program names, in jobs and in bytes; None: it names none."""

    maxsize: int | None
    maxbytes: int | None
    headroom: int | None


class Queue:
    """A bounded queue by its name; the bound lives in Redis, every producer everywhere sees the same one.

    `maxsize` jobs (0 or less: unbounded) and `maxbytes` (0: no bound) may wait; where no program names a bound it is
    the settings' (10,000 jobs). A running job that puts into a queue which its own workers serve neither waits nor is
    refused by the bound; `headroom` limits such puts to that number of jobs beyond `maxsize`. With no `broker` it is
    the process's default one. `pickle`: items may be whatever can be pickled, which needs a `secret` in the settings.
    `ahead`: a `get` brings up to so many more items along for this process's next ones, which is faster where items
    are small and many.

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
        broker: Broker | None = None,
        pickle: bool = False,
        ahead: int = 0,
    ) -> None:
        self.name = checked_name(name, "queue")
        self._declared = Declared(
            None if maxsize is None else self._bound(maxsize),
            None if maxbytes is None else integer(f"queue {name!r}: maxbytes", maxbytes),
            None if headroom is None else integer(f"queue {name!r}: headroom", headroom),
        )
        self._broker = broker
        self._pickle = pickle
        self._ahead = integer(f"queue {name!r}: ahead", ahead)
        self._known = False  # it was made known by this object
        self._closed_in: int | None = None  # the process that closed it
        registry.queues.setdefault(name, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: the same queue, also where this program was told of its Redis by hand.

        A default broker's URL goes along with a process that is being started, and nowhere else: it may hold a
        password. One that was given explicitly always does, but without the secret.
        """
        broker = self._broker
        if broker is None and spawning():
            broker = defaults.broker
        where = None if broker is None else (broker.url, broker.settings if spawning() else without(broker.settings))
        return _unpickled, (type(self), self.name, self._declared, where, self._pickle, self._ahead)

    @property
    def broker(self) -> Broker:
        return self._broker or defaults.broker

    @property
    def chosen_broker(self) -> Broker | None:
        """The one it was given; None: the process's default one, whichever that is then."""
        return self._broker

    @cached_property
    def settings(self) -> Settings:
        return self.broker.settings

    @cached_property
    def seal(self) -> Seal | None:
        """What signs the JSON of its jobs, if there is a secret."""
        signer = self.broker.core.signer
        return None if signer is None else signer.seal

    def forget_settings(self) -> None:
        """The default broker is another one now."""
        self._known = False
        for name in ("settings", "seal"):
            self.__dict__.pop(name, None)

    # -- defining tasks

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    @documented(OF_TASK)
    def task(self, function: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptions]) -> Any:
        """Make a function a task of this queue: as `@queue.task` or `@queue.task(retries=5, timeout=30)`.

        Raises UsageError for what cannot be right.
        """
        definition, policy = options_of_task(options)
        name, repeated = definition.name, definition.again

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            if repeated is not None:
                Arguments(name or name_of(function), function).check(repeated.args, repeated.kwargs)
            task: Task[..., Any] = Task(function, self, name or name_of(function), policy, repeated)
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
        feed: Feed | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Put encoded jobs in their order, waiting for room as long as the options (or `wait`) say; how many.

        The wait begins anew with every job that found room. `feed` moves with the jobs.
        """
        self.check_open()
        if defaults.instead is not None:
            return defaults.instead(self, entries, options)
        if self.order != "fifo" and not self._known:
            with before_put():
                self.declare()
        waits = (wait, options.wait, self.settings.wait)
        patience = next(candidate for candidate in waits if candidate is not UNSET)
        return put_patiently(self, entries, options, patience, feed=feed, progress=progress)

    def put_all(self, entries: Iterable[bytes], options: Options) -> int:
        """The same with any number of them, read as they are put."""
        settings, count = self.settings, 0
        try:
            for batch in batches(entries, len, most=settings.batch, heaviest=settings.max_payload):
                try:
                    count += self.put_entries(batch, options)
                except RqLiteError as error:
                    count += error.put
                    raise
        except RqLiteError as error:  # of whoever makes the entries, too
            error.put = count
            raise
        return count

    def declare(self) -> tuple[int, int]:
        """Make the queue known in Redis; the bounds in force, in jobs and in bytes."""
        bounds = self._declare(self.order)
        self._known = True
        return bounds

    def _declare(self, order: str = "") -> tuple[int, int]:
        named = self._declared
        return self.broker.puts.declare(self.name, named.maxsize, named.maxbytes, order, headroom=named.headroom)

    # -- items, as in the standard library

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item, waiting for room for ever, or up to `timeout` s, or (without `block`) not at all.

        Raises Full after that, ShutDown if the queue was shut down, BadArgument and PayloadTooLarge for what can
        never be put, and BrokerError when Redis does not answer.
        """
        self._put_item(item, None, block, timeout)

    def put_nowait(self, item: Any) -> None:
        """Put an item, or raise Full at once."""
        self._put_item(item, None, False, None)

    def put_many(self, those: Iterable[Any]) -> int:
        """Put items, lazily, in batches, waiting for room as long as the settings' `wait` says; how many were put.

        The lines of a text file come without their line ends. Raises UsageError for a str or bytes.
        """
        entries = (items.encoded(self, item, None, pickled=self._pickle) for item in each_of(those))
        return self.put_all(entries, NO_OPTIONS)

    def _put_item(self, item: Any, priority: float | None, block: bool, timeout: float | None) -> None:
        wait = seconds(block, timeout)
        self.put_entries([items.encoded(self, item, priority, pickled=self._pickle)], NO_OPTIONS, wait=wait)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next item (of a task's job: the Job), waiting for ever, or up to `timeout` s, or not at all.

        It is leased to this process until `task_done`: if the process dies before, it waits again, for everybody.
        Raises Empty after the wait, and ShutDown once the queue was shut down and nothing waits.
        """
        return self._value(self._take(seconds(block, timeout)))

    def get_nowait(self) -> Any:
        """The next item, or raise Empty at once."""
        return self.get(False)

    def task_done(self) -> None:
        """Settle what this thread got first and has not settled, or else what the process got first.

        Raises ValueError when nothing is left.
        """
        self._getter.task_done()

    @contextmanager
    def lease(self, timeout: float | None = None) -> Iterator[Any]:
        """An item for the time of a block: settled at its end, given back to the head of the queue on an exception.

        Waits like `get`: for ever, or up to `timeout` s.
        """
        held = self._take(seconds(True, timeout))
        try:
            yield self._value(held)
        except BaseException:
            held.getter.give_back(held)
            raise
        held.getter.settle(held)

    def __iter__(self) -> Iterator[Any]:
        """Items until the queue was shut down and is empty, also of what others hold and may give back.

        Each is settled when the loop asks for the next; who leaves the loop before gives it back, unless `task_done`
        was called for it.
        """

        for held in leases.each(partial(self._take, None, lingering=True)):
            yield self._value(held)

    def _take(self, timeout: float | None, done: Delivery | None = None, lingering: bool = False) -> Delivery:
        while True:
            getter = self._getter
            try:
                return getter.get(timeout, self.check_open, done=done, lingering=lingering, ahead=self._ahead)
            except Closed:  # with it went what was to be settled, too
                done = None

    def close(self) -> None:
        """This process has done with the queue: what it holds goes back, and it puts and gets no more.

        Threads that wait in a `put` or `get` of this queue end with the same error as one that is called after it.
        """
        if self._closed_in != os.getpid():
            self._closed_in = os.getpid()
            getter = leases.known(self.broker, self.name)
            if getter is not None:
                getter.wake()
                getter.give_all_back()

    def join_thread(self) -> None:
        """Nothing to wait for: what `put` has put is in Redis."""

    def cancel_join_thread(self) -> None:
        """Nothing to cancel."""

    def shutdown(self, immediate: bool = False) -> None:
        """Nothing more is put, by nobody; who gets, gets what is left and then ShutDown. `immediate` drops that, too.

        Workers go on until nothing is left. `reopen` undoes it.
        """
        self._declare()
        operate.shutdown(self.broker, self.name, immediate=immediate)

    def reopen(self) -> None:
        """Undo a shutdown."""
        operate.reopen(self.broker, self.name)

    @property
    def maxsize(self) -> int:
        """The bound in force, in jobs (0: none); to set it is to set it for everybody, as `rq-lite queue set` does."""
        found = self.broker.read(("HGET", keys.of(self.name).meta, "maxsize"))[0]
        return self._declare()[0] if found is None else status.whole(found)

    @maxsize.setter
    def maxsize(self, number: int) -> None:
        bound = self._bound(number)
        self._declare()
        operate.configure(self.broker, self.name, bound)

    def _bound(self, number: int) -> int:
        """In jobs; below 0 it is none, as in the standard library."""
        return integer(f"queue {self.name!r}: maxsize", max(0, number) if type(number) is int else number)

    @property
    def _getter(self) -> Getter:
        self.check_open()
        if not self._known:
            self.declare()
        return leases.getter_of(self.broker, self.name, self.declare)

    def check_open(self) -> None:
        """Raises UsageError once it was closed."""
        if self._closed_in is not None and self._closed_in == os.getpid():
            raise UsageError(f"queue {self.name!r} is closed in this process; make another Queue object to go on")

    def _value(self, held: Delivery) -> Any:
        try:
            return items.value(self, held.message, pickled=self._pickle)
        except UsageError:
            held.getter.give_back(held)
            raise
        except Exception as error:  # whatever a pickle raises
            held.getter.bury(held, error)
            raise

    def job(self, job_id: str) -> Job:
        """A handle for a job that any process has put here with a `result_ttl`.

        A job that was never put, or whose result is kept no more, looks like one that has not ended yet.
        """
        return Job(id=job_id, queue=self.name, task="", broker=self._broker, result_ttl=0.0)

    # -- the whole queue

    def qsize(self) -> int:
        """How many jobs wait (pending and scheduled)."""
        waiting = self.broker.puts.size(self.name)[0]
        getter = leases.known(self.broker, self.name) if self._ahead else None
        return waiting if getter is None else waiting + getter.ready

    def empty(self) -> bool:
        """Whether no job waits; some may still be running (`join` waits for these)."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether a put would have to wait now."""
        return self.broker.puts.size(self.name)[1]

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every job is finished: acked, or buried. False if that took longer than `timeout` s."""
        wait = seconds(True, timeout)
        until = None if wait is None else time.monotonic() + wait
        while self.broker.tends.unfinished(self.name)[0] > 0:
            left = LONGEST_BLOCK if until is None else until - time.monotonic()
            if left <= 0:
                return False
            self.broker.tends.wait_drained(self.name, left)
        return True

    def clear(self) -> int:
        """Drop every job that waits or is scheduled; how many. Running ones go on."""
        return operate.purge(self.broker, self.name)


class LifoQueue(Queue):
    """A queue from which the newest is taken first, by `get` and by workers."""

    order = "lifo"


class PriorityQueue(Queue):
    """A queue from which the lowest priority is taken first, the oldest among equals, by `get` and by workers.

    Items have theirs from `put(item, priority=…)`, jobs from `task.using(priority=…)`: any number, else 0.
    """

    order = "priority"

    def put(
        self, item: Any, block: bool = True, timeout: float | None = None, *, priority: float | None = None
    ) -> None:
        """As Queue.put; the lowest `priority` is got first."""
        self._put_item(item, priority, block, timeout)

    def put_nowait(self, item: Any, *, priority: float | None = None) -> None:
        """Put an item, or raise Full at once."""
        self._put_item(item, priority, False, None)


def seconds(block: bool, timeout: float | None) -> float | None:
    """How long to wait (None: for ever) when told so in the standard library's words."""
    if not block:
        return 0.0
    return None if timeout is None else number("'timeout'", timeout, "a non-negative number of seconds")


def spawning() -> bool:
    """Whether multiprocessing pickles for a process that it starts just now."""
    context = sys.modules.get("multiprocessing.context")
    return context is not None and context.get_spawning_popen() is not None


def without(settings: Settings) -> Settings:
    """The settings without their secret: a pickle may end up anywhere, also in Redis."""
    return msgspec.structs.replace(settings, secret=None)


def with_secret(settings: Settings) -> Settings:
    """Settings that came without a secret have this process's own."""
    return (
        settings if settings.secret is not None else msgspec.structs.replace(settings, secret=defaults.settings.secret)
    )


def _unpickled(
    kind: type[Queue],
    name: str,
    declared: Declared,
    where: tuple[str, Settings] | None,
    pickle: bool,
    ahead: int,
) -> Queue:
    known = registry.queues.get(name)
    if (
        type(known) is kind
        and where is None
        and (known._declared, known._pickle, known._ahead) == (declared, pickle, ahead)
    ):
        return known
    broker = None if where is None else Broker(where[0], settings=with_secret(where[1]))
    return kind(name, **declared._asdict(), broker=broker, pickle=pickle, ahead=ahead)

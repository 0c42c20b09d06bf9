"""Batches: jobs of one task that gather in a consumer's slots, and are run in one call of their function.

1. Each job is taken, settled, retried, cancelled and given back as any other: it has a slot and a delivery tag of
   its own. Its slot's greenlet restores its arguments to an element of the list, and waits (`Batch.run`).
2. The batch is complete with `batch` jobs, when `batch_wait` seconds are over since the first, or as soon as no more
   can come: no slot is free, or the consumer takes no more. Until then a job may leave it: one that is cancelled.
3. A greenlet of the batch's own calls the function: none of the slots' greenlets, since what is raised in one of
   them, because its job is cancelled, must not end the others' run. On a stack it has the name of the first job's
   slot, its leader. With run_in="thread" it waits for a place, while more jobs may come, and a thread calls.
4. The time limit counts from the call. All its slots show the same deadline on the board, to the nanosecond, which
   tells the supervisor which jobs belong together.
5. Each slot's greenlet then returns its own result, or raises its own error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import gevent
from gevent.event import Event

from rq_lite.client.task import Task
from rq_lite.consumer.exit import critical, hard_exit
from rq_lite.consumer.offload.threads import Threads
from rq_lite.consumer.run import Attempt, Expired, run_batch
from rq_lite.consumer.slots import Slot, Stopped, entrance
from rq_lite.model.batch import BatchArguments, Ran, failed_by
from rq_lite.model.message import Message, parsed
from rq_lite.process.board import BATCHED, NEVER, SECOND

LOOK = 0.1  # seconds between two checks whether more jobs can come
AGAIN = 1.0  # seconds after which a function that swallowed its Expired gets it again


class Member:
    """A job of a batch."""

    __slots__ = ("attempt", "element", "ran", "slot")

    def __init__(self, slot: Slot[Any], attempt: Attempt, element: Any) -> None:
        self.slot = slot
        self.attempt = attempt
        self.element = element
        self.ran = Ran()


class Batch:
    """One call of a task's function, for the jobs that join before it; `closed` is called when no more may join."""

    def __init__(
        self, task: Task[Any, Any], most: int, timeout: int, threads: Threads | None, closed: Callable[[], object]
    ) -> None:
        self._task = task
        self._most = most
        self._timeout = timeout
        self._threads = threads
        self._closed: Callable[[], object] | None = closed
        self._members: list[Member] = []
        self._greenlet: gevent.Greenlet | None = None
        self._news = Event()  # it is full, or no more can come
        self._running = False  # from the call on no job leaves it
        self._calling = False  # something may be raised in the call
        self._stopped = False
        self._ended = Event()
        self._pid = os.getpid()

    def run(self, member: Member) -> Any:
        """In the greenlet of a job's slot: return its result, or raise its error, once the call has ended."""
        self._members.append(member)
        if self._greenlet is None:
            self._greenlet = critical(gevent.spawn(self._run))
        if len(self._members) == self._most:
            self._close()
            self._news.set()
        elif not member.slot.more():
            self._news.set()
        while not self._ended.is_set():
            try:
                self._ended.wait()
            except BaseException as thrown:
                if not self._running:
                    self._members.remove(member)
                    raise
                if isinstance(thrown, Stopped):
                    self._stop()
                elif not isinstance(thrown, gevent.Timeout):  # which an earlier job of this greenlet has left behind
                    raise
        return member.ran.result()

    def _close(self) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()

    def _run(self) -> None:
        """In the batch's own greenlet."""
        self._gather()
        with nullcontext() if self._threads is None else self._threads.places:
            self._close()
            if self._members:
                self._call()

    def _gather(self) -> None:
        """Wait until the batch is complete."""
        due = time.monotonic() + (self._task.policy.batch_wait or 0.0)
        while self._closed is not None and self._members and self._members[0].slot.more():
            left = due - time.monotonic()
            if left <= 0:
                return
            self._news.wait(min(left, LOOK))
            self._news.clear()

    def _call(self) -> None:
        """Call the function, and let the jobs go on."""
        self._running = self._calling = True
        began = time.monotonic_ns()
        for slot in (member.slot for member in self._members):
            slot.began, slot.deadline = began, BATCHED
            slot.words[slot.due] = began + self._timeout
        owned = [member for member in self._members if not member.slot.disowned]  # the others run elsewhere by now
        loop = gevent.get_hub().loop
        loop.update_now()  # else the limit would count from the loop's last turn
        with loop.timer(self._timeout / SECOND, AGAIN) as limit:
            limit.start(self._interrupt, Expired)
            ended = self._outcomes(owned) if owned else []
            self._calling = False
        for member, ran in zip(owned, ended, strict=True):
            member.ran = ran
        self._ended.set()

    def _outcomes(self, members: list[Member]) -> list[Ran]:
        """How the call has ended for each of them. Raises nothing."""
        ended: list[Ran] = []

        def call() -> None:
            ended.extend(run_batch(self._task, [one.attempt for one in members], [one.element for one in members]))
            if os.getpid() != self._pid:
                hard_exit(0)  # in a child that the function has forked: it returned there, too

        number = members[0].slot.number
        try:
            if self._threads is None:
                # Under the name that shows the slot in a stack.
                entrance(number)(lambda _: call(), None)
            else:
                self._threads.call(number, call)
        except BaseException as error:
            return [failed_by(error)] * len(members)
        return ended

    def _interrupt(self, kind: type[BaseException]) -> None:
        # In the hub: nothing else runs between this check and the throw.
        if self._calling and self._greenlet is not None:
            self._greenlet.throw(kind())

    def _stop(self) -> None:
        """The consumer stops, and raises Stopped in each of the slots: raise it once in the call."""
        if not self._stopped:
            self._stopped = True
            for slot in (member.slot for member in self._members):
                slot.words[slot.due] = NEVER
            gevent.get_hub().loop.run_callback(self._interrupt, Stopped)


class Batches:
    """The batches of a consumer that gather. `threads` makes the pool, when the first batch needs it."""

    def __init__(self, threads: Callable[[], Threads]) -> None:
        self._threads = threads
        self._gathering: dict[tuple[str, str, int], Batch] = {}

    def run(self, slot: Slot[Any], task: Task[Any, Any], message: Message, entry: bytes, timeout: int) -> Any:
        """The result of this job, once the batch that it has joined was run. Raises its error.

        Together run jobs of one queue, with the same timeout. A job that may have killed a consumer runs without
        others: so it cannot take them along again, and they show by themselves that it was not they.
        """
        slot.began = time.monotonic_ns()
        assert slot.lane is not None
        arguments, queue, head = task.arguments, slot.lane.queue, parsed(entry)
        assert isinstance(arguments, BatchArguments)
        attempt = Attempt(message, queue, head.attempts, head.crashes, head.deaths)
        member = Member(slot, attempt, arguments.element(message.args, message.kwargs))
        if head.crashes:
            return self._made(task, 1, timeout, lambda: None).run(member)
        key = queue, task.name, timeout
        batch = self._gathering.get(key)
        if batch is None:
            batch = self._made(task, task.policy.batch or 1, timeout, partial(self._gathering.pop, key))
            self._gathering[key] = batch
        return batch.run(member)

    def _made(self, task: Task[Any, Any], most: int, timeout: int, closed: Callable[[], object]) -> Batch:
        threads = self._threads() if task.policy.run_in == "thread" else None
        return Batch(task, most, timeout, threads, closed)

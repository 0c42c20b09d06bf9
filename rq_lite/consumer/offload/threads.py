"""A consumer's threads, in which jobs with run_in="thread" run.

A thread cannot be killed. What is raised in the slot's greenlet (Expired at the deadline, and again every second) is
raised in the thread as soon as that runs Python code. The slot and the place stay taken until the thread has really
ended; a job past its hard limit is killed with its consumer, like one that holds the loop.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gevent import monkey
from gevent.lock import Semaphore
from gevent.threadpool import ThreadPool

from rq_lite.client.current import current_job
from rq_lite.client.task import Task
from rq_lite.consumer.run import runner
from rq_lite.consumer.slots import Slot, Stopped, entrance
from rq_lite.model.message import Message
from rq_lite.process.board import NEVER

# A thread's, not a greenlet's: gevent has replaced the public names before this module is imported.
real_lock = monkey.get_original("_thread", "allocate_lock")
real_ident = monkey.get_original("_thread", "get_ident")


class Threads:
    """Up to `most` jobs at a time."""

    def __init__(self, most: int) -> None:
        self.places = Semaphore(most)
        self._pool = ThreadPool(most)
        self._run_once = runner()

    def run(self, slot: Slot[Any], task: Task[Any, Any], message: Message, timeout: int) -> Any:
        """Return or raise what the function does. `timeout` in ns, from when it begins."""
        with self.places:
            slot.began = time.monotonic_ns()
            slot.deadline = slot.words[slot.due] = slot.began + timeout

            def stopped() -> None:
                slot.deadline = slot.words[slot.due] = NEVER

            try:
                return self.call(slot.number, partial(self._run_once, task, message, current_job()), stopped)
            finally:
                slot.deadline = NEVER

    def call(self, slot: int, function: Callable[[], Any], stopped: Callable[[], None] = lambda: None) -> Any:
        """Call it in a thread, for the slot of this number; the caller has a place.

        What is raised in the calling greenlet meanwhile is raised in the thread; `stopped` is called before Stopped is.
        """
        job = Call(slot, function)
        ended = self._pool.spawn(job.run)
        while True:
            try:
                ended.wait()
                break
            except BaseException as thrown:
                if isinstance(thrown, Stopped):
                    stopped()
                job.interrupt(type(thrown))
        if job.error is not None:
            raise job.error
        return job.result


class Call:
    """One job in a thread."""

    def __init__(self, number: int, job: Callable[[], Any]) -> None:
        self._number = number
        self._job = job
        self._lock = real_lock()
        self._ident = 0  # of the thread, while anything may be raised in it
        self._returned = False
        self.result: Any = None
        self.error: BaseException | None = RuntimeError("its thread was cut short")  # unless it gets to its end

    def run(self) -> None:
        """In the thread. Raises nothing."""
        try:
            with self._lock:
                self._ident = real_ident()
            # Under the name that shows the slot in a stack.
            entrance(self._number)(Call._attempt, self)
        except BaseException as error:
            if not self._returned:
                self.error = error
        while True:
            try:
                self._close()
                return
            except BaseException as late:  # raised after the job had ended
                del late

    def _attempt(self) -> None:
        self.result = self._job()
        self.error = None
        self._returned = True

    def _close(self) -> None:
        with self._lock:
            self._ident = 0
        # What was not raised yet is raised here, at a jump back, and does not hit the next job. To withdraw it, with
        # NULL, would leave Python 3.11 with a flag that nothing resets: each call of the process then takes longer, and
        # one that is traced (coverage, a debugger) never begins.
        for _ in range(3):
            pass

    def interrupt(self, kind: type[BaseException]) -> None:
        """Raise it in the job, once its thread runs Python code."""
        with self._lock:
            if self._ident:
                strike(self._ident, kind)


def strike(thread: int, kind: type[BaseException]) -> None:
    """Have an exception raised in a thread."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))

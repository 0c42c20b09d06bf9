"""Entry of an engine, a process that runs one job at a time.

    python -m rq_lite.consumer.offload.engine CHANNEL STACKS PARENT

Plain Python, nothing is patched. It belongs to one consumer, talks to it alone, and dies with it. CHANNEL and STACKS
are inherited file descriptors: one end of a pair of sockets, and a file for stacks.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import msgspec

from rq_lite.broker import Broker
from rq_lite.client.app import import_app, own_traceback
from rq_lite.client.current import CurrentJob, Progress
from rq_lite.client.defaults import defaults
from rq_lite.client.middleware import WorkerEvent, emit
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.consumer.offload.channel import Answer, Channel, Run, Setup
from rq_lite.consumer.run import chances, failed, run_once, runner
from rq_lite.errors import AppFailed, JobTimeout, UsageError
from rq_lite.model import completion
from rq_lite.model.message import Message, decode, is_tracked
from rq_lite.model.policy import FOREVER
from rq_lite.process.signals import Handler, Signals
from rq_lite.process.streams import by_line, flush
from rq_lite.process.subprocesses import STACK, die_with, rss, tell_stacks
from rq_lite.settings import Settings

INTERRUPT = signal.SIGUSR1
PACE = 0.1  # seconds between two reports of a job's progress

encode = msgspec.json.Encoder().encode
read_order = msgspec.json.Decoder(Run).decode


class Interrupted(BaseException):
    """Raised in a job when its consumer says so. Private, and shown in tracebacks as JobTimeout, like run.Expired."""

    __module__, __qualname__ = JobTimeout.__module__, JobTimeout.__qualname__

    def __str__(self) -> str:
        return "the job's time is up, or it was cancelled"


class Engine:
    """Runs the jobs that its consumer sends."""

    def __init__(self, frames: Channel, settings: Settings) -> None:
        self._frames = frames
        self._settings = settings
        self._pid = os.getpid()
        self._run_once: Callable[..., Any] = run_once
        self._running = False
        self._masked = False  # a frame is under way, which must not be cut short
        self._late = False  # an interruption came meanwhile
        self._cut = False  # an exception was raised in a job, perhaps inside a library: no other job is run after it
        self._taken = 0
        self._sending = threading.Lock()
        self._said = 0.0  # when progress was last sent
        self._unsaid: Progress | None = None
        self._later = False  # a timer will send it
        self._kept: list[tuple[Handler, int]] = []  # the job's own signals that came while a frame was under way
        signal.signal(INTERRUPT, self._interrupt)
        self.signals = Signals({INTERRUPT, STACK, signal.SIGPIPE}, self._handle, shared=False)

    def _interrupt(self, *_: object) -> None:
        if self._masked:
            self._late = True
        elif self._running:
            self._cut = True
            raise Interrupted

    def _handle(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        """Call a handler that the app or the job has set: an error of it is raised in the job, and nowhere else."""
        if self._masked:
            self._kept.append((handler, number))
            return
        try:
            handler(number, frame)
        except BaseException:
            if self._running:
                self._cut = True
                raise

    def serve(self) -> None:
        """Run jobs until the consumer is gone."""
        self._run_once = runner()
        while (frame := self._frames.receive()) is not None:
            order, _, entry = frame.partition(b"\n")
            self._late, self._unsaid = False, None
            answer = encode(self._run(read_order(order), entry))
            self.signals.restore()
            flush()
            with self._sending:
                self._taken += 1
                self._say_the_last()
                self._frames.send(answer)

    # -- how far it is

    def _tell(self, number: int, progress: Progress) -> None:
        """Called by the job, or by a thread that it has started, which may outlive the job."""
        main = threading.current_thread() is threading.main_thread()
        if main:  # which alone handles signals: another thread would clear it too early
            self._masked = True
        try:
            with self._sending:
                if number == self._taken:
                    self._unsaid = progress
                    if time.monotonic() - self._said >= PACE:
                        self._say_the_last()
                    elif not self._later:
                        self._later = True
                        timer = threading.Timer(PACE, self._say_later, [number])
                        timer.daemon = True
                        timer.start()
        finally:
            if main:
                self._masked = False
        if main and self._late:
            self._late = False
            self._cut = True
            raise Interrupted
        while main and self._kept:
            self._handle(*self._kept.pop(0), None)

    def _say_later(self, number: int) -> None:
        with self._sending:
            self._later = False
            if number == self._taken:
                self._say_the_last()

    def _say_the_last(self) -> None:
        if self._unsaid is not None:
            said, self._unsaid = self._unsaid, None
            self._said = time.monotonic()
            self._frames.send(encode(Answer(event="progress", progress=said)))

    # -- a job

    def _run(self, order: Run, entry: bytes) -> Answer:
        message, *begun = decode(entry)
        began = time.monotonic()
        task = registry.tasks.get(message.task)
        if task is None:
            text = f"task {message.task!r} is unknown in a fresh process: register it when the app is imported"
            return Answer(event="raised", error=f"UsageError: {text}", final=True)
        current = CurrentJob(
            id=message.id,
            queue=order.queue,
            task=message.task,
            attempt=sum(begun) + 1,
            deadline=time.time() + order.timeout if order.timeout < FOREVER / 2 else None,
            tell=partial(self._tell, self._taken),
            tags=message.tags,
        )
        try:
            value = self._interruptible(task, message, current)
            result = b"null"
            if is_tracked(message):
                result = completion.encoded(message, value, task.arguments, self._settings.max_result)
        except BaseException as error:
            self._running = False
            failure = failed(error, order.timeout, time.monotonic() - began)
            return Answer(
                event="interrupted" if isinstance(error, Interrupted) else "raised",
                error=failure.error,
                message=failure.message,
                traceback=failure.traceback,
                seconds=failure.seconds,
                delay=failure.delay,
                final=chances(task.policy, error).final,
                leaving=self._worn_out(),
            )
        puts = [*current.take_follow_ups()]
        return Answer(event="done", result=msgspec.Raw(result), puts=puts, leaving=self._worn_out())

    def _interruptible(self, task: Task[Any, Any], message: Message, current: CurrentJob) -> Any:
        """Run the job; only here its consumer may interrupt it."""
        try:
            self._running = True
            return self._run_once(task, message, current)
        finally:
            self._running = False
            if os.getpid() != self._pid:
                leave(0)  # in a child that the job has forked: the job returned there, too

    def _worn_out(self) -> bool:
        most, memory = self._settings.max_jobs, self._settings.max_rss * 1_000_000
        return self._cut or bool(most and self._taken + 1 >= most) or bool(memory and rss(os.getpid()) >= memory)


def main() -> None:
    channel, stacks, parent = map(int, sys.argv[1:])
    die_with(parent)
    by_line()
    tell_stacks(stacks)
    end = socket.socket(fileno=channel)
    frames = Channel(end)
    threading.Thread(target=leave_with, args=(end,), name="channel", daemon=True).start()
    asked = frames.receive()
    if asked is None:
        leave(1)
    hire = msgspec.json.decode(asked, type=Setup)
    engine = Engine(frames, hire.settings)
    try:
        set_up(hire)
        engine.signals.imported()
    except BaseException as error:
        frames.send(encode(Answer(event="failed", error=said(error), traceback=told(error))))
        leave(1)
    frames.send(encode(Answer(event="ready")))
    engine.serve()
    leave(0)


def set_up(hire: Setup) -> None:
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s consumer {hire.number}, engine [{os.getpid()}] %(message)s",
        datefmt="%H:%M:%S",
    )
    defaults.use(hire.settings, Broker(settings=hire.settings, quiet=True))
    defaults.serves = frozenset(hire.queues)
    import_app(hire.app)
    emit("worker_start", WorkerEvent(process="engine", number=hire.number, queues=tuple(sorted(hire.queues))))


def leave(code: int) -> NoReturn:
    """Exit without waiting for threads that jobs have started."""
    logging.shutdown()
    os._exit(code)


def leave_with(end: socket.socket) -> None:
    """In a thread: end when the consumer's end is closed, also while a job runs."""
    watch = select.poll()
    watch.register(end, select.POLLHUP)
    while not any(event & (select.POLLHUP | select.POLLERR) for _, event in watch.poll()):
        pass
    os._exit(1)


def said(error: BaseException) -> str:
    return str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"


def told(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(error, AppFailed) and cause is not None:
        return own_traceback(cause)
    return "".join(traceback.format_exception(error))


if __name__ == "__main__":
    main()

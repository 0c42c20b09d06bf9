"""The demo from start to end.

    website ◄─── consumers ◄─── queue, bounded ◄─── producer (a thread of this process)
       └── its counts at the end   └── read all the time, for the view and to check the bound

The producer runs alone until the queue is full and it has to wait; only then is the worker started.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from rq_lite.admin import status
from rq_lite.broker import Broker
from rq_lite.client.queue import Queue
from rq_lite.demo.facts import Choices, Sample, Summary, problems_of
from rq_lite.demo.producer import Producer
from rq_lite.demo.stage import PATIENCE, Website, Worker, redis
from rq_lite.errors import RqLiteError
from rq_lite.process.background import BackgroundProcess, Interrupted, deferred_signals
from rq_lite.settings import Settings

TICK = 0.05  # seconds between two samples
WINDOW = 3.0  # seconds over which the rate is measured


class DemoFailed(RqLiteError):
    """A process of the demo ended too early; the message has its output."""


def run(choices: Choices, settings: Settings, show: Callable[[Sample], None]) -> Summary:
    """Run the demo, calling `show` with each sample. Raises Interrupted, DemoFailed, BrokerError."""
    settings = msgspec.structs.replace(settings, patience=PATIENCE)
    with contextlib.ExitStack() as stack:
        # Entered first, left last: until everything is cleaned up, signals are only recorded.
        caught = stack.enter_context(deferred_signals())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rq_lite-demo-")))
        broker, name = stack.enter_context(redis(settings, choices.url, folder))
        website = Website(choices, folder)
        stack.callback(website.stop)
        # The producer's own broker: it must not start the embedded Redis again when the other one is closed.
        own = Broker(broker.url, settings=settings, quiet=True)
        stack.callback(own.close)
        queue = Queue(name, choices.maxsize, broker=own)
        queue.declare()
        producer = Producer(queue, website.pages)
        watcher = Watcher(broker, name, producer)
        stack.callback(producer.stop)
        producer.start()
        parts: list[BackgroundProcess] = [website]
        while True:
            show(watcher.look())
            check(caught, parts, producer)
            if len(parts) == 1 and (producer.has_met_the_bound or producer.finished):
                parts.append(Worker(choices, folder, broker, name))
                stack.callback(parts[-1].stop)
            if producer.finished and broker.tends.unfinished(name)[0] == 0:
                show(watcher.look(last=True))
                return watcher.summary(choices, website.counts())
            time.sleep(TICK)


def check(caught: list[int], parts: list[BackgroundProcess], producer: Producer) -> None:
    """Raise the error that keeps the demo from going on, if any."""
    troubles = [trouble for part in parts if (trouble := part.trouble())]
    # A signal first: a terminal sends it to all processes, and it may already have ended the others.
    if caught:
        raise Interrupted(caught[0])
    if troubles:
        raise DemoFailed("\n".join(troubles))
    if producer.error is not None:
        raise producer.error


class Watcher:
    """Samples the queue from outside, and keeps what the summary needs."""

    def __init__(self, broker: Broker, queue: str, producer: Producer) -> None:
        self._broker = broker
        self._queue = queue
        self._producer = producer
        self._began = time.monotonic()
        self._window: deque[tuple[float, int]] = deque()  # (when, done) of the last seconds
        self._deepest = 0
        self._looks = 0

    def look(self, *, last: bool = False) -> Sample:
        state = status.states(self._broker, [self._queue])[self._queue]
        elapsed = time.monotonic() - self._began
        self._state, self._elapsed = state, elapsed
        size = state.pending + state.scheduled
        self._deepest = max(self._deepest, size)
        self._looks += 1
        progress = self._producer.progress
        return Sample(
            last=last,
            elapsed=elapsed,
            size=size,
            maxsize=state.maxsize,
            put=progress.put,
            producer=self._producer.state(),
            waited=progress.waited,
            done=state.done,
            inflight=state.inflight,
            consumers=state.consumers,
            jobs_per_second=self._rate(elapsed, state.done),
        )

    def _rate(self, elapsed: float, done: int) -> float:
        self._window.append((elapsed, done))
        while self._window[0][0] < elapsed - WINDOW:
            self._window.popleft()
        then, before = self._window[0]
        return (done - before) / (elapsed - then) if elapsed > then else 0.0

    def summary(self, choices: Choices, counts: list[int]) -> Summary:
        """The summary, after the last sample; `counts` is how often each page was requested."""
        progress = self._producer.progress
        deepest = max(self._deepest, progress.deepest)
        lost = sum(count == 0 for count in counts)
        twice = sum(count > 1 for count in counts)
        done = self._state.done
        return Summary(
            jobs=choices.jobs,
            done=done,
            failed=self._state.failed,
            lost=lost,
            twice=twice,
            seconds=round(self._elapsed, 3),
            jobs_per_second=round(done / self._elapsed, 1),
            maxsize=choices.maxsize,
            deepest=deepest,
            deepest_put=progress.deepest,
            deepest_seen=self._deepest,
            looks=self._looks,
            waited=round(progress.waited, 3),
            problems=problems_of(choices, done=done, lost=lost, twice=twice, deepest=deepest),
        )

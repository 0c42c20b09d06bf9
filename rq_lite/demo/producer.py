"""The demo's producer: a thread that puts a job for each page, and waits while the queue is full."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from rq_lite.client.put import Progress
from rq_lite.client.queue import Queue
from rq_lite.client.task import Task
from rq_lite.demo import app
from rq_lite.errors import QueueFull, RqLiteError
from rq_lite.model.message import new_id
from rq_lite.model.put_options import Options

BATCH = 10  # jobs per put; few, so that the queue is kept close to its bound
SLICE = 0.5  # seconds after which a wait for room starts again, so that `stop` is noticed


class Producer:
    """Puts into `queue`, which needs a broker of its own: the thread uses it until `stop` returns."""

    def __init__(self, queue: Queue, urls: Sequence[str]) -> None:
        self.progress = Progress()
        self.error: RqLiteError | None = None
        self._task: Task[[str], int] = queue.task(name=app.fetch.name)(app.fetch.function)
        self._urls = urls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def finished(self) -> bool:
        return not self._thread.is_alive()

    @property
    def has_met_the_bound(self) -> bool:
        """Whether it has begun to wait for room at least once."""
        return self.progress.waiting or self.progress.waited > 0

    def state(self) -> str:
        if self.finished:
            return "has put everything"
        return "waiting for room" if self.progress.waiting else "putting"

    def _run(self) -> None:
        try:
            for start in range(0, len(self._urls), BATCH):
                urls = self._urls[start : start + BATCH]
                self._put([self._task.encoded((url,), {}, new_id()) for url in urls])
        except RqLiteError as error:
            self.error = error

    def _put(self, entries: list[bytes]) -> None:
        while entries and not self._stop.is_set():
            try:
                self._task.queue.sender.put_entries(entries, Options(), wait=SLICE, progress=self.progress)
                return
            except QueueFull as full:
                entries = entries[full.put :]

"""Feeding a task from a source: batches, pace, and a mark that moves in the step that puts the jobs."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rq_lite.broker import Feed
from rq_lite.client.batches import ahead, batches
from rq_lite.client.put import Progress
from rq_lite.client.task import Task
from rq_lite.errors import FeedMoved, PutRefused, QueueFull, SourceError
from rq_lite.feeds.cursor import written
from rq_lite.feeds.folder import is_still, watch
from rq_lite.feeds.sources import Item, Source, fingerprint, same
from rq_lite.logs import escaped, logger
from rq_lite.model.message import new_id
from rq_lite.model.put_options import Options

log = logger("rq_lite.produce")

POSITION, FINGERPRINT = "position", "fingerprint"
STEP = 0.1  # seconds of the pace that go into one batch
GONE = "gone:"  # begins the mark of a package that was put and is no longer in its folder
FORGET = 60.0  # seconds after which such a mark is removed: by then no producer acts on an older listing of the folder
LOOK = 1.0  # seconds without room after which the feed of a watched folder checks whether to stop


class Pace:
    """Lets at most `rate` jobs through per second; time spent waiting for room is not made up for."""

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.sleep = sleep
        self._rate = rate
        self._clock = clock
        self._next = clock()

    @property
    def step(self) -> int:
        """The batch size that keeps the flow even."""
        return max(1, round(self._rate * STEP))

    def wait(self, jobs: int) -> None:
        """Wait until this many more jobs may be put."""
        now = self._clock()
        if self._next > now:
            self.sleep(self._next - now)
        self._next = max(self._next, now) + jobs / self._rate


class Feeder:
    """Puts what a source yields as jobs of one task; `progress` shows how far it is.

    `wait` is how long to wait for room, in seconds (None: for ever), `rate` the limit in jobs per second (None: no
    limit), `template` a text whose {} is replaced by the item.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        *,
        batch: int,
        wait: float | None = None,
        rate: float | None = None,
        template: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._task = task
        self._template = template
        self._queue = task.queue
        self._options = Options(wait=wait)
        self._pace = Pace(rate) if rate is not None else None
        self._batch = min(batch, self._pace.step) if self._pace else batch
        self.progress = progress or Progress()

    # -- a source with positions

    def feed(
        self, source: Source, *, resume: str | None = None, at: str = "", typed: bool = True, file: Path | None = None
    ) -> None:
        """Put a job for every item. With `resume` the feed's position moves with the jobs, from `at` on.

        `file` is the file that the source reads, if its fingerprint can be checked.

        `typed` False: keyword arguments are text that the task's annotations turn into values. Raises
        SourceError for a bad line (the lines before it were put), QueueFull, FeedMoved, BrokerError.
        """
        if resume is not None and file is not None:
            self._recognize(resume, file)  # only now, when the source has found its position in the file
        jobs = batches(
            self._jobs(source, typed),
            lambda job: len(job[0]),
            most=self._batch,
            heaviest=self._queue.sender.settings.max_payload,
        )
        going_on = source.place if at and source.read else ""
        for batch in jobs:
            if going_on:
                log.info("feed %r: going on at %s", resume, going_on)
                going_on = ""
            if self._pace is not None:
                self._pace.wait(len(batch))
            entries = [job[0] for job in batch]
            self.progress.offsets = [job[2] for job in batch]
            mark = None if resume is None else Feed(resume, POSITION, at, [written(job[1].place) for job in batch])
            self._queue.sender.put_entries(entries, self._options, feed=mark, progress=self.progress)
            at = batch[-1][1].position
        if resume is not None and source.position != at:  # blank or skipped lines at the end
            self._queue.broker.puts.mark_feed(self._queue.name, resume, [(POSITION, at, source.position)])

    def _jobs(self, source: Source, typed: bool) -> Iterator[tuple[bytes, Item, int] | None]:
        """An entry, its item, and the source's offset after it; None: the source has nothing to read yet."""
        arguments, encoded = self._task.arguments, self._task.encoded
        for item in ahead(source) if source.live else source:
            if item is None:
                yield None
                continue
            try:
                kwargs = item.kwargs if typed else arguments.from_text(item.kwargs)
                args = item.args if self._template is None else (self._template.replace("{}", str(item.args[0])),)
                arguments.check(args, kwargs)
                yield encoded(args, kwargs, new_id()), item, source.offset
            except PutRefused as error:
                source.reject(item, str(error))

    def resumed_at(self, resume: str, file: Path | None) -> str:
        """Where the feed continues ("": at the start). Raises SourceError if it was begun with another file."""
        return self._checked(resume, file).get(POSITION, "")

    def _checked(self, resume: str, file: Path | None) -> dict[str, str]:
        """The marks of the feed. Raises SourceError if it was begun with another file."""
        marks = self._marks(resume)
        known = marks.get(FINGERPRINT)
        if file is not None and known is not None and not same(known, file):
            raise SourceError(
                f"{file} is not the file that feed {resume!r} was begun with; give it another --resume name"
            )
        return marks

    def _recognize(self, resume: str, file: Path) -> None:
        """Store the file's fingerprint. That of a short file says little, so it is renewed as the file grows."""
        known = self._checked(resume, file).get(FINGERPRINT, "")
        if not self._queue.broker.puts.mark_feed(self._queue.name, resume, [(FINGERPRINT, known, fingerprint(file))]):
            self._recognize(resume, file)  # another producer has just begun the feed, maybe with another file

    def _marks(self, name: str) -> dict[str, str]:
        return self._queue.broker.puts.feed(self._queue.name, name)

    # -- a folder

    def feed_folder(self, folder: Path, stop: threading.Event, *, name: str | None = None) -> None:
        """Put each complete package of a folder once, as it arrives, until `stop` is set.

        The marks of packages that were put are in Redis under `name`: they outlive the producer, and are removed a
        while after the package, so that a producer with an older listing does not put it again.
        """
        if self._pace is not None:
            self._pace.sleep = stop.wait
        folder = folder.resolve()
        feed = name or "watch:" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        self._queue.declare()
        marks = self._marks(feed)
        since: dict[str, float] = {}
        for packages in watch(folder, stop=stop):
            # With the marks read before this listing: packages that other producers marked later may not be in it.
            marks = self._forget(feed, marks, packages, since)
            for package, identity in sorted(packages.items()):
                if marks.get(package) == identity:
                    continue
                mark = Feed(feed, package, marks.get(package, ""), [identity])
                marks = self._put_package(folder / package, mark, marks, stop)
                if stop.is_set():
                    return

    def _forget(
        self, feed: str, marks: dict[str, str], packages: dict[str, str], since: dict[str, float]
    ) -> dict[str, str]:
        """Mark the packages that have left the folder as gone, and later remove these marks; returns all marks.

        `since`: when this producer first saw a package's gone mark. Marks that another producer has moved stay.
        """
        now = time.monotonic()
        keep = max(FORGET, 2 * self._queue.sender.settings.patience)
        absent = {package: mark for package, mark in marks.items() if package not in packages}
        for package in since.keys() - absent.keys():
            del since[package]
        moves = []
        for package, mark in sorted(absent.items()):
            if not mark.startswith(GONE):
                moves.append((package, mark, GONE + mark))
            elif now - since.setdefault(package, now) > keep:
                moves.append((package, mark, ""))
        if moves and self._queue.broker.puts.mark_feed(self._queue.name, feed, moves) < len(moves):
            return self._marks(feed)
        after = {**marks, **{package: mark for package, _, mark in moves}}
        return {package: mark for package, mark in after.items() if mark}

    def _put_package(self, package: Path, mark: Feed, marks: dict[str, str], stop: threading.Event) -> dict[str, str]:
        """Put one package; returns the marks afterwards, read again if another producer was faster.

        Does not put it once `stop` is set, or if the package has changed since it was listed.
        """
        args = (str(package),)
        self._task.arguments.check(args, {})
        entry = self._task.encoded(args, {}, new_id())
        if self._pace is not None:
            self._pace.wait(1)
        wait = self._options.wait
        until = None if wait is None else time.monotonic() + wait
        while not stop.is_set() and is_still(package, mark.values[0]):
            left = LOOK if until is None else max(0.0, until - time.monotonic())
            try:
                self._queue.sender.put_entries(
                    [entry], self._options, wait=min(left, LOOK), feed=mark, progress=self.progress
                )
            except QueueFull:
                if left < LOOK:
                    raise
            except FeedMoved:
                return self._marks(mark.name)
            else:
                log.info("put %s", escaped(package.name))
                return {**marks, mark.field: mark.values[0]}
        return marks

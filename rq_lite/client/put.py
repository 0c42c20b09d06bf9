"""Puts into a bounded queue: as many jobs as fit, then the rest, waiting for room as long as the caller allows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any, NamedTuple
from urllib.parse import unquote

from rq_lite.admin import status
from rq_lite.broker import Broker, Code, Feed, Put
from rq_lite.broker.producing import before_put
from rq_lite.client.batches import batches
from rq_lite.client.defaults import defaults
from rq_lite.client.middleware import put_with_hooks, registered
from rq_lite.client.origin import Origin, origin_of
from rq_lite.errors import BrokerError, FeedMoved, PayloadTooLarge, QueueFull, RqLiteError, ShutDown, UsageError
from rq_lite.logs import logger
from rq_lite.model.message import Seal, is_claim
from rq_lite.model.option import UNSET
from rq_lite.model.policy import FOREVER
from rq_lite.model.put_options import Options
from rq_lite.settings import Settings

log = logger(__name__)


class Bounds(NamedTuple):
    """What the program says of the queue: its bounds, in jobs and in bytes, and the headroom; None: it says nothing."""

    maxsize: int | None
    maxbytes: int | None
    headroom: int | None
    full: str | None = None  # what a put does that finds no room


class Sender:
    """The puts of one queue in this process: jobs of tasks and items, encoded by their owners.

    1. An owner encodes a job with the `settings` and the `seal` of the sender.
    2. `put_entries` puts as many as fit, and waits for room for the rest (`put_patiently`).
    3. A queue that Redis does not know is declared, with the bounds that the program names, and the put is repeated.
    4. `put_all` does so in batches, which are read while they are put.
    """

    def __init__(self, name: str, order: str, declared: Bounds, broker: Broker | None) -> None:
        self.name = name
        self.order = order
        self.declared = declared
        self.chosen_broker = broker  # None: the process's default one at the time of each put
        self.marks = False  # this process puts jobs that are unique or expire
        self._known = False  # this object has declared the queue
        self._closed_in: int | None = None  # the process that closed it

    @property
    def broker(self) -> Broker:
        return self.chosen_broker or defaults.broker

    @cached_property
    def settings(self) -> Settings:
        return self.broker.settings

    @cached_property
    def seal(self) -> Seal | None:
        """Signs the JSON of its jobs, if there is a secret."""
        signer = self.broker.core.signer
        return None if signer is None else signer.seal

    def forget_settings(self) -> None:
        """The default broker has changed: forget what came from the old one."""
        self._known = False
        for name in ("settings", "seal"):
            self.__dict__.pop(name, None)

    def declare(self) -> tuple[int, int]:
        """Declare the queue in Redis; return the bounds in force, in jobs and in bytes."""
        bounds = self.declare_as(self.order)
        self._known = True
        return bounds

    def declare_as(self, order: str = "") -> tuple[int, int]:
        """`declare` with this order ("": as it is)."""
        named = self.declared
        return self.broker.puts.declare(
            self.name, named.maxsize, named.maxbytes, order, headroom=named.headroom, full=named.full
        )

    def declare_once(self) -> None:
        """`declare`, unless this object has done so."""
        if not self._known:
            self.declare()

    def close(self) -> bool:
        """Let this process put and get no more; False if it was closed before."""
        before, self._closed_in = self._closed_in, os.getpid()
        return before != self._closed_in

    def check_open(self) -> None:
        """Raises UsageError once it was closed."""
        if self._closed_in is not None and self._closed_in == os.getpid():
            raise UsageError(f"queue {self.name!r} is closed in this process; make another Queue object to go on")

    def put_entries(
        self,
        entries: Sequence[bytes],
        options: Options,
        *,
        wait: Any = UNSET,
        feed: Feed | None = None,
        progress: Progress | None = None,
        verdicts: Verdicts | None = None,
        hooks: bool = True,
    ) -> int:
        """Put encoded jobs in their order, waiting for room as long as the options (or `wait`) say; how many were put.

        The wait starts again with every job that found room. `feed` moves with the jobs. Jobs that were kept out by
        others count as put; `verdicts` gets what became of each, if not all have simply gone in.
        """
        self.check_open()
        if hooks and registered.puts:
            verdicts = verdicts or Verdicts()
            went_in = partial(verdicts.went_in, verdicts.seen)
            put = partial(
                self.put_entries, entries, options, wait=wait, feed=feed, progress=progress, verdicts=verdicts,
                hooks=False,
            )  # fmt: skip
            return put_with_hooks(self.name, entries, put, went_in, kept=defaults.instead is not None)
        if defaults.instead is not None:
            return defaults.instead(self, entries, options, verdicts)
        if self.order != "fifo" and not self._known:
            with before_put():
                self.declare()
        asked = options.wait if wait is UNSET else wait
        return put_patiently(self, entries, options, asked, feed=feed, progress=progress, verdicts=verdicts)

    def put_all(self, entries: Iterable[bytes], options: Options, verdicts: Verdicts | None = None) -> int:
        """`put_entries` with any number of entries, which are read as they are put."""
        settings, count = self.settings, 0
        try:
            for batch in batches(entries, len, most=settings.batch, heaviest=settings.max_payload):
                try:
                    count += self.put_entries(batch, options, verdicts=verdicts)
                except RqLiteError as error:
                    count += error.put
                    raise
        except RqLiteError as error:  # of the iterable of entries, too
            error.put = count
            raise
        return count


class Verdicts:
    """What became of jobs that did not simply go in, by their number in the call."""

    all_went_in = True
    seen = 0

    def note(self, reply: Put) -> None:
        if reply.verdicts:
            self._read(reply)
        self.seen += reply.accepted

    def _read(self, reply: Put) -> None:
        for number, word in enumerate(reply.words, self.seen):
            if word[0] == "d":
                self.keep_out(number, unquote(word[1:]))
            elif word == "x":
                self.dropped.add(number)
                self.all_went_in = False

    def keep_out(self, number: int, holder: str) -> None:
        self.kept_out[number] = holder
        self.all_went_in = False

    def went_in(self, first: int, number: int) -> bool:
        """Whether a job was put: the one with this number, counted from `first`."""
        return self.all_went_in or not (first + number in self.kept_out or first + number in self.dropped)

    # Made on first use: a plain put has no need of them.
    @cached_property
    def kept_out(self) -> dict[int, str]:
        """By the job with this id ("": it is not known)."""
        return {}

    @cached_property
    def dropped(self) -> set[int]:
        """As the queue was full."""
        return set()


class Progress:
    """What a producer has done so far, kept up to date while it puts, to be shown."""

    def __init__(self) -> None:
        self.put = 0
        self.replaced = 0  # jobs in whose place others were put; those count as put
        self.duplicates = 0  # kept out by jobs with the same key; not counted as put
        self.dropped = 0  # of those that were put: the queue was full, and drops jobs then
        self.unanswered = 0  # jobs of a put whose answer has not come yet
        self.offset = 0  # how much of the source is put, in its unit
        self.offsets: Sequence[int] = ()  # the offset after each of the jobs that are being put
        self._alone = False  # it was logged that no consumer makes room
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
        if reply.verdicts:
            kinds = [word[0] for word in reply.words]
            self.put -= kinds.count("d")
            self.duplicates += kinds.count("d")
            self.replaced += kinds.count("r")
            self.dropped += kinds.count("x")
        self.unanswered = 0
        if reply.accepted and self.offsets:
            self.offset, self.offsets = self.offsets[reply.accepted - 1], self.offsets[reply.accepted :]
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

    def look(self, queue: Sender) -> None:
        """After a wait in vain: log, once, if no consumer can make room."""
        if self._alone:
            return
        if status.is_paused(queue.broker, queue.name):
            self._alone = True
            log.info("queue %r is full and paused: `rq-lite queue resume %s`", queue.name, queue.name)
        elif status.signs_of_life(queue.broker, queue.name)[0] == 0:
            self._alone = True
            log.info("queue %r is full and no consumer runs: start one with `rq-lite work APP`", queue.name)


def put_patiently(
    queue: Sender,
    entries: Sequence[bytes],
    options: Options,
    asked: Any = UNSET,
    *,
    feed: Feed | None = None,
    progress: Progress | None = None,
    verdicts: Verdicts | None = None,
) -> int:
    """Put encoded jobs in their order; how many were put. Waits up to `asked` s (None: for ever) for room for each.

    If that is not set, as long as the settings say, or not at all in a queue that raises when it is full. `feed` moves
    with the jobs. Raises what Queue.put does.
    """
    done, woken, since = 0, False, time.monotonic()
    patience = queue.settings.wait if asked is UNSET else asked
    origin = origin_of(queue)
    try:
        while True:
            if progress is not None:
                progress.unanswered = len(entries) - done
            reply = step(queue, entries[done:], options, woken, feed, origin)
            origin.note(reply, entries[done : done + reply.accepted])
            done += reply.accepted
            if progress is not None:
                progress.note(reply)
            if verdicts is not None:
                verdicts.note(reply)
            if done == len(entries):
                return done
            if reply.accepted:
                since = time.monotonic()
                if feed is not None:
                    feed = feed._replace(expected=feed.values[reply.accepted - 1], values=feed.values[reply.accepted :])
            if origin.waits and 0 < reply.maxbytes < len(entries[done]):
                raise PayloadTooLarge(
                    f"queue {queue.name!r}: a job of {len(entries[done]):,} bytes never fits its maxbytes, "
                    f"{reply.maxbytes:,}"
                )
            if asked is UNSET and reply.full == b"raise":
                patience = 0.0
            left = FOREVER if patience is None else since + patience - time.monotonic()
            if left <= 0 or not origin.waits:
                raise full(queue, reply, origin.hint if patience or not origin.waits else "")
            origin.wait()
            with progress.wait() if progress is not None else nullcontext():
                woken = queue.broker.puts.wait_room(queue.name, left)
            if progress is not None and not woken:
                progress.look(queue)
            queue.check_open()
    except RqLiteError as error:
        error.put = done
        raise
    finally:
        origin.end()


def step(
    queue: Sender, entries: Sequence[bytes], options: Options, woken: bool, feed: Feed | None, origin: Origin
) -> Put:
    """One put, repeated after declaring the queue if Redis does not know it."""
    for _ in range(3):
        reply = queue.broker.puts.put(
            queue.name,
            entries,
            delay=max(0, round(options.delay * 1000)),
            at=options.due,
            woken=woken,
            origin=origin.word(),
            feed=feed,
            marked=queue.marks and any(map(is_claim, entries)),
        )
        if reply.code is not Code.UNDECLARED:
            break
        with before_put():
            queue.declare()
    if reply.code is Code.CLOSED:
        raise ShutDown(
            f"queue {queue.name!r} was shut down and takes no puts until it is reopened "
            f"(`rq-lite queue open {queue.name}`)"
        )
    if reply.code is Code.MOVED:
        assert feed is not None
        raise FeedMoved(f"feed {feed.name!r} was moved by another producer meanwhile; only one may feed it")
    if reply.code is not Code.OK:
        raise BrokerError(f"queue {queue.name!r}: put was answered with {reply.code.name}")
    return reply


def full(queue: Sender, reply: Put, hint: str) -> QueueFull:
    alive, last_seen = status.signs_of_life(queue.broker, queue.name)
    return QueueFull(
        queue.name, size=reply.size, maxsize=reply.maxsize, bytes=reply.bytes, maxbytes=reply.maxbytes,
        consumers=alive, last_seen=last_seen, hint=hint,
    )  # fmt: skip

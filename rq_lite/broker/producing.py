"""The producers' side of the broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rq_lite import events
from rq_lite.broker import events as emit
from rq_lite.broker import keys
from rq_lite.broker.base import Core, blank, ms
from rq_lite.broker.link import Link
from rq_lite.broker.reading import Reading
from rq_lite.broker.replies import Feed, Put
from rq_lite.broker.scripts import Code
from rq_lite.errors import BrokerUnavailable, UsageError
from rq_lite.model.names import checked_name, encoded_id

# A producer's last put is remembered for this long, ms: longer than a producer goes on repeating one.
REMEMBER = 600_000
# A process is told how jobs end for this long, ms, after its last call of `watch`.
WATCHED = 3_600_000
# An inbox is kept for this long, ms, after its last note, as in lib.lua.
INBOX = 60_000
# Marks of a feed that are read, or moved, in one step.
MARKS = 300
# The orders of queues, and the class that makes each.
KINDS = {"fifo": "a Queue", "lifo": "a LifoQueue", "priority": "a PriorityQueue"}


@contextmanager
def before_put() -> Iterator[None]:
    """For steps before a put: if one fails, nothing was put, and the error says that."""
    try:
        yield
    except BrokerUnavailable as error:
        raise BrokerUnavailable(f"{error}; nothing was put", outcome="not put") from None


class Producing:
    """Making queues known, putting, and the marks of feeds."""

    def __init__(self, core: Core, reads: Reading) -> None:
        self._core, self._reads = core, reads

    def declare(
        self,
        queue: str,
        maxsize: int | None = None,
        maxbytes: int | None = None,
        order: str = "",
        *,
        headroom: int | None = None,
        full: str | None = None,
        link: Link | None = None,
    ) -> tuple[int, int]:
        """Make the queue known; return the bound in force, in jobs and in bytes (0: none).

        `headroom`: by how many jobs puts of running jobs may exceed the bound (None: as it is; at first, any number).
        `full`: what a put does that finds no room: "wait", "raise", "drop-new" or "drop-old" (None: as it is).
        `order` is "fifo", "lifo" or "priority" ("": as it is). Raises UsageError if jobs wait in another order.
        """
        key = keys.of(queue)
        # A queue that is listed needs no write: at maxmemory a worker must be able to start and drain it.
        if not self._core.one(("SISMEMBER", keys.QUEUES, queue), link):
            self._core.one(("SADD", keys.QUEUES, queue), link)
        defaults = (self._core.settings.maxsize, self._core.settings.maxbytes)
        with events.span("declare", None, queue=queue):
            names = (key.meta, key.pending, key.scheduled)
            named = (*map(blank, (maxsize, maxbytes)), *defaults, order, blank(headroom), blank(full))
            reply = self._core.run("declare", names, *named, link=link)
        if queue in self._core.tracked:  # Redis may have lost it
            self._core.one(("HSET", key.meta, "tracked", 1), link)
        _, jobs, size, found = reply
        in_force = found.decode(errors="replace")
        if order not in ("", in_force):
            raise UsageError(
                f"queue {queue!r} is {KINDS.get(in_force, in_force)}, and jobs wait in it; this program makes it "
                f"{KINDS[order]}: let them be done (or drop them with `rq-lite queue purge {queue}`), or choose "
                "another name"
            )
        return jobs, size

    def put(
        self,
        queue: str,
        entries: Sequence[bytes],
        *,
        delay: int = 0,
        at: int | None = None,
        woken: bool = False,
        origin: str = "0",
        feed: Feed | None = None,
        marked: bool = False,
        patience: float | None = None,
    ) -> Put:
        """Add encoded jobs, at most 1000, as many as fit; they are due in `delay` ms, or `at` a time.

        `at` is in ms since 1970 by Redis' clock (past: now). `origin`: whose put it is, see put.lua. `marked`: some
        of them are unique or expire, so that each gets a verdict.

        Repeating it after a lost answer never adds a job twice. Raises BrokerUnavailable when patience is over;
        its `outcome` is "not put", or "unknown" when an answer was lost.
        """
        until = self._core.until(patience)
        with before_put():
            self._core.ready(until)
            link = self._core.links.borrow(until)
        try:
            assert self._core.scripts is not None
            script = self._core.scripts["put"]
            key = keys.of(queue)
            link.sequence += 1
            names = [key.pending, key.scheduled, key.meta, key.bell, key.room, key.producer(link.producer), key.alarm]
            remember = max(REMEMBER, 2 * ms(self._core.settings.patience if patience is None else patience))
            args = [
                link.sequence,
                remember,
                0,  # see `send`
                delay if at is None else f"@{at}",
                origin,
                len(entries),
                *entries,
            ]
            if feed is not None:
                names.append(key.feed(feed.name))
                args += [feed.field, feed.expected, *feed.values]

            def send(again: bool) -> list[Any]:
                args[2] = int(woken) + 2 * again + 4 * marked
                reply: list[Any] = script(link, tuple(names), *args)
                return reply

            return self._put(link, queue, entries, origin, send, until)
        finally:
            self._core.links.give_back(link)

    def _put(
        self,
        link: Link,
        queue: str,
        entries: Sequence[bytes],
        origin: str,
        send: Callable[[bool], list[Any]],
        until: float,
    ) -> Put:
        again = False

        def attempt() -> Put:
            nonlocal again
            if events.subscribers:
                events.emit("put.before", link, queue=queue, jobs=[emit.id_of(entry) for entry in entries])
            repeated, again = again, True
            reply = send(repeated)
            code = Code(reply[0])
            put = Put(code, *reply[1:]) if code is Code.OK else Put(code)
            if events.subscribers:
                emit.put_ended(queue, entries, put, origin, link)
            return put

        try:
            return self._core.patiently(attempt, link, until)
        except BrokerUnavailable as error:
            unknown = error.outcome == "unknown"
            outcome = "unknown" if unknown else "not put"
            if events.subscribers:
                jobs = [emit.id_of(entry) for entry in entries]
                events.emit("put.failed", link, queue=queue, jobs=jobs, outcome=outcome)
            said = "whether it was put is not known" if unknown else "nothing was put"
            raise BrokerUnavailable(f"{error}; {said}", outcome=outcome) from None

    def expect_tracked(self, queue: str) -> None:
        """Call before tracked jobs are put, so that a purge tells their watchers. Writes once for each queue."""
        if queue not in self._core.tracked:
            with before_put():
                self._core.read(("HSET", keys.of(queue).meta, "tracked", 1))
            self._core.tracked.add(queue)

    def forget(self, queue: str, name: str, digest: bytes) -> bool:
        """Forget that a job with the lock of this name was put: for ever, or for a time. False if it was not."""
        key = keys.of(queue)
        forever, lock = self._core.read(("HDEL", key.seen, digest), ("GET", key.unique(name)))
        for_a_time = lock is not None and lock[:1] == b"t" and self._core.read(("DEL", key.unique(name)))[0]
        return bool(forever or for_a_time)

    def holder(self, queue: str, name: str) -> str | None:
        """The id, as in marks, of the job that holds the lock of this name."""
        (lock,) = self._core.read(("GET", keys.of(queue).unique(name)))
        return None if lock is None else lock.split(b"|")[1].decode(errors="replace")

    def forget_all(self, queue: str) -> int:
        """Forget all jobs that were put once for ever; how many they were."""
        key = keys.of(queue)
        return int(self._core.read(("HLEN", key.seen), ("UNLINK", key.seen))[0])

    def watch(self, queue: str, client: str, ids: Sequence[str]) -> list[bytes]:
        """Have the end of jobs (at most 1000) pushed to this client's inbox, for an hour unless it asks again.

        `ids` are encoded as in marks and in the inbox (see `names.encoded_id`).

        Returns for each its result (as JSON) if it has ended, "+" if that is large (see `result`), or "".
        """
        meta = keys.of(queue).meta
        results: list[bytes] = self._reads.sized(
            lambda link: self._core.run("watch", (meta,), client, WATCHED, self._core.portion, *ids, link=link)[1],
            None,
        )
        return results

    def result(self, queue: str, job_id: str) -> bytes | None:
        """How a tracked job has ended, as JSON; None if it has not, or its result is no longer kept."""
        return self.kept(queue, encoded_id(job_id))

    def kept(self, queue: str, mark: str) -> bytes | None:
        """Like `result`, by the id as encoded in marks and inboxes."""
        return self._reads.text(keys.of(queue).result(mark))

    def progress_of(self, queue: str, job_id: str) -> bytes | None:
        """How far this job says it is, as JSON; None if it has reported nothing, or does not run."""
        found: bytes | None = self._core.read(("HGET", keys.of(queue).job(encoded_id(job_id)), "progress"))[0]
        return found

    def is_running(self, queue: str, job_id: str) -> bool:
        """Whether a consumer has this tracked job just now, and it does not wait there for a thread or an engine."""
        key = keys.of(queue)
        consumer, tag = self._core.read(("HMGET", key.job(encoded_id(job_id)), "consumer", "tag"))[0]
        if consumer is None or tag is None:
            return False
        name = consumer.decode()
        owned, held = self._core.read(("HEXISTS", key.inflight(name), tag), ("GET", key.held(name)))
        return bool(owned) and tag not in (held or b"").split()

    def size(self, queue: str) -> tuple[int, bool]:
        """How many jobs wait (pending and scheduled), and whether a put would have to wait for room."""
        key = keys.of(queue)
        reply = self._core.run("size", (key.pending, key.scheduled, key.meta))
        return reply[1], reply[2] == 1

    def wait_room(self, queue: str, seconds: float) -> bool:
        """Wait until the queue may have room; False after `seconds` (about 2 at most), or after a transient error."""
        return self._core.wait((keys.of(queue).room,), seconds)

    def feed(self, queue: str, name: str) -> dict[str, str]:
        """The marks of a feed: field to value; empty for one that was never used."""
        key, found, cursor = keys.of(queue).feed(checked_name(name, "feed")), {}, b"0"
        while True:
            cursor, flat = self._core.read(("HSCAN", key, cursor, "COUNT", MARKS))[0]
            found.update({flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)})
            if cursor == b"0":
                return found

    def mark_feed(self, queue: str, name: str, moves: Sequence[tuple[str, str, str]]) -> int:
        """Move marks of a feed, each given as field, the value it must have now, and the value it gets ("": no field).

        Returns how many were moved: the others, which another producer has moved, are left as they are.
        """
        moved = 0
        for i in range(0, len(moves), MARKS):
            flat = [text for move in moves[i : i + MARKS] for text in move]
            moved += self._core.run("mark", (keys.of(queue).feed(name),), *flat)[1]
        return moved

"""Connections to Redis: one link sends one command and reads its reply, and never sends it again by itself.

redis-py's clients re-send requests that got no answer (8.x: ten times), also those that Redis has already done. So
links use redis-py's connections, without its clients: what is tried again, and for how long, is decided once, in
`rq_lite.broker`, for scripts that are safe to repeat.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from hiredis import pack_command

from rq_lite.broker import tcp
from rq_lite.broker.address import ANSWER, Address
from rq_lite.errors import BrokerUnavailable, UsageError

LONGEST_BLOCK = 2.0


class Link:
    """One connection, opened with its first command and again after an error; for one caller at a time.

    `producer` and `sequence` name the puts that go over this link: a link is used by one caller at a time,
    so its puts are in order. `asked`: whether the last command may have reached Redis.
    """

    # hiredis crashes if a signal handler raises while it turns a number into text; a process whose handlers never raise
    # may set this to False.
    careful = True

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection = address.connection()
        self.producer = os.urandom(8).hex()
        self.sequence = 0
        self.asked = False
        self._owed = False  # a reply is unread; if it still is at the next command, its reader was interrupted

    def call(self, *command: Any) -> Any:
        """The reply. Raises redis-py's errors unchanged; after a lost reply it is unknown if the command was done.

        Raises UsageError for text that is not UTF-8.
        """
        # Packed here: the connection's own packing checks every argument again, in Python.
        packed = self._packed(command)
        self._begin()
        self._connection.send_packed_command((packed,))
        try:
            reply = self._connection.read_response()
        except redis.ResponseError:
            self._owed = False
            raise
        self._owed = False
        return reply

    def pipe(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """The replies to several commands sent at once; raises the first error among them, after reading all."""
        replies = self.replies(commands)
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                raise reply
        return replies

    def replies(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Like `pipe`, but with the errors among the replies, in their places."""
        packed = [self._packed(command) for command in commands]
        self._begin()
        self._connection.send_packed_command(packed)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(self._connection.read_response())
            except redis.ResponseError as error:
                replies.append(error)
        self._owed = False
        return replies

    def _packed(self, command: tuple[Any, ...]) -> bytes:
        if self.careful:
            command = tuple([part if isinstance(part, (bytes, str)) else str(part) for part in command])
        try:
            packed: bytes = pack_command(command)
        except UnicodeEncodeError as error:  # from the command line, for example
            raise UsageError(f"{error.object!r} is not valid UTF-8") from None
        return packed

    def _begin(self) -> None:
        if self._owed:
            self._connection.disconnect()
        if not self._connection.is_connected:
            self.asked = False
            self._address.connect(self._connection)
        self.asked = self._owed = True

    def close(self) -> None:
        self._connection.disconnect()

    def abandon(self) -> None:
        """Close it without the loop that it belongs to, which has ended with its thread; for a link that is not used.

        So not gevent's `close`, which would have that loop cancel waits, but the one of the socket within.
        """
        sock, self._connection._sock = getattr(self._connection, "_sock", None), None
        if sock is not None:
            getattr(sock, "_sock", sock).close()

    def drop(self) -> None:
        """Cut the connection from another thread; the user of this link gets an error from its command."""
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def end_waiting(thread: threading.Thread, link: Callable[[], Link | None], within: float = ANSWER) -> None:
    """Join a thread that was told to end, cutting the link on which it may wait for Redis; up to `within` s."""
    until = time.monotonic() + within
    while thread.is_alive() and time.monotonic() < until:
        found = link()
        if found is not None:
            found.drop()
        thread.join(0.05)


def left(until: float) -> float:
    """Seconds to wait for another caller in this process: the patience left, and the time that Redis may take."""
    return max(0.0, until - time.monotonic()) + ANSWER


def check_may_wait(gevent: Any) -> None:
    """Raises UsageError in gevent's event loop: gevent itself refuses to wait there only once Redis has the command."""
    if gevent.getcurrent() is gevent.get_hub():
        raise UsageError(
            "this was called in gevent's event loop (as by a signal handler), which cannot wait for Redis; "
            "nothing was done: call it with gevent.spawn(…)"
        )


class Pool:
    """Free links, and the callers that wait for one."""

    def __init__(self, most: int) -> None:
        # None is a link that was not made yet; last in, first out, so those come last.
        self.free: deque[Link | None] = deque([None] * most)
        self.waiting: deque[threading.Lock] = deque()  # one for each caller that waits, held until that is woken

    def __del__(self) -> None:
        """Close what is free: the thread whose pool it was has ended, or the broker is used no more."""
        for link in self.free:
            if link is not None:
                link.abandon()

    def wait(self, seconds: float | None) -> Link | None:
        """A link that another caller gives back. Raises queue.Empty."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            turn = threading.Lock()
            turn.acquire()
            self.waiting.append(turn)
            try:
                with contextlib.suppress(IndexError):
                    return self.free.pop()  # given back before we were in `waiting`
                if not turn.acquire(timeout=-1 if until is None else max(0.0, until - time.monotonic())):
                    raise queue.Empty
            finally:
                try:
                    self.waiting.remove(turn)
                except ValueError:  # it was woken, but may have a link already, or be interrupted: wake the next
                    self.wake()

    def wake(self) -> None:
        """Wake the caller that has waited longest, if a link is free."""
        if self.free:
            with contextlib.suppress(IndexError):
                self.waiting.popleft().release()


class Links:
    """Links to lend: each caller has one to itself while it uses it.

    A free one is reused; there are as many as callers at the same time, at most `most`; further callers wait.
    After a fork the child begins with none: the parent's sockets are not its own. A socket that gevent has patched
    belongs to the loop of the thread that opened it: in a patched process each thread has links of its own, which are
    closed when it ends. (By a real thread-local: the number of a thread that has ended is used again.)

    A signal handler, or a `__del__`, may put while its thread is within any line of these methods. So each step is one
    operation on a deque, which is done or not, and no caller holds a lock here that another would wait for.
    """

    def __init__(self, address: Address, most: int = 32) -> None:
        self.address = address
        self._most = most
        # Only in a process that gevent has patched: a supervisor never imports it.
        self._gevent = sys.modules["gevent"] if tcp.is_patched() else None
        self._fresh()

    def _fresh(self) -> None:
        self._pid = os.getpid()
        self._shared = Pool(self._most)
        # Not `threading.local`, of which gevent makes one for each greenlet.
        self._own = None if self._gevent is None else tcp.thread_local()

    @property
    def _pool(self) -> Pool:
        if self._own is None:
            return self._shared
        mine = vars(self._own)
        pool: Pool | None = mine.get("pool")
        return mine.setdefault("pool", Pool(self._most)) if pool is None else pool

    def borrow(self, until: float | None = None) -> Link:
        """A link for the caller alone, until `give_back`. Raises BrokerUnavailable if none is free until patience ends.

        Raises UsageError in gevent's event loop.
        """
        link = self.borrow_within(None if until is None else left(until))
        if link is None:
            raise BrokerUnavailable(
                f"Redis at {self.address.shown} cannot be reached: all {self._most} connections wait for it"
            )
        return link

    def borrow_within(self, seconds: float | None) -> Link | None:
        """Like `borrow`; None if no link was free within `seconds`."""
        if os.getpid() != self._pid:
            self._fresh()
        if self._gevent is not None:
            check_may_wait(self._gevent)
        pool = self._pool
        try:
            try:
                link = pool.free.pop()
            except IndexError:
                link = pool.wait(seconds)
        except queue.Empty:
            return None
        return Link(self.address) if link is None else link

    def give_back(self, link: Link) -> None:
        pool = self._pool
        pool.free.append(link)
        if pool.waiting:
            pool.wake()

    @contextmanager
    def lend(self, until: float | None = None) -> Iterator[Link]:
        link = self.borrow(until)
        try:
            yield link
        finally:
            self.give_back(link)

    def close(self) -> None:
        """Close this thread's free links; each opens again with its next command."""
        for link in reversed(self._pool.free.copy()):
            with contextlib.suppress(ValueError):  # another caller has just borrowed it
                if link is not None:
                    self._pool.free.remove(link)
                    link.close()
                    self.give_back(link)

"""How the broker's methods reach Redis: connect once, run a script or command, retry after transient errors."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis

from rq_lite import events
from rq_lite.broker import former, tcp
from rq_lite.broker.address import Address
from rq_lite.broker.link import LONGEST_BLOCK, Link, Links, check_may_wait, left
from rq_lite.broker.scripts import Script, load
from rq_lite.broker.transient import REDIS_ERRORS, explained, in_words, is_lost, is_transient
from rq_lite.embedded.program import OLDEST
from rq_lite.embedded.server import PATIENCE, Attached, announce, attach
from rq_lite.errors import BrokerError, BrokerUnavailable, BrokerUnsuitable, RqLiteError
from rq_lite.logs import logger
from rq_lite.model.backoff import pauses
from rq_lite.model.signing import Signer
from rq_lite.redis_url import redact
from rq_lite.settings import Settings, keys_of, load_settings

WITH_FLAGS = (7, 0)
COMPARED = 60.0  # seconds between two comparisons of the clocks
STEP = 0.01  # seconds that a try waits for an embedded Redis which it has started; the next try goes on waiting
WAITERS = 8  # connections of a process that wait at the same time for room in one queue, or for it to drain
KEPT = 16  # queues for which such connections stay open after a wait; beyond that each wait opens one
SAID = 10.0  # seconds between two log lines about an unreachable Redis
PORTION = 500_000  # bytes of jobs, results and other large data in one answer
T = TypeVar("T")
log = logger("rq_lite.broker")


class Clock:
    """Redis' clock, as it was found to differ from this machine's within the last minute."""

    def __init__(self) -> None:
        self._compared = float("-inf")
        self._ahead = 0.0  # s

    def now(self, read: Callable[..., list[Any]]) -> int:
        """Ms since 1970; `read` is that of Core, which is not kept: the two would be a circle, which is freed late."""
        if time.monotonic() - self._compared > COMPARED:
            here, began = time.time(), time.monotonic()
            seconds, micros = read(("TIME",))[0]
            self._compared = time.monotonic()
            self._ahead = int(seconds) + int(micros) / 1e6 - here - (self._compared - began) / 2
        return round((time.time() + self._ahead) * 1000)


class Core:
    """What the sides of the broker share; it connects with its first use."""

    def __init__(self, url: str | None = None, *, settings: Settings | None = None, quiet: bool = False) -> None:
        self.settings = settings or load_settings({"url": url})
        keys = keys_of(self.settings.secret)
        self.signer = Signer(keys) if keys else None
        self._url = url or self.settings.url
        self._quiet = quiet
        self._said_at = float("-inf")  # time of the last log line about an unreachable Redis
        self._started_at = float("-inf")  # when this process last started the embedded Redis again
        self._opening, self._pid = threading.RLock(), os.getpid()
        self._attached: Attached | None = None
        self.clock = Clock()
        self.scripts: dict[str, Script] | None = None
        self.portion = PORTION
        self.known: set[str] = set()  # queues that were declared for callbacks
        self.tracked: set[str] = set()  # queues whose meta says `tracked`: they may have tracked jobs
        if self._url is not None:
            self._connect_to(self._url)

    def _connect_to(self, url: str) -> None:
        self.address = Address(url)
        self.links = Links(self.address)
        self._waiters: dict[str, Links] = {}  # by the first list that they wait for

    # -- opening and closing

    def open(self) -> None:
        """Connect now, once, without patience, and check the server. Raises BrokerError in one line."""
        self.ready(self.until(0.0))

    def until(self, patience: float | None = None) -> float:
        """The end of a patience that begins now, by time.monotonic(); None: the settings' patience."""
        return time.monotonic() + (self.settings.patience if patience is None else patience)

    def ready(self, until: float) -> None:
        """Connect, unless that is done. Other threads wait for the one that connects, but no longer than for Redis.

        A signal handler that interrupts the thread that connects does so by itself.
        """
        if self.scripts is not None:
            return
        if self._pid != os.getpid():  # a fork: the thread that held the lock is not in this process
            self._opening, self._pid = threading.RLock(), os.getpid()
        if not self._opening.acquire(timeout=left(until)):
            raise BrokerUnavailable("Redis cannot be reached: another thread of this process is still connecting")
        try:
            if self.scripts is None:
                self._open(until)
        finally:
            self._opening.release()

    def _open(self, until: float) -> None:
        events.begin("producer")  # unless this process has begun with another role
        if self._url is None:
            if tcp.is_patched():
                check_may_wait(sys.modules["gevent"])
            self._use(attach(self.settings, say=None if self._quiet else announce))
        with self.links.lend() as link:
            info, *old = self.patiently(lambda: greeted(link), link, until)
        self.version = version_of(info)
        if self.version < OLDEST:
            number = ".".join(map(str, self.version))
            raise BrokerUnsuitable(f"Redis at {self.address.shown} is version {number or '?'}; 6.2 or newer is needed")
        if (said := former.found(old)) and not self._quiet:
            log.warning("Redis at %s holds %s", self.address.shown, said)
        self.scripts = load(flags=self.version >= WITH_FLAGS)

    def _use(self, attached: Attached) -> None:
        if self._url is not None:  # a signal handler has attached meanwhile
            attached.close()
            return
        self._attached = attached
        self._connect_to(attached.url)
        self._url = attached.url

    def close(self) -> None:
        if self._url is not None:
            self.links.close()
            for waiters in list(self._waiters.values()):
                waiters.close()
        if self._attached is not None:
            self._attached.close()
            self._attached, self._url, self.scripts = None, None, None

    def revive(self, timeout: float = PATIENCE) -> None:
        """Start the embedded Redis again if it is gone; does nothing for any other Redis."""
        if self._attached is not None:
            self._attached.revive(timeout=timeout, started=self._say_started)

    def _say_started(self) -> None:
        """Once, though it may have to be started several times until it answers."""
        now = time.monotonic()
        if now - self._started_at > SAID:
            log.warning("the embedded Redis was gone: it is started again")
        self._started_at = now

    @property
    def url(self) -> str:
        """The URL with its password: for processes that this one starts, never for people."""
        self.open()
        return self.address.url

    def announce(self) -> None:
        """Say that an embedded Redis is used, and which, unless that was said when it was opened."""
        if self._attached is not None and not self._attached.first:
            announce(self._attached.line)

    @property
    def said(self) -> str:
        """The URL that this process was given, for people; empty for the embedded Redis."""
        return "" if self._url is None else repr(redact(self._url))

    def veiled(self, text: str) -> str:
        """A text (a redis-py error, a command) without this Redis' passwords, for people."""
        return text if self._url is None else self.address.veiled(text)

    def in_words(self, error: BaseException) -> str:
        """An error of a link, for people."""
        return in_words(self.veiled(str(error)))

    def link(self) -> Link:
        """A connection for one caller alone."""
        self.open()
        return Link(self.address)

    # -- signatures

    def seal(self, queue: str, text: bytes) -> bytes:
        """A job's JSON, signed for this queue if there is a secret. Marks are put in front of it later."""
        return text if self.signer is None else self.signer.seal(queue, text)

    def opened(self, queue: str, entry: bytes) -> bytes:
        """The entry; with a secret its signature is checked and removed. Raises Refused (an Undecodable)."""
        return entry if self.signer is None else self.signer.opened(queue, entry)

    # -- running a script or command

    def run(self, name: str, keys_: tuple[str, ...], *args: Any, link: Link | None = None) -> list[Any]:
        until = 0.0
        if self.scripts is None or link is None:
            until = self.until()
            self.ready(until)
        assert self.scripts is not None
        script = self.scripts[name]
        if link is not None:
            reply: list[Any] = script(link, keys_, *args)
            return reply
        with self.links.lend(until) as lent:
            return self.patiently(lambda: script(lent, keys_, *args), lent, until)

    def read(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The replies to plain commands, sent together and repeated like scripts: send only what is safe to repeat."""
        until = self.until()
        self.ready(until)
        with self.links.lend(until) as link:
            return self.patiently(lambda: link.pipe(list(commands)), link, until)

    @property
    def caps(self) -> tuple[int, int]:
        """The caps of the dead set: how many jobs, and how long one is kept, ms."""
        return self.settings.dead_max, ms(self.settings.dead_age)

    def one(self, command: tuple[Any, ...], link: Link | None) -> Any:
        return self.read(command)[0] if link is None else link.call(*command)

    def patiently(self, attempt: Callable[[], T], link: Link, until: float) -> T:
        """Try once, and again after transient errors, with growing pauses of random length, until patience is over."""
        unknown, pausing = False, None
        while True:
            failure: BrokerError | None = None
            try:
                return attempt()
            except REDIS_ERRORS as error:
                pausing = pausing or pauses()
                pause = next(pausing)
                # Once an answer was lost, only an answer to the same step can tell what was done.
                unknown = unknown or (is_lost(error) and link.asked)
                link.close()
                if not is_transient(error) or time.monotonic() + pause > until:
                    failure = explained(error, self.address, unknown=unknown)
                else:
                    self._say_away(error, until)
                    if is_lost(error):
                        with contextlib.suppress(RqLiteError, OSError):
                            self.revive(STEP)
            if failure is not None:  # raised here, without redis-py's error as its context: that may hold a password
                raise failure
            time.sleep(pause)

    def _say_away(self, error: BaseException, until: float) -> None:
        """Log the error now and then, for all callers: else a program that puts would hang without a word."""
        now = time.monotonic()
        if now - self._said_at > SAID:
            self._said_at = now
            log.warning("%s; trying again for up to %.0f s", explained(error, self.address), until - now)

    def wait(self, lists: tuple[str, ...], seconds: float) -> bool:
        """Block for a wake-up token; True if one came. It is only a hint: a transient error counts as no token."""
        self.ready(self.until())
        waiters = self._waiters.get(lists[0]) or self._waiters.setdefault(lists[0], Links(self.address, most=WAITERS))
        until = time.monotonic() + seconds
        # Thousands of greenlets may wait: a few of them block in Redis, the others wait for a connection.
        link = waiters.borrow_within(min(seconds, threading.TIMEOUT_MAX))
        if link is None:
            return False
        try:
            seconds = max(0.01, min(until - time.monotonic(), LONGEST_BLOCK))
            return link.call("BRPOP", *lists, seconds) is not None
        except REDIS_ERRORS as error:
            link.close()
            failure = None if is_transient(error) else explained(error, self.address)
        finally:
            if len(self._waiters) > KEPT:
                link.close()
            waiters.give_back(link)
        if failure is not None:
            raise failure
        time.sleep(random.uniform(0, min(seconds, 0.5)))
        return False


def greeted(link: Link) -> list[Any]:
    """The reply to INFO, and those to the search for keys of former names, which may be errors."""
    info, *old = link.replies([("INFO", "server"), *former.LOOK])
    if isinstance(info, redis.ResponseError):
        raise info
    return [info, *old]


def version_of(info: bytes) -> tuple[int, ...]:
    """`(7, 0, 15)` from the reply to INFO; empty if it names no version."""
    for line in info.decode(errors="replace").splitlines():
        if line.startswith("redis_version:"):
            return tuple(int(part) for part in line.partition(":")[2].split(".") if part.isdigit())
    return ()


def blank(number: int | str | None) -> int | str:
    return "" if number is None else number


def ms_of(clock: Sequence[bytes]) -> int:
    """The time, from an answer to TIME."""
    return int(clock[0]) * 1000 + int(clock[1]) // 1000


def ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def firsts(pairs: Sequence[tuple[int, Any]]) -> list[int]:
    return [tag for tag, _ in pairs]


def flat(pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    return [part for pair in pairs for part in pair]

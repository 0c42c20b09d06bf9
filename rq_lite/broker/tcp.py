"""Connections over TCP with one deadline, which includes the look-up of the host's name.

The system's resolver has no deadline and cannot be interrupted: a name whose servers are silent takes it 10 to 40 s.
So it runs in a thread that goes on after the deadline, and all callers that ask for the same name meanwhile wait for
the same thread.
"""

from __future__ import annotations

import _socket
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

Found = list[tuple[Any, ...]]  # as getaddrinfo returns it

# In a consumer this is the loop's resolver, whose threads jobs do not use: see consumer/boot.py.
resolve: Callable[..., Found] = socket.getaddrinfo
_asked: dict[tuple[Any, ...], Asked] = {}


class Asked:
    """One look-up that is under way."""

    def __init__(self, key: tuple[Any, ...]) -> None:
        self.key = key
        self._ended = threading.Event()
        self._found: Found = []
        self._error: Exception | None = None

    def begin(self) -> None:
        try:
            threading.Thread(target=self._ask, name=f"rq-lite-look-up-{self.key[0]}", daemon=True).start()
        except RuntimeError as error:  # no thread can be started: other callers may wait for this answer, too
            _asked.pop(self.key, None)
            self._error = socket.gaierror(socket.EAI_AGAIN, f"Its name cannot be looked up: {error}")
            self._ended.set()
        except BaseException:
            _asked.pop(self.key, None)
            raise

    def _ask(self) -> None:
        try:
            self._found = resolve(*self.key[:2], type=socket.SOCK_STREAM)
        except Exception as error:
            self._error = error
        finally:
            _asked.pop(self.key, None)
            self._ended.set()

    def answer(self, within: float | None) -> Found:
        if not self._ended.wait(within):
            raise socket.gaierror(socket.EAI_AGAIN, f"Its name servers said nothing for {within:.3g} s")
        if self._error is not None:
            raise self._error
        return self._found


def is_patched() -> bool:
    """Whether gevent has patched this process: sockets, and waits for them, then belong to the loop of one thread."""
    return socket.socket.__module__.startswith("gevent")


def thread_local() -> Any:
    """A namespace of each thread of the system, in a process that gevent has patched."""
    return sys.modules["gevent.monkey"].get_original("_thread", "_local")()


def look_up(host: str, port: int, within: float | None) -> Found:
    """The addresses of a host, as getaddrinfo returns them, but within `within` seconds. Raises OSError."""
    try:  # a numeric address needs no thread
        return _socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        pass
    mine = Asked((host, port, threading.get_native_id() if is_patched() else 0))
    asked = _asked.setdefault(mine.key, mine)
    if asked is mine:
        try:
            asked.begin()
        except RuntimeError as error:  # no more threads, for now
            raise socket.gaierror(socket.EAI_AGAIN, f"Its name cannot be looked up: {error}") from None
    return asked.answer(within)


class Tcp(redis.Connection):
    """redis-py's connection, with one deadline for all that comes before the first command."""

    def _connect(self) -> socket.socket:
        within: float | None = self.socket_connect_timeout
        until = None if within is None else time.monotonic() + within
        found = look_up(self.host, self.port, within)
        failure: OSError | None = None
        for number, (family, kind, protocol, _, address) in enumerate(found):
            # Each address has its share of what is left: the next one may be the one that answers.
            share = None if until is None else max(0.01, (until - time.monotonic()) / (len(found) - number))
            try:
                return self._opened(socket.socket(family, kind, protocol), address, share)
            except OSError as error:
                failure = error
        raise failure or socket.gaierror(socket.EAI_NONAME, "Its name has no address")

    def _opened(self, sock: socket.socket, address: Any, within: float | None) -> socket.socket:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.socket_keepalive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in self.socket_keepalive_options.items():
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
            sock.settimeout(within)
            sock.connect(address)
            sock.settimeout(self.socket_timeout)
        except BaseException:
            sock.close()
            raise
        return sock


class Tls(redis.SSLConnection, Tcp):
    """The same under TLS; the certificate is checked for the name, not for the address."""


# The connection classes that redis-py chooses for a URL, and what we use in their place.
OURS: dict[Any, Any] = {redis.Connection: Tcp, redis.SSLConnection: Tls}

os.register_at_fork(after_in_child=_asked.clear)  # the child does not have those threads

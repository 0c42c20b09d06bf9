"""A Redis within this process, by fakeredis, on a port of its own: workers are other processes and must reach it.

fakeredis has a TCP server as well, but it polls every connection a hundred times a second, cuts off an answer that is
larger than the kernel's buffer, and pops a token from a list for a client that has gone; hence this one, with the same
commands. What the broker needs and fakeredis 2.41 lacks is added to them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

import redis
from fakeredis import FakeServer
from fakeredis._clients._tcp_server import encode_reply
from fakeredis._commands import Signature
from fakeredis._helpers import SimpleError
from fakeredis._socket import FakeSocket
from fakeredis.commands_mixins.scripting_mixin import _cjson_python_to_lua

VERSION = (6, 2)  # from Redis 7 on the broker's scripts begin with a line of flags, which fakeredis' Lua refuses
SIZE = 65536  # bytes that are read at once
INFO = Signature("info", "info", (), (bytes,))  # type: ignore[arg-type]  # as fakeredis' decorator does it


class Client(FakeSocket):
    """fakeredis' state of one connection, with its commands."""

    def __init__(self, server: FakeServer, connection: socket.socket) -> None:
        host, port = connection.getpeername()
        super().__init__(server, 0, client_class=redis.Redis, client_info={"addr": f"{host}:{port}"})
        self._connection = connection

    def replies(self) -> bytes:
        """The encoded replies to all commands sent so far."""
        assert self.responses is not None
        found = []
        while not self.responses.empty():
            found.append(encode_reply(self.responses.get_nowait(), self._client_info.protocol_version))
        return b"".join(found)

    def info(self, *_sections: bytes) -> bytes:
        """The fields that the broker reads, and tests that wait until a client blocks."""
        blocked = sum(client._blocked for client in self._server.sockets)
        version = ".".join(map(str, VERSION))
        return f"redis_version:{version}.0\r\nredis_mode:standalone\r\nblocked_clients:{blocked}\r\n".encode()

    def _name_to_func(self, cmd_name: str) -> tuple[Callable[..., Any] | None, Signature]:
        return (self.info, INFO) if cmd_name == INFO.name else super()._name_to_func(cmd_name)

    def _get_server_runtime(self, server: FakeServer) -> Any:
        made = not hasattr(server, "_lua_runtime")
        runtime = super()._get_server_runtime(server)
        if made:
            known = runtime.globals()
            known[b"redis"][b"sha1hex"] = sha1hex
            known[b"cjson"][b"decode"] = lambda text: decoded(runtime, text)
        return runtime

    def _decode_error(self, error: SimpleError) -> Any:
        """The error unchanged, in one line; fakeredis would have redis-py put ERR before it."""
        return SimpleError(" ".join(error.value.split()))

    def _blocking(self, timeout: float | None, func: Callable[[bool], Any], shape: Any = None) -> Any:
        def attempt(first: bool) -> Any:
            if is_gone(self._connection):
                raise ConnectionResetError
            return func(first)

        return super()._blocking(timeout, attempt, shape)


class Server:
    """Serves from its creation until `close`."""

    def __init__(self) -> None:
        self._redis = FakeServer(version=VERSION)
        self._database = self._redis.dbs[0]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self.url = "redis://{}:{}".format(*self._address)
        self._closing = False
        self._serving: dict[threading.Thread, socket.socket] = {}
        self._accepting = self._thread(self._accept)
        self._accepting.start()

    def _thread(self, target: Callable[..., None], *args: Any) -> threading.Thread:
        return threading.Thread(target=target, args=args, name="rq-lite fake", daemon=True)

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = self._thread(self._serve, connection)
            self._serving[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.closing(Client(self._redis, connection)) as client:
                self._answer(connection, client)
        except (OSError, redis.ConnectionError):  # the client has gone, or CLIENT KILL has ended it
            pass
        finally:
            self._serving.pop(threading.current_thread(), None)

    def _answer(self, connection: socket.socket, client: Client) -> None:
        while data := connection.recv(SIZE):
            try:
                client.sendall(data)
            except (OSError, redis.ConnectionError):
                raise
            except (
                Exception
            ) as error:  # a defect of fakeredis: the connection cannot go on, and the test should show why
                connection.sendall(encode_reply(SimpleError(f"ERR fakeredis: {error!r}"), 2))
                return
            connection.sendall(client.replies())

    def close(self) -> None:
        """Close all connections and end all threads."""
        self._closing = True
        with contextlib.suppress(OSError), socket.create_connection(self._address):  # `accept` waits for a connection
            self._accepting.join()
        self._listener.close()
        for thread, connection in list(self._serving.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            with self._redis.lock:
                self._database.wake_all()  # it may wait in a blocking pop
            thread.join()


def is_gone(connection: socket.socket) -> bool:
    """Whether the client has closed the connection."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0)) and not connection.recv(1, socket.MSG_PEEK)


def sha1hex(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


def decoded(runtime: Any, text: bytes) -> Any:
    """JSON for Lua, whose only numbers are floats: it would refuse a large integer."""
    value = _cjson_python_to_lua(json.loads(text, parse_int=float))
    return runtime.table_from(value, recursive=True) if isinstance(value, (dict, list)) else value

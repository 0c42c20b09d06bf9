"""The proxy's process: one event loop that passes bytes on as its mode says.

It reads orders, lines of JSON, from its standard input, and answers each with its counters once it has obeyed;
it ends when the input does. Standard library only: it must not consist of what it tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import struct
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.faults.mode import Counters, Mode, Way

CHUNK = 1 << 18  # bytes per read
BACKLOG = 512
ENDING = ("close", "reset", "refuse")


class HangUp(Exception):
    """This connection ends here."""


def address(url: str) -> tuple[socket.AddressFamily, Any]:
    """The socket's family and address for `unix:///path` or `redis://127.0.0.1:6379`."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return socket.AF_UNIX, parts.path
    return socket.AF_INET, (parts.hostname, parts.port)


def new_socket(family: socket.AddressFamily) -> socket.socket:
    made = socket.socket(family)
    made.setblocking(False)
    if family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Connection:
    """A client, and its own connection to Redis."""

    def __init__(self, relay: Relay, client: socket.socket, number: int) -> None:
        self.number = number
        self._relay = relay
        self._client = client
        self._server: socket.socket | None = None
        self._tail = b""  # the end of the last request read: a needle may be split between two reads
        self._marked: Mode | None = None  # the mode whose needle was found on this connection
        # TCP loses no bytes in the middle: a way that has lost some passes nothing any more.
        self._silent: set[Way] = set()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with contextlib.suppress(OSError, HangUp):
            await self._relay.hold(self)
            self._server = await self._relay.reach()
            self.apply(self._relay.mode)
            ways = [
                asyncio.create_task(self._carry("requests", self._client, self._server)),
                asyncio.create_task(self._carry("replies", self._server, self._client)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        self.end()

    def apply(self, mode: Mode) -> None:
        """Apply the effects that a mode has on a connection at once."""
        if mode.name in ENDING:
            self.end(reset=mode.name == "reset")
        elif mode.name == "half-close" and self._server is not None:
            self._silent.add(mode.way)
            with contextlib.suppress(OSError):
                (self._server if mode.way == "requests" else self._client).shutdown(socket.SHUT_WR)

    def end(self, *, reset: bool = False) -> None:
        if self not in self._relay.connections:
            return
        self._relay.connections.remove(self)
        for end in (self._client, self._server):
            if end is not None:
                close(end, reset=reset)
        self._task.cancel()

    async def _carry(self, way: Way, source: socket.socket, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, HangUp):
            while True:
                try:
                    data = await loop.sock_recv(source, CHUNK)
                except ConnectionError:
                    data = b""
                await self._relay.hold(self)
                if not data:
                    break
                await self._deliver(way, target, data)
        self.end()  # at once, before anything else passes

    async def _deliver(self, way: Way, target: socket.socket, data: bytes) -> None:
        mode = self._relay.mode
        if mode.needle and way == "requests":
            self._look_for(mode, data)
        if way in self._silent:
            return
        if mode.name == "swallow" and mode.way == way and self._meant(mode):
            self._relay.counters.swallowed += 1
            self._silent.add(way)
            if mode.hang_up:
                raise HangUp
        elif mode.name == "cut" and mode.way == way and self._meant(mode):
            await self._pass(way, target, self._relay.cut(data))
            if self._relay.left <= 0:
                self._relay.counters.cut += 1
                self._relay.mode = Mode()
                raise HangUp
        elif mode.name == "dribble":
            await self._dribble(way, target, data, mode)
        else:
            await self._pass(way, target, data)

    async def _pass(self, way: Way, target: socket.socket, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(target, data)
        self._relay.count(way, len(data))

    async def _dribble(self, way: Way, target: socket.socket, data: bytes, mode: Mode) -> None:
        at = 0
        while at < len(data) and self._relay.mode is mode:
            await self._pass(way, target, data[at : at + 1])
            at += 1
            await asyncio.sleep(mode.seconds)
        await self._relay.hold(self)
        await self._pass(way, target, data[at:])

    def _look_for(self, mode: Mode, data: bytes) -> None:
        needle = mode.needle.encode()
        if needle in self._tail + data and self._relay.turn():
            self._marked = mode
        self._tail = data[-len(needle) + 1 :] if len(needle) > 1 else b""

    def _meant(self, mode: Mode) -> bool:
        return self._marked is mode if mode.needle else self._relay.turn()


class Relay:
    """Listens at one address and forwards to another."""

    def __init__(self, listen: str, to: str) -> None:
        self._family, self._listen = address(listen)
        self._target = address(to)
        self.mode = Mode()
        self.counters = Counters()
        self.connections: set[Connection] = set()
        self.left = 0  # bytes until the cut
        self._upto = 0  # the last connection that was open when the mode was set
        self._turns = 0  # reads that the mode might have struck
        self._changed = asyncio.Event()
        self._second: deque[float] = deque()  # when connections were accepted in the last second
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        if self._family == socket.AF_UNIX:
            return f"unix://{self._listen}"
        return f"redis://{self._listen[0]}:{self._listen[1]}"

    # -- orders

    def obey(self, order: dict[str, Any]) -> None:
        if "to" in order:
            self._target = address(order["to"])
            self._end_all()
        if "mode" in order:
            self._set(Mode(**order["mode"]))

    def _set(self, mode: Mode) -> None:
        self.mode, self.left, self._turns = mode, mode.after, 0
        self._upto = self.counters.accepted
        self._changed.set()
        self._changed = asyncio.Event()
        for connection in list(self.connections):
            connection.apply(mode)
        if mode.name == "refuse":
            self.stop_listening()
        else:
            self.listen()

    def _end_all(self) -> None:
        for connection in list(self.connections):
            connection.end()

    # -- connections

    def listen(self) -> None:
        if self._listener is not None:
            return
        listener = self._listener = new_socket(self._family)
        if self._family == socket.AF_UNIX:
            Path(self._listen).unlink(missing_ok=True)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._listen)
        listener.listen(BACKLOG)
        self._listen = listener.getsockname()
        self._accepting = asyncio.create_task(self._accept(listener))

    def stop_listening(self) -> None:
        if self._listener is not None and self._accepting is not None:
            self._accepting.cancel()
            forget(self._listener)
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            self._note_accepted()
            if self.mode.name in ENDING:
                close(client, reset=self.mode.name == "reset")
            else:
                self.connections.add(Connection(self, client, self.counters.accepted))

    def _note_accepted(self) -> None:
        now = time.monotonic()
        self._second.append(now)
        while self._second[0] <= now - 1.0:
            self._second.popleft()
        self.counters.accepted += 1
        self.counters.peak = max(self.counters.peak, len(self._second))

    async def reach(self) -> socket.socket:
        family, where = self._target
        server = new_socket(family)
        try:
            await asyncio.get_running_loop().sock_connect(server, where)
        except BaseException:
            server.close()
            raise
        return server

    # -- for connections

    async def hold(self, connection: Connection) -> None:
        """Wait while the mode holds bytes back: a delay once, a freeze until it is over."""
        if self.mode.name == "delay":
            await self._change(self.mode.seconds)
        self.counters.held += 1
        try:
            while self.mode.name == "freeze" and (not self.mode.present or connection.number <= self._upto):
                await self._change(None)
        finally:
            self.counters.held -= 1

    async def _change(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    def turn(self) -> bool:
        """Whether this is an `nth` read, which the mode strikes."""
        self._turns += 1
        return self._turns % self.mode.nth == 0

    def cut(self, data: bytes) -> bytes:
        """The part of the data that still passes."""
        passes = data[: self.left]
        self.left -= len(passes)
        return passes

    def count(self, way: Way, length: int) -> None:
        if way == "requests":
            self.counters.requests += length
        else:
            self.counters.replies += length

    def report(self) -> dict[str, Any]:
        self.counters.open = len(self.connections)
        return {"url": self.url, "counters": dataclasses.asdict(self.counters)}


def close(end: socket.socket, *, reset: bool) -> None:
    """Close with RST, or with FIN; for that unread bytes must be read, or the kernel sends an RST."""
    with contextlib.suppress(OSError):
        if reset and end.family == socket.AF_INET:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            end.shutdown(socket.SHUT_WR)
            while end.recv(CHUNK):
                pass
    forget(end)


def forget(end: socket.socket) -> None:
    """Close the socket at once, although a task may still wait for it."""
    loop = asyncio.get_running_loop()
    if end.fileno() >= 0:
        loop.remove_reader(end)
        loop.remove_writer(end)
    end.close()


async def serve(listen: str, to: str) -> None:
    relay = Relay(listen, to)
    relay.listen()
    tell(relay)
    orders, over = bytearray(), asyncio.Event()

    def hear() -> None:
        data = os.read(sys.stdin.fileno(), CHUNK)
        if not data:
            over.set()
        orders.extend(data)
        while b"\n" in orders:
            line, _, rest = bytes(orders).partition(b"\n")
            orders[:] = rest
            relay.obey(json.loads(line))
            tell(relay)

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), hear)
    await over.wait()


def tell(relay: Relay) -> None:
    print(json.dumps(relay.report()), flush=True)

"""One HTTP request: a connection to a checked address, and a response that is limited while it arrives.

geventhttpclient parses responses (its parser is llhttp, in C). Its connections are not used: they would look the host
up a second time, after the check. The socket that the parser reads from counts bytes and time, so that these limits
hold whatever a server sends: headers without end, one byte a second, or a million chunks.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections import OrderedDict
from typing import NamedTuple

from gevent.monkey import get_original
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketResponse

from workers.crawl.addresses import LookUp, addresses, shared_look_up
from workers.crawl.limits import FetchError, Limits, time_left
from workers.crawl.urls import Url

TLS = ssl.create_default_context()
BLOCK = 64 * 1024  # most bytes of one read
TURN = 8  # reads after which other greenlets get a turn, though more has arrived
REDIRECTS = (301, 302, 303, 307, 308)
OPEN = 1000  # connections that are kept for the next request


class Response(NamedTuple):
    status: int
    kind: str  # the Content-Type
    is_plain: bool  # not compressed
    location: str | None  # of a redirect
    body: bytes  # up to one byte above the limit


class Route(NamedTuple):
    """Connections with the same route can be used for each other's requests."""

    address: str
    port: int
    scheme: str
    host: str


class Wire:
    """The connection as the parser reads it, up to the limits of one response."""

    def __init__(self, sock: socket.socket, limits: Limits, deadline: float) -> None:
        self.sock = sock
        self.limits = limits
        self.deadline = deadline
        self.left = limits.head
        self.reads = 0

    def recv(self, size: int) -> bytes:
        if self.left <= 0:
            raise HTTPParseError("the response, with its headers, is larger than a page may be")
        self.reads += 1
        if self.reads > self.limits.reads:
            raise HTTPParseError(f"its body arrives in more than {self.limits.reads:,} pieces")
        if self.reads % TURN == 0:
            time.sleep(0)  # a read returns without a switch while there is something to read
        within = min(self.limits.read, time_left(self.deadline))
        self.sock.settimeout(within)
        try:
            data = self.sock.recv(min(size, BLOCK))
        except TimeoutError as error:
            time_left(self.deadline)
            raise TimeoutError(f"the server sent nothing for {within:.2g} s") from error
        self.left -= len(data)
        return data

    def close(self) -> None:
        self.sock.close()


class Surplus(Exception):
    """There are bytes behind the response."""


class Reply(HTTPSocketResponse):
    """A response as it is read from a wire. What follows it on the connection is not looked at."""

    def __init__(self, wire: Wire) -> None:
        self.pieces, self.most = 0, wire.limits.reads
        self.is_followed = False
        super().__init__(wire, block_size=BLOCK // 4)
        wire.left += 2 * wire.limits.size + 1_000_000 - wire.limits.head

    def feed(self, data: str | bytes) -> None:
        try:
            super().feed(data)
        except Surplus:
            self.is_followed = True

    def _on_message_begin(self) -> None:
        if self.message_complete and self.get_code() >= 200:
            raise Surplus
        super()._on_message_begin()

    def _on_body(self, buf: bytearray) -> None:
        self.pieces += 1
        if self.pieces > self.most:
            raise HTTPParseError(f"its body arrives in more than {self.most:,} pieces")
        super()._on_body(buf)

    def header(self, name: str) -> str | None:
        value = self.get(name)
        return value[0] if isinstance(value, list) else value

    @property
    def can_be_followed(self) -> bool:
        """Whether the next request may use the connection."""
        return not (self.is_followed or self.should_close())


class Idle:
    """Connections that wait for the next request on their route. Greenlets and threads share them."""

    def __init__(self, most: int = OPEN) -> None:
        self.most = most
        self.count = 0
        self.kept: OrderedDict[Route, list[socket.socket]] = OrderedDict()
        self.lock = threading.Lock()

    def take(self, route: Route) -> socket.socket | None:
        """A connection on which nothing has arrived since; the others are closed."""
        while True:
            with self.lock:
                kept = self.kept.get(route)
                if kept is None:
                    return None
                sock = kept.pop()
                self.count -= 1
                if not kept:
                    del self.kept[route]
            if not has_arrived(sock):
                return sock
            sock.close()

    def keep(self, route: Route, sock: socket.socket) -> None:
        with self.lock:
            self.kept.setdefault(route, []).append(sock)
            self.kept.move_to_end(route)
            self.count += 1
            if self.count <= self.most:
                return
            oldest, kept = next(iter(self.kept.items()))
            sock = kept.pop(0)
            self.count -= 1
            if not kept:
                del self.kept[oldest]
        sock.close()

    def clear(self) -> None:
        with self.lock:
            kept, self.kept, self.count = self.kept, OrderedDict(), 0
        for sockets in kept.values():
            for sock in sockets:
                sock.close()


IDLE = Idle()


def has_arrived(sock: socket.socket) -> bool:
    """Whether the connection has ended, or the server has sent what was not asked for."""
    poll = get_original("select", "poll")()  # gevent's would switch to another greenlet
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def request(url: Url, agent: str, limits: Limits, deadline: float, look_up: LookUp | None = None) -> Response:
    """Ask the first address of the host that accepts a connection. Redirects are not followed. Raises FetchError."""
    failure: Exception | None = None
    try:
        for address in addresses(url, limits, deadline, look_up or shared_look_up):
            route = Route(address, url.port, url.scheme, url.host)
            kept = IDLE.take(route)
            if kept is not None:
                try:
                    return exchange(kept, route, url, agent, limits, deadline)
                except (HTTPConnectionClosed, ConnectionError):
                    pass  # the server has closed it before it read the request
            within = min(limits.connect, time_left(deadline))
            try:
                sock = connected(route, within)
            except OSError as error:
                failure = error
                continue
            return exchange(sock, route, url, agent, limits, deadline)
    except (OSError, HTTPParseError) as error:
        raise FetchError(f"{url.text}: {error}", kind_of(error)) from error
    raise FetchError(f"{url.text}: no connection ({failure})", kind_of(failure)) from failure


def kind_of(error: Exception | None) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate"
    return "response" if isinstance(error, HTTPParseError) else "connection"


def connected(route: Route, within: float) -> socket.socket:
    """A new connection. The address is one in digits, which is not looked up."""
    sock = socket.socket(socket.AF_INET6 if ":" in route.address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(within)
        sock.connect((route.address, route.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The certificate is checked for the name
        return TLS.wrap_socket(sock, server_hostname=route.host) if route.scheme == "https" else sock
    except BaseException:
        sock.close()
        raise


def exchange(sock: socket.socket, route: Route, url: Url, agent: str, limits: Limits, deadline: float) -> Response:
    """Send the request, read the response, and keep the connection if it can be used again."""
    try:
        sock.settimeout(min(limits.read, time_left(deadline)))
        sock.sendall(head(url, agent))
        reply = Reply(Wire(sock, limits, deadline))
        body = reply.read(limits.size + 1)
    except BaseException:
        sock.close()
        raise
    if reply.can_be_followed:
        IDLE.keep(route, sock)
    else:
        sock.close()
    return Response(
        status=reply.status_code,
        kind=reply.header("Content-Type") or "text/html",
        is_plain=(reply.header("Content-Encoding") or "identity") == "identity",
        location=reply.header("Location") if reply.status_code in REDIRECTS else None,
        body=body,
    )


def head(url: Url, agent: str) -> bytes:
    """No compression, so that a small answer cannot unpack to a large one."""
    return (
        f"GET {url.target} HTTP/1.1\r\nHost: {url.netloc}\r\nUser-Agent: {agent}\r\n"
        "Accept: text/html,*/*;q=0.5\r\nAccept-Encoding: identity\r\n\r\n"
    ).encode("ascii")

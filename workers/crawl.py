"""Fetch web pages whose addresses come from strangers.

The danger of such a task is where it connects to: a page may redirect to `http://169.254.169.254/`, a name
may have a private address, and may have another one by the time it is asked for again. So a name is looked
up once, *all* its addresses are checked, and the connection goes to a checked address, while the Host
header and the certificate check keep the name.

The other danger is work: a name that is never answered, a page that takes long to send or to read. So
everything is counted, and nothing runs for long without a turn for the other greenlets of the process.
"""

from __future__ import annotations

import _socket
import http.client
import io
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any, TypedDict
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.util import Timeout, Url, parse_url

from rq_lite import Queue
from workers.markup import LONGEST_URL, Markup, text

pages = Queue("pages")

LookUp = Callable[[str, float], Sequence[str]]  # a host and the seconds there are to the addresses


class FetchError(Exception):
    """This page cannot or must not be fetched; the message names the URL and the reason."""


class Page(TypedDict):
    url: str  # where the redirects ended
    status: int
    size: int  # bytes read
    cut: bool  # there was more than that
    title: str | None
    links: list[str]  # absolute, http and https only, each once


@dataclass(frozen=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    look_up: float = 5.0
    connect: float = 5.0  # per address tried
    read: float = 10.0  # longest silence
    total: float = 25.0  # all redirects together; looked at after each read
    size: int = 1_000_000
    reads: int = 10_000  # pieces in which a body is sent
    redirects: int = 5
    links: int = 100
    links_seen: int = 1_000  # looked at to find these
    markup: int = 50_000  # tags, texts and comments looked at
    allow_private: bool = False  # fetch from loopback and private addresses, too


def is_private_allowed(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process's environment permits it; whatever else the variable says permits nothing."""
    return environ.get("RQ_LITE_ALLOW_PRIVATE", "").lower() in ("1", "true")


LIMITS = Limits(allow_private=is_private_allowed())

# No compression: what is read is then what was sent, and a small answer cannot unfold into a large one.
HEADERS = {"User-Agent": "rq_lite-demo/0.1", "Accept": "text/html,*/*;q=0.5", "Accept-Encoding": "identity"}


# The task's own timeout is above `total`: it is the last resort, for a server that sends its headers so
# slowly that no read ever returns.
@pages.task(timeout=30)
def fetch(url: str) -> dict[str, Any]:
    """Fetch one page; see `Page` for the result. Any HTTP status is a result, everything else an error."""
    return dict(get(url))


def get(url: str, limits: Limits = LIMITS, look_up: LookUp | None = None) -> Page:
    """Fetch `url`, following redirects by hand so that each of them is checked. Raises FetchError."""
    deadline = time.monotonic() + limits.total
    here = url
    for _ in range(limits.redirects + 1):
        try:
            response = connect(checked(here), limits, deadline, look_up or shared_look_up)
            try:
                body = read(response, limits, deadline)
            finally:
                response.close()  # unless all of it was read, the connection is of no use to the next fetch
                response.release_conn()
            target = response.get_redirect_location()
            if not target:
                return describe(here, response, body, limits, deadline)
        except (HTTPError, TimeoutError) as error:
            raise FetchError(f"{here}: {error}") from error
        here = redirected(here, target)
    raise FetchError(f"{url}: more than {limits.redirects} redirects, the last one to {here}")


# --- where to connect ---------------------------------------------------------------------------------


def checked(url: str) -> Url:
    """The parts of a URL that we are ready to ask for. The same parser then makes the request from them."""
    if len(url) > LONGEST_URL:
        raise FetchError(f"{url[:100]}…: is longer than {LONGEST_URL:,} characters")
    parts = parse_url(url)
    if parts.auth is not None:
        raise FetchError(f"{parts.scheme}://…@{parts.host}: URLs with a user name or password are refused")
    if parts.scheme not in ("http", "https"):
        raise FetchError(f"{url}: only http:// and https:// are fetched")
    if not parts.host:
        raise FetchError(f"{url}: there is no host in it")
    if not parts.host.isprintable() or " " in parts.host:  # which not every release of urllib3 refuses
        raise FetchError(f"{url}: {parts.host!r} is no host")
    return parts


# The system's resolver waits up to 40 s for name servers that are silent, and cannot be interrupted. So it
# runs elsewhere, once for all that ask for the same name. (Under gevent these threads are greenlets, and gevent's own
# threads do the work: the runtime has some more of them.) Whoever sends many silent names can occupy them all; then
# further names wait, addresses do not.
LOOK_UPS = 500
RESOLVERS = futures.ThreadPoolExecutor(LOOK_UPS, "look-up")
ASKED: dict[str, tuple[float, futures.Future[Any]]] = {}  # by host: when, and what was found
ASKING = threading.Lock()


def shared_look_up(host: str, within: float) -> Sequence[str]:
    """The addresses of a host, odd spellings included: for the system 2130706433 and 0177.1 are 127.0.0.1.

    They are remembered for a minute, and checked at each use, remembered or not.
    """
    try:
        # The system's own function, which an address does not make wait, not gevent's, which would use a thread.
        answers = _socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        answers = found_elsewhere(host, within)
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


def found_elsewhere(host: str, within: float) -> Any:
    """What the system's resolver says of a name. Raises FetchError."""
    until = time.monotonic() + within
    while True:
        answer = asked(host)
        try:
            return answer.result(max(0.0, until - time.monotonic()))
        except futures.TimeoutError as error:
            reason = "its name servers are silent"
            if answer.cancel():  # or it would be looked up for nobody, and hold others up
                reason = f"{LOOK_UPS} other names are being looked up"
            raise FetchError(f"{host}: no address found within {within:.2g} s, {reason}") from error
        except futures.CancelledError:  # by a fetch that asked earlier, and whose time was up
            continue
        except (OSError, UnicodeError) as error:
            raise FetchError(f"{host}: no address found ({error})") from error


def asked(host: str) -> futures.Future[Any]:
    """What is being found, or was a moment ago; failures are not remembered."""
    with ASKING:
        now = time.monotonic()
        at, answer = ASKED.get(host, (now, None))
        if answer is None or (
            answer.done() and (now - at > 60 or answer.cancelled() or answer.exception() is not None)
        ):
            if len(ASKED) >= 10_000:
                ASKED.clear()
            answer = RESOLVERS.submit(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
            ASKED[host] = now, answer
        return answer


NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address is one of the open Internet.

    A v6 address that carries a v4 one (mapped, 6to4, NAT64) is judged by that: packets to it end up there.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    inner = ip.ipv4_mapped or ip.sixtofour
    if ip in NAT64:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_site_local)


def addresses(url: Url, limits: Limits, deadline: float, look_up: LookUp) -> Sequence[str]:
    """All addresses of the host; if one of them is not public the host is refused."""
    found = look_up((url.host or "").strip("[]"), min(limits.look_up, time_left(deadline)))
    for address in found:
        if not (limits.allow_private or is_public(address)):
            raise FetchError(
                f"{url}: {address} is not a public address; RQ_LITE_ALLOW_PRIVATE=1 permits such addresses"
            )
    return found


def redirected(here: str, target: str) -> str:
    # http.client reads headers as latin-1; what servers send is UTF-8
    target = target.encode("latin-1", "replace").decode("utf-8", "replace")
    try:
        return urljoin(here, target)
    except ValueError as error:  # such as http://[
        raise FetchError(f"{here}: redirected to {target!r}, which is no URL ({error})") from error


# --- the request --------------------------------------------------------------------------------------


class Metered(io.RawIOBase):
    """What comes from a server, headers and all, up to a limit, and with a turn for the other greenlets.

    http.client reads as many interim answers, chunk lines and trailers as there are.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw = raw
        self.left = 2 * LIMITS.size + 1_000_000

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self.left <= 0:
            raise HTTPError("the response, with its headers, is more than a page may have")
        time.sleep(0)
        count = self.raw.readinto(buffer)
        self.left -= count or 0
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.fp = io.BufferedReader(Metered(self.fp.detach()))


class HttpPool(urllib3.HTTPConnectionPool):
    class ConnectionCls(HTTPConnection):
        response_class = Response


class HttpsPool(urllib3.HTTPSConnectionPool):
    class ConnectionCls(HTTPSConnection):
        response_class = Response


def pools(context: ssl.SSLContext) -> urllib3.PoolManager:
    """Shared by all greenlets (or threads) of this process.

    With room for 1,000 connections per address, so that none is thrown away after its first use; `retries=False`:
    redirects and errors are dealt with here.
    """
    made = urllib3.PoolManager(num_pools=200, maxsize=1000, retries=False, ssl_context=context)
    made.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
    return made


POOLS = pools(ssl.create_default_context())


def connect(url: Url, limits: Limits, deadline: float, look_up: LookUp) -> urllib3.BaseHTTPResponse:
    """Ask for `url` at the first of its addresses that answers; the body is still to be read."""
    failure: Exception | None = None
    for address in addresses(url, limits, deadline, look_up):
        left = time_left(deadline)
        pool = POOLS.connection_from_host(
            address, url.port, url.scheme, {"server_hostname": url.host} if url.scheme == "https" else None
        )
        try:
            return pool.urlopen(
                "GET",
                url.request_uri,
                headers={**HEADERS, "Host": url.netloc or ""},
                timeout=Timeout(connect=min(limits.connect, left), read=min(limits.read, left)),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (NewConnectionError, ConnectTimeoutError) as error:
            failure = error
    raise FetchError(f"{url}: no connection ({failure})") from failure


def read(response: urllib3.BaseHTTPResponse, limits: Limits, deadline: float) -> bytes:
    """The body up to one byte more than its limit. `read1` returns what is there, so that the clock is looked at."""
    body = bytearray()
    for number in range(limits.reads):
        if number % 100 == 99:
            pause(deadline)
        time_left(deadline)
        chunk = response.read1(limits.size + 1 - len(body), decode_content=False)
        body += chunk
        if not chunk or len(body) > limits.size:
            return bytes(body)
    raise HTTPError(f"its body comes in more than {limits.reads:,} pieces")


def pause(deadline: float) -> None:
    """A turn for the other greenlets: what is there already is read, and parsed, without one."""
    time_left(deadline)
    time.sleep(0)


def time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("took longer in total than a page may take")
    return left


# --- what is on the page ------------------------------------------------------------------------------


def describe(url: str, response: urllib3.BaseHTTPResponse, body: bytes, limits: Limits, deadline: float) -> Page:
    kind = response.headers.get("Content-Type", "text/html")
    markup = Markup(url, limits.links, limits.links_seen, limits.markup, lambda: pause(deadline))
    if "html" in kind.lower() and response.headers.get("Content-Encoding", "identity") == "identity":
        markup.read(text(body[: limits.size], kind))
    return Page(
        url=url,
        status=response.status,
        size=min(len(body), limits.size),
        cut=len(body) > limits.size,
        title=markup.title,
        links=list(markup.links),
    )

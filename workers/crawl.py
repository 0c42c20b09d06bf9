"""Fetch web pages whose addresses come from strangers.

The danger of such a task is where it connects to: a page may redirect to `http://169.254.169.254/`, a name
may have a private address, and may have another one at the next look-up. So a name is looked
up once, *all* its addresses are checked, and the connection goes to a checked address, while the Host
header and the certificate check keep the name.

The other danger is work: a name whose look-up never ends, a page that takes long to send or to parse. So
everything is limited, and nothing runs for long without a turn for the other greenlets of the process.
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

LookUp = Callable[[str, float], Sequence[str]]  # takes a host and a limit in seconds, returns addresses


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
    total: float = 25.0  # all redirects together; checked after each read
    size: int = 1_000_000
    reads: int = 10_000  # pieces in which a body is sent
    redirects: int = 5
    links: int = 100
    links_seen: int = 1_000  # read to find these
    markup: int = 50_000  # tags, texts and comments read
    allow_private: bool = False  # fetch from loopback and private addresses, too


def is_private_allowed(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process's environment permits private addresses; only "1" and "true" do."""
    return environ.get("RQ_LITE_ALLOW_PRIVATE", "").lower() in ("1", "true")


LIMITS = Limits(allow_private=is_private_allowed())

# No compression, so that a small answer cannot unpack to a large one.
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
    here = url.strip()  # a list of URLs may have blanks around them
    for _ in range(limits.redirects + 1):
        try:
            response = connect(checked(here), limits, deadline, look_up or shared_look_up)
            try:
                body = read(response, limits, deadline)
            finally:
                response.close()  # the next fetch cannot use a connection with an unread rest
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
    """The parts of a URL that may be fetched. The request is then made from these same parts. Raises FetchError."""
    if len(url) > LONGEST_URL:
        raise FetchError(f"{url[:100]}…: is longer than {LONGEST_URL:,} characters")
    parts = parse_url(url)
    if parts.auth is not None:
        raise FetchError(f"{parts.scheme}://…@{parts.host}: URLs with a user name or password are refused")
    if parts.scheme not in ("http", "https"):
        raise FetchError(f"{url}: only http:// and https:// are fetched")
    if not parts.host:
        raise FetchError(f"{url}: has no host")
    if not parts.host.isprintable() or " " in parts.host:  # not every release of urllib3 refuses them
        raise FetchError(f"{url}: {parts.host!r} is not a host name")
    return parts


# The system's resolver waits up to 40 s for name servers that are silent, and cannot be interrupted. So it
# runs in a thread, once for all fetches that need the same name. (Under gevent these threads are greenlets, and
# gevent's own threads do the work: the consumer has more of them than usual.) Many silent names can occupy all
# threads; then further names wait, addresses do not.
LOOK_UPS = 500
RESOLVERS = futures.ThreadPoolExecutor(LOOK_UPS, "look-up")
ASKED: dict[str, tuple[float, futures.Future[Any]]] = {}  # by host: when the look-up began, and its answer
ASKING = threading.Lock()


def shared_look_up(host: str, within: float) -> Sequence[str]:
    """The addresses of a host, odd spellings included: to the system 2130706433 and 0177.1 are 127.0.0.1.

    They are cached for a minute; `addresses` checks them at each use. Raises FetchError.
    """
    try:
        # The system's own function, which does not block for an address; gevent's would use a thread.
        answers = _socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        answers = found_elsewhere(host, within)
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


def found_elsewhere(host: str, within: float) -> Any:
    """What the system's resolver answers for a name. Raises FetchError."""
    until = time.monotonic() + within
    while True:
        answer = asked(host)
        try:
            return answer.result(max(0.0, until - time.monotonic()))
        except futures.TimeoutError as error:
            reason = "its name servers are silent"
            if answer.cancel():  # not begun yet: no fetch needs it now, and it would delay others
                reason = f"{LOOK_UPS} other names are being looked up"
            raise FetchError(f"{host}: no address found within {within:.2g} s, {reason}") from error
        except futures.CancelledError:  # by an earlier fetch whose time was up
            continue
        except (OSError, UnicodeError) as error:
            raise FetchError(f"{host}: no address found ({error})") from error


def asked(host: str) -> futures.Future[Any]:
    """The look-up of a host that is under way or at most a minute old, else a new one; failures are not kept."""
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
    """Whether an IPv4 or IPv6 address belongs to the public Internet.

    A v6 address that carries a v4 one (mapped, 6to4, NAT64) is judged by the v4 one, where its packets end up.
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
    """All addresses of the host. Raises FetchError if one of them is not public and that is not permitted."""
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
        raise FetchError(f"{here}: redirected to {target!r}, which is not a URL ({error})") from error


# --- the request --------------------------------------------------------------------------------------


class Metered(io.RawIOBase):
    """Everything that a server sends, headers included, up to a limit, with a turn for other greenlets at each read.

    http.client itself does not limit interim answers, chunk lines and trailers.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw = raw
        self.left = 2 * LIMITS.size + 1_000_000

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self.left <= 0:
            raise HTTPError("the response, with its headers, is larger than a page may be")
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
    """Connection pools that all greenlets (or threads) of this process share.

    They keep 1,000 connections per address, so that none is closed after its first use; `retries=False`: `get`
    handles redirects and errors itself.
    """
    made = urllib3.PoolManager(num_pools=200, maxsize=1000, retries=False, ssl_context=context)
    made.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
    return made


POOLS = pools(ssl.create_default_context())


def connect(url: Url, limits: Limits, deadline: float, look_up: LookUp) -> urllib3.BaseHTTPResponse:
    """Request `url` from the first of its addresses that accepts a connection; the body is not read yet."""
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
    """The body, up to one byte above its limit. `read1` returns what has arrived, so that the deadline is checked."""
    body = bytearray()
    for number in range(limits.reads):
        if number % 100 == 99:
            pause(deadline)
        time_left(deadline)
        chunk = response.read1(limits.size + 1 - len(body), decode_content=False)
        body += chunk
        if not chunk or len(body) > limits.size:
            return bytes(body)
    raise HTTPError(f"its body arrives in more than {limits.reads:,} pieces")


def pause(deadline: float) -> None:
    """Give the other greenlets a turn: reading and parsing what has arrived does not give them one."""
    time_left(deadline)
    time.sleep(0)


def time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("took longer than a page may take in total")
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

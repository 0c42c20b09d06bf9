"""Fetch web pages whose addresses come from strangers.

The danger of such a task is where it connects to: a page may redirect to `http://169.254.169.254/`, a name
may have a private address, and may have another one by the time it is asked for again. So a name is looked
up once, *all* its addresses are checked, and the connection goes to a checked address, while the Host
header and the certificate check keep the name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from html.parser import HTMLParser
from typing import Any, TypedDict
from urllib.parse import urldefrag, urljoin

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.util import Timeout, Url, parse_url

from rq_lite import Queue, load_settings

pages = Queue("pages")

LookUp = Callable[[str], Sequence[str]]


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

    connect: float = 5.0  # per address tried
    read: float = 10.0  # longest silence
    total: float = 25.0  # all redirects together; looked at after each read
    size: int = 1_000_000
    redirects: int = 5
    links: int = 100
    allow_private: bool = False


LIMITS = Limits(allow_private=load_settings().allow_private)

# Shared by all greenlets (or threads) of this process. Room for 1,000 connections per address, so that none
# is thrown away after its first use; `retries=False`: redirects and errors are dealt with here.
POOLS = urllib3.PoolManager(num_pools=200, maxsize=1000, retries=False, ssl_context=ssl.create_default_context())
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
            response = connect(checked(here), limits, deadline, look_up or cached_look_up)
            try:
                body = read(response, limits.size + 1, deadline)
            finally:
                response.close()  # unless all of it was read, the connection is of no use to the next fetch
                response.release_conn()
        except (HTTPError, TimeoutError) as error:
            raise FetchError(f"{here}: {error}") from error
        target = response.get_redirect_location()
        if not target:
            return describe(here, response, body, limits)
        here = redirected(here, target)
    raise FetchError(f"{url}: more than {limits.redirects} redirects, the last one to {here}")


# --- where to connect ---------------------------------------------------------------------------------


def checked(url: str) -> Url:
    """The parts of a URL that we are ready to ask for. The same parser then makes the request from them."""
    parts = parse_url(url)
    if parts.auth is not None:
        raise FetchError(f"{parts.scheme}://…@{parts.host}: URLs with a user name or password are refused")
    if parts.scheme not in ("http", "https"):
        raise FetchError(f"{url}: only http:// and https:// are fetched")
    if not parts.host:
        raise FetchError(f"{url}: there is no host in it")
    return parts


def look_up(host: str) -> tuple[str, ...]:
    """The addresses of a host, odd spellings included: for the system 2130706433 and 0177.1 are 127.0.0.1."""
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host}: no address found ({error})") from error
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


def cached_look_up(host: str) -> tuple[str, ...]:
    """Like look_up, remembered for up to a minute. Addresses are checked at each use, cached or not."""
    return look_up_in_minute(host, int(time.monotonic() // 60))


@lru_cache(maxsize=10_000)
def look_up_in_minute(host: str, _minute: int) -> tuple[str, ...]:
    return look_up(host)


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


def addresses(url: Url, limits: Limits, look_up: LookUp) -> Sequence[str]:
    """All addresses of the host; if one of them is not public the host is refused."""
    found = look_up((url.host or "").strip("[]"))
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


def connect(url: Url, limits: Limits, deadline: float, look_up: LookUp) -> urllib3.BaseHTTPResponse:
    """Ask for `url` at the first of its addresses that answers; the body is still to be read."""
    failure: Exception | None = None
    for address in addresses(url, limits, look_up):
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


def read(response: urllib3.BaseHTTPResponse, size: int, deadline: float) -> bytes:
    """Up to `size` bytes of the body. `read1` returns what is there, so that the clock is looked at."""
    body = bytearray()
    while len(body) < size:
        time_left(deadline)
        chunk = response.read1(size - len(body), decode_content=False)
        if not chunk:
            break
        body += chunk
    return bytes(body)


def time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("took longer in total than a page may take")
    return left


# --- what is on the page ------------------------------------------------------------------------------


def describe(url: str, response: urllib3.BaseHTTPResponse, body: bytes, limits: Limits) -> Page:
    kind = response.headers.get("Content-Type", "text/html")
    markup = Markup(url, limits.links)
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


CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.ASCII | re.IGNORECASE)
# Python knows codecs that no page is written in, some of them slow on purpose-made input.
PLAUSIBLE = re.compile(r"utf|us-ascii|ascii|iso|latin|windows|cp\d|koi8|gb|big5|euc|shift|sjis|mac", re.I)


def text(body: bytes, content_type: str) -> str:
    """The body as text: by its Content-Type, else by its own <meta charset>, else as UTF-8."""
    named = CHARSET.search(content_type) or CHARSET.search(body[:1024].decode("latin-1"))
    charset = named[1] if named and PLAUSIBLE.match(named[1]) else "utf-8"
    try:
        return body.decode(charset, "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")


class Markup(HTMLParser):
    """Picks the title and the links from whatever a server calls HTML."""

    def __init__(self, url: str, max_links: int) -> None:
        super().__init__(convert_charrefs=True)
        self.base = url
        self.max_links = max_links
        self.links: dict[str, None] = {}  # ordered, each once
        self.title: str | None = None
        self.in_title = False

    def read(self, html: str) -> None:
        # Everything in one piece and no close(): half a tag at the end is left alone. Feeding bit by bit,
        # and forcing the rest through, is what makes this parser quadratic on bad input.
        with suppress(AssertionError):  # how it says that a declaration is beyond it; what was found counts
            self.feed(html)
        if self.title is not None:
            self.title = " ".join(self.title.split())[:300]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "title":
            self.in_title = self.title is None
        elif tag == "base" and href:
            self.base = absolute(self.base, href) or self.base
        elif tag == "a" and href and len(self.links) < self.max_links:
            link = absolute(self.base, href)
            if link:
                self.links[link] = None

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self.in_title = False

    def handle_data(self, data: str) -> None:
        if self.in_title and len(self.title or "") < 1000:
            self.title = (self.title or "") + data


def absolute(base: str, href: str) -> str | None:
    """The link without its #fragment; None for one that no browser would follow to a page."""
    try:
        link = urldefrag(urljoin(base, href.strip())).url
    except ValueError:  # such as http://[
        return None
    return link if link.startswith(("http://", "https://")) and len(link) <= 2000 else None

"""URLs in their normal form, in which each page has one: the parts that are requested, and links made absolute.

Most URLs of most pages are in normal form already. One regular expression finds that out; the others take a longer way.
"""

from __future__ import annotations

import ipaddress
import re
import string
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import idna

from workers.crawl.limits import FetchError

LONGEST_URL = 2000
PORTS = {"http": 80, "https": 443}

UNRESERVED = string.ascii_letters + string.digits + "-._~"
SEGMENT = r"[A-Za-z0-9\-._~!$&'()*+,;=@]*"  # no colon: before the first slash of a link it would end a scheme
QUERY = r"(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@/?]+)?"
REST = rf"(?:/(?!\.){SEGMENT})*{QUERY}"
NORMAL = re.compile(
    rf"(https?)://([a-z0-9-]+(?:\.[a-z0-9-]+)*)(?::([1-9][0-9]{{0,3}}|[1-5][0-9]{{4}}))?(/(?!\.){SEGMENT}{REST})"
)
LOCAL = re.compile(rf"(/?)(?![./?]){SEGMENT}{REST}")
HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
ESCAPE = re.compile("%([0-9A-Fa-f]{2})|%")
SECRET = re.compile("(?<=//)[^/?#]*@")


class Url(NamedTuple):
    """A URL that may be fetched, in its normal form. The request is made from these same parts."""

    text: str
    scheme: str
    host: str  # as it is looked up: lower case, ASCII, IPv6 addresses without brackets
    port: int
    netloc: str
    target: str  # path and query

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def site(self) -> str:
        """The host; the www.example.org and the example.org of most sites are one."""
        return self.host.removeprefix("www.")


def parsed(url: str) -> Url:
    """The normal form of a URL: without its #fragment and the default port, `/` for an empty path, the host in lower
    case, only what has to be escaped is escaped. The query stays. Raises FetchError for what is never fetched.
    """
    url = url.strip()  # a list of URLs may have blanks around them
    if len(url) > LONGEST_URL:
        raise FetchError(f"{url[:100]}…: is longer than {LONGEST_URL:,} characters")
    plain = NORMAL.fullmatch(url)
    if plain:
        scheme, host, port, target = plain.groups()
        number = int(port or PORTS[scheme])
        if not (port and number == PORTS[scheme]):
            return Url(url, scheme, host, number, f"{host}:{port}" if port else host, target)
    return spelled_out(url)


def spelled_out(url: str) -> Url:
    shown = SECRET.sub("…@", url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:  # such as http://[
        raise FetchError(f"{shown}: {error}") from error
    if "@" in parts.netloc:
        raise FetchError(f"{shown}: URLs with a user name or password are refused")
    if parts.scheme not in PORTS:
        raise FetchError(f"{shown}: only http:// and https:// are fetched")
    if not parts.hostname:
        raise FetchError(f"{shown}: has no host")
    host = host_of(parts.hostname, shown)
    netloc = f"[{host}]" if ":" in host else host
    if port in (None, PORTS[parts.scheme]):
        port = PORTS[parts.scheme]
    else:
        netloc += f":{port}"
    target = without_dots(escaped(parts.path or "/", "/")) + (f"?{escaped(parts.query, '/?')}" if parts.query else "")
    text = f"{parts.scheme}://{netloc}{target}"
    if len(text) > LONGEST_URL:
        raise FetchError(f"{shown[:100]}…: is longer than {LONGEST_URL:,} characters")
    return Url(text, parts.scheme, host, port, netloc, target)


def host_of(name: str, shown: str) -> str:
    """The host's name in ASCII, or its address. Raises FetchError."""
    try:
        if ":" in name and "%" not in name:
            return str(ipaddress.IPv6Address(name))
        host = name.lower() if name.isascii() else idna.encode(name, uts46=True).decode()
    except ValueError:
        host = ""
    if not HOST.fullmatch(host):
        raise FetchError(f"{shown}: {name!r} is not a host name")
    return host


def escaped(text: str, also: str) -> str:
    """`also`: characters that have a meaning in this part of a URL."""

    def escape(match: re.Match[str]) -> str:
        if match[1] is None:
            return "%25"
        character = chr(int(match[1], 16))
        return character if character in UNRESERVED else f"%{match[1].upper()}"

    return quote(ESCAPE.sub(escape, text), safe=f"%!$&'()*+,;=:@~{also}", errors="replace")


def without_dots(path: str) -> str:
    """The path without `.` and `..`; a path that leaves its root stays there."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if segments[-1] in (".", "..") and kept else "")


def joined(base: Url, href: str) -> str | None:
    """The absolute link in its normal form; None for one that no browser would follow to a page."""
    if len(href) > LONGEST_URL:
        return None
    href = href.partition("#")[0].strip()
    if not href:
        return base.text
    local = LOCAL.fullmatch(href)
    if local:
        folder = base.origin if local[1] else folder_of(base)
        link = folder + href
        return link if len(link) <= LONGEST_URL else None
    try:
        return parsed(href if NORMAL.match(href) else resolved(base, href)).text
    except (ValueError, FetchError):
        return None


def resolved(base: Url, href: str) -> str:
    """The absolute link, as RFC 3986 and browsers read it. Raises ValueError.

    Unlike urljoin it keeps the empty segments of a path: a//b is another page than a/b.
    """
    parts = urlsplit(href)
    if parts.netloc or not parts.path or parts.scheme not in ("", base.scheme):
        return urljoin(base.text, href)
    folder = "" if parts.path.startswith("/") else folder_of(base)
    return f"{folder or base.origin}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def folder_of(page: Url) -> str:
    """The URL up to the last slash of its path."""
    return page.text.partition("?")[0].rpartition("/")[0] + "/"

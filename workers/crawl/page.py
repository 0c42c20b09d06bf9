"""One page: requested, with its redirects or without, and described."""

from __future__ import annotations

import time
from typing import TypedDict
from urllib.parse import urljoin

from workers.crawl import markup
from workers.crawl.addresses import LookUp
from workers.crawl.connections import Response, request
from workers.crawl.limits import LIMITS, FetchError, Limits
from workers.crawl.settings import Settings
from workers.crawl.urls import Url, parsed


class Page(TypedDict):
    url: str  # where the redirects ended
    status: int
    size: int  # bytes read
    cut: bool  # there was more than that
    title: str | None
    links: list[str]  # absolute, http and https only, each once, in their normal form


def get(url: str, limits: Limits = LIMITS, look_up: LookUp | None = None) -> Page:
    """Fetch `url`, following redirects by hand so that each of them is checked. Raises FetchError."""
    deadline = time.monotonic() + limits.total
    here = parsed(url)
    for _ in range(limits.redirects + 1):
        response = request(here, Settings.agent, limits, deadline, look_up)
        if not response.location:
            return describe(here, response, limits)
        here = parsed(redirected(here, response.location))
    raise FetchError(f"{url}: more than {limits.redirects} redirects, the last one to {here.text}", "redirects")


def redirected(here: Url, target: str) -> str:
    # The parser reads headers as latin-1; what servers send is UTF-8
    target = target.encode("latin-1", "replace").decode("utf-8", "replace")
    try:
        return urljoin(here.text, target)
    except ValueError as error:  # such as http://[
        raise FetchError(f"{here.text}: redirected to {target!r}, which is not a URL ({error})", "redirects") from error


def describe(url: Url, response: Response, limits: Limits) -> Page:
    title, links = None, list[str]()
    body = response.body
    if "html" in response.kind.lower() and response.is_plain:
        title, links = markup.read(markup.text(body[: limits.size], response.kind), url, limits)
    return Page(
        url=url.text,
        status=response.status,
        size=min(len(body), limits.size),
        cut=len(body) > limits.size,
        title=title,
        links=links,
    )

"""The title and the links of a page, whatever a server calls HTML.

The limits count what is read, not what is found: a page can consist of a million tags, or of a single one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin

LONGEST_URL = 2000
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


PIECE = 16 * 1024
LONGEST_TAG = 64 * 1024


class Enough(Exception):
    """Markup has found everything, or has read as much as it may."""


class Markup(HTMLParser):
    """Picks the title and the links. `pause` is called every 1,000 tags and every 16 KiB."""

    def __init__(self, url: str, max_links: int, max_seen: int, max_markup: int, pause: Callable[[], None]) -> None:
        super().__init__(convert_charrefs=True)
        self.base = url
        self.base_named = False  # the first <base> counts
        self.max_links = max_links
        self.max_seen = max_seen  # links read
        self.max_markup = max_markup  # tags, texts and comments read
        self.pause = pause
        self.links: dict[str, None] = {}  # ordered, each once
        self.links_seen = 0
        self.seen = 0
        self.title: str | None = None
        self.in_title = False

    def read(self, html: str) -> None:
        # No close(): half a tag at the end is ignored. The parser starts each piece with the unparsed rest of the
        # last one; the piece is then at least as long as that rest, so that nothing is read more than three times.
        at = 0
        with suppress(Enough, AssertionError):  # the second: a declaration that it cannot parse; what was found counts
            while at < len(html):
                end = at + max(PIECE, len(self.rawdata))
                self.feed(html[at:end])
                at = end
                if self.rawdata.startswith("<") and len(self.rawdata) > LONGEST_TAG:
                    break
                self.pause()
        if self.title is not None:
            self.title = " ".join(self.title.split())[:300]

    def look(self) -> None:
        """One more tag, text or comment."""
        self.seen += 1
        if self.seen % 1000 == 0:
            self.pause()
        if self.seen > self.max_markup or (self.has_all_links and self.title is not None and not self.in_title):
            raise Enough

    @property
    def has_all_links(self) -> bool:
        return len(self.links) >= self.max_links or self.links_seen >= self.max_seen

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.look()
        if tag == "title":
            self.in_title = self.title is None
        elif tag in ("a", "base"):
            href = dict(attrs).get("href")
            if tag == "base" and href and not self.base_named:
                self.base, self.base_named = absolute(self.base, href) or self.base, True
            elif tag == "a" and href and not self.has_all_links:
                self.links_seen += 1
                if link := absolute(self.base, href):
                    self.links[link] = None

    def handle_endtag(self, tag: str) -> None:
        self.look()
        if tag == "title":
            self.in_title = False

    def handle_data(self, data: str) -> None:
        self.look()
        if self.in_title and len(self.title or "") < 1000:
            self.title = (self.title or "") + data[:1000]

    def handle_comment(self, data: str) -> None:  # noqa: ARG002
        self.look()

    handle_pi = handle_comment

    def handle_decl(self, decl: str) -> None:  # noqa: ARG002
        self.look()


def absolute(base: str, href: str) -> str | None:
    """The absolute link without its #fragment; None for one that no browser would follow to a page."""
    if len(href) > LONGEST_URL:
        return None
    try:
        link = urldefrag(urljoin(base, href.strip())).url
    except ValueError:  # such as http://[
        return None
    return link if link.startswith(("http://", "https://")) and len(link) <= LONGEST_URL else None

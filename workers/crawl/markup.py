"""The title and the links of a page, whatever a server calls HTML.

The parser (lexbor) is in C: while it reads, no other job of the process runs. If tags are nested without end, the time
that it takes grows with the square of their number: 50,000 `<div>` occupy it for 16 s. So it gets pages of many tags in
pieces, each parsed alone, with a turn for other greenlets between them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser

from workers.crawl.limits import Limits
from workers.crawl.urls import Url, joined, parsed

CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.ASCII | re.IGNORECASE)
# Python knows codecs that no page is written in, some of them slow on purpose-made input.
PLAUSIBLE = re.compile(r"utf|us-ascii|ascii|iso|latin|windows|cp\d|koi8|gb|big5|euc|shift|sjis|mac", re.I)
PIECE = 1000  # tags and comments
SIZE = 32 * 1024  # of a piece, or a little more
# What follows these up to their end is no markup, so a piece must not begin in it.
RAW_NAMES = ("script", "style", "textarea", "xmp", "iframe", "noembed", "noframes")
RAW = re.compile(rf"<(?:!--|({'|'.join(RAW_NAMES)})\b)", re.I | re.A)
ENDS = {name: re.compile(f"</{name}", re.I | re.A) for name in RAW_NAMES}
COMMENT_END = re.compile("-->")


def text(body: bytes, content_type: str) -> str:
    """The body as text: by its Content-Type, else by its own <meta charset>, else as UTF-8."""
    named = CHARSET.search(content_type) or CHARSET.search(body[:1024].decode("latin-1"))
    charset = named[1] if named and PLAUSIBLE.match(named[1]) else "utf-8"
    try:
        return body.decode(charset, "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")


def read(html: str, page: Url, limits: Limits) -> tuple[str | None, list[str]]:
    """The title, and the links, absolute and in their normal form, each once."""
    title: str | None = None
    base: Url | None = None
    links: dict[str, None] = {}  # ordered
    seen = 0
    for number, piece in enumerate(pieces(html, limits.markup)):
        if number:
            time.sleep(0)
        tree = LexborHTMLParser(piece, options=LexborDocumentOptions.WO_EVENTS)
        if title is None and (found := tree.css_first("title")) is not None:
            title = " ".join(found.text()[:1000].split())[:300]
        if base is None:
            base = named_base(tree, page)
        for anchor in tree.css("a[href]"):
            if len(links) >= limits.links or seen >= limits.links_seen:
                break
            seen += 1
            if link := joined(base or page, anchor.attributes["href"] or ""):
                links[link] = None
    return title, list(links)


def named_base(tree: LexborHTMLParser, page: Url) -> Url | None:
    """The first <base> counts."""
    found = tree.css_first("base[href]")
    link = found and joined(page, found.attributes["href"] or "")
    return parsed(link) if link else None


def pieces(html: str, most: int) -> Iterator[str]:
    """The page up to so many tags and comments; each begins with `<`. Of a very long one the end is left out."""
    if len(html) <= SIZE and html.count("<") <= PIECE:
        yield html
        return
    html = without_raw_text(html)
    begin = count = 0
    for number, match in enumerate(re.finditer("<", html)):
        if number >= most:
            html = html[: match.start()]
            break
        if count == PIECE or match.start() - begin >= SIZE:
            yield html[begin : min(match.start(), begin + 2 * SIZE)]
            begin, count = match.start(), 0
        count += 1
    yield html[begin : begin + 2 * SIZE]


def without_raw_text(html: str) -> str:
    """The page without scripts, comments and the like; one that does not end lasts to the end of the page."""
    kept, at = [], 0
    while raw := RAW.search(html, at):
        kept.append(html[at : raw.start()])
        end = (ENDS[raw[1].lower()] if raw[1] else COMMENT_END).search(html, raw.start() + 2)
        if end is None:
            return "".join(kept)
        at = end.end()
    return "".join(kept) + html[at:]

"""workers/markup.py: pages made to take long, and pages made by chance. Work is counted, not timed."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import crawl, markup
from workers.markup import LONGEST_TAG, PIECE, Markup

LONG = "http://h.test/" + "p" * 1980


class Counted(Markup):
    """Says what it has done."""

    def __init__(self, url: str = LONG, links: int = 100, seen: int = 1000, most: int = 50_000) -> None:
        super().__init__(url, links, seen, most, self.paused)
        self.pauses = 0
        self.looked_through = 0  # characters, each time again
        self.longest = 0  # of them, at a time
        self.since = self.most_since = 0  # tags, texts and comments between two pauses

    def paused(self) -> None:
        self.pauses += 1
        self.since = 0

    def look(self) -> None:
        self.since += 1
        self.most_since = max(self.most_since, self.since)
        super().look()

    def feed(self, data: str) -> None:
        size = len(self.rawdata) + len(data)
        self.looked_through += size
        super().feed(data)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The links that were joined with their base."""
    return count_joins(monkeypatch)


def count_joins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    joined: list[str] = []

    def counted(base: str, href: str) -> str:
        joined.append(href)
        return urljoin(base, href)

    monkeypatch.setattr(markup, "urljoin", counted)
    return joined


def test_links_looked_at_are_counted_and_not_links_kept(joined: list[str]) -> None:
    page = Counted()
    page.read("<a href=x>" * 100_000)
    assert (list(page.links), len(joined)) == ([LONG.rpartition("/")[0] + "/x"], 1000)
    assert page.seen <= 50_001


def test_once_all_is_found_the_rest_is_not_looked_at() -> None:
    page = Counted()
    page.read("<title>t</title>" + "".join(f"<a href={number}>" for number in range(100)) + "<p>" * 300_000)
    assert len(page.links) == 100
    assert page.title == "t"
    assert page.seen < 300
    late = Counted()
    late.read("".join(f"<a href={number}>" for number in range(200)) + "<title>late</title>")
    assert late.title == "late"


def test_the_first_base_counts(joined: list[str]) -> None:
    page = Counted("http://h.test/")
    page.read("<base href=/one/><a href=x>" + "<base href=/two/>" * 5000)
    assert list(page.links) == ["http://h.test/one/x"]
    assert len(joined) == 2


def test_a_long_link_is_not_joined(joined: list[str]) -> None:
    page = Counted()
    page.read(f"<a href={'../' * 20_000}>x</a><base href={'../' * 20_000}><a href=y>")
    assert joined == ["y"]


@pytest.mark.parametrize("start", ["<a ", "<!-- ", "<!doctype ", "<a b='"])
def test_a_tag_without_end_ends_the_looking(start: str) -> None:
    page = Counted()
    page.read("<title>t</title><a href=x>" + start + "a=b " * 250_000 + "'>--><a href=y>")
    assert (page.title, len(page.links)) == ("t", 1)
    assert page.looked_through < 6 * LONGEST_TAG


def test_a_long_script_does_not() -> None:
    page = Counted()
    page.read("<script>" + "a<b;" * 100_000 + "</script><title>t</title><a href=x>")
    assert (page.title, len(page.links)) == ("t", 1)


def test_a_page_like_any_is_read_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "<title>A &amp; B</title>" + "".join(
        f'<p class="c">text &lt; {number} <!-- note --> <a href="/p/{number}?a=1&amp;b=2">x</a></p>'
        for number in range(50)
    )
    whole = Counted()
    whole.read(page)
    assert len(whole.links) == 50
    for size in (1, 7, 64):
        monkeypatch.setattr(markup, "PIECE", size)
        pieces = Counted()
        pieces.read(page)
        assert (pieces.links, pieces.title) == (whole.links, whole.title)


FRAGMENTS = st.sampled_from(
    [
        "<a_href=x>",
        "<a_href=../y_",
        "<a_",
        "<A_HREF='",
        '<a_href="',
        "<base_href=/b/>",
        "<base_href=a/b/>",
        "<p>",
        "</",
        "</a",
        "</a>",
        "<",
        ">",
        "'",
        '"',
        "=",
        "a=b_",
        "/",
        "_",
        "<!--",
        "-->",
        "--!>",
        "<!",
        "<![",
        "<![CDATA[",
        "]]>",
        "<?",
        "<!doctype_",
        "<script>",
        "</script>",
        "<style>",
        "<title>",
        "</title>",
        "<textarea>",
        "<plaintext>",
        "&",
        "&amp;",
        "&#",
        "&#x41;",
        "&notit;",
        "\x00",
        "ü",
        "text",
        "http://[",
        "<svg>",
        "<a_href=//é>",
    ]
)
PARTS = st.lists(st.tuples(FRAGMENTS, st.sampled_from([1, 2, 3, 50, 3000, 20_000])), max_size=12)


@settings(max_examples=50)
@given(parts=PARTS)
def test_whatever_the_page_the_work_is_bounded(parts: list[tuple[str, int]]) -> None:
    page = "".join(fragment.replace("_", " ") * times for fragment, times in parts)[: crawl.LIMITS.size]
    with pytest.MonkeyPatch.context() as patched:
        joined = count_joins(patched)
        read = Counted()
        read.read(page)
    assert len(joined) <= 1000 + 1  # and a <base>
    assert sum(map(len, joined)) <= 1001 * markup.LONGEST_URL
    assert read.seen <= 50_000 + 1
    assert read.looked_through <= 3 * len(page) + 2 * PIECE
    assert read.most_since <= 1000
    assert len(read.links) <= 100
    assert all(link.startswith(("http://", "https://")) and len(link) <= 2000 for link in read.links)
    assert read.title is None or len(read.title) <= 300


@settings(max_examples=100)
@given(body=st.binary(max_size=200), kind=st.text(max_size=40))
def test_whatever_the_bytes_they_become_text(body: bytes, kind: str) -> None:
    assert isinstance(markup.text(body, kind), str)
    assert isinstance(markup.text(body, f"text/html; charset={kind}"), str)

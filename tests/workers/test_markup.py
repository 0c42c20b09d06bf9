"""workers/crawl/markup.py: pages made to take long, and pages made by chance. Work is counted, not timed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.crawl import markup
from workers.crawl.limits import LIMITS
from workers.crawl.urls import LONGEST_URL, Url, joined, parsed

PAGE = parsed("http://h.test/" + "p" * 1980)
HERE = parsed("http://h.test/")


@pytest.fixture
def hrefs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The links that were joined with their base."""
    return count_joins(monkeypatch)


def count_joins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    hrefs: list[str] = []

    def counted(base: Url, href: str) -> str | None:
        hrefs.append(href)
        return joined(base, href)

    monkeypatch.setattr(markup, "joined", counted)
    return hrefs


def test_links_looked_at_are_counted_and_not_links_kept(hrefs: list[str]) -> None:
    _, links = markup.read("<a href=x>" * 40_000, PAGE, LIMITS)
    assert (links, len(hrefs)) == (["http://h.test/x"], LIMITS.links_seen)


def test_once_all_links_are_found_no_other_is_looked_at(hrefs: list[str]) -> None:
    title, links = markup.read("".join(f"<a href={n}>" for n in range(900)) + "<title>late</title>", HERE, LIMITS)
    assert (title, len(links), len(hrefs)) == ("late", 100, 100)


def test_of_a_page_of_many_tags_only_the_first_are_read() -> None:
    page = "<title>t</title><a href=1></a>" + "<p>" * 49_995 + "<a href=last><a href=beyond>"
    assert markup.read(page, HERE, LIMITS) == ("t", ["http://h.test/1", "http://h.test/last"])


def test_pieces_are_small_and_the_whole() -> None:
    page = "text" + "".join(f"<p>{number}" for number in range(2500))
    pieces = list(markup.pieces(page, 50_000))
    assert "".join(pieces) == page
    assert [piece.count("<") for piece in pieces] == [1000, 1000, 500]
    assert "".join(markup.pieces(page, 1500)) == page[: page.index("<p>1500")]


def test_a_tag_of_many_attributes_is_cut() -> None:
    page = "<p>" + "x" * markup.SIZE + "<a href=1 " + "".join(f"a{number}='<' " for number in range(100_000)) + ">"
    assert max(map(len, markup.pieces(page, 50_000))) <= 2 * markup.SIZE
    assert max(map(len, markup.pieces(page.replace("<", ""), 50_000))) <= 2 * markup.SIZE


def test_a_page_like_any_is_read_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "<title>A &amp; B</title><base href=/b/>" + "".join(
        f'<p class="c">text &lt; {number} <!-- <a href=no> --> <a href="p/{number}?a=1&amp;b=2">x</a></p>'
        f"<SCRIPT>if (a<b) document.write('<a href=no>')</SCRIPT><textarea><a href=no></textarea>"
        for number in range(50)
    )
    whole = markup.read(page, HERE, LIMITS)
    assert (whole[0], len(whole[1])) == ("A & B", 50)
    for size in (1, 7, 64):
        monkeypatch.setattr(markup, "PIECE", size)
        assert markup.read(page, HERE, LIMITS) == whole


@pytest.mark.parametrize("start", ["<script>", "<!--", "<style>", "<textarea>"])
def test_what_does_not_end_lasts_to_the_end_of_a_long_page(start: str) -> None:
    page = "<a href=1>" + start + "<a href=2>" * 3000
    assert markup.read(page, HERE, LIMITS) == (None, ["http://h.test/1"])
    assert markup.without_raw_text(start * 100_000) == ""


def test_the_first_base_counts(hrefs: list[str]) -> None:
    _, links = markup.read("<base href=/one/><a href=x>" + "<base href=/two/>" * 5000, HERE, LIMITS)
    assert links == ["http://h.test/one/x"]
    assert len(hrefs) == 2


def test_a_base_that_is_not_a_url_does_not_count() -> None:
    assert markup.read("<base href='mailto:a@b'><a href=x>", HERE, LIMITS)[1] == ["http://h.test/x"]


def test_a_long_link_is_left_out() -> None:
    page = f"<a href={'../' * 20_000}>x</a><base href={'../' * 20_000}><a href=y>"
    assert markup.read(page, HERE, LIMITS)[1] == ["http://h.test/y"]


@pytest.mark.parametrize("start", ["<a ", "<!-- ", "<!doctype ", "<a b='"])
def test_a_tag_without_end_ends_with_the_page(start: str) -> None:
    page = "<title>t</title><a href=x>" + start + "a=b " * 240_000
    assert markup.read(page, HERE, LIMITS) == ("t", ["http://h.test/x"])


def test_a_long_script_is_no_markup() -> None:
    page = "<script>" + "a<b;" * 10_000 + "</script><title>t</title><a href=x>"
    assert markup.read(page, HERE, LIMITS) == ("t", ["http://h.test/x"])


def test_a_title_is_one_line_and_short() -> None:
    assert markup.read("<title>\n a\t b &amp;\n" + " c" * 1000, HERE, LIMITS)[0] == ("a b &" + " c" * 1000)[:300]
    assert markup.read("<p>none", HERE, LIMITS)[0] is None


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


@settings(max_examples=50, deadline=None)
@given(parts=PARTS)
def test_whatever_the_page_the_work_is_bounded(parts: list[tuple[str, int]]) -> None:
    page = "".join(fragment.replace("_", " ") * times for fragment, times in parts)[: LIMITS.size]
    with pytest.MonkeyPatch.context() as patched:
        hrefs = count_joins(patched)
        title, links = markup.read(page, PAGE, LIMITS)
    assert len(hrefs) <= LIMITS.links_seen + 1  # and a <base>
    assert len(links) <= LIMITS.links
    assert links == [parsed(link).text for link in links]
    assert all(link.startswith(("http://", "https://")) and len(link) <= LONGEST_URL for link in links)
    assert title is None or len(title) <= 300
    assert all(piece.count("<") <= markup.PIECE for piece in markup.pieces(page, LIMITS.markup))


def test_no_more_links_than_asked_for() -> None:
    page = "".join(f"<a href={number}>" for number in range(10))
    assert len(markup.read(page, HERE, replace(LIMITS, links=3))[1]) == 3


@settings(max_examples=100)
@given(body=st.binary(max_size=200), kind=st.text(max_size=40))
def test_whatever_the_bytes_they_become_text_and_a_page(body: bytes, kind: str) -> None:
    for content_type in (kind, f"text/html; charset={kind}", "text/html; charset=utf-7", "text/html; charset=utf-16"):
        markup.read(markup.text(body, content_type), HERE, LIMITS)

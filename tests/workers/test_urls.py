"""workers/crawl/urls.py: each page has one URL."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.crawl.limits import FetchError
from workers.crawl.urls import NORMAL, joined, parsed, resolved, spelled_out


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://example.org", "http://example.org/"),
        ("HTTP://Example.ORG/A", "http://example.org/A"),
        (" http://example.org/ \t", "http://example.org/"),
        ("http://example.org/a#part", "http://example.org/a"),
        ("http://example.org#part", "http://example.org/"),
        ("http://example.org:80/", "http://example.org/"),
        ("https://example.org:443/", "https://example.org/"),
        ("http://example.org:443/", "http://example.org:443/"),
        ("http://example.org:/", "http://example.org/"),
        ("http://example.org:0080/", "http://example.org/"),
        ("http://example.org:65535/", "http://example.org:65535/"),
        ("http://example.org?q=1", "http://example.org/?q=1"),
        ("http://example.org/?", "http://example.org/"),
        ("http://example.org/a?b=1&a=2&&c", "http://example.org/a?b=1&a=2&&c"),
        ("http://example.org/?u=http://other.test/x?y", "http://example.org/?u=http://other.test/x?y"),
        ("http://example.org/%7euser/%c3%bc", "http://example.org/~user/%C3%BC"),
        ("http://example.org/ü?ö=ä", "http://example.org/%C3%BC?%C3%B6=%C3%A4"),
        ("http://example.org/a b?c d", "http://example.org/a%20b?c%20d"),
        ("http://example.org/100%", "http://example.org/100%25"),
        ("http://example.org/%2F%3f", "http://example.org/%2F%3F"),
        ("http://example.org/a/./b/../c", "http://example.org/a/c"),
        ("http://example.org/a/%2e%2E/c", "http://example.org/c"),
        ("http://example.org/../../a", "http://example.org/a"),
        ("http://example.org/a/..", "http://example.org/"),
        ("http://example.org/a/b/.", "http://example.org/a/b/"),
        ("http://example.org//a//b", "http://example.org//a//b"),
        ("http://example.org/a;v=1", "http://example.org/a;v=1"),
        ("http://example.org/\\a", "http://example.org/%5Ca"),
        ("http://münchen.test/", "http://xn--mnchen-3ya.test/"),
        ("http://MÜNCHEN.test/", "http://xn--mnchen-3ya.test/"),
        ("http://[::1]:8000/", "http://[::1]:8000/"),
        ("http://[0:0::0:1]/", "http://[::1]/"),
        ("http://2130706433/", "http://2130706433/"),
    ],
)
def test_the_normal_form(url: str, normal: str) -> None:
    assert parsed(url).text == normal
    assert parsed(normal).text == normal


def test_the_parts() -> None:
    assert parsed("https://WWW.example.org:8443/a/b?c=d#e")._asdict() == {
        "text": "https://www.example.org:8443/a/b?c=d",
        "scheme": "https",
        "host": "www.example.org",
        "port": 8443,
        "netloc": "www.example.org:8443",
        "target": "/a/b?c=d",
    }
    assert parsed("http://[::1]:8000").netloc == "[::1]:8000"
    assert parsed("http://[::1]:8000").host == "::1"
    assert parsed("http://www.a.test/").site == parsed("https://a.test:99/").site == "a.test"


@pytest.mark.parametrize(
    ("href", "link"),
    [
        ("/a", "http://h.test:99/a"),
        ("a.html", "http://h.test:99/dir/a.html"),
        ("a/b?c=d&e", "http://h.test:99/dir/a/b?c=d&e"),
        ("", "http://h.test:99/dir/page?q=1/2"),
        ("#part", "http://h.test:99/dir/page?q=1/2"),
        ("a#part", "http://h.test:99/dir/a"),
        (" a\n", "http://h.test:99/dir/a"),
        ("?x", "http://h.test:99/dir/page?x"),
        ("../a", "http://h.test:99/a"),
        ("./a", "http://h.test:99/dir/a"),
        ("/a/../b", "http://h.test:99/b"),
        ("a//b", "http://h.test:99/dir/a//b"),
        ("@//", "http://h.test:99/dir/@//"),
        ("./a//b?c=ü", "http://h.test:99/dir/a//b?c=%C3%BC"),
        ("/a/.//b/", "http://h.test:99/a//b/"),
        ("http:a//ü", "http://h.test:99/dir/a//%C3%BC"),
        ("../../x", "http://h.test:99/x"),
        ("//other.test/a", "http://other.test/a"),
        ("HTTPS://Other.test", "https://other.test/"),
        ("http://other.test:80/a", "http://other.test/a"),
        ("a:b", None),
        ("mailto:a@b.test", None),
        ("javascript:x()", None),
        ("http://[", None),
        ("http://user@other.test/", None),
        ("x" * 2001, None),
        ("x" * 1990, None),
    ],
)
def test_links(href: str, link: str | None) -> None:
    assert joined(parsed("http://h.test:99/dir/page?q=1/2"), href) == link


CHARACTERS = st.sampled_from([*"/.?#:@%&=~-_+ ab1Zü[]\\\n", "%41", "%2e", "..", "//", "http://", "h.test"])
TEXT = st.lists(CHARACTERS, max_size=12).map("".join)


@given(TEXT)
def test_the_normal_form_is_its_own(text: str) -> None:
    try:
        url = parsed("http://h.test/" + text)
    except FetchError:
        return
    assert parsed(url.text) == url == spelled_out(url.text)
    assert url.text.isascii()
    assert " " not in url.text
    assert "#" not in url.text
    assert not {".", ".."} & set(url.target.partition("?")[0].split("/"))


@given(TEXT)
def test_the_short_way_finds_what_the_long_way_finds(href: str) -> None:
    base = parsed("http://h.test:99/dir/page?q=1/2")
    try:
        link = parsed(resolved(base, href.partition("#")[0].strip())).text
    except (FetchError, ValueError):
        assert joined(base, href) is None
    else:
        assert joined(base, href) == link


@given(TEXT.filter(lambda text: "//" not in text.replace("\n", "")))
def test_without_empty_segments_links_are_those_of_urljoin(href: str) -> None:
    base = parsed("http://h.test:99/dir/page?q=1/2")
    try:
        expected = parsed(urljoin(base.text, href.partition("#")[0].strip())).text
    except (FetchError, ValueError):
        expected = None
    assert joined(base, href) == expected


@given(TEXT)
def test_what_looks_normal_is(text: str) -> None:
    url = "http://h.test" + text
    if NORMAL.fullmatch(url) and ":80/" not in url:
        assert spelled_out(url).text == url

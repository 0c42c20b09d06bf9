"""workers/crawl/robots.py: what a host lets us fetch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import pytest

from tests.conftest import until
from tests.workers.site import Site, serving
from workers.crawl import robots
from workers.crawl.limits import LIMITS, FetchError, Limits
from workers.crawl.robots import Robots, relevant
from workers.crawl.urls import parsed

OPEN = replace(LIMITS, allow_private=True)
AGENT = "Test-Bot/1.0"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


def made(limits: Limits = OPEN) -> Robots:
    return Robots(AGENT, limits, None, lambda _: None)


def is_allowed(known: Robots, url: str) -> bool:
    rules = known.rules(parsed(url))
    assert not rules.unreachable
    try:
        rules.check(parsed(url))
    except FetchError:
        return False
    return True


def test_what_is_disallowed_is_not_fetched(site: Site) -> None:
    site.say(
        "/robots.txt",
        b"User-agent: other\nDisallow: /\n\n"
        b"User-agent: *\nDisallow: /private/ # not this\nAllow: /private/but\nDisallow: /*.pdf$",
        Content_Type="text/plain",
    )
    known = made()
    assert is_allowed(known, site.url + "/")
    assert not is_allowed(known, site.url + "/private/x")
    assert is_allowed(known, site.url + "/private/but/x")
    assert not is_allowed(known, site.url + "/a.pdf")
    assert is_allowed(known, site.url + "/a.pdf?x")
    assert site.paths == ["/robots.txt"]  # once


def test_a_group_of_our_own_name_counts(site: Site) -> None:
    site.say("/robots.txt", b"user-agent: *\ndisallow: /\nUSER-AGENT: test-bot\nDISALLOW: /no\nCrawl-delay: 2.5")
    known = made()
    assert is_allowed(known, site.url + "/yes")
    assert not is_allowed(known, site.url + "/no")
    assert known.rules(parsed(site.url)).delay == 2.5


@pytest.mark.parametrize(("asked", "delay"), [(b"0.5", 0.5), (b"9999", robots.LONGEST_DELAY), (b"soon", 0), (b"-3", 0)])
def test_a_crawl_delay_is_bounded(site: Site, asked: bytes, delay: float) -> None:
    site.say("/robots.txt", b"User-agent: *\nCrawl-delay: " + asked)
    assert made().rules(parsed(site.url)).delay == delay


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429])
def test_a_host_without_rules_permits_everything(site: Site, status: int) -> None:
    site.say("/robots.txt", b"User-agent: *\nDisallow: /", status=status)
    assert is_allowed(made(), site.url + "/")


def test_a_host_whose_rules_cannot_be_read_permits_nothing_for_a_while(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(_: BaseHTTPRequestHandler) -> None:
        site.done.wait()

    site.say("/robots.txt", status=503)
    known, slow = made(), made(replace(OPEN, read=0.1))
    url = parsed(site.url + "/")
    with pytest.raises(FetchError, match="status 503") as failure:
        known.rules(url).check(url)
    assert failure.value.kind == "robots unreachable"
    site.answers["/robots.txt"] = silent
    with pytest.raises(FetchError, match="sent nothing"):
        slow.rules(url).check(url)
    with pytest.raises(FetchError, match="not a public address"):
        made(replace(OPEN, allow_private=False)).rules(url).check(url)
    site.say("/robots.txt", b"")
    with pytest.raises(FetchError, match="status 503"):
        known.rules(url).check(url)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + robots.KEPT_UNREACHABLE + 1)
    known.rules(url).check(url)


def test_redirects_of_robots_txt_are_followed_and_bounded(site: Site) -> None:
    site.say("/robots.txt", status=301, Location="/elsewhere.txt")
    site.say("/elsewhere.txt", b"User-agent: *\nDisallow: /")
    assert not is_allowed(made(), site.url + "/")
    site.say("/elsewhere.txt", status=302, Location="/robots.txt")
    assert is_allowed(made(), site.url + "/")


def test_jobs_that_need_the_same_rules_ask_once(site: Site) -> None:
    go = threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        go.wait()
        request.send_error(404)

    site.answers["/robots.txt"] = slow
    known = made()
    with ThreadPoolExecutor(10) as pool:
        waiting = [pool.submit(known.rules, parsed(f"{site.url}/{number}")) for number in range(10)]
        until(lambda: site.paths, "it is asked for")
        go.set()
        assert len({id(one.result()) for one in waiting}) == 1
    assert site.paths == ["/robots.txt"]


def test_the_number_of_hosts_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots, "MOST", 3)
    known = made()
    for number in range(1, 6):
        known.rules(parsed(f"http://127.0.0.{number}:{site.port}/"))
    assert list(known.known) == [f"http://127.0.0.{number}:{site.port}" for number in (3, 4, 5)]
    assert known.asking == {}


def test_agents_that_we_are_not_become_one() -> None:
    text = "".join(f"User-agent: bot{number}\n" for number in range(1000)) + "Disallow: /a # b\nSitemap: x\nnonsense\n"
    text += "user-agent:*\nAllow: /\n"
    assert list(relevant(text, AGENT)) == ["user-agent: another", "Disallow: /a # b", "user-agent: *", "Allow: /"]

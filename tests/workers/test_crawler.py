"""workers/crawl: a crawl, its pace and its results."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
import pytest

from rq_lite import Retry, UsageError
from rq_lite.testing import inline
from tests.conftest import until
from tests.workers.site import Site, serving
from workers import crawl as package
from workers.crawl import crawl, pace
from workers.crawl.crawler import Crawler, Next
from workers.crawl.limits import FOR_CRAWLS
from workers.crawl.pace import Pace
from workers.crawl.report import in_words, report
from workers.crawl.results import Results, Visit, lines, pages
from workers.crawl.settings import Settings, settings_from

OPEN = replace(FOR_CRAWLS, allow_private=True)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


def crawler(folder: Path, limits: package.Limits = OPEN, **settings: object) -> Crawler:
    return Crawler(msgspec.convert({"pause": 0.0, "results": folder, **settings}, Settings), limits)


# --- one step


def test_a_page_has_a_line_and_its_links_follow(site: Site, tmp_path: Path) -> None:
    site.say("/", b"<title>t</title><a href=/a><a href=/A#x><a href=//other.test/><a href=http://127.0.0.2/>")
    one = crawler(tmp_path)
    assert one.visit(site.url + "/", 2, 0) == [Next(site.url + "/a", 1, 0), Next(site.url + "/A", 1, 0)]
    (found,) = lines(tmp_path)
    assert (found.url, found.depth, found.status, found.title, found.error) == (site.url + "/", 2, 200, "t", None)
    assert found.links[:2] == [site.url + "/a", site.url + "/A"]
    assert len(found.links) == 4
    assert 0 < found.seconds < 60


def test_no_links_follow_at_depth_0_and_others_hosts_only_if_wanted(site: Site, tmp_path: Path) -> None:
    url = site.say("/", b"<a href=http://other.test/>")
    assert crawler(tmp_path).visit(url, 0, 0) == []
    assert crawler(tmp_path).visit(url, 1, 0) == []
    assert crawler(tmp_path, hosts="all").visit(url, 1, 0) == [Next("http://other.test/", 0, 0)]


def test_a_url_in_another_form_is_followed_by_its_normal_form(site: Site, tmp_path: Path) -> None:
    url = site.url.replace("http", "HTTP") + "/a/../b#c"
    assert crawler(tmp_path).visit(url, 3, 1) == [Next(site.url + "/b", 3, 1)]
    assert (site.paths, list(lines(tmp_path))) == ([], [])


def test_a_redirect_is_a_page_of_its_own(site: Site, tmp_path: Path) -> None:
    site.say("/a", status=302, Location="/b")
    site.say("/c", status=302, Location="http://other.test/")
    one = crawler(tmp_path)
    assert one.visit(site.url + "/a", 0, 4) == [Next(site.url + "/b", 0, 5)]
    assert one.visit(site.url + "/a", 0, 5) == []
    assert one.visit(site.url + "/c", 0, 0) == []
    found = [(visit.url, visit.status, visit.links, visit.error) for visit in lines(tmp_path)]
    assert found == [
        (site.url + "/a", 302, [site.url + "/b"], None),
        (site.url + "/a", 302, [site.url + "/b"], "redirects"),
        (site.url + "/c", 302, ["http://other.test/"], None),
    ]


def test_a_page_that_is_not_fetched_has_a_line_that_says_why(site: Site, tmp_path: Path) -> None:
    site.say("/robots.txt", b"User-agent: *\nDisallow: /private")
    one = crawler(tmp_path)
    for url in (site.url + "/private", "ftp://h.test/", "http://user:secret@h.test/"):
        assert one.visit(url, 1, 0) == []
    assert crawler(tmp_path, FOR_CRAWLS).visit(site.url, 1, 0) == [Next(site.url + "/", 1, 0)]
    assert crawler(tmp_path, FOR_CRAWLS).visit(site.url + "/", 1, 0) == []
    assert sorted(str(visit.error) for visit in lines(tmp_path)) == ["robots", "robots unreachable", "url", "url"]
    assert "/private: its robots.txt disallows it" in str(next(iter(lines(tmp_path))).reason)
    assert site.paths == ["/robots.txt"]


def test_an_error_of_the_moment_is_tried_twice(site: Site, tmp_path: Path) -> None:
    def broken(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"nonsense")
        request.close_connection = True

    site.answers["/"] = broken
    assert crawler(tmp_path).visit(site.url + "/", 1, 0) == []
    assert site.paths == ["/robots.txt", "/", "/"]
    (found,) = lines(tmp_path)
    assert found.error == "response"


def test_links_beyond_the_limits_are_counted(site: Site, tmp_path: Path) -> None:
    site.say("/", b"".join(b"<a href=/%d>" % number + b"x" for number in range(1001)))
    site.say("/long", b"".join(b"<a href=/%d%s>" % (number, b"x" * 1900) for number in range(500)))
    one = crawler(tmp_path)
    assert len(one.visit(site.url + "/", 1, 0)) == 1000
    assert 200 < len(one.visit(site.url + "/long", 1, 0)) < 220
    assert [visit.left_out > 280 for visit in lines(tmp_path)] == [False, True]


# --- the task


@pytest.fixture
def small(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site of pages 1 to 20; each links to two others, and to a page that is not there."""
    for number in range(1, 21):
        links = "".join(f"<a href=/{other}>" for other in (number % 20 + 1, 2 * number % 20 + 1, 99))
        site.say(f"/{number}", f"<title>{number}</title>{links}".encode())
    monkeypatch.setattr(package, "CRAWLER", crawler(tmp_path))
    return site


def test_a_crawl_fetches_each_page_once(small: Site, tmp_path: Path) -> None:
    with inline() as ran:
        crawl.put(small.url + "/1", 30)
        crawl.put(small.url + "/1", 30)
    assert len(ran) == 21
    assert sorted(small.paths) == sorted(["/robots.txt", "/99", *(f"/{number}" for number in range(1, 21))])
    found = report(tmp_path)
    assert (found.pages, found.statuses, found.twice, found.hosts) == (21, {"200": 20, "404": 1}, 0, 1)


def test_the_depth_of_the_settings_is_that_of_seeds(small: Site, tmp_path: Path) -> None:
    with inline():
        crawl.put(small.url + "/1")
    assert small.paths == ["/robots.txt", "/1"]
    package.CRAWLER.settings = replace(package.CRAWLER.settings, depth=1)
    with inline():
        crawl.put(small.url + "/1")
    assert sorted(visit.depth for visit in pages(tmp_path)) == [0, 0, 0, 0]
    assert len(small.paths) == 2 + 4


def test_outside_of_a_job_nothing_follows(small: Site, tmp_path: Path) -> None:
    crawl(small.url + "/1", 30)
    assert [visit.url for visit in pages(tmp_path)] == [small.url + "/1"]


# --- the pace


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_each_fetch_of_a_host_has_its_turn(clock: Clock) -> None:
    one = Pace(1.5)
    for host in ("a", "a", "b", "a", "b"):
        one.wait(host)
    assert clock.slept == [0, 1.5, 0, 3, 1.5]
    clock.now += 100
    one.wait("a")
    assert clock.slept[-1] == 0
    assert not one.waiting


def test_the_longer_pause_counts(clock: Clock) -> None:
    one = Pace(1)
    one.wait("a", 5)
    one.wait("a", 0.5)
    one.wait("a")
    assert clock.slept == [0, 5, 6]


def test_without_a_pause_nothing_waits(clock: Clock) -> None:
    one = Pace(0)
    one.wait("a")
    one.wait("a")
    assert (clock.slept, one.next) == ([], {})


def test_who_would_wait_long_steps_back(clock: Clock) -> None:
    one = Pace(pace.LONGEST)
    one.wait("a")
    one.wait("a")
    with pytest.raises(Retry, match="other pages of it wait"):
        one.wait("a")
    one.wait("b")


def test_only_some_wait_for_a_host() -> None:
    one = Pace(0.5)
    with ThreadPoolExecutor(pace.WAITING) as pool:
        waiting = [pool.submit(one.wait, "a") for _ in range(2)]
        until(lambda: one.waiting["a"] == 1, "the second waits")
        one.waiting["a"] += pace.WAITING - 1
        with pytest.raises(Retry):
            one.wait("a")
        one.waiting["a"] -= pace.WAITING - 1
        for each in waiting:
            each.result()
    assert not one.waiting


def test_hosts_of_the_past_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "HOSTS", 2)
    one = Pace(1)
    for host in "abc":
        one.wait(host)
    clock.now += 10
    one.wait("d")
    assert set(one.next) == {"d"}


# --- results


def test_each_page_counts_once_and_a_fetched_one_before_an_error(tmp_path: Path) -> None:
    first, second = Results(tmp_path), Results(tmp_path)
    first.add(Visit(url="http://h.test/a", depth=1, error="timeout"))
    first.add(Visit(url="http://h.test/b", depth=1, status=200, seconds=0.5, left_out=7))
    second.add(Visit(url="http://h.test/a", depth=1, status=200, title="a\n\u2028ü", links=["x"]))
    second.add(Visit(url="http://h.test/a", depth=1, status=500))
    second.add(Visit(url="http://h.test/c", depth=0, error="robots", reason="no"))
    assert len(list(tmp_path.iterdir())) == 2
    assert [(visit.url[-1], visit.status) for visit in pages(tmp_path)] == [("b", 200), ("a", 200), ("c", None)]
    found = report(tmp_path)
    assert (found.pages, found.twice, found.errors, found.left_out) == (3, 2, {"robots": 1}, 7)
    assert found.slowest[0] == (0.5, "http://h.test/b")
    said = in_words(found)
    for wanted in (
        "3 pages; hosts that answered: 1",
        "status 200: 2",
        "error robots: 1",
        "2 fetches were repeated",
        "7 links",
    ):
        assert wanted in said


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    one = Results(tmp_path)
    one.add(Visit(url="http://h.test/a", depth=1))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + b'{"url":"http://h.te')
    assert [visit.url for visit in pages(tmp_path)] == ["http://h.test/a"]


def test_a_line_without_room_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Results(tmp_path)
    one.add(Visit(url="http://h.test/a", depth=1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(OSError, match="no room for a line"):
        one.add(Visit(url="http://h.test/b", depth=1))
    monkeypatch.undo()
    one.add(Visit(url="http://h.test/c", depth=1))
    (file,) = tmp_path.iterdir()
    assert [json.loads(line)["url"][-1] for line in file.read_text().splitlines()] == ["a", "c"]


def test_settings_come_from_the_environment() -> None:
    assert settings_from({}) == Settings(0, "same", 1.0, "rq_lite-crawl/0.1", Path("crawl-results"))
    given = {"DEPTH": "3", "HOSTS": "all", "PAUSE": "0.5", "AGENT": "me/1", "RESULTS": "/r"}
    found = settings_from({f"RQ_LITE_CRAWL_{name}": value for name, value in given.items()})
    assert found == Settings(3, "all", 0.5, "me/1", Path("/r"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("DEPTH", "deep"), ("DEPTH", "-1"), ("HOSTS", "some"), ("PAUSE", "nan"), ("PAUSE", "-1"), ("AGENT", "a\nb")],
)
def test_a_setting_that_cannot_be_right_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"RQ_LITE_CRAWL_{name}: "):
        settings_from({f"RQ_LITE_CRAWL_{name}": value})

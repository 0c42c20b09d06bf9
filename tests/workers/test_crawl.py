"""workers/crawl: one page at a time, against small servers on loopback, and producer/site.py."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from producer import urls
from rq_lite import read_lines
from rq_lite.feeds import sources
from rq_lite.feeds.sources import open_source
from rq_lite.testing import inline, recorded
from tests.conftest import until
from tests.workers.site import Site, serving
from workers import crawl
from workers.crawl import addresses, connections, limits

ROOT = Path(__file__).parents[2]
OPEN = crawl.Limits(allow_private=True)
CLOSED = crawl.Limits(allow_private=False)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


def to(*addresses: str) -> addresses.LookUp:
    """A name server that gives every name these addresses."""
    return lambda _host, _within: addresses


# --- pages


def test_a_page(site: Site) -> None:
    body = b"""<!doctype html><title> A  page\n</title><a href=/x#part>x</a> <A HREF="http://other.test/y?a=1&amp;b">y</a>
        <a href="/x">again</a> <a href="mailto:z@z.test">z</a> <a href="http://[">bad</a> <a name=q>q</a>"""
    url = site.say("/", body)
    assert crawl.get(url, OPEN) == {
        "url": url,
        "status": 200,
        "size": len(body),
        "cut": False,
        "title": "A page",
        "links": [site.url + "/x", "http://other.test/y?a=1&b"],
    }


def test_the_task_is_the_function(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    url = site.say("/", b"<title>t</title>")
    with pytest.raises(crawl.FetchError, match="not a public address"):
        crawl.get(url, CLOSED)
    monkeypatch.setattr(crawl.get, "__defaults__", (OPEN, None))
    assert crawl.fetch(url)["title"] == "t"
    with inline() as ran:
        crawl.fetch.put_many([url, url])
    assert [job.value["title"] for job in ran] == ["t", "t"]


def test_a_job_for_an_address_that_is_refused_fails_once(site: Site) -> None:
    with inline(raises=False) as ran:
        crawl.fetch.put(site.url)
    assert [(type(job.error), job.attempts) for job in ran] == [(crawl.FetchError, 1)]


@pytest.mark.parametrize("status", [204, 304, 404, 500])
def test_every_status_is_a_result(site: Site, status: int) -> None:
    assert crawl.get(site.say("/", status=status), OPEN)["status"] == status


def test_links_are_capped_and_follow_base(site: Site) -> None:
    body = b'<base href="/deep/">' + b"".join(b"<a href=%d>" % number for number in range(10))
    page = crawl.get(site.say("/", body), replace(OPEN, links=3))
    assert page["links"] == [f"{site.url}/deep/{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("body", "kind", "title"),
    [
        ("<title>Grüße</title>".encode(), "text/html; charset=utf-8", "Grüße"),
        ("<title>Grüße</title>".encode("latin-1"), "text/html; charset=ISO-8859-1", "Grüße"),
        ("<meta charset='cp1252'><title>5 €</title>".encode("cp1252"), "text/html", "5 €"),
        (b"<title>a\xffb</title>", "text/html; charset=utf-8", "a\ufffdb"),
        (b"<title>t</title>", "text/html; charset=no-such-thing", "t"),
        (b"<title>t</title>", "text/html; charset=punycode", "t"),
        (b"<title>t</title>", "text/html; charset=utf-99", "t"),
        (b"<title>t</title><![what is this", "text/html", "t"),
        (b"<title>one</title><title>two</title>", "text/html", "one"),
        (b"<title>t</title>", "image/png", None),
        (b"", "text/html", None),
    ],
)
def test_titles_from_whatever_is_sent(site: Site, body: bytes, kind: str, title: str | None) -> None:
    assert crawl.get(site.say("/", body, Content_Type=kind), OPEN)["title"] == title


@pytest.mark.parametrize("body", [b"<title>open", b"\x00<title>t</title", b"<a href", b"<!--", b"<" * 1000])
def test_a_page_that_breaks_off_is_still_a_page(site: Site, body: bytes) -> None:
    assert crawl.get(site.say("/", body), OPEN)["size"] == len(body)


def test_a_compressed_answer_is_not_unfolded(site: Site) -> None:
    page = crawl.get(site.say("/", b"<title>t</title>", Content_Encoding="gzip"), OPEN)
    assert (page["size"], page["title"]) == (16, None)


# --- limits


def test_reading_stops_at_the_size_limit(site: Site) -> None:
    hung_up = threading.Event()

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"<title>first</title>")
        try:
            while not site.done.is_set():
                request.wfile.write(b"x" * 65536)
        except OSError:
            hung_up.set()
            raise

    site.answers["/"] = endless
    page = crawl.get(site.url + "/", replace(OPEN, size=1000))
    assert (page["size"], page["cut"], page["title"]) == (1000, True, "first")
    assert hung_up.wait(30)


def test_a_page_of_exactly_the_limit_is_whole(site: Site) -> None:
    page = crawl.get(site.say("/", b"x" * 1000), replace(OPEN, size=1000))
    assert (page["size"], page["cut"]) == (1000, False)


def test_a_silent_server_ends_with_the_read_limit(site: Site) -> None:
    def silent(_: BaseHTTPRequestHandler) -> None:
        site.done.wait()

    site.answers["/"] = silent
    with pytest.raises(crawl.FetchError, match=r"sent nothing for 0\.1 s"):
        crawl.get(site.url + "/", replace(OPEN, read=0.1))


def test_a_dribbling_server_ends_with_the_total_limit(site: Site) -> None:
    def dribble(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        while not site.done.wait(0.01):
            request.wfile.write(b"1\r\nx\r\n")

    site.answers["/"] = dribble
    with pytest.raises(crawl.FetchError, match="took longer than a page may take"):
        crawl.get(site.url + "/", replace(OPEN, total=0.3, read=60))


def test_a_body_that_breaks_off_is_an_error(site: Site) -> None:
    url = site.say("/", b"short", Content_Length="100", Connection="close")
    with pytest.raises(crawl.FetchError, match="Incomplete response"):
        crawl.get(url, OPEN)


def test_connections_are_kept(site: Site) -> None:
    url = site.say("/", b"<title>t</title>")
    site.say("/from", status=302, Location="/")
    for _ in range(3):
        crawl.get(url, OPEN)
        crawl.get(site.url + "/from", OPEN)
    assert len(site.clients) == 1


def test_a_connection_that_the_server_has_closed_is_replaced(site: Site) -> None:
    def closing(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        request.close_connection = True

    site.answers["/"] = closing
    for _ in range(3):
        assert crawl.get(site.url + "/", OPEN)["status"] == 200
    assert len(site.clients) == 3


def test_what_follows_a_response_is_not_part_of_it_nor_of_the_next(site: Site) -> None:
    def twice(request: BaseHTTPRequestHandler) -> None:
        page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 16\r\n\r\n<title>t</title>"
        request.wfile.write(page + b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nmore")

    site.answers["/"] = twice
    for _ in range(2):
        page = crawl.get(site.url + "/", OPEN)
        assert (page["status"], page["size"], page["title"]) == (200, 16, "t")
    assert len(site.clients) == 2


def test_only_so_many_connections_are_kept() -> None:
    idle = connections.Idle(2)
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (ours, _) in enumerate(pairs):
        idle.keep(connections.Route("127.0.0.1", number, "http", "h.test"), ours)
    assert [ours.fileno() == -1 for ours, _ in pairs] == [True, False, False]
    pairs[1][1].send(b"not asked for")
    assert idle.take(connections.Route("127.0.0.1", 1, "http", "h.test")) is None
    assert idle.take(connections.Route("127.0.0.1", 2, "http", "h.test")) is pairs[2][0]
    assert idle.count == 0
    for pair in pairs:
        for one in pair:
            one.close()


def flood(start: bytes, endless: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """A server that goes on as fast as it can, with what no page is made of."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(start)
        while True:
            request.wfile.write(endless * 1000)

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "endless", "reason"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "larger than a page may be"),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: trailer\r\n", "larger than a page may be"),
        (CHUNKED, b"1;" + b"x" * 9_000 + b"\r\nx\r\n", "larger than a page may be"),
        (CHUNKED, b"1\r\nx\r\n", "more than 10,000 pieces"),
    ],
)
def test_what_a_server_sends_without_end_ends(site: Site, start: bytes, endless: bytes, reason: str) -> None:
    site.answers["/"] = flood(start, endless)
    with pytest.raises(crawl.FetchError, match=reason):
        crawl.get(site.url + "/", replace(OPEN, total=60))


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(site: Site, status: int) -> None:
    target = site.say("/b/t%C3%BCr", b"<a href=c>")
    page = crawl.get(site.say("/a", status=status, Location="b/tür".encode().decode("latin-1")), OPEN)
    assert page["url"].startswith(site.url + "/b/t")
    assert page["links"] == [site.url + "/b/c"]
    assert target


def test_a_redirect_loop_ends(site: Site) -> None:
    url = site.say("/a", status=302, Location="/b")
    site.say("/b", status=302, Location="/a")
    with pytest.raises(crawl.FetchError, match="more than 5 redirects"):
        crawl.get(url, OPEN)
    assert len(site.hosts) == 6


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://127.0.0.2/", "127.0.0.2 is not a public address"),
        ("http://169.254.169.254/latest/meta-data/", "not a public address"),
        ("//[::1]/", "not a public address"),
        ("file:///etc/passwd", "only http"),
        ("http://user:secret@127.0.0.1/", "user name"),
        ("http://[", "not a URL"),
    ],
)
def test_each_redirect_is_checked(site: Site, monkeypatch: pytest.MonkeyPatch, target: str, reason: str) -> None:
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    with pytest.raises(crawl.FetchError, match=reason) as failure:
        crawl.get(site.say("/", status=302, Location=target), CLOSED)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("target", ["/" + "x" * 2000, "http://a.test/" + "../" * 20_000])
def test_a_long_address_is_refused(site: Site, target: str) -> None:
    url = site.say("/", status=302, Location=target)
    with pytest.raises(crawl.FetchError, match="longer than 2,000 characters") as failure:
        crawl.get(url, OPEN)
    assert len(str(failure.value)) < 200
    with pytest.raises(crawl.FetchError, match="longer than 2,000 characters"):
        crawl.get(site.url + "/" + "x" * 2000, OPEN)


# --- where it connects


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.org/", "only http"),
        ("file:///etc/passwd", "only http"),
        ("javascript:alert(1)", "only http"),
        ("example.org", "only http"),
        ("", "only http"),
        ("http://", "no host"),
        ("http:///path", "no host"),
        ("http://user@example.org/", "user name"),
        ("http://user:secret@example.org/", "user name"),
        ("http://example.org:99999/", "99999"),
        ("http://exa mple.org/", "exa"),
        ("http://exa\u00a0mple.org/", "exa"),
    ],
)
def test_urls_that_are_refused(url: str, reason: str) -> None:
    def nobody(host: str, _within: float) -> Sequence[str]:
        raise AssertionError(f"{host} was looked up")

    with pytest.raises(crawl.FetchError, match=reason) as failure:
        crawl.get(url, OPEN, nobody)
    assert "secret" not in str(failure.value)


LOOPBACK = """
    127.0.0.1 127.1 0 2130706433 0x7f000001 0177.0.0.1 localhost LOCALHOST.
    [::1] [::ffff:127.0.0.1] [::ffff:7f00:1]
"""


@pytest.mark.parametrize("host", LOOPBACK.split())
def test_spellings_of_loopback_are_refused(site: Site, host: str) -> None:
    with pytest.raises(crawl.FetchError, match=r"not a public address|no address found"):
        crawl.get(f"http://{host}:{site.port}/", CLOSED)
    assert site.hosts == []


NOT_PUBLIC = """
    0.0.0.0 10.1.2.3 100.64.0.1 127.255.0.1 169.254.169.254 172.16.0.1 192.168.0.1 192.0.2.1 198.18.0.1
    224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::ffff:10.0.0.1 fe80::1 fe80::1%1 fec0::1 fc00::1 fd12::1 ff02::1 ff0e::1
    2001:db8::1 2001::1 64:ff9b::7f00:1 2002:7f00:1:: 100::1 4000::1
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"],
)
def test_addresses_that_are_public(address: str) -> None:
    assert addresses.is_public(address)


@pytest.mark.parametrize("found", [["10.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:192.168.1.1"]])
def test_a_name_with_one_private_address_is_refused(found: list[str]) -> None:
    with pytest.raises(crawl.FetchError, match="not a public address"):
        crawl.get("http://name.test/", CLOSED, to(*found))


def test_it_connects_to_the_address_that_was_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look-up per request, though the name server would say something else the next time."""
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    site.say("/", b"<title>t</title>")
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked = []

    def rebinding(host: str, _within: float) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    assert crawl.get(f"http://name.test:{site.port}/", CLOSED, rebinding)["title"] == "t"
    assert asked == ["name.test"]
    assert site.hosts == [f"name.test:{site.port}"]


def test_the_next_address_is_tried_when_one_does_not_answer(site: Site) -> None:
    site.say("/", b"<title>t</title>")
    page = crawl.get(f"http://name.test:{site.port}/", OPEN, to("::1", "127.0.0.1"))
    assert page["title"] == "t"


def test_no_address_answers(site: Site) -> None:
    with pytest.raises(crawl.FetchError, match=r"name\.test.*no connection"):
        crawl.get(f"http://name.test:{site.port}/", OPEN, to("::1"))


def test_a_name_without_address() -> None:
    with pytest.raises(crawl.FetchError, match="no address found"):
        addresses.shared_look_up("no such name.invalid", 60)


class Names:
    """A resolver that is silent about some names until the test ends, and counts."""

    def __init__(self) -> None:
        self.end = threading.Event()
        self.asked: list[str] = []
        self.real = socket.getaddrinfo

    def __call__(self, host: str, *given: Any, **named: Any) -> list[Any]:
        if not host.endswith(".test"):  # an address, of urllib3
            return self.real(host, *given, **named)
        self.asked.append(host)
        if host.startswith("silent"):
            self.end.wait()
        if host.startswith("wrong") and self.asked.count(host) == 1:
            raise OSError("Temporary failure in name resolution")
        return [(0, 0, 0, "", ("127.0.0.1", 0))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr("socket.getaddrinfo", names)
    monkeypatch.setattr(addresses, "ASKED", {})
    yield names
    names.end.set()
    for _, answer in addresses.ASKED.values():
        if not answer.cancelled():
            answer.exception()  # none is left behind


def test_silent_names_hold_up_no_other(site: Site, names: Names) -> None:
    site.say("/", b"<title>t</title>")
    silent = [f"http://silent-{number % 40}.test/" for number in range(80)]
    with ThreadPoolExecutor(80) as pool:
        waiting = [pool.submit(crawl.get, url, replace(OPEN, look_up=0.5)) for url in silent]
        until(lambda: len(set(names.asked)) == 40, "all names are looked up")
        assert crawl.get(f"http://good.test:{site.port}/", OPEN)["title"] == "t"
        for one in waiting:
            with pytest.raises(crawl.FetchError, match=r"silent-.*no address found within 0\.5 s"):
                one.result()
    assert sorted(names.asked) == sorted({*names.asked})  # one look-up for all that ask for a name


def test_however_many_names_are_silent_addresses_do_not_wait(
    site: Site, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.say("/", b"<title>t</title>")
    with ThreadPoolExecutor(2) as few, ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(addresses, "RESOLVERS", few)
        waiting = [pool.submit(crawl.get, f"http://silent-{n}.test/", replace(OPEN, look_up=2)) for n in range(2)]
        until(lambda: len(names.asked) == 2, "both are looked up")
        for host in ("127.0.0.1", "2130706433", "0177.1"):
            assert crawl.get(f"http://{host}:{site.port}/", OPEN)["title"] == "t"
        with pytest.raises(crawl.FetchError, match=r"late\.test: .*, \d+ other names are being looked up"):
            crawl.get("http://late.test/", replace(OPEN, look_up=0.1))
        for one in waiting:
            with pytest.raises(crawl.FetchError, match="its name servers are silent"):
                one.result()
        names.end.set()
    assert "late.test" not in names.asked  # nobody waits for it any more


def test_who_asks_later_for_a_name_has_all_its_time(site: Site, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    site.say("/", b"<title>t</title>")
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(addresses, "RESOLVERS", one)
        silent = pool.submit(crawl.get, "http://silent.test/", replace(OPEN, look_up=0.5))
        until(lambda: names.asked, "it is looked up")
        early = pool.submit(crawl.get, f"http://good.test:{site.port}/", replace(OPEN, look_up=0.5))
        until(lambda: "good.test" in addresses.ASKED, "it is asked for")
        late = pool.submit(crawl.get, f"http://good.test:{site.port}/", replace(OPEN, look_up=30))
        for fetch in (silent, early):
            with pytest.raises(crawl.FetchError, match="no address found"):
                fetch.result()
        names.end.set()
        assert late.result()["title"] == "t"


def test_looking_up_counts_against_the_total(names: Names) -> None:
    with pytest.raises(crawl.FetchError, match=r"no address found within 0\.[12]"):
        crawl.get("http://silent.test/", replace(OPEN, total=0.2))


def test_an_address_is_remembered_and_a_failure_is_not(site: Site, names: Names) -> None:
    site.say("/", b"<title>t</title>")
    url = f"http://wrong.test:{site.port}/"
    with pytest.raises(crawl.FetchError, match=r"no address found \(Temporary failure"):
        crawl.get(url, OPEN)
    for _ in range(3):
        assert crawl.get(url, OPEN)["title"] == "t"
    assert names.asked == ["wrong.test"] * 2


def test_the_certificate_is_checked_for_the_name(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as site:
        site.say("/", b"<title>t</title>")
        with pytest.raises(crawl.FetchError, match="CERTIFICATE_VERIFY_FAILED"):
            crawl.get(f"https://name.test:{site.port}/", OPEN, to("127.0.0.1"))
        monkeypatch.setattr(connections, "TLS", ssl.create_default_context(cafile=str(certificate)))
        assert crawl.get(f"https://name.test:{site.port}/", OPEN, to("127.0.0.1"))["title"] == "t"
        # The connection that is open to this address is not good for another name
        with pytest.raises(crawl.FetchError, match=r"Hostname mismatch|doesn't match"):
            crawl.get(f"https://other.test:{site.port}/", OPEN, to("127.0.0.1"))


# --- with the site of producer/, under gevent

MANY = """
import gevent.monkey
gevent.monkey.patch_all()
import sys
import gevent.pool
from tests.conftest import until
from tests.workers.site import Site, serving
from workers import crawl
from workers.crawl import addresses, connections, limits

urls = [f"{sys.argv[1]}/page/{number}" for number in range(1, 401)]
found = gevent.pool.Pool(200).map(crawl.fetch, urls)
assert [page["title"] for page in found] == [f"Page {number} of 400" for number in range(1, 401)]
assert all(page["links"] for page in found)
"""


@pytest.mark.parametrize(
    ("said", "allowed"), [("1", True), ("true", True), ("True", True), ("0", False), ("", False), ("maybe", False)]
)
def test_the_environment_permits_private_addresses(said: str, allowed: bool) -> None:
    assert limits.is_private_allowed({"RQ_LITE_ALLOW_PRIVATE": said}) is allowed
    assert not limits.is_private_allowed({})


def test_two_hundred_greenlets_and_the_demo_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_LITE_ALLOW_PRIVATE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "producer.site", "--port", "0", "--pages", "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            base = server.stdout.readline().split("/page/")[0]
            assert crawl.get(base + "/healthz", OPEN)["status"] == 200
            assert crawl.get(base + "/page/401", OPEN)["status"] == 404
            subprocess.run([sys.executable, "-c", MANY, base], check=True, cwd=ROOT, timeout=60)
        finally:
            server.terminate()
    assert server.returncode == 0


def test_urls_are_read_as_the_command_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\ufeffhttp://a/ \r\n\n \nhttp://b/\u00f6\n"
    found = ["http://a/ ", "http://b/\u00f6"]
    for file, data in (("a.txt", text.encode()), ("cr.txt", text.replace("\r", "").replace("\n", "\r").encode())):
        (tmp_path / file).write_bytes(data)
        with recorded() as put, open_source(str(tmp_path / file)) as source:
            urls.main(str(tmp_path / file))
            assert [job.args[0] for job in put] == [item.args[0] for item in source] == found
    assert list(read_lines(tmp_path / "a.txt")) == found
    with (tmp_path / "a.txt").open("rb") as stdin:
        monkeypatch.setattr(sources, "standard_input", lambda: stdin)
        assert list(read_lines("-")) == found


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"http://a/\nb\xff\n", "line 2: not UTF-8"), ("http://a/\n".encode("utf-16"), "say --encoding utf-16")],
)
def test_urls_that_cannot_be_read_end_it_with_the_reason(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with recorded(), pytest.raises(SystemExit, match=said):
        urls.main(str(tmp_path / "a.txt"))
    with recorded(), pytest.raises(SystemExit, match="nowhere: No such file"):
        urls.main("nowhere")


def test_blanks_around_a_url_are_not_part_of_it(site: Site) -> None:
    url = site.say("/hello")
    assert crawl.get(f" {url} \t", OPEN)["url"] == url


def test_the_list_of_urls_fits_the_site() -> None:
    lines = (ROOT / "producer" / "urls.txt").read_text().splitlines()
    assert lines == [f"http://127.0.0.1:8000/page/{number}" for number in range(1, 201)]

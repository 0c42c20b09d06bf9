"""A small website to crawl:  python -m producer.site --port 8000

    /page/N     N from 0 to --pages, with a title and links to other pages
    /healthz    answers ok

One process answers thousands of requests at once, for the same reason as a consumer of rq_lite: its first line
patches with gevent, and from then on plain blocking code (`time.sleep` below) blocks only its own greenlet.
"""

import gevent.monkey

gevent.monkey.patch_all()

import argparse  # noqa: E402
import re  # noqa: E402
import signal  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import gevent.pywsgi  # noqa: E402

StartResponse = Callable[[str, list[tuple[str, str]]], object]


def page(number: int, pages: int) -> str:
    """A page that links to three others and back to the first, so that all can be reached from any."""
    others = dict.fromkeys((number * multiple + 1) % pages + 1 for multiple in (1, 2, 3))
    links = "\n".join(f'<li><a href="/page/{other}">Page {other}</a></li>' for other in [*others, 1])
    return (
        "<!doctype html>\n<html><head><meta charset='utf-8'>"
        f"<title>Page {number} of {pages}</title></head>\n"
        f"<body><h1>Page {number}</h1>\n<ul>\n{links}\n</ul></body></html>\n"
    )


class Site:
    """The WSGI application. `delay`: seconds a page takes."""

    def __init__(self, pages: int, delay: float) -> None:
        self.pages = pages
        self.delay = delay

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        status, kind, body = self.answer(environ["PATH_INFO"])
        data = body.encode()
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(data)))])
        return iter([data])

    def answer(self, path: str) -> tuple[str, str, str]:
        """Status, content type and body."""
        if path == "/healthz":
            return "200 OK", "text/plain", "ok\n"
        match = re.fullmatch(r"/page/(0|[1-9]\d{0,8})", path, re.ASCII)
        if match is None or int(match[1]) > self.pages:
            return "404 Not Found", "text/plain", f"no such page; there are /page/0 to /page/{self.pages}\n"
        time.sleep(self.delay)
        return "200 OK", "text/html; charset=utf-8", page(int(match[1]), self.pages)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m producer.site", description="A small website to crawl.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one (default: 8000)")
    parser.add_argument("--pages", type=int, default=2000, help="how many there are (default: 2000)")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds a page takes (default: 0.05)")
    options = parser.parse_args()
    # A crawler opens hundreds of connections at once; `backlog` is how many of them may wait to be accepted.
    server = gevent.pywsgi.WSGIServer(
        (options.host, options.port), Site(options.pages, options.delay), backlog=4096, log=None
    )
    server.start()
    # From the loop, not from a Python signal handler: stopping means switching between greenlets
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop, timeout=1)
    print(f"http://{options.host}:{server.server_port}/page/0 to /page/{options.pages}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

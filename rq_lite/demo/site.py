"""The demo's website: `python -m rq_lite.demo.site LISTENER PAGES DELAY`.

    /page/N     N from 1 to PAGES; takes about DELAY seconds and is counted
    /counts     how often each page was requested, as a JSON list

LISTENER is the number of a listening socket that the parent hands over, so that it knows the address at once.
The process ends when its standard input does, so it does not outlive a parent that is killed.
"""

import gevent.monkey

gevent.monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import gevent.os  # noqa: E402
import gevent.pywsgi  # noqa: E402

StartResponse = Callable[[str, list[tuple[str, str]]], object]
GOLDEN = 0.618034


class Site:
    """The WSGI application. `delay`: seconds that a page takes on average."""

    def __init__(self, pages: int, delay: float) -> None:
        self.asked = [0] * pages
        self.delay = delay

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        status, text = self.answer(environ["PATH_INFO"])
        body = text.encode()
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    def answer(self, path: str) -> tuple[str, str]:
        """Status and body."""
        if path == "/counts":
            return "200 OK", json.dumps(self.asked)
        number = path.removeprefix("/page/")
        if not (number.isascii() and number.isdigit() and 0 < int(number) <= len(self.asked)):
            return "404 Not Found", f"no such page; there are /page/1 to /page/{len(self.asked)}\n"
        self.asked[int(number) - 1] += 1
        time.sleep(self.delay * spread(int(number)))
        return "200 OK", f"page {number}\n"


def spread(number: int) -> float:
    """A factor from 0.5 to 1.5, even over the pages: with equal delays all slots would end their jobs together."""
    return 0.5 + number * GOLDEN % 1


def main(listener: int, pages: int, delay: float) -> None:
    # A terminal sends Ctrl-C to every process; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = gevent.pywsgi.WSGIServer(socket.socket(fileno=listener), Site(pages, delay), log=None)
    server.start()
    gevent.os.tp_read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))

"""The demo's app, to be served by `rq-lite work rq_lite.demo.app`."""

from __future__ import annotations

import urllib.request

from rq_lite import Queue

queue = Queue("demo")

# Without the proxy that the environment may name: the website is on this machine.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@queue.task
def fetch(url: str) -> int:
    """Read a page; how many bytes it has. Plain blocking code: in a consumer it only blocks its own slot."""
    with opener.open(url, timeout=300) as answer:
        return len(answer.read())


@queue.task
def nothing(number: int = 0) -> None:
    """For trying out how fast jobs go through."""

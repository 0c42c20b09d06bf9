"""The demo's app, to be served by `rq-lite work rq_lite.demo.app`."""

from __future__ import annotations

import urllib.request

from rq_lite import Queue

queue = Queue("demo")

# Without a proxy from the environment: the website is on this machine.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@queue.task
def fetch(url: str) -> int:
    """Read a page; returns its size in bytes. Plain blocking code: in a consumer it blocks only its own slot."""
    with opener.open(url, timeout=300) as answer:
        return len(answer.read())


@queue.task
def nothing(number: int = 0) -> None:
    """Do nothing: to try how fast jobs go through."""

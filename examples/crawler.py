"""A crawler: each page that was downloaded is parsed by a callback, while others are still being downloaded."""

import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from rq_lite import Ended, Queue
from rq_lite.testing import worker

pages = Queue("crawl", maxsize=5)  # for producers: jobs of its own workers put without waiting
under_way = 0  # downloads, in this process
seen: set[str] = set()  # in this process, too; several would keep this in Redis
asked: Counter[str] = Counter()  # by the site


@dataclass
class Page:
    url: str
    text: str


@pages.task
def parse(page: Page) -> None:
    """Runs once its page is there: puts a job for each new link in it."""
    print("parsed", page.url, "while", under_way, "were being downloaded")
    seen.add(page.url)
    for path in re.findall(r'href="([^"]+)"', page.text):
        url = page.url[: page.url.index("/", 8)] + path
        if url not in seen:
            seen.add(url)
            fetch.put(url)


@pages.task
def give_up(ended: Ended) -> None:
    print("gave up", ended.args[0], "after", ended.attempts, "attempts:", ended.error)


@pages.task(retries=1, backoff=0.1, on_success=parse, on_failure=give_up)
def fetch(url: str) -> Page:
    global under_way
    under_way += 1
    try:
        with urlopen(url, timeout=10) as reply:
            return Page(url, reply.read().decode())
    finally:
        under_way -= 1


class Site(BaseHTTPRequestHandler):
    """Page N links to 2N and 2N + 1, there are 40 of them; a page takes a while."""

    def do_GET(self) -> None:
        asked[self.path] += 1
        number = int(self.path[1:])
        time.sleep(0.05 + number % 5 * 0.03)
        links = [f'<a href="/{n}">' for n in (2 * number, 2 * number + 1, number // 2) if 0 < n <= 41]
        self.send_response(200 if number <= 40 else 404)
        self.end_headers()
        self.wfile.write("".join(links).encode())

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    with worker("examples.crawler") as running:
        fetch.put(f"http://127.0.0.1:{site.server_port}/1")
        # A callback is in the queue as soon as its job has ended, so `join` waits for all of them.
        pages.join()
        lines = running.said.splitlines()
    print("pages:", len(asked), "downloaded more than once:", [p for p, n in asked.items() if n > 1])
    parsed = [line for line in lines if line.startswith("parsed")]
    print("parsed:", len(parsed), "while others were under way:", any("while 0 were" not in line for line in parsed))
    print(*[line.split("/")[-1] for line in lines if line.startswith("gave up")])


if __name__ == "__main__":
    main()

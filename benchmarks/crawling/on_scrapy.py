"""`python on_scrapy.py URL PAGES SLOTS`: a spider that reads the title and the links of each page."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from scrapy import Request, Spider
from scrapy.crawler import CrawlerProcess


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Pages(Spider):  # type: ignore[misc]
    name = "pages"
    base = ""
    pages = slots = 0
    warm = 0  # answers until the clock starts
    before = began = 0.0

    async def start(self) -> AsyncIterator[Any]:
        for number in range(self.pages + self.slots):
            yield Request(f"{self.base}/start/{number}", dont_filter=True)

    def parse(self, response: Any, **_: Any) -> Any:
        title = response.css("title::text").get()
        links = {response.urljoin(href) for href in response.css("a::attr(href)").getall()}
        Pages.warm += 1
        if Pages.warm == self.slots:
            Pages.before, Pages.began = cpu(), time.monotonic()
        if Pages.warm == self.pages + self.slots:
            print(
                json.dumps(
                    {"cpu": cpu() - Pages.before, "seconds": time.monotonic() - Pages.began, "links": [len(links)]}
                ),
                flush=True,
            )
        return [] if title else [{"title": title}]


def main(base: str, pages: int, slots: int) -> None:
    Pages.base, Pages.pages, Pages.slots = base, pages, slots
    settings = {
        "LOG_ENABLED": False,
        "ROBOTSTXT_OBEY": False,
        "TELNETCONSOLE_ENABLED": False,
        "COOKIES_ENABLED": False,
        "CONCURRENT_REQUESTS": slots,
        "CONCURRENT_REQUESTS_PER_DOMAIN": slots,
        "DOWNLOAD_DELAY": 0,
    }
    process = CrawlerProcess(settings)
    process.crawl(Pages)
    process.start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

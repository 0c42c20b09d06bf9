"""Fetch web pages whose addresses come from strangers, one by one (`fetch`) or by following their links (`crawl`).

The danger of such a task is where it connects to: a page may redirect to `http://169.254.169.254/`, a name may have a
private address, and may have another one at the next look-up. The other danger is work: a name whose look-up never
ends, a page that takes long to send or to parse. So everything is checked and limited, and nothing runs for long
without a turn for the other greenlets of the process.

    urls          URLs in their normal form, in which each page has one
    addresses     which addresses a name leads to, and whether they are public
    connections   one request to a checked address, read within limits
    markup        title and links of a page
    page          `get`: a page with its redirects
    robots pace   what a host permits, and how often it is asked
    crawler       one step of a crawl
    results       the lines that a crawl writes; `report` reads them: python -m workers.crawl report
"""

from __future__ import annotations

from typing import Any

from rq_lite import JobTimeout, Queue, current_job
from workers.crawl.crawler import Crawler
from workers.crawl.limits import FetchError, Limits
from workers.crawl.page import Page, get
from workers.crawl.settings import settings_from

__all__ = ["FetchError", "Limits", "Page", "crawl", "fetch", "get", "pages"]

pages = Queue("pages")
CRAWLER = Crawler(settings_from())


@pages.task(timeout=30)
def fetch(url: str) -> dict[str, Any]:
    """Fetch one page; see `Page` for the result. Any HTTP status is a result, everything else an error."""
    return dict(get(url))


# `unique`: each page once, whichever job finds it, also in a second run. `retries`: a job steps back for a while if
# too many others wait for its host, and that may happen many times. A page that cannot be fetched is a line of the
# results, and not a failure of its job.
@pages.task(
    unique="{url}", until="forever",
    timeout=300, retries=100_000, retry_on=OSError, no_retry_on=JobTimeout, backoff=2, backoff_max=60,
)  # fmt: skip
def crawl(url: str, depth: int | None = None, redirects: int = 0) -> None:
    """Fetch one page, write its line, and follow its links to this depth (default: that of the settings).

    What follows is put when, and only when, this run has succeeded. `redirects`: how many have led to this page.
    """
    following = CRAWLER.visit(url, CRAWLER.settings.depth if depth is None else depth, redirects)
    job = current_job()
    if job is not None:
        for found in following:
            job.then(crawl.s(*found))

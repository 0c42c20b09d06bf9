"""One step of a crawl: a page is fetched, politely, and its links are what comes next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from workers.crawl.addresses import LookUp
from workers.crawl.connections import Response, request
from workers.crawl.limits import FOR_CRAWLS, FetchError, Limits
from workers.crawl.pace import Pace
from workers.crawl.page import describe, redirected
from workers.crawl.results import Results, Visit
from workers.crawl.robots import Robots
from workers.crawl.settings import Settings
from workers.crawl.urls import Url, parsed

TRIES = 2  # of a page whose first fetch failed for a reason of the moment
MOST_BYTES = 400_000  # of the links of one page; half of what its follow-ups may have


class Next(NamedTuple):
    """A page to be fetched after this one: the arguments of its job."""

    url: str
    depth: int
    redirects: int


class Crawler:
    """What the jobs of this process share."""

    def __init__(self, settings: Settings, limits: Limits = FOR_CRAWLS, look_up: LookUp | None = None) -> None:
        self.settings = settings
        self.limits = limits
        self.look_up = look_up
        self.pace = Pace(settings.pause)
        self.robots = Robots(settings.agent, limits, look_up, self.pace.wait)
        self.results = Results(settings.results)

    def visit(self, url: str, depth: int, redirects: int) -> list[Next]:
        """Fetch a page and write its line; returns what is to follow. A page that cannot be fetched has a line, too.

        Raises Retry if the host is busy, OSError if the line cannot be written.
        """
        visit = Visit(url=url, depth=depth)
        following: list[Next] = []
        try:
            here = parsed(url)
            if here.text != url:
                return [Next(here.text, depth, redirects)]
            response = self.fetch(here, visit)
            visit.status = response.status
            if response.location:
                following = self.moved(here, response.location, visit, redirects)
            else:
                following = self.links(here, response, visit)
        except FetchError as error:
            visit.error, visit.reason = error.kind, str(error)
        self.results.add(visit)
        return following

    def fetch(self, url: Url, visit: Visit) -> Response:
        rules = self.robots.rules(url)
        rules.check(url)
        for left in reversed(range(TRIES)):
            self.pace.wait(url.host, rules.delay)
            began = time.monotonic()
            try:
                return request(url, self.settings.agent, self.limits, began + self.limits.total, self.look_up)
            except FetchError as error:
                if not (error.is_temporary and left):
                    raise
            finally:
                visit.seconds = round(time.monotonic() - began, 3)
        raise AssertionError("the last try returns or raises")

    def moved(self, here: Url, location: str, visit: Visit, redirects: int) -> list[Next]:
        """The target of a redirect is a page of its own, with its own checks; it is as deep as this one."""
        target = parsed(redirected(here, location))
        visit.links = [target.text]
        if redirects >= self.limits.redirects:
            raise FetchError(f"{here.text}: more than {self.limits.redirects} redirects", "redirects")
        return [Next(target.text, visit.depth, redirects + 1)] if self.is_wanted(here, target) else []

    def links(self, here: Url, response: Response, visit: Visit) -> list[Next]:
        page = describe(here, response, self.limits)
        visit.title, visit.links = page["title"], page["links"]
        if not visit.depth:
            return []
        wanted = [link for link in visit.links if self.is_wanted(here, parsed(link))]
        followed = list(within(wanted, MOST_BYTES))
        visit.left_out = len(wanted) - len(followed)
        return [Next(link, visit.depth - 1, 0) for link in followed]

    def is_wanted(self, here: Url, target: Url) -> bool:
        return self.settings.hosts == "all" or target.site == here.site


def within(links: list[str], most: int) -> Iterator[str]:
    for link in links:
        most -= len(link)
        if most < 0:
            return
        yield link

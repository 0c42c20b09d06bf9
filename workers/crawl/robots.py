"""robots.txt (RFC 9309): fetched once per origin and hour, with the same checks as a page."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace

from protego import Protego

from workers.crawl.addresses import LookUp
from workers.crawl.connections import request
from workers.crawl.limits import FetchError, Limits
from workers.crawl.page import redirected
from workers.crawl.urls import Url, parsed

KEPT = 3600.0  # seconds
KEPT_UNREACHABLE = 300.0
MOST = 10_000  # origins
SIZE = 500 * 1024  # the rest is not read, as the RFC allows
LONGEST_DELAY = 30.0


class Rules:
    """What an origin lets us fetch."""

    def __init__(self, agent: str, found: Protego | None, unreachable: str = "") -> None:
        self.agent = agent
        self.found = found  # None: there is no robots.txt, everything may be fetched
        self.unreachable = unreachable  # why, if the server did not say what may be fetched: then nothing may
        self.until = time.monotonic() + (KEPT_UNREACHABLE if unreachable else KEPT)

    def check(self, url: Url) -> None:
        """Raises FetchError for what must not be fetched."""
        if self.unreachable:
            raise FetchError(f"{url.text}: its robots.txt cannot be read ({self.unreachable})", "robots unreachable")
        if self.found is not None and not self.found.can_fetch(url.text, self.agent):
            raise FetchError(f"{url.text}: its robots.txt disallows it", "robots")

    @property
    def delay(self) -> float:
        """Crawl-delay in seconds, up to a bound."""
        asked = self.found.crawl_delay(self.agent) if self.found is not None else None
        return min(asked or 0.0, LONGEST_DELAY)


class Robots:
    """The rules of the origins that this process fetches from. Jobs that need the same rules share one request."""

    def __init__(self, agent: str, limits: Limits, look_up: LookUp | None, turn: Callable[[str], None]) -> None:
        self.agent = agent
        self.limits = replace(limits, size=SIZE)
        self.look_up = look_up
        self.turn = turn  # waits until the host may be asked
        self.known: OrderedDict[str, Rules] = OrderedDict()
        self.asking: dict[str, threading.Lock] = {}

    def rules(self, url: Url) -> Rules:
        known = self.known.get(url.origin)
        if known is not None and known.until > time.monotonic():
            return known
        lock = self.asking.setdefault(url.origin, threading.Lock())
        with lock:
            known = self.known.get(url.origin)
            if known is None or known.until <= time.monotonic():
                known = self.known[url.origin] = self.ask(url)
                self.known.move_to_end(url.origin)
                while len(self.known) > MOST:
                    self.known.popitem(last=False)
            self.asking.pop(url.origin, None)
        return known

    def ask(self, url: Url) -> Rules:
        """What the server says: 4xx allows everything; 5xx, and no answer, nothing."""
        here = parsed(url.origin + "/robots.txt")
        self.turn(here.host)
        deadline = time.monotonic() + self.limits.total
        try:
            for _ in range(self.limits.redirects + 1):
                response = request(here, self.agent, self.limits, deadline, self.look_up)
                if not response.location:
                    break
                here = parsed(redirected(here, response.location))
            else:
                return Rules(self.agent, None)  # as if there were no robots.txt, says the RFC
        except FetchError as error:
            return Rules(self.agent, None, str(error))
        if response.status >= 500:
            return Rules(self.agent, None, f"status {response.status}")
        if not 200 <= response.status < 300:
            return Rules(self.agent, None)
        text = response.body[:SIZE].decode("utf-8", "replace")
        return Rules(self.agent, Protego.parse("\n".join(relevant(text, self.agent))))


def relevant(text: str, agent: str) -> Iterator[str]:
    """The lines that Protego is to read, with one agent in place of all that we are not: it takes time for each rule
    times each agent, and a server sends what it likes.
    """
    ours = {"*", agent.partition("/")[0].strip().lower()}
    last = ""
    for line in text.splitlines():
        field, _, value = line.partition("#")[0].partition(":")
        name = field.strip().lower()
        if name == "user-agent":
            who = value.strip().lower()
            line = f"user-agent: {who if who in ours else 'another'}"
        elif name not in ("allow", "disallow", "crawl-delay"):
            continue
        if line != last:
            yield line
        last = line

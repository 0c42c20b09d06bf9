"""What one page may cost, and the error for a page that is not fetched."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

# Another try may help: these say something about the moment, the others about the page.
TEMPORARY = {"connection", "name", "response", "timeout"}


class FetchError(Exception):
    """This page cannot or must not be fetched. The message names the URL and the reason, `kind` is one of few words."""

    def __init__(self, message: str, kind: str = "url") -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def is_temporary(self) -> bool:
        return self.kind in TEMPORARY


@dataclass(frozen=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    look_up: float = 5.0
    connect: float = 5.0  # per address tried
    read: float = 10.0  # longest silence
    total: float = 25.0  # all redirects together; checked before each read
    size: int = 1_000_000
    head: int = 256_000  # the headers, interim answers included
    reads: int = 10_000  # pieces in which a body is sent
    redirects: int = 5
    links: int = 100
    links_seen: int = 1_000  # read to find these
    markup: int = 50_000  # tags and comments read
    allow_private: bool = False  # fetch from loopback and private addresses, too


def is_private_allowed(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process's environment permits private addresses; only "1" and "true" do."""
    return environ.get("RQ_LITE_ALLOW_PRIVATE", "").lower() in ("1", "true")


LIMITS = Limits(allow_private=is_private_allowed())
FOR_CRAWLS = replace(LIMITS, links=1_000, links_seen=10_000)  # as many links as a run may have follow-ups


def time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("took longer than a page may take in total")
    return left

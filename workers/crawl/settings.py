"""What a crawl may be told, all of it in the environment of its workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rq_lite import UsageError

PREFIX = "RQ_LITE_CRAWL_"


@dataclass(frozen=True)
class Settings:
    depth: int = 0  # how far links are followed from a seed that does not say it
    hosts: str = "same"  # or "all": follow links to other hosts, too
    pause: float = 1.0  # seconds from one fetch of a host to the next, in each consumer
    agent: str = "rq_lite-crawl/0.1"  # the part before the slash is the name that a robots.txt has
    results: Path = Path("crawl-results")

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise UsageError(f"{PREFIX}DEPTH: a depth is 0 or more, not {self.depth}")
        if self.hosts not in ("same", "all"):
            raise UsageError(f"{PREFIX}HOSTS: must be same or all, not {self.hosts!r}")
        if not 0 <= self.pause <= 3600:
            raise UsageError(f"{PREFIX}PAUSE: a pause has 0 to 3,600 seconds, not {self.pause:g}")
        if not (self.agent.isascii() and self.agent.isprintable() and self.agent.strip()):
            raise UsageError(f"{PREFIX}AGENT: must be printable ASCII, not {self.agent!r}")


KINDS = {"depth": int, "hosts": str, "pause": float, "agent": str, "results": Path}


def settings_from(environ: Mapping[str, str] = os.environ) -> Settings:
    """Raises UsageError that names the variable."""
    given = {}
    for name, kind in KINDS.items():
        variable = PREFIX + name.upper()
        if text := environ.get(variable):
            try:
                given[name] = kind(text)
            except ValueError:
                raise UsageError(f"{variable}: must be a number, not {text!r}") from None
    return Settings(**given)

"""`python ours.py URL PAGES SLOTS`: the `get` of the workers.crawl that is found first, in so many greenlets."""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterable  # noqa: E402

from gevent.pool import Pool  # noqa: E402

from workers.crawl import get  # noqa: E402


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(base: str, pages: int, slots: int) -> None:
    def fetch(number: int) -> int:
        return len(get(f"{base}/start/{number}")["links"])

    def run(numbers: Iterable[int]) -> set[int]:
        return set(Pool(slots).imap_unordered(fetch, numbers))

    run(range(slots))  # the connections are there, and all modules
    before, began = cpu(), time.monotonic()
    links = run(range(pages))
    print(json.dumps({"cpu": cpu() - before, "seconds": time.monotonic() - began, "links": sorted(links)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""What a crawl has found, in figures."""

from __future__ import annotations

from collections import Counter
from heapq import nlargest
from pathlib import Path

import msgspec

from workers.crawl.results import lines, pages
from workers.crawl.urls import parsed

SLOWEST = 5


class Report(msgspec.Struct):
    pages: int  # each once
    twice: int  # further lines of the same pages: runs that were repeated
    hosts: int
    statuses: dict[str, int]
    errors: dict[str, int]  # by kind: pages that were not fetched
    left_out: int  # links that were not followed because their page had too many
    slowest: list[tuple[float, str]]  # seconds and URL
    unfinished: int = 0  # jobs of the crawl that still wait or run
    dead: int = 0  # jobs in the dead set


def report(folder: Path) -> Report:
    statuses: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    hosts: set[str] = set()
    times = []
    count = left_out = 0
    for visit in pages(folder):
        count += 1
        left_out += visit.left_out
        if visit.status is not None:
            statuses[str(visit.status)] += 1
            hosts.add(parsed(visit.url).host)
            times.append((visit.seconds, visit.url))
        if visit.error is not None:
            errors[visit.error] += 1
    return Report(
        pages=count,
        twice=sum(1 for _ in lines(folder)) - count,
        hosts=len(hosts),
        statuses=dict(sorted(statuses.items())),
        errors=dict(errors.most_common()),
        left_out=left_out,
        slowest=nlargest(SLOWEST, times),
    )


def in_words(found: Report) -> str:
    said = [f"{found.pages:,} pages; hosts that answered: {found.hosts:,}"]
    said += [f"  status {status}: {count:,}" for status, count in found.statuses.items()]
    said += [f"  error {kind}: {count:,}" for kind, count in found.errors.items()]
    if found.twice:
        said.append(f"{found.twice:,} fetches were repeated by another run or consumer; each page counts once here")
    if found.left_out:
        said.append(f"{found.left_out:,} links were not followed because their page has too many")
    if found.slowest:
        said += ["slowest:", *(f"  {seconds:.3f} s  {url}" for seconds, url in found.slowest)]
    if found.dead:
        said.append(f"{found.dead:,} jobs were given up: rq-lite dead list")
    if found.unfinished:
        said.append(f"not complete: {found.unfinished:,} jobs wait or run")
    return "\n".join(said)

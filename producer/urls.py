"""Put every URL of a file into the queue of workers/crawl.py:  python -m producer.urls urls.txt

The same as `rq-lite produce urls.txt --task workers.crawl:fetch`, which also shows its progress. Two million
lines take no more memory than two: a line is read when the queue has room for it, and while the queue is full
nothing is read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from workers.crawl import fetch


def urls(lines: Iterable[str]) -> Iterator[str]:
    """The lines, stripped; empty ones are left out. Raises UnicodeError for a line with NUL bytes."""
    for line in lines:
        if "\0" in line:
            raise UnicodeError("a line has NUL bytes")
        if line := line.strip():
            yield line


def main(name: str) -> None:
    try:
        with sys.stdin if name == "-" else Path(name).open(encoding="utf-8-sig") as lines:
            fetch.put_many(urls(lines))
    except UnicodeError as error:
        sys.exit(f"{name}: {error}; `rq-lite produce --encoding` reads text that is not UTF-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m producer.urls FILE   (- is standard input)")
    main(sys.argv[1])

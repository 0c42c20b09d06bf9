"""Put every URL of a file into the queue of workers/crawl:  python -m producer.urls urls.txt

The same as `rq-lite produce urls.txt --task workers.crawl:fetch`, which also shows its progress. Two million
lines take no more memory than two: a line is read when the queue has room for it, and while the queue is full
nothing is read.
"""

from __future__ import annotations

import sys

from rq_lite import SourceError, read_lines
from workers.crawl import fetch


def main(name: str) -> None:
    try:
        fetch.put_many(read_lines(name))
    except SourceError as error:
        sys.exit(f"{error} (options of `rq-lite produce`, which reads the same lines)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m producer.urls FILE   (- is standard input)")
    main(sys.argv[1])

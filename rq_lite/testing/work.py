"""`rq-lite work` as a child of another program, which it never outlives: see `rq_lite.process.background`."""

from __future__ import annotations

import sys

from rq_lite.cli import main
from rq_lite.process.background import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    main(["work", *sys.argv[1:]])

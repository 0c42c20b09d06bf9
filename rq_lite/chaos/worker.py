"""`rq-lite work` for a run under faults; stops also when its standard input ends, and so never outlives its parent."""

from __future__ import annotations

import sys

from rq_lite.cli import main
from rq_lite.parts import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    main(["work", *sys.argv[1:]])

"""`python -m rq_lite` is `rq-lite`."""

import contextlib
import sys
from pathlib import Path

# Python has put the current folder first on its path, where a `queue.py` of the app would be imported by the standard
# library in the place of its own. The app's folder comes back when the app is imported.
with contextlib.suppress(FileNotFoundError):  # the folder was removed: `main` says so
    if sys.path[0] in ("", str(Path.cwd())) and Path.cwd() != Path(__file__).parents[1]:
        del sys.path[0]

from rq_lite.cli import main

main()

"""`rq-lite work` for the demo; stops also when its standard input ends, and so never outlives its parent."""

from __future__ import annotations

import os
import signal
import sys
import threading

from rq_lite.cli import main


def stop_at_end_of_input() -> None:
    # Not sys.stdin: its lock, held by a thread that waits, breaks the interpreter's end.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    main(["work", *sys.argv[1:]])

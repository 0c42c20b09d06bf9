"""What jobs in threads leave behind in their consumer: nothing."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import DEADLINE, ROOT

PROGRAM = """
from gevent import monkey

monkey.patch_all()
import sys
import time
from gevent.threadpool import ThreadPool
from rq_lite.consumer.offload.threads import Call

class Cut(BaseException): pass

pool, began = ThreadPool(2), []

def long():
    began.append(1)
    while True:
        time.sleep(0.01)

done, cut = Call(0, lambda: 7), Call(1, long)
running = pool.spawn(cut.run)
pool.spawn(done.run).get()
while not began:
    time.sleep(0.01)
cut.interrupt(Cut)
running.get()
print(done.result, type(cut.error).__name__, flush=True)

def traced(frame, event, arg): return traced

def called(): return "called"

sys.settrace(traced)
print(called())
"""


def test_after_jobs_in_threads_calls_can_be_traced() -> None:
    """Python 3.11 has a flag for exceptions that are to be raised in threads; while it is set, they never begin."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.stdout, done.returncode) == ("7 Cut\ncalled\n", 0), done.stderr

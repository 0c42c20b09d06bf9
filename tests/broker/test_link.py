"""The connections of a process: how many stay, and whose they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rq_lite.broker import Broker

THREADS = """
from gevent import monkey; monkey.patch_all()
import gevent
from rq_lite import Queue
start, lock = (monkey.get_original("_thread", name) for name in ("start_new_thread", "allocate_lock"))
q = Queue("q")
def begin(n):
    ended = lock()
    ended.acquire()
    def work():
        try:
            gevent.joinall([gevent.spawn(q.put, n), gevent.spawn(q.put, n)], raise_error=True)
        finally:
            ended.release()
    start(work, ())
    return ended
def wait(ended):
    while not ended.acquire(False):
        gevent.sleep(0.001)
q.put("main")
for n in range(30):  # one after the other: the system uses their numbers again
    wait(begin(n))
for ended in [begin(n) for n in range(10)]:
    wait(ended)
with gevent.Timeout(30):
    while (count := len(q.broker.read(("CLIENT", "LIST"))[0].splitlines())) > 2:
        gevent.sleep(0.01)
q.put("last")
print(q.qsize())
"""


def test_connections_of_threads_that_ended_are_closed_in_a_process_that_gevent_has_patched(
    broker: Broker, environment: dict[str, str], tmp_path: Path
) -> None:
    """What stays are the script's own connection, and this test's."""
    broker.read(("PING",))
    script = tmp_path / "threads.py"
    script.write_text(THREADS)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(script)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("82\n", "")

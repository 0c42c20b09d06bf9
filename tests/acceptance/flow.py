"""Jobs that flow from a producer to a worker while a test injects faults."""

from __future__ import annotations

import signal
from collections import Counter

from tests.acceptance.conftest import Lab
from tests.conftest import until
from tests.faults.proxy import Proxy

EVER = 1_000_000  # more numbers than a test can put


class Flow:
    """A producer and a worker at the same address; the producer puts jobs until the end."""

    def __init__(self, lab: Lab, url: str, *options: str) -> None:
        self.lab = lab
        self.worker = lab.work("--greenlets", "20", "-q", "work", "--url", url)
        self.worker.says("ready")
        self.producer = lab.producer("number", "--count", f"{EVER}", "--rate", "500/s", "--url", url, *options)
        self.goes_on()

    def goes_on(self, more: int = 20) -> None:
        """Wait until `more` more jobs are done."""
        wanted = len(self.lab.seen("done")) + more
        until(lambda: len(self.lab.seen("done")) >= wanted, f"{more} more jobs are done")

    def ends_well(self, *, late: bool = False) -> None:
        """Check that every number that was put has run once, and that both ends exit in order.

        `late`: requests may have arrived after they were repeated; acks among them count as stale, without harm.
        """
        self.producer.send_signal(signal.SIGINT)
        said = self.producer.communicate(timeout=60)[1]
        assert self.producer.returncode == 130, said
        until(lambda: self.lab.broker.tends.unfinished("work")[0] == 0, "everything is drained")
        assert self.worker.stop() == 0
        assert Counter(self.lab.seen("done")) == Counter(map(str, range(self.lab.put_so_far())))
        assert late or self.lab.state().stale == 0
        assert (self.lab.state().done, self.lab.dead()) == (self.lab.put_so_far(), [])
        assert "Traceback" not in self.worker.said + said


def put_through_lost_replies(lab: Lab, proxy: Proxy, windows: int, apart: int, *options: str) -> int:
    """Let a producer put numbers while `windows` windows, `apart` puts apart, lose all replies; returns what it put."""
    producer = lab.producer("number", "--count", f"{EVER}", "--maxsize", "0", "--url", proxy.url, *options)
    for window in range(windows):
        lab.until_put(1 + window * apart)
        lost = proxy.counters.swallowed
        with proxy.swallow_replies():
            until_counted(proxy, "swallowed", lost + 2)  # a put and its repetition
    producer.send_signal(signal.SIGINT)
    said = producer.communicate(timeout=60)[1]
    assert producer.returncode == 130, said
    return lab.put_so_far()


def until_counted(proxy: Proxy, what: str, wanted: int) -> None:
    until(lambda: getattr(proxy.counters, what) >= wanted, f"{wanted} {what}")

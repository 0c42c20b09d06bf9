"""A program that gets items and notes them: `python -m tests.acceptance.apps.getter HOW [gevent]`."""

from __future__ import annotations

import sys

if sys.argv[2:] == ["gevent"]:
    from gevent import monkey

    monkey.patch_all()

import atexit
import threading
import time

from rq_lite import Queue
from rq_lite.events import begin
from tests.acceptance.apps.evidence import note, wait_for_gate

begin("consumer")
items = Queue("items")


def hold() -> None:
    """Gets one and never settles it."""
    note("got", items.get())
    while True:
        time.sleep(60)


def leave() -> None:
    """Gets two, settles one, and ends."""
    note("got", items.get())
    note("got", items.get())
    items.task_done()


def loop() -> None:
    for item in items:
        note("got", item)


def one() -> None:
    """Gets one, and settles it when the gate is open."""
    note("got", items.get())
    wait_for_gate()
    items.task_done()


def slow() -> None:
    for item in items:
        note("got", item)
        time.sleep(0.02)


def many() -> None:
    """Threads (or greenlets) that share one lease."""
    threads = [threading.Thread(target=loop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def daemons() -> None:
    """Threads that go on getting while the program ends."""
    for _ in range(4):
        threading.Thread(target=loop, daemon=True).start()
    wait_for_gate()


def late() -> None:
    """Gets one item, and gets again while the process is already ending."""
    atexit.register(loop)  # runs after what the first `get` registers
    note("got", items.get())
    items.task_done()


if __name__ == "__main__":
    globals()[sys.argv[1]]()

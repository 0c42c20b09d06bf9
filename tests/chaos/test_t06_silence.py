"""T6: networks that swallow everything: nobody hangs, and it heals by itself.

The short forms with a proxy: tests/acceptance/test_transient.py (black hole, silence, what arrives late).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rq_lite.broker import Broker
from rq_lite.broker.address import ANSWER
from rq_lite.errors import BrokerUnavailable
from rq_lite.settings import Settings
from tests.acceptance.conftest import Lab
from tests.acceptance.flow import Flow
from tests.chaos.conftest import Tell
from tests.conftest import NEWEST, Server
from tests.faults.proxy import Proxy
from tests.steps import entry

HEALED = 10.0  # seconds after the end of a silence until jobs are done again
MARGIN = 1.0  # seconds that a call may take beyond the links' own time
SLACK = 3.0  # and this machine's


class Caller:
    """Puts into another queue all the time, without patience: how long its longest call took."""

    def __init__(self, url: str) -> None:
        self.longest = 0.0
        self.failed = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url,))
        self._thread.start()

    def _run(self, url: str) -> None:
        broker = Broker(url, settings=Settings(url=url, patience=0.0))
        while not self._over.wait(0.01):
            began = time.monotonic()
            try:
                broker.puts.put("other", [entry(1)])
            except BrokerUnavailable:
                self.failed += 1
            self.longest = max(self.longest, time.monotonic() - began)
        broker.close()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def silences(flow: Flow, lengths: list[float], silence: Callable[[], contextlib.AbstractContextManager[None]]) -> float:
    """Silences of these lengths; the longest time, after one, until jobs were done again."""
    longest = 0.0
    for length in lengths:
        with silence():
            time.sleep(length)  # the length is the fault
        began = time.monotonic()
        flow.goes_on()
        longest = max(longest, time.monotonic() - began)
    return longest


def test_black_holes_of_any_length(lab: Lab, proxy: Proxy, chance: random.Random, long: bool, tell: Tell) -> None:
    lengths = [chance.uniform(0.1, 12.0) for _ in range(10)] if long else [0.5]
    lab.broker.puts.declare("other", 0)
    flow = Flow(lab, proxy.url)
    caller = Caller(proxy.url)
    try:
        back = silences(flow, lengths, proxy.freeze)
        back = max(back, silences(flow, lengths, lambda: proxy.freeze(present=True)))
    finally:
        caller.stop()
    flow.ends_well(late=True)
    tell(
        f"T6 {2 * len(lengths)} black holes of {min(lengths):.1f} to {max(lengths):.1f} s: longest call "
        f"{caller.longest:.1f} s (links' own time {ANSWER:g} s), jobs done again after at most {back:.1f} s, "
        f"0 lost, 0 twice, {lab.state().stale} acks that arrived late"
    )
    assert caller.longest < ANSWER + MARGIN + SLACK
    assert back < HEALED + SLACK


# -- without a proxy: the packets themselves vanish


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Far:
    """A Redis in a network of its own, at the other end of a cable."""

    near, there = "198.18.77.1", "198.18.77.2"

    def __init__(self, name: str) -> None:
        self.name = name
        self.ends = f"{name}a", f"{name}b"

    def plug_in(self) -> None:
        ip("link", "add", self.ends[0], "type", "veth", "peer", "name", self.ends[1], "netns", self.name)
        ip("addr", "add", f"{self.near}/30", "dev", self.ends[0])
        ip("link", "set", self.ends[0], "up")
        ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", self.ends[1])
        ip("-n", self.name, "link", "set", self.ends[1], "up")

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Each side sends to a neighbour that does not exist: packets vanish, and nobody is told."""
        nowhere = ("lladdr", "02:00:00:00:00:99", "nud", "permanent")
        ip("neigh", "replace", self.there, "dev", self.ends[0], *nowhere)
        ip("-n", self.name, "neigh", "replace", self.near, "dev", self.ends[1], *nowhere)
        try:
            yield
        finally:
            ip("neigh", "del", self.there, "dev", self.ends[0])
            ip("-n", self.name, "neigh", "del", self.near, "dev", self.ends[1])


@pytest.fixture
def far(long: bool) -> Iterator[Far]:
    if not long or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("makes a network of its own: with --long, as root, with ip(8)")
    made = Far(f"rq{os.getpid()}")
    try:
        ip("netns", "add", made.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        made.plug_in()
        yield made
    finally:
        ip("netns", "del", made.name)


def test_packets_vanish(
    far: Far, private: Callable[..., Server], lab_at: Callable[[Server], Lab], tmp_path: Path, tell: Tell
) -> None:
    program = tmp_path / "there"
    program.write_text(f'#!/bin/sh\nexec ip netns exec {far.name} {NEWEST} "$@"\n')
    program.chmod(0o700)
    server = private("--port", "6379", "--bind", far.there, "--protected-mode", "no", program=str(program))
    url = f"redis://{far.there}:6379"
    lab = lab_at(server)
    lab.broker.puts.declare("other", 0)
    flow, caller = Flow(lab, url), Caller(url)
    lengths = [1.0, 4.0, 8.0, 20.0]
    try:
        back = silences(flow, lengths, far.silence)
    finally:
        caller.stop()
    flow.ends_well(late=True)
    tell(
        f"T6 packets vanish, {len(lengths)} times, for up to {max(lengths):g} s: longest call {caller.longest:.1f} s, "
        f"jobs done again after at most {back:.1f} s, 0 lost, 0 twice, {lab.state().stale} acks that arrived late"
    )
    assert caller.longest < ANSWER + MARGIN + SLACK
    assert back < HEALED + SLACK

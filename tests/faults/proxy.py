"""A proxy in front of Redis, in a process of its own, in which tests make faults: `python -m tests.faults.proxy`.

proxy = Proxy("unix:///run/redis.sock", listen="redis://127.0.0.1:0")
with proxy.freeze():            # on when the call returns, over at the end of the block
    ...
proxy.reset()                   # without a block: until the next call
proxy.calm()
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.faults import relay
from tests.faults.mode import Counters, Mode, Way

ROOT = Path(__file__).parents[2]


class Proxy:
    """Listens at `listen` (`unix:///path`, or `redis://127.0.0.1:0` for any free port), forwards to `to`.

    Every call that sets a fault returns when the fault is set, for open connections and new ones;
    as a block (`with proxy.delay(0.1):`) the fault ends with the block.
    """

    def __init__(self, to: str, *, listen: str = "redis://127.0.0.1:0") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, listen, to], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._one_at_a_time = threading.Lock()
        self.url: str = self._answer()["url"]

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    # -- the faults

    def calm(self) -> None:
        """End the fault: everything passes again."""
        self._set(Mode())

    def delay(self, seconds: float) -> AbstractContextManager[None]:
        """Each read is passed on `seconds` later, both ways."""
        return self._set(Mode("delay", seconds=seconds))

    def dribble(self, pause: float = 0.0) -> AbstractContextManager[None]:
        """Bytes pass one by one, `pause` seconds between two."""
        return self._set(Mode("dribble", seconds=pause))

    def freeze(self, *, present: bool = False) -> AbstractContextManager[None]:
        """A black hole: connections stay open, new ones are accepted, nothing passes until the fault ends.

        `present`: only connections that are open; bytes that were held back arrive at the end, however late.
        """
        return self._set(Mode("freeze", present=present))

    def swallow_replies(self, needle: str = "", *, nth: int = 1, hang_up: bool = True) -> AbstractContextManager[None]:
        """Requests pass and are executed, their replies vanish.

        With `needle`: the reply to every `nth` request with these bytes. Then the connection is closed (`hang_up`),
        or stays silent for as long as it is open.
        """
        return self._set(Mode("swallow", way="replies", needle=needle, nth=nth, hang_up=hang_up))

    def swallow_requests(
        self, needle: str = "", *, nth: int = 1, hang_up: bool = False
    ) -> AbstractContextManager[None]:
        """Requests vanish, or with `needle` every `nth` with these bytes; otherwise as `swallow_replies`."""
        return self._set(Mode("swallow", way="requests", needle=needle, nth=nth, hang_up=hang_up))

    def cut(self, after: int, way: Way = "requests", *, needle: str = "") -> AbstractContextManager[None]:
        """After `after` more bytes that connection is closed on both sides; only once, then everything passes.

        With `needle` the bytes are counted from the start of the next request with these bytes (or of its reply).
        """
        return self._set(Mode("cut", after=after, way=way, needle=needle))

    def close(self) -> AbstractContextManager[None]:
        """Open connections are closed, and new ones at once."""
        return self._set(Mode("close"))

    def reset(self) -> AbstractContextManager[None]:
        """As `close`, with RST instead of FIN; on Unix sockets the same as `close`."""
        return self._set(Mode("reset"))

    def half_close(self, way: Way) -> AbstractContextManager[None]:
        """One direction of every connection is shut down: Redis, or the client, reads an end of file."""
        return self._set(Mode("half-close", way=way))

    def refuse(self) -> AbstractContextManager[None]:
        """The proxy stops listening, and open connections are closed."""
        return self._set(Mode("refuse"))

    def retarget(self, to: str) -> None:
        """Put another Redis behind the same address: new connections go there, open ones are closed."""
        self._tell({"to": to})

    # -- its counters

    @property
    def counters(self) -> Counters:
        return Counters(**self._tell({})["counters"])

    # -- the process

    def _set(self, mode: Mode) -> AbstractContextManager[None]:
        self._tell({"mode": dataclasses.asdict(mode)})
        return self._until_calm()

    @contextlib.contextmanager
    def _until_calm(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.calm()

    def _tell(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the proxy has ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end the proxy
    asyncio.run(relay.serve(*sys.argv[1:]))

"""What a proxy does with the bytes between its clients and Redis, and its counters; both are sent as JSON."""

from __future__ import annotations

import dataclasses
from typing import Literal

Way = Literal["requests", "replies"]
Name = Literal[
    "pass",
    "delay",  # each read waits `seconds`, both ways
    "dribble",  # byte by byte, `seconds` between two, both ways
    "freeze",  # nothing passes either way, not even an end of connection; connections stay open
    "swallow",  # bytes that go `way` vanish
    "cut",  # after `after` bytes that went `way` that connection is closed, and then "pass"
    "close",  # open connections and each new one are closed
    "reset",  # as "close", with RST (TCP; on Unix sockets a plain close)
    "half-close",  # one `way` of every connection is shut down
    "refuse",  # the proxy stops listening, and open connections are closed
]


@dataclasses.dataclass(frozen=True)
class Mode:
    """`needle` limits "swallow" and "cut" to connections on which a request with these bytes has come since.

    Times in seconds. The mode strikes every `nth` request with the needle (without one: every `nth` read that goes
    `way`).
    """

    name: Name = "pass"
    seconds: float = 0.0
    way: Way = "replies"
    after: int = 0
    needle: str = ""
    nth: int = 1
    hang_up: bool = True  # swallow: close the connection at once; else it stays silent
    present: bool = False  # freeze: only open connections, new ones pass


@dataclasses.dataclass
class Counters:
    """Counts since the proxy was started, and its present state."""

    accepted: int = 0  # connections
    open: int = 0  # connections that are open now
    held: int = 0  # ways that hold back bytes (or an end of connection) now; 0: all that was held has been sent
    peak: int = 0  # most connections accepted within one second
    swallowed: int = 0  # reads that vanished, at most one for each connection
    cut: int = 0  # connections ended by "cut"
    requests: int = 0  # bytes passed on
    replies: int = 0

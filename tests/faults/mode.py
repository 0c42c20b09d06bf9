"""What a proxy does with the bytes between its clients and Redis, and what it has counted; both travel as JSON."""

from __future__ import annotations

import dataclasses
from typing import Literal

Way = Literal["requests", "replies"]
Name = Literal[
    "pass",
    "delay",  # each read waits `seconds`, both ways
    "dribble",  # byte by byte, `seconds` between two, both ways
    "freeze",  # nothing passes either way, not even an end; connections stay open
    "swallow",  # what goes `way` vanishes
    "cut",  # after so many bytes (`after`) that went `way`: the end of that connection, and then "pass"
    "close",  # connections are closed, the present ones and each new one
    "reset",  # likewise, with RST (TCP; on Unix sockets a plain close)
    "half-close",  # one `way` of every connection is shut down
    "refuse",  # nobody listens any more, present connections are closed
]


@dataclasses.dataclass(frozen=True)
class Mode:
    """`needle` limits "swallow" and "cut" to connections on which a request with these bytes has come since.

    Times in seconds. Of the requests with the needle (without one: of the reads that go `way`) every `nth` is meant.
    """

    name: Name = "pass"
    seconds: float = 0.0
    way: Way = "replies"
    after: int = 0
    needle: str = ""
    nth: int = 1
    hang_up: bool = True  # swallow: close the connection at once; else it stays silent
    present: bool = False  # freeze: only the connections that are there, new ones pass


@dataclasses.dataclass
class Counters:
    """Since the proxy was started."""

    accepted: int = 0  # connections
    open: int = 0  # connections just now
    held: int = 0  # ways that hold bytes (or an end) back just now; 0: what they held has gone out
    peak: int = 0  # most connections accepted within one second
    swallowed: int = 0  # reads that vanished, one at most for each connection
    cut: int = 0  # connections ended by "cut"
    requests: int = 0  # bytes passed on
    replies: int = 0

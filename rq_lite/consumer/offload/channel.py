"""Messages between a consumer and an engine, over a pair of sockets: frames of a 4-byte length, then the bytes.

    consumer   Setup, then for each job: Run, line end, the job's entry as it came from Redis
    engine     Answer: `ready` or `failed` once, then one for each job, after any `progress` that it reports

One job at a time, so that an answer belongs to the Run before it.
"""

from __future__ import annotations

import socket
import struct

import msgspec

from rq_lite.client.current import Progress
from rq_lite.settings import Settings

LENGTH = struct.Struct(">I")
PIECE = 262_144


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine needs to know before its first job."""

    settings: Settings  # with the URL filled in
    app: str
    number: int  # the consumer's
    queues: list[str]  # those that its worker serves


class Run(msgspec.Struct, frozen=True):
    """Goes with a job's entry."""

    queue: str
    timeout: float  # seconds it has from now on


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`ready`; `failed` (the app cannot be imported); of a job: `done`, `raised`, `interrupted` (by the consumer).

    Before these, any number of `progress`.
    """

    event: str
    result: msgspec.Raw = msgspec.Raw(b"null")  # of a tracked job that is done
    puts: list[tuple[str, bytes]] = []  # its follow-ups: queue and entry
    progress: Progress | None = None
    error: str = ""  # one line
    message: str | None = None  # the error's whole text
    traceback: str = ""
    seconds: float = 0.0
    delay: float | None = None  # seconds until the next attempt, if the job named them
    final: bool = False  # there is no next attempt
    leaving: bool = False  # this engine is worn out, and takes no more


class Channel:
    """One end. If an exception strikes in the middle of receiving a frame, the next call goes on with it."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(None)  # an app may have set another default for all sockets of the process
        self.end = end
        self.unread = False  # the other end is gone, and has not read all that was sent; known only on Linux
        self._came = bytearray()

    def send(self, frame: bytes) -> None:
        """Raises OSError when the other end is gone."""
        self.end.sendall(LENGTH.pack(len(frame)) + frame)

    def receive(self) -> bytes | None:
        """The next frame; None when the other end is gone."""
        came, need = self._came, LENGTH.size
        while True:
            if len(came) >= need:
                whole = LENGTH.size + LENGTH.unpack_from(came)[0]
                if len(came) >= whole:
                    frame = bytes(came[LENGTH.size : whole])
                    del came[:whole]
                    return frame
                need = whole
            try:
                piece = self.end.recv(PIECE)
            except ConnectionError:
                self.unread = True
                return None
            if not piece:
                return None
            came += piece

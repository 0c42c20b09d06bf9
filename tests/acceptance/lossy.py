"""A Redis whose answers get lost: a proxy that passes a request on, and hangs up instead of answering."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from pathlib import Path


class Lossy:
    """Listens at `path`, forwards to the socket `to`. Each `nth` request with `needle` in it stays unanswered."""

    def __init__(self, path: Path, to: str, needle: bytes, nth: int) -> None:
        self.url = f"unix://{path}"
        self.lost = 0
        self._to = to
        self._needle = needle
        self._nth = nth
        self._count = itertools.count(1)  # its next() is one step for all threads
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        lose = False
        with contextlib.suppress(OSError), client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._to)
            while True:
                for end in select.select([client, server], [], [])[0]:
                    data = end.recv(1_000_000)
                    if not data:
                        return
                    if end is client:
                        lose = lose or (self._needle in data and next(self._count) % self._nth == 0)
                        server.sendall(data)
                    elif lose:
                        self.lost += 1
                        return
                    else:
                        client.sendall(data)

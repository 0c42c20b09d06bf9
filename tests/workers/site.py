"""A server on loopback whose answers a test writes down."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from workers.crawl import connections


@dataclass
class Site:
    """`done` lets slow answers end with the test."""

    url: str
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]]
    port: int
    done: threading.Event
    hosts: list[str] = field(default_factory=list)  # Host headers, in order
    paths: list[str] = field(default_factory=list)
    clients: set[tuple[str, int]] = field(default_factory=set)  # one per connection

    def say(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            for name, value in {"Content-Type": "text/html", "Content-Length": str(len(body)), **given}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(body)

        self.answers[path] = answer
        return self.url + path


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Site]:
    site: Site
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.hosts.append(self.headers["Host"])
            site.paths.append(self.path)
            site.clients.add(self.client_address)
            try:
                answers.get(self.path, missing)(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:  # a client that does not trust our certificate
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}"
    site = Site(url, answers, server.server_port, threading.Event())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.done.set()
        connections.IDLE.clear()  # ends the connections that are kept, and with them the server's threads
        server.shutdown()
        server.server_close()
        thread.join()


def missing(request: BaseHTTPRequestHandler) -> None:
    request.send_response(404)
    request.send_header("Content-Length", "0")
    request.end_headers()

"""`python -m benchmarks.crawling.server`: one page of 11 kB with 60 links, whatever is asked for."""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()

import socket  # noqa: E402

from gevent.server import StreamServer  # noqa: E402

LINKS = 60
SIZE = 11_000


def page() -> bytes:
    """Links of the usual kinds, between tags and text of the usual kinds."""
    rows = []
    for number in range(LINKS):
        href = (f"/page/{number}", f"other/{number}?sort=name&amp;page=2", f"http://127.0.0.1:1/abs/{number}")[
            number % 3
        ]
        rows.append(
            f'<li class="row"><a class="title" href="{href}">Page {number} &amp; more</a><span>text</span></li>'
        )
    start = '<!doctype html><html><head><meta charset="utf-8"><title>A page</title></head><body><ul>'
    html = start + "\n".join(rows) + "</ul>"
    fill = "<p>Some words, <b>some</b> of them <i>marked</i>.</p>\n"
    while len(html) < SIZE:
        html += fill
    return (html + "</body></html>").encode()


def serve(connection: socket.socket, _: object) -> None:
    body = page()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = head.encode() + body
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        rest = b""
        while data := connection.recv(65536):
            *requests, rest = (rest + data).split(b"\r\n\r\n")
            for _request in requests:
                connection.sendall(answer)


def main() -> None:
    server = StreamServer(("127.0.0.1", 0), serve, backlog=1024)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

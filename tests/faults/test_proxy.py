"""The proxy does what it is told: otherwise the tests that use it could not fail."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import DEADLINE, OLDEST, Server, until
from tests.faults.proxy import Proxy
from tests.faults.relay import address

PING, PONG = b"PING\r\n", b"+PONG\r\n"
COMMAND = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"
Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Any will do."""
    found = Server(OLDEST, tmp_path_factory.mktemp("redis")).start()
    yield found
    found.kill()


@pytest.fixture(params=["TCP", "Unix"])
def proxy(request: pytest.FixtureRequest, server: Server, proxy_to: Callable[..., Proxy], tmp_path: Path) -> Proxy:
    if request.param == "TCP":
        return proxy_to(server)
    return proxy_to(server, listen=f"unix://{tmp_path}/proxy")


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Connect]:
    made: list[socket.socket] = []

    def make() -> socket.socket:
        family, where = address(proxy.url)
        made.append(socket.socket(family))
        made[-1].settimeout(DEADLINE)
        made[-1].connect(where)
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask(client: socket.socket, request: bytes = PING) -> bytes:
    client.sendall(request)
    return client.recv(1000)


def silent(client: socket.socket) -> bool:
    """Nothing has come, not even an end, though another connection was answered meanwhile or the mode is on."""
    client.settimeout(0.05)
    try:
        client.recv(1)
    except TimeoutError:
        client.settimeout(DEADLINE)
        return True
    return False


def count(server: Server) -> int:
    broker = server.broker()
    value = int(broker.read(("GET", "n"))[0] or 0)
    broker.close()
    return value


@pytest.fixture(autouse=True)
def nothing_left(server: Server) -> Iterator[None]:
    yield
    broker = server.broker()
    broker.read(("DEL", "n"))
    broker.close()


def test_everything_passes_and_is_counted(proxy: Proxy, connect: Connect) -> None:
    for _ in range(3):
        assert ask(connect()) == PONG
    counters = proxy.counters
    assert (counters.accepted, counters.open) == (3, 3)
    assert (counters.requests, counters.replies) == (3 * len(PING), 3 * len(PONG))
    assert 1 <= counters.peak <= 3


def test_the_end_of_a_client_is_passed_on(proxy: Proxy, connect: Connect) -> None:
    client = connect()
    assert ask(client) == PONG
    client.close()
    until(lambda: proxy.counters.open == 0, "the connection has gone")


def test_a_swallowed_reply_belongs_to_a_request_that_was_done(proxy: Proxy, connect: Connect, server: Server) -> None:
    client = connect()
    with proxy.swallow_replies():
        assert ask(client, COMMAND) == b""
    assert (count(server), proxy.counters.swallowed) == (1, 1)
    assert ask(connect()) == PONG


def test_only_the_nth_request_with_the_needle_stays_unanswered(proxy: Proxy, connect: Connect) -> None:
    proxy.swallow_replies("INCR", nth=3, hang_up=False)
    client = connect()
    assert [ask(client, what) for what in (COMMAND, PING, COMMAND, PING)] == [b":1\r\n", PONG, b":2\r\n", PONG]
    client.sendall(COMMAND[:7])
    assert silent(client)
    client.sendall(COMMAND[7:])
    until(lambda: proxy.counters.swallowed == 1, "a reply was swallowed")
    # What has lost bytes never carries any again, whatever the mode.
    proxy.calm()
    client.sendall(PING)
    assert ask(connect()) == PONG
    assert silent(client)


def test_a_needle_may_lie_across_two_reads(proxy: Proxy, connect: Connect) -> None:
    proxy.swallow_replies("INCR")
    client = connect()
    before = proxy.counters.requests
    client.sendall(COMMAND[:10])
    until(lambda: proxy.counters.requests == before + 10, "the first half has passed")
    assert ask(client, COMMAND[10:]) == b""


def test_swallowed_requests_are_not_done(proxy: Proxy, connect: Connect, server: Server) -> None:
    client = connect()
    with proxy.swallow_requests():
        client.sendall(COMMAND)
        until(lambda: proxy.counters.swallowed == 1, "a request was swallowed")
    assert ask(connect()) == PONG
    assert silent(client)
    assert count(server) == 0


@pytest.mark.parametrize("after", [0, 1, 5, len(PONG) - 1])
def test_a_reply_is_cut(proxy: Proxy, connect: Connect, after: int) -> None:
    proxy.cut(after, "replies")
    client = connect()
    client.sendall(PING)
    assert client.makefile("rb").read() == PONG[:after]
    assert proxy.counters.cut == 1
    assert ask(connect()) == PONG


def test_a_request_is_cut(proxy: Proxy, connect: Connect, server: Server) -> None:
    proxy.cut(len(COMMAND) - 1, "requests", needle="INCR")
    client = connect()
    assert ask(client) == PONG
    assert ask(client, COMMAND) == b""
    assert count(server) == 0
    proxy.cut(len(COMMAND), "requests", needle="INCR")
    assert ask(connect(), COMMAND) == b""
    until(lambda: count(server) == 1, "a whole request is done")


def test_a_freeze_holds_everything_back_and_loses_nothing(proxy: Proxy, connect: Connect) -> None:
    client = connect()
    assert ask(client) == PONG
    with proxy.freeze():
        later = connect()
        for one in (client, later):
            one.sendall(PING)
            assert silent(one)
    assert [one.recv(1000) for one in (client, later)] == [PONG, PONG]


def test_a_freeze_may_be_for_present_connections_only(proxy: Proxy, connect: Connect) -> None:
    client = connect()
    assert ask(client) == PONG
    with proxy.freeze(present=True):
        client.sendall(PING)
        assert ask(connect()) == PONG
        assert silent(client)
    assert client.recv(1000) == PONG


def test_a_late_request_arrives_though_its_client_has_gone(proxy: Proxy, connect: Connect, server: Server) -> None:
    client = connect()
    assert ask(client) == PONG
    with proxy.freeze():
        client.sendall(COMMAND)
        client.close()
    until(lambda: count(server) == 1, "the request has arrived")
    until(lambda: proxy.counters.open == 0, "and the end after it")


def test_close_and_reset_end_present_connections_and_new_ones(proxy: Proxy, connect: Connect) -> None:
    for end in (proxy.close, proxy.reset):
        client = connect()
        assert ask(client) == PONG
        with end():
            assert proxy.counters.open == 0
            ended(lambda: client, proxy, reset=end == proxy.reset)  # noqa: B023 - called at once
            ended(connect, proxy, reset=end == proxy.reset)  # a reset may come before it is there
        assert ask(connect()) == PONG


def ended(client: Connect, proxy: Proxy, *, reset: bool) -> None:
    if reset and proxy.url.startswith("redis"):
        with pytest.raises(ConnectionResetError):
            client().recv(1)
    else:
        assert client().recv(1) == b""


def test_half_a_connection_is_shut_down(proxy: Proxy, connect: Connect) -> None:
    client = connect()
    assert ask(client) == PONG
    with proxy.half_close("replies"):
        assert client.recv(1) == b""
        assert proxy.counters.open == 1
    client = connect()
    assert ask(client) == PONG
    # Redis hangs up on a client that has no more to say.
    with proxy.half_close("requests"):
        assert client.recv(1) == b""
    assert ask(connect()) == PONG


def test_slow_ways_lose_nothing(proxy: Proxy, connect: Connect, server: Server) -> None:
    client = connect()
    for slowly in (proxy.delay(0.01), proxy.dribble()):
        with slowly:
            client.sendall(PING * 20)
            got = b""
            while len(got) < 20 * len(PONG):
                got += client.recv(1000)
            assert got == PONG * 20


def test_a_delay_ends_with_its_mode(proxy: Proxy, connect: Connect) -> None:
    client = connect()
    with proxy.delay(600):
        client.sendall(PING)
        assert silent(client)
    assert client.recv(1000) == PONG


def test_refused_and_there_again_at_the_same_address(proxy: Proxy, connect: Connect) -> None:
    client = connect()
    assert ask(client) == PONG
    with proxy.refuse():
        assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect()
    assert ask(connect()) == PONG


def test_another_server_behind_the_same_address(proxy: Proxy, connect: Connect, tmp_path: Path) -> None:
    client = connect()
    assert ask(client, COMMAND) == b":1\r\n"
    other = Server(tmp_path.name, tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(other.socket)
        listener.listen()
        proxy.retarget(other.url)
        assert client.recv(1) == b""
        connect()
        listener.accept()[0].close()

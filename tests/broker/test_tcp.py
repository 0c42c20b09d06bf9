"""Looking up the host of a Redis, and connecting to it, with one deadline for both."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rq_lite.broker import Broker, tcp
from rq_lite.broker.address import Address, made
from rq_lite.broker.link import Link
from rq_lite.errors import BrokerUnavailable
from rq_lite.settings import Settings
from tests.conftest import ROOT, until
from tests.faults.silence import silent_names

LOOPBACK = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]


class Names:
    """A resolver whose servers are silent about some names, and which says what it was asked."""

    def __init__(self, *silent: str) -> None:
        self.silent = silent
        self.asked: list[str] = []
        self.end = threading.Event()
        self.found: dict[str, tcp.Found] = {}

    def __call__(self, host: str, port: int, **_: Any) -> tcp.Found:
        self.asked.append(host)
        if host in self.silent:
            self.end.wait()
        if host not in self.found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.found[host]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names("silent.test")
    monkeypatch.setattr(tcp, "resolve", names)
    yield names
    names.end.set()
    until(lambda: not tcp._asked, "no look-up is under way")


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that shakes hands and says nothing."""

    def serve() -> None:
        while True:
            try:
                taken, _ = server.accept()
                kept.append(taken if context is None else context.wrap_socket(taken, server_side=True))
            except ssl.SSLError:
                continue
            except OSError:
                return

    kept: list[socket.socket] = []
    server = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(server.getsockname()[1])
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for one in kept:
            one.close()


def opened(url: str) -> Any:
    connection: Any = made(url).make_connection()
    connection.connect()
    return connection


def test_a_silent_name_ends_with_the_deadline_and_holds_up_no_other(names: Names) -> None:
    names.found["good.test"] = LOOPBACK
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(tcp.look_up, "silent.test", 1, 0.3) for _ in range(20)]
        assert tcp.look_up("good.test", 1, 60) == LOOPBACK
        for one in waiting:
            with pytest.raises(OSError, match=r"name servers said nothing for 0\.3 s"):
                one.result()
    assert names.asked.count("silent.test") == 1  # one thread for all that ask


def test_who_asks_again_later_gets_the_answer_to_the_first_question(names: Names) -> None:
    names.found["silent.test"] = LOOPBACK
    with pytest.raises(OSError, match="said nothing"):
        tcp.look_up("silent.test", 1, 0.01)
    names.end.set()
    assert tcp.look_up("silent.test", 1, 60) == LOOPBACK


def test_what_the_resolver_says_is_what_is_raised(names: Names) -> None:
    with pytest.raises(socket.gaierror, match="not known"):
        tcp.look_up("other.test", 1, 60)
    assert not tcp._asked


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "2130706433"])
def test_an_address_asks_nobody(names: Names, host: str) -> None:
    assert tcp.look_up(host, 1, 0)
    assert names.asked == []


def test_when_there_are_no_more_threads_it_is_transient(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none)
        with pytest.raises(OSError, match="can't start new thread"):
            tcp.look_up("good.test", 1, 60)
    names.found["good.test"] = LOOPBACK
    assert tcp.look_up("good.test", 1, 60) == LOOPBACK


def test_a_forked_process_asks_for_itself(names: Names) -> None:
    with pytest.raises(OSError, match="said nothing"):
        tcp.look_up("silent.test", 1, 0.01)
    child = os.fork()
    if child == 0:
        os._exit(len(tcp._asked))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(tcp._asked) == 1


def test_redis_under_a_silent_name_cannot_be_reached_and_says_why(names: Names) -> None:
    url = "redis://silent.test:6379/0?socket_connect_timeout=0.1"
    with closing(Broker(url, settings=Settings(url=url, patience=0))) as broker, pytest.raises(BrokerUnavailable) as e:
        broker.open()
    assert "connecting to silent.test:6379. Its name servers said nothing for 0.1 s" in str(e.value)


def test_a_silent_sentinel_does_not_hide_the_others(names: Names) -> None:
    with listening() as port:
        names.found["second.test"] = [(*LOOPBACK[0][:4], ("127.0.0.1", port))]
        address = Address("redis+sentinel://silent.test,second.test,127.0.0.1:1/s")
        with pytest.raises(Exception, match=r"said nothing for 1 s.*Timeout reading.*refused"):
            Link(address).call("PING")


def test_the_next_address_is_tried_and_the_deadline_is_for_all(names: Names) -> None:
    with listening() as port:
        dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
        names.found["good.test"] = [dead, dead, (*dead[:4], ("127.0.0.1", port))]
        connection = opened(f"redis://good.test:{port}/0")
        assert connection._sock.getpeername() == ("127.0.0.1", port)
        assert connection._sock.gettimeout() == 5.0
        connection.disconnect()
        names.found["dead.test"] = [dead]
        with pytest.raises(Exception, match=r"connecting to dead\.test:1\. Connection refused"):
            opened("redis://dead.test:1/0")


def test_tls_is_checked_for_the_name_and_not_for_the_address(names: Names, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with listening(context) as port:
        for name in ("name.test", "other.test"):
            names.found[name] = [(*LOOPBACK[0][:4], ("127.0.0.1", port))]
        url = f"rediss://{{}}:{port}/0?ssl_ca_certs={certificate}"
        connection = opened(url.format("name.test"))
        assert connection._sock.getpeername() == ("127.0.0.1", port)
        connection.disconnect()
        with pytest.raises(Exception, match=r"Hostname mismatch|doesn't match"):
            opened(url.format("other.test"))


# --- with the system's own resolver, whose name server is silent

# The resolver itself would take 10 s a name, and gevent's ten threads 40 s for 40 of them.
MANY = """
from rq_lite.consumer import boot
import gevent, socket
from rq_lite.broker import tcp

boot.look_up_apart()
ended = []

def wait(number):
    try:
        socket.getaddrinfo(f"silent-{number}.test", 80)
    finally:
        ended.append(number)

waiting = [gevent.spawn(wait, number) for number in range(boot.LOOK_UPS - 1)]
gevent.sleep(0.1)
assert socket.getaddrinfo("localhost", 80)  # a job's
waiting += [gevent.spawn(wait, -number) for number in range(50)]
gevent.sleep(0.1)
assert tcp.look_up("localhost", 80, 60)  # that of Redis
try:
    tcp.look_up("silent.test", 80, 0.5)
except OSError as error:
    print(error, len(ended))
boot.hard_exit(0)
"""


def test_with_a_silent_name_server_every_other_name_is_looked_up_at_once(tmp_path: Path) -> None:
    with silent_names(tmp_path) as prefix:
        ran = subprocess.run(
            [*prefix, sys.executable, "-c", MANY], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Its name servers said nothing for 0.5 s 0" in ran.stdout


def test_commands_end_though_the_name_of_redis_is_not_answered(tmp_path: Path) -> None:
    with silent_names(tmp_path) as prefix:
        commands = [
            [*prefix, sys.executable, "-m", "rq_lite", *words, "--url", "redis://silent.test/0"]
            for words in (["health"], ["status"])
        ]
        runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
        said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [1, 3]
    for words in said:
        assert "Its name servers said nothing for 5 s" in words

"""Errors that pass by themselves, in words for people."""

from __future__ import annotations

import contextlib
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from rq_lite.broker import REDIS_ERRORS, Broker, is_transient
from rq_lite.errors import BrokerUnavailable
from tests.conftest import Server, each_server, until
from tests.steps import put, take


@each_server
def test_a_disk_that_cannot_be_written_to_is_named_with_the_way_out(program: str, tmp_path: Path) -> None:
    server = Server(program, tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    server.start("--dir", str(data))
    try:
        with closing(server.broker()) as broker, closing(broker.link()) as link:
            broker.read(("CONFIG", "SET", "save", "3600 1"))  # Redis 6.2 does not take it as an option
            broker.puts.declare("q")
            put(broker, 1)
            broker.takes.register("q", "c", link=link)
            shutil.rmtree(data)
            until(lambda: refuses(broker), "it refuses writes")
            with pytest.raises(BrokerUnavailable, match=r"cannot write to its disk.* free space there") as raised:
                put(broker, 2)
            assert "MISCONF" in str(raised.value)
            with pytest.raises(REDIS_ERRORS) as taking:
                take(broker, link, 1)
            assert is_transient(taking.value)
            assert broker.core.in_words(taking.value).startswith("it cannot write to its disk (is it full?)")
            broker.read(("CONFIG", "SET", "save", ""))  # a snapshot is no longer wanted: as if there were space
            assert put(broker, 2).accepted == 1
    finally:
        server.kill()


def refuses(broker: Broker) -> bool:
    with closing(broker.link()) as link:
        with contextlib.suppress(*REDIS_ERRORS):  # one is under way
            link.call("BGSAVE")
        try:
            link.call("SET", "rq-lite:queues:probe", 1, "PX", 1)
        except REDIS_ERRORS as error:
            return "MISCONF" in str(error)
        return False

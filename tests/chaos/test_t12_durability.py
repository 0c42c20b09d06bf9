"""T12: what is left of a Redis that was killed, by how it keeps its data."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker
from rq_lite.errors import BrokerUnavailable
from rq_lite.model.message import VERSION, Message, encode
from rq_lite.settings import Settings
from tests.acceptance.conftest import APP, Lab
from tests.acceptance.flow import Flow
from tests.chaos.conftest import Tell
from tests.conftest import Server, each_server, until

KEEPING = {
    "everysec": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "always": ("--appendonly", "yes", "--appendfsync", "always"),
    "no": ("--appendonly", "yes", "--appendfsync", "no"),
    "RDB": ("--save", "3600 1"),
    "nothing": (),
}
Private = Callable[..., Server]


def job(number: int) -> bytes:
    return encode(Message(VERSION, f"{number}", f"{APP}:number", [number]))


def put_until_gone(server: Server, first: int, enough: threading.Event, halfway: int) -> int:
    """Put one by one until Redis is gone; the number of the first that was not answered."""
    broker = Broker(server.url, settings=Settings(url=server.url, patience=0.0))
    try:
        for number in range(first, 10**9):
            if number == first + halfway:
                enough.set()
            broker.puts.put("work", [job(number)])
    except BrokerUnavailable:
        return number
    finally:
        broker.close()
    raise AssertionError("it was never gone")


@each_server
@pytest.mark.parametrize("keeping", KEEPING)
def test_of_a_killed_redis_all_is_left_that_its_way_to_keep_data_promises(
    private: Private,
    lab_at: Callable[[Server], Lab],
    keeping: str,
    program: str,
    chance: Random,
    long: bool,
    tell: Tell,
) -> None:
    server = private(*KEEPING[keeping], program=program)
    lab = lab_at(server)
    lab.broker.puts.declare("work", 0)
    rounds = 10 if long else 1
    lost = total = 0
    for _ in range(rounds):
        enough = threading.Event()
        killer = threading.Thread(target=kill_when, args=(server, enough))
        killer.start()
        halfway = chance.randrange(100, 500)
        if keeping == "RDB":
            lab.broker.puts.put("work", [job(0)])
            lab.broker.read(("SAVE",))
        answered = put_until_gone(server, 1, enough, halfway)
        killer.join()
        server.start(*KEEPING[keeping])
        lab.broker.puts.declare("work", 0)
        there = {int(number) for number in lab.arguments()}
        # The one whose answer was lost may be there.
        assert there <= {*range(answered + 1)}
        lost += len({*range(1, answered)} - there)
        total += answered - 1
        operate.purge(lab.broker, "work")
    tell(f"T12 kill -9 of redis {server_version(lab)}, {keeping}: {lost:,} of {total:,} puts lost in {rounds} rounds")
    # `everysec` puts a write off while the disk is slow: as a rule nothing is lost, and that is no promise of Redis.
    if keeping == "always":
        assert lost == 0
    lab.put("do", "at last")
    lab.drain()
    assert lab.seen("done") == ["at last"]


def kill_when(server: Server, enough: threading.Event) -> None:
    enough.wait()
    server.kill()


def server_version(lab: Lab) -> str:
    return ".".join(map(str, lab.broker.core.version))


@each_server
def test_after_a_cut_tail_everything_goes_on_by_itself(
    private: Private, lab_at: Callable[[Server], Lab], program: str, chance: Random, long: bool, tell: Tell
) -> None:
    """The end of the file is torn off, as by a power cut: what is missing are the last steps, and nothing else."""
    options = (*KEEPING["everysec"], "--aof-load-truncated", "yes")
    server = private(*options, program=program)
    lab = lab_at(server)
    flow = Flow(lab, server.url)
    told = []
    for _ in range(5 if long else 2):
        flow.goes_on(100)
        server.kill()
        cut = chance.randrange(1, 3000)
        file = tail(server.folder)
        content = file.read_bytes()
        file.write_bytes(content[:-cut])
        server.start(*options)
        told.append(f"{cut} of {len(content):,} bytes")
        flow.goes_on(50)
    flow.producer.send_signal(signal.SIGINT)
    assert flow.producer.wait(60) == 130
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "everything is drained")
    assert flow.worker.stop() == 0
    done = Counter(map(int, lab.seen("done")))
    lost = {*range(max(done))} - {*done}
    again = sum(done.values()) - len(done)
    tell(f"T12 cut tail, redis {server_version(lab)}: {'; '.join(told)}; {len(lost)} jobs lost, {again} ran twice")
    # 3000 bytes are about a dozen steps, with up to 20 jobs each.
    assert len(lost) < 300
    assert again < 300
    assert "Traceback" not in flow.worker.said


def tail(folder: Path) -> Path:
    """The file that Redis was writing to: before 7.0 there is one, then several in a folder."""
    return max([*folder.glob("*.aof"), *folder.glob("*/*.incr.aof")], key=lambda file: file.stat().st_mtime)

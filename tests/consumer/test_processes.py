"""Processes for run_in="process", as their consumer sees them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rq_lite.consumer.offload import processes
from rq_lite.consumer.offload.channel import Answer, Channel, Setup
from rq_lite.consumer.offload.processes import ProcessPool
from rq_lite.settings import Settings

FILES = Path("/proc/self/fd")


def test_where_none_can_be_started_its_jobs_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes, no files or no folder are no fault of a job."""
    tries: list[object] = []

    class Late:
        def __init__(self, folder: object) -> None:
            tries.append(folder)
            if len(tries) < 3:
                raise BlockingIOError("no process")

        def send(self, *parts: bytes) -> None:
            pass

        def answer(self) -> Answer:
            return Answer(event="ready")

    monkeypatch.setattr(processes, "Engine", Late)
    made = ProcessPool(Setup(settings=Settings(), app="app", number=1, queues=[]), 1, 1.0, Path.cwd())
    assert isinstance(made._started(), Late)
    assert len(tries) == 3


@pytest.mark.skipif(not FILES.exists(), reason="needs /proc")
def test_one_that_cannot_be_started_leaves_nothing_open(tmp_path: Path) -> None:
    before = len(list(FILES.iterdir()))
    with pytest.raises(FileNotFoundError):
        processes.Engine(tmp_path / "gone")
    assert len(list(FILES.iterdir())) == before


def test_an_apps_default_for_sockets_does_not_end_a_wait_for_an_engine() -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.01)
    try:
        ours, theirs = map(Channel, socket.socketpair())
    finally:
        socket.setdefaulttimeout(before)
    assert (ours.end.gettimeout(), theirs.end.gettimeout()) == (None, None)
    ours.send(b"frame")
    assert theirs.receive() == b"frame"
    ours.end.close()
    theirs.end.close()

"""The labs of the acceptance tests, and runs under faults on a Redis of their own, judged by their histories."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rq_lite.chaos.app import queue
from rq_lite.chaos.check import Verdict, check
from rq_lite.chaos.invariants import Demands
from rq_lite.chaos.place import OwnRedis
from rq_lite.chaos.run import run
from rq_lite.chaos.schedule import Choices
from rq_lite.settings import Settings
from tests.acceptance.conftest import ctrl_c, environment, lab, lab_at, private, server
from tests.conftest import NEWEST

__all__ = ["ctrl_c", "environment", "lab", "lab_at", "private", "server"]

Proof = Callable[..., Verdict]
Tell = Callable[[str], None]


@pytest.fixture
def proof(chance: random.Random, tell: Tell) -> Iterator[Proof]:
    """Makes a run of these choices (with a random seed), and judges it by the demands."""
    # Not tmp_path: its names are too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="rq-"))
    history = folder / "history"
    history.mkdir()

    def prove(demands: Demands, **numbers: float) -> Verdict:
        choices = Choices(seed=chance.randrange(10**6), mixed=True, **numbers)  # type: ignore[arg-type]
        settings = Settings(redis_server=NEWEST, patience=2.0)
        place = OwnRedis(settings, folder)
        try:
            run(choices, place, folder, history, lambda _: None, [])
        finally:
            place.leave(queue.name)
        found = check(history, demands)
        tell(f"seed {choices.seed}: {found.figures()}")
        return found

    yield prove
    shutil.rmtree(folder)


@pytest.fixture
def tell(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None], long: bool
) -> Callable[[str], None]:
    """Reports the figures of a test in one line, which `make chaos` shows, or else `pytest -rP`."""
    capture = request.getfixturevalue("capsys")

    def say(figures: str) -> None:
        record_property("figures", figures)
        if long:
            with capture.disabled():
                print(f"\n    {figures}", flush=True)
        else:
            print(figures)

    return say

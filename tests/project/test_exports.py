"""The public names, and what importing them does not import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rq_lite

ROOT = Path(rq_lite.__file__).parents[1]
HEAVY = {"redis", "gevent", "rich", "msgspec", "click", "watchfiles"}


def imported_by(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after the code."""
    report = f"import sys; print('loaded', *sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("name", rq_lite.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(rq_lite, name) is not None


def test_public_names_are_sorted_and_listed() -> None:
    assert rq_lite.__all__ == sorted(set(rq_lite.__all__))
    assert dir(rq_lite) == rq_lite.__all__


def test_any_other_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Quue'"):
        rq_lite.Quue  # noqa: B018


def test_public_names_are_what_they_are_elsewhere() -> None:
    from rq_lite.broker import Broker
    from rq_lite.client.queue import Queue
    from rq_lite.errors import QueueFull

    assert (rq_lite.Broker, rq_lite.Queue, rq_lite.QueueFull) == (Broker, Queue, QueueFull)


def test_importing_rq_lite_imports_nothing_heavy() -> None:
    assert imported_by("import rq_lite; rq_lite.__version__; dir(rq_lite)") == set()


def test_a_queue_needs_no_gevent() -> None:
    assert imported_by("from rq_lite import Queue; Queue('q')") & {"redis", "gevent", "rich"} == {"redis"}


def test_the_library_never_patches() -> None:
    code = "import socket; before = socket.socket\nfrom rq_lite import *\nassert socket.socket is before"
    assert "gevent" not in imported_by(code)


def test_help_imports_only_what_it_needs() -> None:
    code = "from rq_lite.cli import main\ntry: main(['--help'])\nexcept SystemExit as end: assert not end.code"
    assert imported_by(code) & {"redis", "rich", "gevent", "watchfiles"} == set()


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "rq_lite" / "py.typed").exists()

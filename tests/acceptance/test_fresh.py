"""Tests run commands as forks of a warm interpreter; here each command is compared with one in a new interpreter."""

from __future__ import annotations

import signal

import pytest

from tests.acceptance.conftest import APP, Lab
from tests.conftest import until

NOWHERE = "redis://127.0.0.1:1"
CALLS = [
    ("--version",),
    ("status", "--json", "nowhere"),
    ("jobs", "show", "unknown"),
    ("jobs", "list", "--nonsense"),
    ("dead", "list"),
    ("dead", "purge", "--all"),
    ("queue", "set", "work", "--maxsize", "7"),
    ("schedule", "list"),
    ("schedule", "add", "s", "--cron", "nonsense"),
    ("health",),
    ("produce", "lines", "--task", f"{APP}:do", "--no-progress"),
    ("produce", "no-file", "--task", f"{APP}:do"),
    ("work", "no_such_app", "--burst"),
    ("work", APP, "--burst", "--url", NOWHERE),
    ("redis", "status"),
    ("bench", "--jobs", "none"),
    ("demo", "--nonsense"),
]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_new_interpreter_does_the_same(lab: Lab, call: tuple[str, ...]) -> None:
    (lab.folder / "lines").write_text("a\nb\n")
    lab.environment["RQ_LITE_PATIENCE"] = "0.1"
    warm = lab.commands.run(*call)
    lab.commands.fresh = True
    fresh = lab.commands.run(*call)
    assert (fresh.returncode, fresh.stdout) == (warm.returncode, warm.stdout)
    assert untimed(fresh.stderr) == untimed(warm.stderr)


def untimed(said: str) -> list[str]:
    """Lines without the time and the pid in front."""
    return [line.partition("] ")[2] if line[2:3] == ":" else line for line in said.splitlines()]


@pytest.mark.parametrize("command", ["work", "produce", "status"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_new_interpreter_hears_signals_alike(lab: Lab, command: str, number: int) -> None:
    lab.put("do", 1, queue="tiny")
    lab.put("do", 2, queue="tiny")
    calls = {
        "work": ("work", APP, "-q", "low"),
        "produce": ("produce", "--count", "9", "--task", f"{APP}:spread", "--no-progress"),
        "status": ("status", "--watch", "--json"),
    }
    ends = []
    for lab.commands.fresh in (False, True):
        process = lab.commands.start(*calls[command])
        if command == "work":
            until(lambda: lab.state("low").consumers, "a consumer is registered")
        elif command == "produce":
            lab.until_blocked(1)
        else:
            assert process.stdout is not None
            process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=60)
        ends.append(process.returncode)
        until(lambda: not lab.state("low").consumers, "no consumer is left")
    assert ends[0] == ends[1]

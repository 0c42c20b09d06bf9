"""T7: timeouts and kills in the middle of calls to Redis; no answer may reach anybody but who asked."""

from __future__ import annotations

import json
import random
import subprocess
import sys

from tests.chaos.conftest import Tell
from tests.conftest import ROOT


def test_an_answer_reaches_only_who_asked(
    environment: dict[str, str], chance: random.Random, long: bool, tell: Tell
) -> None:
    calls = 100_000 if long else 2000
    command = [sys.executable, "-m", "tests.chaos.nonces", f"{calls}", f"{chance.randrange(10**6)}"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stderr[-5000:]) == (0, "")  # nor does any greenlet end with an error of ours
    found = json.loads(ended.stdout)
    tell(
        f"T7 {found['calls']:,} calls of {found['greenlets']} greenlets, {found['timed_out']:,} timed out, "
        f"{found['killed']:,} greenlets killed: {found['foreign']} foreign answers"
    )
    assert found["foreign"] == 0
    assert found["calls"] >= calls
    assert found["timed_out"] > calls / 100
    assert found["free"] == found["greenlets"]
    assert found["heir"], "a caller waits for ever for a link that is free"

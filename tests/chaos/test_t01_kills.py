"""T1: consumers and supervisors are killed at random while jobs run; some are unique, and some lead to others."""

from __future__ import annotations

import pytest

from rq_lite.chaos.invariants import Demands
from tests.chaos.conftest import Proof


@pytest.mark.timeout(1200)
def test_nothing_is_lost_and_nothing_accepted_twice_by_kills(proof: Proof, long: bool) -> None:
    if long:
        found = proof(Demands(drained=True), jobs=1_000_000, procs=4, greenlets=200, kills=200, nap=0.01)
    else:
        found = proof(Demands(drained=True), jobs=16_000, procs=4, greenlets=20, kills=20, nap=0.01)
    assert found.violations == ()
    assert found.faults == (200 if long else 20)
    # A killed consumer may have put jobs that follow its runs, and not written that down.
    assert found.put + found.recovered == found.distinct
    # No job follows one that was buried.
    assert 0 <= (1_000_000 if long else 16_000) - found.distinct <= found.buried
    # What the checker allows, said once more: beyond the first run there are at most those that the kills have hit.
    assert found.runs - found.distinct <= found.inflight

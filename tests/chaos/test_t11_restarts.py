"""T11: Redis is killed and started again while jobs run."""

from __future__ import annotations

import pytest

from rq_lite.chaos.invariants import Demands
from tests.chaos.conftest import Proof


@pytest.mark.timeout(1200)
def test_nothing_is_lost_by_restarts_of_redis_and_work_goes_on(proof: Proof, long: bool) -> None:
    if long:
        found = proof(Demands(drained=True, recover=5.0), jobs=200_000, procs=2, greenlets=200, restarts=50, nap=0.01)
    else:
        found = proof(Demands(drained=True), jobs=6_000, procs=2, greenlets=20, restarts=3, nap=0.01)
    assert found.violations == ()
    assert found.faults == (50 if long else 3)
    # What failed, or perhaps did, was put again.
    assert found.distinct >= found.put >= (200_000 if long else 6_000)
    assert found.gaps

"""Which faults a run gets: by its seed alone."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from rq_lite.chaos.crew import shares
from rq_lite.chaos.schedule import AWAY, KILL, LATEST, RESTART, Choices, schedule
from rq_lite.redis_url import with_database


def choices(**numbers: int) -> Choices:
    return Choices(**{"jobs": 10_000, "procs": 2, "greenlets": 10, **numbers})  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_faults() -> None:
    assert schedule(choices(kills=20, restarts=5, seed=7)) == schedule(choices(kills=20, restarts=5, seed=7))


def test_another_seed_gives_others() -> None:
    assert schedule(choices(kills=20, seed=7)) != schedule(choices(kills=20, seed=8))


def test_there_are_as_many_as_were_asked_for_and_they_are_mixed() -> None:
    kinds = [step.kind for step in schedule(choices(kills=30, restarts=10))]
    assert Counter(kinds) == {KILL: 30, RESTART: 10}
    assert kinds != sorted(kinds)


@pytest.mark.parametrize("seed", range(20))
def test_they_are_spread_over_the_run_and_leave_something_to_do(seed: int) -> None:
    steps = schedule(choices(kills=10, seed=seed))
    width = 10_000 * LATEST / 10
    assert [int(step.at / width) for step in steps] == list(range(10))
    assert all(earlier.at <= later.at for earlier, later in pairwise(steps))


def test_kills_hit_consumers_and_supervisors_and_only_restarts_take_redis_away() -> None:
    steps = schedule(choices(kills=100, restarts=100))
    assert {step.supervisor for step in steps if step.kind == KILL} == {False, True}
    assert {step.supervisor for step in steps if step.kind == RESTART} == {False}
    assert all(0 <= step.pick < 1 for step in steps)
    assert all((0 < step.away < AWAY) == (step.kind == RESTART) for step in steps)


def test_no_faults() -> None:
    assert schedule(choices()) == ()


def test_shares_differ_by_one_at_most() -> None:
    assert shares(10, 3) == [4, 3, 3]
    assert shares(2, 2) == [1, 1]


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("redis://h", "redis://h/15"),
        ("redis://:p%40ss@h:1/3", "redis://:p%40ss@h:1/15"),
        ("redis://h?db=2&ssl_cert_reqs=none", "redis://h/15?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=15"),
        ("redis+sentinel://u:p@a,b:1/service?x=1", "redis+sentinel://u:p@a,b:1/service/15?x=1"),
        ("unix://u:p@/run/redis.sock?db=3", "unix://u:p@/run/redis.sock?db=15"),
    ],
)
def test_another_database_of_the_same_redis(url: str, there: str) -> None:
    assert with_database(url, 15) == there

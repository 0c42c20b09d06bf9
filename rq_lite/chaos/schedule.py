"""The faults of a run and when they are injected, from its seed alone."""

from __future__ import annotations

import random

import msgspec

KILL, RESTART = "kill", "redis-restart"
KINDS = (KILL, RESTART)
SUPERVISORS = 0.2  # the share of kills that strike a supervisor
AWAY = 1.0  # seconds that Redis is gone before it is started again, at most
LATEST = 0.97  # of the jobs: some are left to do after the last fault


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a run."""

    jobs: int
    procs: int  # consumers, over all workers
    greenlets: int  # in each consumer
    kills: int = 0
    restarts: int = 0  # of Redis
    seed: int = 0
    nap: float = 0.0  # seconds that a job takes at most
    mixed: bool = False  # some jobs are unique, and some lead to others


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A fault: it is due when `at` jobs are done."""

    at: int
    kind: str
    supervisor: bool = False  # whether a supervisor is killed instead of a consumer
    pick: float = 0.0  # which of them: at this fraction of their list by age
    away: float = 0.0  # seconds that Redis is gone, at least


def schedule(choices: Choices) -> tuple[Step, ...]:
    """The faults in order, spread over the run; the same choices give the same faults."""
    chance = random.Random(choices.seed)
    kinds = [KILL] * choices.kills + [RESTART] * choices.restarts
    chance.shuffle(kinds)
    width = choices.jobs * LATEST / len(kinds) if kinds else 0.0
    return tuple(
        Step(
            at=int((number + chance.random()) * width),
            kind=kind,
            supervisor=chance.random() < SUPERVISORS and kind == KILL,
            pick=chance.random(),
            away=chance.uniform(0, AWAY) if kind == RESTART else 0.0,
        )
        for number, kind in enumerate(kinds)
    )

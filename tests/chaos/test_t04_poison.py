"""T4: several poisons at once. One alone: tests/acceptance/test_crash.py."""

from __future__ import annotations

from collections import Counter

from tests.acceptance.conftest import Lab
from tests.chaos.conftest import Tell
from tests.conftest import until

POISONS = ("kill", "segfault", "exit", "abort", "memory")


def test_poisons_end_in_the_dead_set_and_all_their_neighbours_are_done(lab: Lab, long: bool, tell: Tell) -> None:
    poisons = POISONS if long else POISONS[:2]
    neighbours = 200 if long else 50
    lab.put("hold", *range(neighbours))
    worker = lab.work("--greenlets", "200", procs=2)
    lab.until_seen("begun", neighbours)
    lab.put("poison", *poisons)
    # Neighbours that wait for the gate would soon run alone, and hold up the poisons behind them.
    until(lambda: {*poisons} & {*lab.seen("begun")}, "a poison has run")
    lab.open_gate()
    until(lambda: lab.state().dead == len(poisons), "the poisons are buried")
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0, "everything else is done")
    assert worker.stop() == 0
    runs = Counter(what for what in lab.seen("begun") if what in poisons)
    deaths = worker.said.count("was killed by") + worker.said.count("ended with exit code")
    tell(
        f"T4 {len(poisons)} poisons among {neighbours} neighbours: {deaths} consumers died, "
        f"{dict(runs)} runs, all neighbours done, {len(lab.seen('done')) - neighbours} of them twice"
    )
    assert max(runs.values()) <= 3
    assert deaths <= 3 * len(poisons)
    assert {*map(str, range(neighbours))} == {*lab.seen("done")}
    assert (lab.state().done, lab.state().failed) == (neighbours, len(poisons))

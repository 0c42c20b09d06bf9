"""When a dead consumer is started again, and when the worker gives up."""

from __future__ import annotations

from rq_lite.supervisor.restart import FIRST, LONGEST, LONGEST_READY, TRIES, YOUNG, RestartBackoff


def test_deaths_at_the_start_are_given_longer_pauses_and_then_up() -> None:
    respawn = RestartBackoff()
    pauses = [respawn.pause(ready=False, age=0.1) for _ in range(TRIES)]
    assert pauses == [FIRST * 2**n for n in range(TRIES - 1)] + [None]


def test_consumers_that_had_begun_to_work_are_never_given_up_and_never_waited_for_long() -> None:
    respawn = RestartBackoff()
    pauses = [respawn.pause(ready=True, age=0.1) for _ in range(2000)]
    assert pauses[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert set(pauses[3:]) == {LONGEST_READY}


def test_one_death_at_the_start_after_many_others_is_no_reason_to_give_up() -> None:
    respawn = RestartBackoff()
    for _ in range(TRIES + 1):
        respawn.pause(ready=True, age=0.1)
    assert respawn.pause(ready=False, age=0.1) is not None


def test_pauses_have_an_end_and_begin_anew_after_a_life_of_some_length() -> None:
    respawn = RestartBackoff()
    for _ in range(20):
        respawn.pause(ready=True, age=0.1)
    assert respawn.pause(ready=False, age=0.1) == LONGEST
    assert respawn.pause(ready=True, age=YOUNG) == FIRST

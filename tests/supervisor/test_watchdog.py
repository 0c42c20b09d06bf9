"""What a supervisor sees on a consumer's board."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rq_lite.process.board import (
    DEADLINE,
    ELSEWHERE,
    JOB,
    LANE,
    NEVER,
    ROOM,
    SECOND,
    TAKEN,
    TOOK,
    TURNED,
    Board,
    Running,
    new_file,
    size,
)
from rq_lite.process.protocol import SHORTEST_GRACE
from rq_lite.supervisor import watchdog
from rq_lite.supervisor.watchdog import Limits

LIMITS = Limits(stall=10, idle=15, grace=5, max_jobs=0, max_rss=0)


@pytest.fixture
def board() -> Iterator[Board]:
    file = new_file(size(3))
    made = Board(file, 3)
    os.close(file)
    yield made
    made.close()


def runs(board: Board, slot: int, *, lane: int = 0, tag: int = 1, deadline: float) -> None:
    board.words[board.place(slot) + JOB] = lane * LANE + tag
    board.words[board.place(slot) + DEADLINE] = int(deadline * SECOND)


def test_a_new_board_shows_nothing(board: Board) -> None:
    assert watchdog.stuck_for(board, 1e6) == 0
    assert watchdog.past_hard_limit(board, LIMITS, 1e6) == []
    assert watchdog.idle_for(board, 0, 1e6) == 0
    assert watchdog.worn_out(board, LIMITS, 0) == ""


def test_two_processes_see_the_same() -> None:
    file = new_file(size(1))
    one, other = Board(file, 1), Board(file, 1)
    runs(one, 0, lane=3, tag=2**40, deadline=7.5)
    assert other.running(0) == (0, 3, 2**40, 7.5)
    one.close()
    other.close()
    os.close(file)


def test_jobs_of_one_call_are_known_by_their_common_deadline(board: Board) -> None:
    runs(board, 0, tag=1, deadline=100)
    runs(board, 1, tag=2, deadline=100.5)
    runs(board, 2, tag=3, deadline=100)
    assert [job.tag for job in board.together(board.running(2))] == [1, 3]
    assert [job.tag for job in board.together(board.running(1))] == [2]
    for slot in range(3):  # none has begun, or each has ended
        board.words[board.place(slot) + DEADLINE] = ELSEWHERE if slot else NEVER
    assert [job.tag for job in board.together(board.running(2))] == [3]
    assert [job.tag for job in board.together(board.running(0))] == [1]


def test_a_loop_that_does_not_turn_is_stuck(board: Board) -> None:
    board.words[TURNED] = 100 * SECOND
    assert watchdog.stuck_for(board, 112.5) == 12.5


def test_a_job_has_its_grace_after_its_timeout(board: Board) -> None:
    runs(board, 0, tag=1, deadline=100)
    runs(board, 1, tag=2, deadline=200)
    runs(board, 2, tag=3, deadline=NEVER / SECOND)
    assert watchdog.past_hard_limit(board, LIMITS, 104.9) == []
    assert [job.tag for job in watchdog.past_hard_limit(board, LIMITS, 105.1)] == [1]
    assert [job.tag for job in watchdog.past_hard_limit(board, LIMITS, 1e6)] == [1, 2]


def test_a_job_that_begins_while_one_looks_is_not_taken_for_the_one_before_it(board: Board) -> None:
    """The deadline that was seen was its predecessor's."""

    class Busy(Board):
        def running(self, slot: int) -> Running:
            runs(self, slot, tag=2, deadline=1000.0)
            return super().running(slot)

    busy = Busy(new_file(size(1)), 1)
    runs(busy, 0, tag=1, deadline=5.0)
    assert busy.overdue(10.0) == []
    busy.close()


def test_without_grace_there_is_still_time_for_the_soft_limit(board: Board) -> None:
    runs(board, 0, deadline=100)
    limits = LIMITS._replace(grace=0)
    assert watchdog.past_hard_limit(board, limits, 100 + SHORTEST_GRACE / 2) == []
    assert watchdog.past_hard_limit(board, limits, 100.1 + SHORTEST_GRACE)


def test_a_cancelled_job_has_its_grace_after_that_was_seen(board: Board) -> None:
    runs(board, 0, tag=1, deadline=100)
    runs(board, 1, tag=2, deadline=1e9)
    cancelled = {board.running(0): 104.0, board.running(1): 102.0}
    assert watchdog.past_hard_limit(board, LIMITS, 104.9, cancelled) == []
    assert [job.tag for job in watchdog.past_hard_limit(board, LIMITS, 107.1, cancelled)] == [1, 2]
    assert [job.tag for job in watchdog.past_hard_limit(board, LIMITS, 109.1, cancelled)] == [1, 2]


def test_what_has_ended_or_runs_elsewhere_is_not_on_the_loop(board: Board) -> None:
    assert board.on_the_loop() == []
    runs(board, 0, tag=1, deadline=100)
    for slot, deadline in ((1, NEVER), (2, ELSEWHERE)):
        runs(board, slot, tag=2, deadline=0)
        board.words[board.place(slot) + DEADLINE] = deadline
    assert [job.tag for job in board.on_the_loop()] == [1]


def test_idle_is_who_has_room_and_takes_nothing_since_jobs_wait(board: Board) -> None:
    board.words[ROOM] = 1
    board.words[TOOK] = 100 * SECOND
    assert watchdog.idle_for(board, 90, 120) == 20
    assert watchdog.idle_for(board, 110, 120) == 10
    board.words[ROOM] = 0
    assert watchdog.idle_for(board, 90, 120) == 0


def test_worn_out_by_jobs_or_memory(board: Board) -> None:
    board.words[TAKEN] = 1000
    assert watchdog.worn_out(board, LIMITS, 10**9) == ""
    assert watchdog.worn_out(board, LIMITS._replace(max_jobs=1000), 0) == "has taken 1,000 jobs"
    assert watchdog.worn_out(board, LIMITS._replace(max_rss=200_000_000), 250_000_000) == "uses 250 MB"
    assert watchdog.worn_out(board, LIMITS._replace(max_rss=200_000_000), 150_000_000) == ""


def test_consumers_are_not_worn_out_all_at_once() -> None:
    limits = {LIMITS._replace(max_jobs=1000, max_rss=10**9).jittered() for _ in range(50)}
    assert len({one.max_jobs for one in limits}) > 10
    assert all(850 <= one.max_jobs <= 1000 and 0.85e9 <= one.max_rss <= 1e9 for one in limits)
    assert LIMITS.jittered() == LIMITS

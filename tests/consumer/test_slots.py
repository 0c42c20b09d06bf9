"""Slots by themselves: no Redis, and no patched process."""

from __future__ import annotations

import time

import gevent

from rq_lite.consumer.slots import Slot, Slots
from rq_lite.model.message import VERSION, Message, encode
from rq_lite.model.outcome import Outcome
from rq_lite.process.board import NEVER, SECOND, Board, new_file, size
from rq_lite.supervisor import watchdog


class Base:
    base = 0


def test_a_cancel_does_not_reach_the_job_with_the_same_tag_of_another_queue() -> None:
    """The one it is for ends, and the next begins in its slot, before the loop turns."""
    board, here, there, ended = Board(new_file(size(1)), 1), Base(), Base(), []

    def run(slot: Slot[Base], entry: bytes) -> Outcome:
        if slot.lane is here:
            slots.cancel(here, ["a"])
            return None
        slot.deadline = slot.words[slot.due] = time.monotonic_ns() + 60 * SECOND
        try:
            gevent.sleep(0.05)
        finally:
            slot.deadline = NEVER
        ended.append(slot.cancelled)
        return None

    slots: Slots[Base] = Slots(board, run, lambda lane, tag, outcome: None)
    slots.start()
    gevent.sleep(0)
    slots.feed(here, 6, [encode(Message(VERSION, "a", "t"))])
    slots.feed(there, 6, [encode(Message(VERSION, "b", "t"))])
    while not slots.idle:
        gevent.sleep(0.01)
    assert ended == [False]


def test_a_slot_that_lets_others_go_first_shows_no_job_of_its_own() -> None:
    """It has ended a job that held the loop, and others take what came meanwhile: it may be long until its next."""
    board, lane, done = Board(new_file(size(3)), 3), Base(), []

    def run(slot: Slot[Base], entry: bytes) -> Outcome:
        slot.deadline = slot.words[slot.due] = time.monotonic_ns() + SECOND
        if entry == b"hog":
            slots.feed(lane, 1, [b"", b""])
            slots._turned = 0  # the loop has not turned for long
        slot.deadline = NEVER
        return None

    slots: Slots[Base] = Slots(board, run, lambda lane, tag, outcome: done.append(tag))
    slots.start()
    gevent.sleep(0)
    slots.feed(lane, 0, [b"hog"])
    while len(done) < 3:
        gevent.sleep(0)
    assert slots.idle
    assert board.overdue(time.monotonic() + 1000) == []


def test_a_loop_that_never_turns_stands_still_from_its_beginning_on() -> None:
    """A process can be stopped between saying that it is ready and its first turn."""
    board = Board(new_file(size(1)), 1)
    before = time.monotonic()
    Slots[Base](board, lambda slot, entry: None, lambda lane, tag, outcome: None)
    assert 50 < watchdog.stuck_for(board, time.monotonic() + 60) <= time.monotonic() + 60 - before

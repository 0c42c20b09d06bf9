"""Schedules that are due are fired: a job for each slot is put, and the schedule moves on to its next slot."""

from __future__ import annotations

from collections.abc import Callable, Collection

from rq_lite.broker import Broker
from rq_lite.broker.scheduling import Planned
from rq_lite.errors import ShutDown
from rq_lite.logs import logger, one_line
from rq_lite.model.message import Seal, as_is
from rq_lite.model.schedule import MOST, Schedule, from_json, job_id

log = logger("rq_lite.worker")

AT_A_TIME = 50  # schedules that are fired before other duties have their turn
LOOK = 10.0  # seconds between two checks, if no alarm has rung
HOUR = 3_600_000  # ms until the next check of a schedule that has no slot in decades

Complain = Callable[[str, str], None]  # the schedule that it is about, and the text


def aloud(_about: str, text: str) -> None:
    log.warning("%s", text)


def fire_due(broker: Broker, queues: Collection[str], complain: Complain = aloud) -> float:
    """Fire schedules of these queues that are due by Redis' clock. Returns the seconds until the next is due, if known.

    A queue that no worker serves, or that was shut down, gets no jobs: its slots are missed. `complain` is called for
    schedules that cannot be fired.
    """
    tried = 0
    while tried < AT_A_TIME:
        now, due, upcoming = broker.plans.due()
        before = tried
        for planned in due:
            if tried < AT_A_TIME:
                tried += fire(broker, planned, now, queues, complain)
        if tried == before:
            return LOOK if upcoming is None else min(LOOK, max(0.0, (upcoming - now) / 1000))
        # The next slot of a schedule that has moved on may have come meanwhile.
    return 0.0


def fire(broker: Broker, planned: Planned, now: int, queues: Collection[str], complain: Complain = aloud) -> bool:
    """True if it has moved on: this worker has fired it, or another one was faster."""
    name = one_line(planned.name)
    said = from_json(planned.name, planned.definition, as_is)
    if said is None:
        complain(f"schedule {name}", f"schedule {name} is not understood by this version of rq_lite: it waits")
        return False
    if said.queue not in queues:
        return False
    schedule = from_json(planned.name, planned.definition, broker.core.opened)
    if schedule is None:
        complain(f"schedule {name}", f"schedule {name} is not signed with this worker's secret: it waits")
        return False
    try:
        slots, entries, upcoming = jobs_of(planned, schedule, now, broker.core.seal)
    except Exception as error:  # a schedule that any program may have written must not hold up the others
        complain(f"schedule {name}", f"schedule {name} makes no job: {type(error).__name__}: {error}: it waits")
        return False
    try:
        done = broker.plans.fire(planned, schedule.queue, entries, upcoming, slots[-1] if slots else None)
    except ShutDown:
        return False  # the queue was shut down on purpose: no complaint
    if done:
        tell(planned, slots, now)
    return True


def jobs_of(planned: Planned, schedule: Schedule, now: int, seal: Seal) -> tuple[list[int], list[bytes], int]:
    """The slots that are fired now, an entry for each, and the next slot."""
    slots = schedule.to_fire(planned.slot, now)
    upcoming = schedule.after(now)
    entries = [schedule.entry(job_id(planned.name, slot), seal) for slot in slots]
    return slots, entries, now + HOUR if upcoming is None else upcoming


def tell(planned: Planned, slots: list[int], now: int) -> None:
    """Log slots that were missed."""
    name = one_line(planned.name)
    if not slots:
        log.warning("schedule %s: the slot of %.0f s ago was missed, and is skipped", name, (now - planned.slot) / 1000)
    elif len(slots) > 1:
        log.warning("schedule %s: %d slots were due at once (at most %d are made up for)", name, len(slots), MOST)

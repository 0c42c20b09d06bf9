"""Schedules of an app's tasks: written to Redis when its workers begin."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from rq_lite.broker import Broker
from rq_lite.client.task import Task
from rq_lite.logs import logger, one_line
from rq_lite.model.schedule import Schedule, from_json, to_json

log = logger("rq_lite.worker")


TRIES = 5  # to write a definition that other processes change meanwhile


def declare(broker: Broker, tasks: Iterable[Task[Any, Any]]) -> None:
    """Write the schedules of these tasks to Redis, unless they are there already.

    A changed definition replaces the app's older one. A schedule whose times have not changed keeps its next slot, so
    that slots that were missed while no worker ran are made up for. If a task has no schedule any more, the app's older
    one is removed. An operator's schedule of the same name is kept.
    """
    without = set()
    for task in tasks:
        schedule = task.schedule
        if schedule is None:
            without.add(task.name)
        elif not write(broker, task.name, schedule):
            log.warning("schedule %s: the operator's is kept, the app's is not written", one_line(task.name))
    if without:
        remove_own(broker, without)


def remove_own(broker: Broker, names: Collection[str]) -> None:
    """Remove schedules of these names that an app has written; one that another process changes meanwhile is kept."""
    for planned in broker.plans.all_planned():
        schedule = from_json(planned.name, planned.definition, broker.core.opened) if planned.name in names else None
        if schedule is None or schedule.origin != "app":
            continue
        if broker.plans.plan(planned.name, planned.definition, b"", None):
            log.info("schedule %s is removed: the app's task has no schedule any more", one_line(planned.name))


def write(broker: Broker, name: str, schedule: Schedule) -> bool:
    """Write it; False if the name is taken by an operator's schedule and this is an app's, or the reverse."""
    wanted = to_json(name, schedule, broker.core.seal)
    for _ in range(TRIES):
        known = broker.plans.planned(name)
        if known is not None and known.definition == wanted:
            return True
        before = from_json(name, known.definition, broker.core.opened) if known is not None else None
        if before is not None and before.origin != schedule.origin:
            return False
        keeps = before is not None and before.same_times(schedule)
        slot = None if keeps else schedule.after(broker.plans.clock())
        if broker.plans.plan(name, known.definition if known else b"", wanted, slot):
            broker.plans.sound_alarm(schedule.queue)
            return True
    log.warning("schedule %s was not written: other processes keep changing it", one_line(name))
    return True

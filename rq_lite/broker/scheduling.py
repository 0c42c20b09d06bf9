"""Schedules in Redis: what runs again and again, and when it is due next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rq_lite import events
from rq_lite.broker import events as emit
from rq_lite.broker import keys
from rq_lite.broker.base import Core, ms_of
from rq_lite.broker.link import LONGEST_BLOCK, Link
from rq_lite.broker.reading import Reading
from rq_lite.broker.scripts import Code
from rq_lite.errors import ShutDown


class Planned(NamedTuple):
    """A schedule in Redis; times in ms by Redis' clock."""

    name: str
    definition: bytes
    slot: int  # when it is due next
    last: int | None = None  # the last slot that was fired


class Scheduling:
    """Definitions and slots, and the alarm that makes supervisors check again what is due."""

    def __init__(self, core: Core, reads: Reading) -> None:
        self._core, self._reads = core, reads

    def plan(self, name: str, known: bytes, definition: bytes, slot: int | None) -> bool:
        """Write a definition (b"": remove it) in place of the one that is `known` (b"": none), due next at `slot`.

        A `slot` of None leaves the next slot as it is. Returns False if the definition in Redis is not `known`; also
        when the call was repeated after a lost answer, though the first one wrote: then read the schedule again.
        """
        names = (keys.SCHEDULES, keys.SCHEDULES_DUE, keys.SCHEDULES_LAST)
        with events.span("plan", None, schedule=name):
            reply = self._core.run("plan", names, name, known, definition, "" if slot is None else slot)
        return bool(reply[0] == Code.OK)

    def fire(self, schedule: Planned, queue: str, entries: Sequence[bytes], upcoming: int, last: int | None) -> bool:
        """Put the jobs of a schedule's slots and set its next slot to `upcoming`; `last` is the last slot fired.

        Returns False, and puts nothing, if another process was faster, or the schedule has changed. Raises ShutDown,
        and changes nothing, if there are jobs to put and the queue was shut down.
        """
        key = keys.of(queue)
        names = (
            keys.SCHEDULES, keys.SCHEDULES_DUE, keys.SCHEDULES_LAST, key.pending, key.suspects, key.meta, key.bell,
        )  # fmt: skip
        said = ("" if last is None else last, *entries)
        jobs = [emit.id_of(entry) for entry in entries] if events.subscribers else []
        with events.span("fire", None, queue=queue, jobs=jobs, unbounded=True) as facts:
            reply = self._core.run("fire", names, schedule.name, schedule.definition, schedule.slot, upcoming, *said)
            if reply[0] != Code.OK:
                facts["jobs"] = []
        if reply[0] == Code.CLOSED:
            raise ShutDown(f"queue {queue!r} was shut down: schedule {schedule.name!r} waits")
        return bool(reply[0] == Code.OK)

    def clock(self) -> int:
        """What Redis' clock says, in ms."""
        return ms_of(self._core.read(("TIME",))[0])

    def planned(self, name: str) -> Planned | None:
        """The schedule of this name."""
        definition, slot, last = self._core.read(
            ("HGET", keys.SCHEDULES, name), ("ZSCORE", keys.SCHEDULES_DUE, name), ("HGET", keys.SCHEDULES_LAST, name)
        )
        return None if definition is None else Planned(name, definition, int(slot or 0), last and int(last))

    def all_planned(self) -> list[Planned]:
        """All schedules, the next one first."""
        due, last = self._core.read(
            ("ZRANGE", keys.SCHEDULES_DUE, 0, -1, "WITHSCORES"), ("HGETALL", keys.SCHEDULES_LAST)
        )
        fired = dict(zip(last[::2], last[1::2], strict=True))
        known = self._reads.values(keys.SCHEDULES, due[::2])
        return [
            Planned(name.decode(errors="replace"), definition, int(slot), int(fired[name]) if name in fired else None)
            for name, slot, definition in zip(due[::2], due[1::2], known, strict=True)
            if definition is not None
        ]

    def due(self) -> tuple[int, list[Planned], int | None]:
        """The time by Redis' clock, the schedules that are due, and the next slot of the others; times in ms."""
        clock, flat = self._core.read(("TIME",), ("ZRANGE", keys.SCHEDULES_DUE, 0, -1, "WITHSCORES"))
        now = ms_of(clock)
        found = [(name, int(slot)) for name, slot in zip(flat[::2], flat[1::2], strict=True)]
        names = [name for name, slot in found if slot <= now]
        known = self._reads.values(keys.SCHEDULES, names)
        due = [
            Planned(name.decode(errors="replace"), text or b"", at)
            for (name, at), text in zip(found, known, strict=False)
        ]
        return now, due, next((slot for _, slot in found[len(names) :]), None)

    # -- the alarm

    def sound_alarm(self, queue: str) -> None:
        """Make a supervisor of this queue check now what is due."""
        alarm = keys.of(queue).alarm
        self._core.read(("LPUSH", alarm, 1), ("LTRIM", alarm, 0, 0))

    def wait_alarm(self, queues: Sequence[str], seconds: float, link: Link) -> str | None:
        """Wait up to 2 s for news that something is due earlier than all that was known; the queue whose alarm rang."""
        alarms = {keys.of(queue).alarm.encode(): queue for queue in queues}
        reply = link.call("BLPOP", *alarms, min(seconds, LONGEST_BLOCK))
        return None if reply is None else alarms[reply[0]]

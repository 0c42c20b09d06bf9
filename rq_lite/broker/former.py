"""Names that keys of rq_lite had before 0.1.0: RQ owns some of them, so rq_lite no longer reads or writes any.

A process that connects to a Redis with such keys logs a warning. RQ has an `rq:queues` of its own, whose members all
begin with `rq:queue:`; the other names are not RQ's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rq_lite.model.names import NAME

QUEUES, RQ_QUEUE = "rq:queues", "rq:queue:"
SCHEDULES = ("rq:schedules", "rq:schedules:due", "rq:schedules:last")
# Beside an RQ with thousands of queues not all members are read.
LOOK: tuple[tuple[Any, ...], ...] = (("SSCAN", QUEUES, 0, "COUNT", 1000), *(("EXISTS", name) for name in SCHEDULES))
NAMED = 10  # queues that the warning names


def found(replies: Sequence[Any]) -> str | None:
    """The warning about such keys, from the replies to LOOK; None if there are none.

    A reply that is an error counts as no key: the user of this connection may not be allowed to look.
    """
    scanned, *there = replies
    members = [member.decode(errors="replace") for member in scanned[1]] if isinstance(scanned, list) else []
    queues = sorted(name for name in members if NAME.fullmatch(name) and not name.startswith(RQ_QUEUE))
    schedules = [name for name, count in zip(SCHEDULES, there, strict=True) if count == 1]
    if not queues and not schedules:
        return None
    named, more = " ".join(queues[:NAMED]), f" (and {len(queues) - NAMED} more)" if len(queues) > NAMED else ""
    shown = ([f"{QUEUES} with {named}{more}"] if queues else []) + schedules
    whole = [QUEUES] if len(queues) == len(members) > 0 else []
    commands = [f"SREM {QUEUES} {named}"] if queues and not whole else []
    commands += ["DEL " + " ".join([*whole, *schedules])] if whole or schedules else []
    return (
        f"keys of an rq_lite before 0.1.0, which this version does not read: {', '.join(shown)}. Let the old workers "
        f"finish, stop them, delete these keys (redis-cli: {'; '.join(commands)}) and add the schedules again"
    )

"""The state of the queue when a run is over: the last record of its history."""

from __future__ import annotations

import re

from rq_lite.admin import status
from rq_lite.broker import Broker, keys
from rq_lite.broker.events import id_of
from rq_lite.chaos.place import scan
from rq_lite.chaos.reading import QueueAtRest

MARK = re.compile(rb"^[rsp]\d{16}\|")  # before an entry in `scheduled`, and in `pending` by priority

GONE = -2  # PTTL of a key that does not exist


def at_rest(broker: Broker, queue: str) -> QueueAtRest:
    """The queue's counters, and the ids of the jobs in each place."""
    key = keys.of(queue)
    state = status.states(broker, [queue])[queue]
    pending, scheduled, suspects, dead = broker.read(
        ("ZRANGE" if state.order == "priority" else "LRANGE", key.pending, 0, -1),
        ("ZRANGE", key.scheduled, 0, -1),
        ("LRANGE", key.suspects, 0, -1),
        ("HVALS", key.dead),
    )
    return QueueAtRest(
        put=state.put,
        done=state.done,
        purged=state.purged + state.cancelled,
        dropped=state.dropped,
        pending=ids([MARK.sub(b"", entry) for entry in pending]),
        scheduled=ids([MARK.sub(b"", entry) for entry in scheduled]),
        suspects=ids(suspects),
        dead=ids([value.partition(b"\n")[2] for value in dead]),
        inflight=inflight(broker, queue),
    )


def inflight(broker: Broker, queue: str) -> dict[str, dict[int, str]]:
    """The jobs in flight: consumer → tag → id."""
    prefix = keys.of(queue).inflight("")
    found = {}
    for name in scan(broker, f"{prefix}*"):
        flat = broker.read(("HGETALL", name))[0]
        found[name.removeprefix(prefix)] = dict(zip(map(int, flat[::2]), ids(flat[1::2]), strict=True))
    return found


def ids(entries: list[bytes]) -> list[str]:
    return [id_of(entry) or "(no job)" for entry in entries]


def undocumented(broker: Broker, *ours: str) -> list[str]:
    """Keys in this Redis (all, or those of the patterns) that the catalogue lacks, or has with another type or TTL."""
    wrong = []
    for name in scan(broker, *(ours or ["*"])):
        kind, ttl = broker.read(("TYPE", name), ("PTTL", name))
        known = [key for key in keys.CATALOGUE if pattern(key.pattern).fullmatch(name)]
        fits = any(key.type == kind.decode() and key.expires == (ttl >= 0) for key in known)
        if not fits and kind != b"none" and ttl != GONE:  # a key may go by itself at any time
            wrong.append(f"{name} ({kind.decode()}, ttl {ttl} ms)")
    return wrong


def pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<[a-z]+>", ".+", re.escape(text).replace(r"\<", "<").replace(r"\>", ">")))

"""The state of a queue: at one moment while it is in use, and when a run is over, for the last record of a history."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rq_lite.admin import status
from rq_lite.broker import Broker, keys
from rq_lite.broker.events import id_of
from rq_lite.chaos.once import COUNTERS
from rq_lite.chaos.place import scan
from rq_lite.chaos.reading import Look, Marked, QueueAtRest
from rq_lite.model.message import parse

MARK = re.compile(rb"^[rsp]\d{16}\|")  # before an entry in `scheduled`, and in `pending` by priority

GONE = -2  # PTTL of a key that does not exist

# In one step: how many jobs have not ended, the heads of those entries that may be marked with a lock, the locks, the
# newer payloads behind them, and counters.
LOOK = """
local prefix, meta, alive, heads, locks, newer, seen = ARGV[1], KEYS[1], 0, {}, {}, {}, {}
local function look(place, entries)
  alive = alive + #entries
  for _, entry in ipairs(entries) do
    local head = entry:byte(1) ~= 123 and entry:match('^[^{]*{')
    if head and head:find('!', 1, true) then
      heads[#heads + 1] = place
      heads[#heads + 1] = head:match('^%a%d+|(.*)$') or head
    end
  end
end
local ranked = redis.call('HGET', meta, 'order') == 'priority'
look('pending', redis.call(ranked and 'ZRANGE' or 'LRANGE', prefix .. 'pending', 0, -1))
look('scheduled', redis.call('ZRANGE', prefix .. 'scheduled', 0, -1))
look('suspects', redis.call('LRANGE', prefix .. 'suspects', 0, -1))
local cursor = '0'
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', prefix .. '*', 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local kind, name = key:sub(#prefix + 1):match('^(%a+):(.*)$')
    if not seen[key] and kind == 'inflight' then look('inflight', redis.call('HVALS', key)) end
    if not seen[key] and kind == 'unique' then
      locks[#locks + 1] = name
      locks[#locks + 1] = redis.call('GET', key)
    end
    seen[key] = true
  end
until cursor == '0'
local behind = redis.call('HGETALL', prefix .. 'latest')
for i = 1, #behind, 2 do
  newer[i], newer[i + 1] = behind[i], behind[i + 1]:match('^%d*|([^{]*{)') or ''
end
return {alive + #behind / 2, heads, locks, newer, redis.call('HMGET', meta, unpack(ARGV, 2))}
"""


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
        purged=state.purged + state.cancelled + state.expired + state.overflowed,
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


def look(broker: Broker, queue: str) -> Look:
    """What is there at this moment, read in one step; it takes Redis as long as there are jobs."""
    key = keys.of(queue)
    alive, heads, locks, newer, counted = broker.read(("EVAL", LOOK, 1, key.meta, key.prefix, *COUNTERS))[0]
    return Look(
        counters={name: int(count or 0) for name, count in zip(COUNTERS, counted, strict=True)},
        alive=alive,
        marked=[*marked(heads)],
        locks={name.decode(): lock.decode() for name, lock in pairs(locks)},
        newer={name.decode(): (head.id or b"").decode() for name, raw in pairs(newer) if (head := parse(raw))},
    )


def marked(heads: list[bytes]) -> Iterator[Marked]:
    """Those of these jobs that are marked with a lock."""
    for place, raw in pairs(heads):
        head = parse(raw)
        if head is not None and head.unique is not None and head.id is not None:
            mode, _, name = head.unique.decode().partition(":")
            charged = bool(head.attempts or head.crashes or head.deaths)
            yield Marked(name, mode, head.id.decode(), place.decode(), charged)


def pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


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

"""Every key that rq_lite writes: its name, and what it holds. No other keys may exist.

The braces keep all keys of a queue in one slot of a Redis cluster. Keys that hold jobs never carry a TTL.
RQ may live in the same database: it owns `rq:queues`, `rq:worker:<name>` and others, but no key with a brace
after `rq:`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from rq_lite.model.names import checked_name

QUEUES = "rq-lite:queues"  # set: the names of all queues; written by declare
WORKERS = "rq-lite:workers"  # zset with a TTL: id of a worker by when its announcement expires, in ms
SCHEDULES = "rq-lite:{schedules}"  # hash: name of a schedule -> its definition as JSON
SCHEDULES_DUE = "rq-lite:{schedules}:due"  # zset: name of a schedule by its next slot in ms
SCHEDULES_LAST = "rq-lite:{schedules}:last"  # hash: name of a schedule -> the last slot that was fired, ms
GUARD = "never"  # the last part of the guards' names: keys that scripts declare and that never exist, see `guarded`
OURS = ("rq:{*", "rq-lite:*")  # SCAN patterns that match all keys of rq_lite, and no others


class Key(NamedTuple):
    """One kind of key, as docs/internals/protocol.md lists it; `<…>` in the pattern stands for what varies.

    The type "none" is that of a key which never exists.
    """

    pattern: str
    type: str
    expires: bool


# What a scan of a used Redis may find (tests compare; docs/internals/protocol.md describes).
CATALOGUE = (
    Key(QUEUES, "set", False),
    Key("rq-lite:worker:<id>", "hash", True),
    Key(WORKERS, "zset", True),
    Key(SCHEDULES, "hash", False),
    Key(SCHEDULES_DUE, "zset", False),
    Key(SCHEDULES_LAST, "hash", False),
    Key("rq:{<queue>}:pending", "list", False),
    Key("rq:{<queue>}:pending", "zset", False),  # of a priority queue
    Key("rq:{<queue>}:scheduled", "zset", False),
    Key("rq:{<queue>}:inflight:<consumer>", "hash", False),
    Key("rq:{<queue>}:consumers", "zset", False),
    Key("rq:{<queue>}:dead", "hash", False),
    Key("rq:{<queue>}:dead:index", "zset", False),
    Key("rq:{<queue>}:suspects", "list", False),
    Key("rq:{<queue>}:meta", "hash", False),
    Key("rq:{<queue>}:bell", "list", False),
    Key("rq:{<queue>}:room", "list", False),
    Key("rq:{<queue>}:drained", "list", False),
    Key("rq:{<queue>}:alarm", "list", False),
    Key("rq:{<queue>}:producer:<id>", "string", True),
    Key("rq:{<queue>}:feed:<name>", "hash", False),
    Key("rq:{<queue>}:cancelled", "zset", False),
    Key("rq:{<queue>}:calls:<consumer>", "list", True),
    Key("rq:{<queue>}:held:<consumer>", "string", True),
    Key("rq:{<queue>}:notices", "list", True),
    Key("rq:{<queue>}:progress", "hash", True),
    Key("rq:{<queue>}:over", "hash", True),
    Key("rq:{<queue>}:blocked", "hash", True),
    Key("rq:{<queue>}:job:<id>", "hash", True),
    Key("rq:{<queue>}:result:<id>", "string", True),
    Key("rq:{<queue>}:inbox:<client>", "list", True),
    Key("rq:{<queue>}:unique:<name>", "string", False),
    Key("rq:{<queue>}:unique:<name>", "string", True),  # in mode t
    Key("rq:{<queue>}:latest", "hash", False),
    Key("rq:{<queue>}:seen", "hash", False),
    Key("rq:{<queue>}:never", "none", False),
    Key("rq-lite:{schedules}:never", "none", False),
)


class QueueKeys:
    """The keys of one queue."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.prefix = prefix = f"rq:{{{queue}}}:"
        self.pending = prefix + "pending"  # list: encoded jobs; put = LPUSH, take = RPOP (by priority: a zset)
        self.scheduled = prefix + "scheduled"  # zset: "<s|p><16 digits of a tag>|<encoded job>" by due time in ms
        self.consumers = prefix + "consumers"  # zset: consumer by the end of its lease in ms
        self.dead = prefix + "dead"  # hash: delivery tag -> "<report as JSON>\n<encoded job>"
        self.dead_index = prefix + "dead:index"  # zset: delivery tag by time of burial in ms
        self.suspects = prefix + "suspects"  # list: encoded jobs that must run alone
        self.meta = prefix + "meta"  # hash: bound, paused, counters, last delivery tag
        self.bell = prefix + "bell"  # list of wake-up tokens: something to take
        self.room = prefix + "room"  # list of wake-up tokens: room to put
        self.drained = prefix + "drained"  # list of wake-up tokens: nothing unfinished
        self.cancelled = prefix + "cancelled"  # zset: id of a job to drop -> when it was cancelled, in ms
        self.progress = prefix + "progress"  # hash with a TTL: id of a running job -> how far it is, as JSON
        self.notices = prefix + "notices"  # list with a TTL: failed runs of which hooks are to be told
        self.over = prefix + "over"  # hash with a TTL: task -> jobs that its running jobs have put beyond the bound
        self.blocked = prefix + "blocked"  # hash with a TTL: process -> "<running jobs that wait for room> <until, ms>"
        self.alarm = prefix + "alarm"  # list of wake-up tokens: something is due before all else that is scheduled
        self.latest = prefix + "latest"  # hash: name of a lock -> "<due, ms>|<encoded job>" that replaces its holder
        self.seen = prefix + "seen"  # hash: 16 bytes of the SHA-256 of a lock's name -> "": was put once for ever

    def inflight(self, consumer: str) -> str:
        """Hash: delivery tag -> encoded job: what one consumer has taken and not settled."""
        return f"{self.prefix}inflight:{consumer}"

    def calls(self, consumer: str) -> str:
        """List with a TTL: ids of jobs that this consumer is to interrupt, if it runs them."""
        return f"{self.prefix}calls:{consumer}"

    def held(self, consumer: str) -> str:
        """String with a TTL: delivery tags of jobs that wait in this consumer for a thread or an engine."""
        return f"{self.prefix}held:{consumer}"

    def producer(self, producer: str) -> str:
        """String with a TTL: "<sequence number>:<accepted>" of this producer's last put."""
        return f"{self.prefix}producer:{producer}"

    def feed(self, name: str) -> str:
        """Hash: how far a resumable source has been fed, or which packages of a folder."""
        return f"{self.prefix}feed:{name}"

    def job(self, mark: str) -> str:
        """Hash with a TTL: the consumer of a tracked job, and the processes that watch it. `mark`: its `encoded_id`."""
        return f"{self.prefix}job:{mark}"

    def result(self, mark: str) -> str:
        """String with a TTL: how a tracked job has ended, as JSON."""
        return f"{self.prefix}result:{mark}"

    def unique(self, name: str) -> str:
        """String, with a TTL in mode t: "<mode>|<id>" and perhaps "|<due>|<deadline>", the lock of a unique job."""
        return f"{self.prefix}unique:{name}"

    def inbox(self, client: str) -> str:
        """List with a TTL: "<id>\\n<result as JSON>" of jobs that a process waits for."""
        return f"{self.prefix}inbox:{client}"


@lru_cache(maxsize=256)  # most calls repeat the keys of an earlier one
def guarded(names: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of a script's call and, last, the guard of each queue among them.

    While a slot of a cluster migrates, Redis checks the declared keys before a script begins, and again at each
    command in it. The guard never exists: so Redis refuses the whole call (TRYAGAIN) while any other key is still in
    the slot. It never refuses a command in the middle, which would leave the script half done.
    """
    slots: list[str] = []
    last = ""
    for name in names:
        if not (last and name.startswith(last)) and "}" in name:
            last = name[: name.index("}") + 2]
            if last not in slots:
                slots.append(last)
    return names + tuple([slot + GUARD if slot[-1] == ":" else f"{slot}:{GUARD}" for slot in slots])


def worker(worker_id: str) -> str:
    """Hash with a TTL: what a worker says of itself, for status."""
    return f"rq-lite:worker:{worker_id}"


@lru_cache(maxsize=1024)
def of(queue: str) -> QueueKeys:
    """The keys of the queue of this name; raises UsageError for a name that cannot be one."""
    return QueueKeys(checked_name(queue, "queue"))

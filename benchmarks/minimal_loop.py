"""The least code that keeps rq_lite's promise at rq_lite's speed: the yardstick for rq_lite.

    python -m benchmarks.minimal_loop SLOTS      one consumer; BENCH_REDIS is the URL of Redis

Bounded put, delivery tags, an in-flight hash, settling and taking in one round trip, a bell instead of polling,
long-lived slots, a deadline per job. No leases, retries, burying, supervision, several queues or clean stop:
the difference to rq_lite is the cost of those. It is not a model for rq_lite's structure.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

import gevent
import gevent.event
import gevent.queue
import msgspec
import redis

from benchmarks import bodies

PENDING, META, BELL = "rq:{minimal}:pending", "rq:{minimal}:meta", "rq:{minimal}:bell"
MAXSIZE = 50_000_000  # jobs
MOST = 1000  # jobs taken per round trip
TIMEOUT = 30.0  # seconds a job may run
TICK = 0.1  # seconds between two checks for overdue jobs
BLOCK = 1.0  # seconds a consumer waits at the bell; a lost token costs no more than this

# KEYS pending, bell; ARGV bound, job...: pushes the jobs that fit and returns how many they were.
PUT = """
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
local n = math.min(#ARGV - 1, room)
if n <= 0 then return 0 end
redis.call('LPUSH', KEYS[1], unpack(ARGV, 2, n + 1))
for _ = redis.call('LLEN', KEYS[2]) + 1, math.min(n, 64) do redis.call('LPUSH', KEYS[2], '') end
return n
"""

# KEYS pending, in-flight, meta, bell; ARGV how many to take, settled tag...: returns the last tag and the jobs.
EXCHANGE = """
local want, last = tonumber(ARGV[1]), #ARGV
for from = 2, last, 1000 do
  redis.call('HDEL', KEYS[2], unpack(ARGV, from, math.min(from + 999, last)))
end
local jobs = want > 0 and redis.call('RPOP', KEYS[1], want)
if not jobs then
  if want > 0 then redis.call('DEL', KEYS[4]) end
  return {0, {}}
end
local tag = redis.call('HINCRBY', KEYS[3], 'tag', #jobs)
local fields, first = {}, tag - #jobs
for i, job in ipairs(jobs) do
  fields[2 * i - 1], fields[2 * i] = first + i, job
end
redis.call('HSET', KEYS[2], unpack(fields))
return {tag, jobs}
"""


class Job(msgspec.Struct, array_like=True):
    """A job as it is stored in Redis."""

    id: str
    task: str
    argument: str | float


class Overdue(BaseException):
    """Raised inside a job that runs longer than it may."""


def connect() -> redis.Redis:
    return redis.Redis.from_url(os.environ["BENCH_REDIS"], single_connection_client=True)


class Producer:
    """Puts one job or a batch of at most a few thousand, and waits for the answer."""

    def __init__(self) -> None:
        self.script = connect().register_script(PUT)
        self.encode = msgspec.json.Encoder().encode

    def put(self, task: str, arguments: Sequence[object]) -> None:
        jobs = [self.encode((os.urandom(8).hex(), task, argument)) for argument in arguments]
        if self.script(keys=[PENDING, BELL], args=[MAXSIZE, *jobs]) != len(jobs):
            raise RuntimeError(f"the minimal loop's queue is full at {MAXSIZE:,} jobs")


class Slot:
    """Runs one job after the other, for ever; the consumer's timer checks `due`."""

    def __init__(self, consumer: Consumer) -> None:
        self.due = float("inf")
        self.greenlet = gevent.spawn(self.run, consumer)

    def run(self, consumer: Consumer) -> None:
        next_job, decode, now = consumer.jobs.get, msgspec.json.Decoder(Job).decode, time.monotonic
        while True:
            tag, raw = next_job()
            self.due = now() + TIMEOUT
            try:
                job = decode(raw)
                getattr(bodies, job.task)(job.argument)
            except Overdue:
                pass
            finally:
                self.due = float("inf")
            consumer.done(tag)


class Consumer:
    """Slots, a greenlet that exchanges results for jobs, one that waits at the bell, and a timer."""

    def __init__(self, slots: int) -> None:
        self.keys = [PENDING, f"rq:{{minimal}}:inflight:{os.getpid()}", META, BELL]
        self.exchange = connect().register_script(EXCHANGE)
        self.jobs: gevent.queue.SimpleQueue[tuple[int, bytes]] = gevent.queue.SimpleQueue()
        self.settled: list[int] = []
        self.room = slots
        self.something_to_do, self.dry = gevent.event.Event(), gevent.event.Event()
        self.slots = [Slot(self) for _ in range(slots)]

    def done(self, tag: int) -> None:
        self.settled.append(tag)
        if len(self.settled) == 1:
            self.something_to_do.set()

    def run(self) -> None:
        gevent.spawn(self.listen)
        gevent.spawn(self.watch)
        while True:
            self.something_to_do.clear()
            settled, self.settled = self.settled, []
            self.room += len(settled)
            want = 0 if self.dry.is_set() else min(self.room, MOST)
            if settled or want:
                self.hand_out(want, *self.exchange(keys=self.keys, args=[want, *settled]))
            else:
                self.something_to_do.wait()

    def hand_out(self, want: int, tag: int, jobs: list[bytes]) -> None:
        self.room -= len(jobs)
        for delivery in enumerate(jobs, tag - len(jobs) + 1):
            self.jobs.put(delivery)
        if len(jobs) < want:
            self.dry.set()
        gevent.sleep(0)

    def listen(self) -> None:
        """Wait at the bell while there is nothing to take, on a connection of its own."""
        bell = connect()
        while True:
            self.dry.wait()
            bell.brpop([BELL], timeout=BLOCK)
            self.dry.clear()
            self.something_to_do.set()

    def watch(self) -> None:
        while True:
            gevent.sleep(TICK)
            now = time.monotonic()
            for slot in self.slots:
                if slot.due < now:
                    gevent.kill(slot.greenlet, Overdue)


if __name__ == "__main__":
    Consumer(int(sys.argv[1])).run()

"""What a supervisor does in Redis, in a plain thread: keeps the leases of its consumers, and a few chores.

Every chore is one script and safe to run on all supervisors at once; there is no leader.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from rq_lite.broker import Broker
from rq_lite.broker.events import id_of
from rq_lite.duties import cron
from rq_lite.duties.alarm import Alarm
from rq_lite.duties.reclaim import ConsumerEnd, Reclaimer
from rq_lite.duties.stuck import StuckJobs
from rq_lite.errors import RqLiteError
from rq_lite.logs import RateLimitedLog, one_line

log = logging.getLogger("rq_lite.worker")

RENEW = 2.0  # seconds between two renewals of the leases, at most; status learns the throughput with them
PROMOTE = 1.0  # between two looks at what is due, where nobody said when that will be
TOGETHER = 0.01  # what is due within so long is promoted together
TURN = 0.25  # seconds after which a chore with much to do lets the others have their turn
RECLAIM = 5.0  # between two looks at the dead of other supervisors
AGAIN = 1.0  # until what Redis was not there for is tried again
STILL = 1.0  # between two looks for cancelled jobs of consumers that cannot hear of it
TRIM = 60.0  # between two looks at the caps of the dead set
BURST = 0.2  # between two looks whether everything is drained
BATCH = 250  # jobs that are promoted per step: Redis is at one for 1 ms
GOODBYE = 1.5  # seconds that a stopping worker waits for its last steps: Redis may be gone
NAMED = 10  # jobs of a stuck consumer that are named


class Chore:
    """Something that is done every so many seconds; it may say in how many it wants its next turn, if sooner."""

    def __init__(self, every: float, do: Callable[[], float | None]) -> None:
        self.every = every
        self.do = do
        self.due = time.monotonic()

    def __call__(self) -> None:
        self.due = time.monotonic() + self.every
        soon = self.do()
        self.due = time.monotonic() + (self.every if soon is None else min(soon, self.every))


class Duties:
    """Starts with `start`, does everything in its own thread, ends with `stop`.

    `drained` is called (in that thread) once nothing is left to do, in burst mode only; `chores` are done beside the
    others, each with how often (s). What it learns on the way is there to be read from other threads: `waiting_since`
    (time.monotonic() since when jobs wait to be taken; None: none do, or Redis does not say) and `suspects` (how many).
    Likewise it is told in `standstills` for whom it is to look.
    """

    def __init__(
        self,
        broker: Broker,
        worker_id: str,
        facts: dict[str, str | int],
        drained: Callable[[], None] | None,
        *,
        chores: Sequence[tuple[float, Callable[[], None]]] = (),
    ):
        # No second try within a chore: the next one comes soon enough, and an outage must not become a storm.
        self._broker = Broker(broker.url, settings=msgspec.structs.replace(broker.settings, patience=0.0), quiet=True)
        self._revive = broker.core.revive
        self._worker = worker_id
        self._facts = {**facts, "host": socket.gethostname(), "pid": os.getpid()}
        self._drained = drained
        self._more = chores
        self._every = min(RENEW, broker.settings.lease / 6)
        # Not a SimpleQueue: before Python 3.13 its get waits for ever once a signal meets it after its timeout.
        self._inbox: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._undone: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="duties", daemon=True)
        self._alarm = Alarm(self._broker, self._hear_alarm)
        self._promoting = Chore(PROMOTE, self._promote)
        self._planning = Chore(cron.LOOK, lambda: cron.fire_due(self._broker, self._queues, self._rarely.warn))
        self._renewed = 0.0  # when the leases were
        self._looked = 0.0  # when all queues were looked at
        self._next: dict[str, float] = {}  # queue to when the next of its scheduled jobs is due, in time.monotonic()
        self._queues: list[str] = []
        self._paused: set[str] = set()  # of these it was said
        self._reaper = Reclaimer(self._broker, self._renew_if_due)
        self._seldom = RateLimitedLog(log)
        self._rarely = RateLimitedLog(log, seconds=3600.0)
        self.waiting_since: float | None = None
        self.suspects = 0
        self.standstills: Sequence[StuckJobs] = ()

    def start(self, queues: list[str]) -> None:
        """Begin, once it is known which queues the worker serves."""
        self._queues = queues
        self._facts["queues"] = ",".join(queues)
        self._thread.start()
        self._alarm.start(queues)

    def serve(self, queue: str) -> None:
        """Another queue, from now on."""
        self._inbox.put(lambda: self._serve(queue))

    def born(self, consumer: str) -> None:
        """Keep the lease of this consumer from now on."""
        self._reaper.own.add(consumer)
        self._inbox.put(lambda: self._reaper.living.add(consumer))

    def died(self, end: ConsumerEnd) -> None:
        """It is dead for certain: its jobs go back to the queue now."""
        self._inbox.put(lambda: self._bury(end))

    def tell_stuck(self, consumer: str, headline: str, stack: str, blamed: tuple[str, int] | None) -> None:
        """Log a consumer whose loop does not turn, with where it is and the ids of its jobs."""
        self._inbox.put(lambda: self._log_stuck(consumer, headline, stack, blamed))

    def say(self, line: str) -> None:
        """Log it, after what was told before."""
        self._inbox.put(lambda: log.warning("%s", line))

    def show(self, **facts: str | int) -> None:
        """What status should know of the worker."""
        self._facts = {**self._facts, **facts}

    def stop(self) -> None:
        """Finish what was asked for, say goodbye, end. Waits a moment at most: Redis may be gone."""
        if self._thread.ident is not None:
            self._alarm.stop()
            self._inbox.put(None)
            self._thread.join(timeout=GOODBYE)

    # -- in the thread

    def _run(self) -> None:
        chores = [
            Chore(self._every, self._renew),
            Chore(self._every, self._announce),
            self._promoting,
            self._planning,
            Chore(RECLAIM, self._reclaim_the_dead),
            Chore(AGAIN, self._try_again),
            Chore(STILL, self._look_for_cancelled),
            Chore(TRIM, self._trim),
            Chore(RateLimitedLog.FLUSH, self._seldom.flush),
            *[Chore(every, do) for every, do in self._more],
        ]
        if self._drained is not None:
            chores.append(Chore(BURST, self._look_whether_drained))
        self._guarded(self._reclaim_gone)
        while True:
            try:
                errand = self._inbox.get(timeout=max(0.0, min(chore.due for chore in chores) - time.monotonic()))
            except queue.Empty:
                errand = None
            else:
                if errand is None:
                    break
                if not self._guarded(errand):
                    self._undone.append(errand)
            for chore in chores:
                if chore.due <= time.monotonic() and not self._guarded(chore):
                    for one in chores:  # the others would fail, too
                        one.due = max(one.due, time.monotonic() + AGAIN * random.uniform(1.0, 1.5))
        self._try_again()
        self._seldom.flush(at_once=True)
        self._guarded(lambda: self._broker.tends.unannounce(self._worker))
        self._broker.close()

    def _guarded(self, chore: Callable[[], None]) -> bool:
        """Whether it was done, as far as Redis is concerned."""
        try:
            chore()
        except RqLiteError as error:
            self.waiting_since = None
            self._seldom.warn("duties", str(error))
            with contextlib.suppress(RqLiteError, OSError):
                self._revive()
            return False
        except Exception:
            log.exception("a duty failed; the others go on")
        return True

    def _try_again(self) -> None:
        undone, self._undone = self._undone, []
        self._undone = [errand for errand in undone if not self._guarded(errand)]

    def _serve(self, queue: str) -> None:
        if queue not in self._queues:
            self._queues.append(queue)
            self._alarm.serve(queue)
            self._facts = {**self._facts, "queues": ",".join(self._queues)}
        self._reclaim_gone()

    def _renew(self) -> None:
        self._renewed = time.monotonic()
        found = [self._broker.tends.renew(name, sorted(self._reaper.living)) for name in self._queues]
        self.suspects = sum(one.suspects for one in found)
        self._tell_paused({name for name, one in zip(self._queues, found, strict=True) if one.paused})
        if not any(one.waiting for one in found):
            self.waiting_since = None
        elif self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def _tell_paused(self, paused: set[str]) -> None:
        """A worker that does nothing, though jobs wait and slots are free, says why."""
        for name in sorted(paused - self._paused):
            log.warning("queue %r is paused, nothing of it is taken: `rq-lite queue resume %s`", name, name)
        for name in sorted(self._paused - paused):
            log.info("queue %r is taken from again", name)
        self._paused = paused

    def _renew_if_due(self) -> None:
        if time.monotonic() > self._renewed + self._every:
            self._renew()

    def _announce(self) -> None:
        self._broker.tends.announce(
            self._worker, {**self._facts, "consumers": len(self._reaper.living)}, self._broker.settings.lease
        )

    def _promote(self) -> float:
        """What is due; seconds until something is again, of which Redis knows now."""
        now = time.monotonic()
        looked = self._looked + PROMOTE <= now
        if looked:
            self._looked = now
        for name in self._queues:
            if looked or self._next.get(name, now) <= now:
                self._next[name] = self._promote_of(name, now + TURN)
        return max(TOGETHER, min(self._next.values(), default=PROMOTE) - time.monotonic())

    def _promote_of(self, name: str, until: float) -> float:
        """When the next of this queue's scheduled jobs is due; now, where there is no time for all."""
        while True:
            moved, left = self._broker.tends.promote(name, BATCH)
            now = time.monotonic()
            if moved < BATCH or now > until:
                return now + (PROMOTE if left is None else left)

    def _hear_alarm(self, queue: str) -> None:
        """From the alarm's thread."""
        self._inbox.put(lambda: self._look_again(queue))

    def _look_again(self, queue: str) -> None:
        self._next[queue] = self._promoting.due = self._planning.due = time.monotonic()

    def _look_whether_drained(self) -> None:
        """Parked jobs don't count: this worker cannot run them, and would wait for ever."""
        assert self._drained is not None
        if all(left <= parked for left, parked in map(self._broker.tends.unfinished, self._queues)):
            self._drained()

    def _look_for_cancelled(self) -> None:
        for standstill in self.standstills:
            standstill.look(self._broker)

    def _bury(self, end: ConsumerEnd) -> None:
        found = self._reaper.bury(end, self._queues)  # first: it may renew, which counts anew
        self.suspects += found

    def _reclaim_the_dead(self) -> None:
        found = self._reaper.reclaim_the_dead(self._queues)
        self.suspects += found

    def _reclaim_gone(self) -> None:
        found = self._reaper.reclaim_gone(self._queues)
        self.suspects += found

    def _trim(self) -> None:
        for name in self._queues:
            while self._broker.tends.trim(name):
                pass

    def _log_stuck(self, consumer: str, headline: str, stack: str, blamed: tuple[str, int] | None) -> None:
        named: list[str] = []
        count = 0
        with contextlib.suppress(RqLiteError):
            for name in self._queues:
                tags = sorted(self._broker.takes.inflight(name, consumer), key=lambda tag: ((name, tag) != blamed, tag))
                count += len(tags)
                entries = self._broker.takes.booked(name, consumer, tags[: NAMED - len(named)])
                named += [id_of(entry) or "(no job)" for _, entry in entries]
        more = f" and {count - len(named)} more" if count > len(named) else ""
        log.error("%s; its jobs: %s%s\n%s", headline, one_line(", ".join(named)) or "unknown", more, stack)

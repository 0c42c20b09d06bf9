"""The duties: roles that keep queues going, run by one plain thread of each worker and each process that gets.

All these threads may run every role at once; there is no leader.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from rq_lite.broker import Broker
from rq_lite.duties import cron, promote
from rq_lite.duties.alarm import Alarm
from rq_lite.duties.leases import Leases
from rq_lite.duties.promote import Promoter
from rq_lite.duties.reclaim import ConsumerEnd, Reclaimer
from rq_lite.duties.stuck import StuckJobs, log_stuck
from rq_lite.errors import BrokerUnavailable, RqLiteError
from rq_lite.logs import RateLimitedLog, logger

log = logger("rq_lite.worker")

RECLAIM = 5.0  # seconds between two checks for dead consumers of other workers
AGAIN = 1.0  # until an errand that failed, because Redis did not answer, is tried again
STILL = 1.0  # between two checks for cancelled jobs of consumers whose loop stands still, which hear no call
TRIM = 60.0  # between two checks of the caps of the dead set
BURST = 0.2  # between two checks whether everything is drained
GOODBYE = 1.5  # seconds that a stopping worker waits for its last steps: Redis may be gone


class Role:
    """A duty. `do` is called every `every` seconds, or sooner: it may return the seconds until its next turn."""

    def __init__(self, every: float, do: Callable[[], float | None]) -> None:
        self.every = every
        self.do = do
        self.due = time.monotonic()

    def __call__(self) -> None:
        self.due = time.monotonic() + self.every
        soon = self.do()
        self.due = time.monotonic() + (self.every if soon is None else min(soon, self.every))


class Duties:
    """The thread that runs the roles of one worker, and errands that other threads hand to it.

    1. `start`: the queues are known, and the thread begins. A second one waits for alarms (alarm.py).
    2. Consumers of this machine whose processes are gone are reclaimed at once.
    3. Then each role has its turn when it is due: leases and what Redis knows of the worker (leases.py), promotion
       (promote.py), schedules (cron.py), reclaiming (reclaim.py), cancelled jobs of stuck consumers (stuck.py), the
       caps of the dead set; in burst mode, whether the queues are drained.
    4. Errands (`born`, `died`, `serve`, `say`, an alarm) wake the thread.
    5. If Redis does not answer: all roles wait a second; a failed errand is kept and tried again. The thread sends each
       request only once (patience 0), so that an outage does not become a storm of requests. Once leases can be renewed
       again, the log says so, for the whole worker.
    6. Any other error in a role is logged; the others go on.
    7. `stop`: the errands that are left are done, the worker is taken out of the list of workers, the thread ends.

    `drained` is called in this thread, in burst mode only, once nothing is left to do. `chores` are further roles, each
    with its interval in seconds. `standstills` is set by the supervisor: consumers whose loop stands still. `for_hooks`
    is shared with it, too: whether to leave notices of failed runs, and whether there are some.
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
        self._broker = Broker(broker.url, settings=msgspec.structs.replace(broker.settings, patience=0.0), quiet=True)
        self._revive = broker.core.revive
        self._drained = drained
        # Not a SimpleQueue: before Python 3.13 its get waits for ever if a signal comes after its timeout.
        self._inbox: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._undone: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="duties", daemon=True)
        self._queues: list[str] = []
        self._seldom = RateLimitedLog(log)
        rarely = RateLimitedLog(log, seconds=3600.0)
        self._reclaimer = Reclaimer(self._broker, self._renew_if_due)
        self.for_hooks = self._reclaimer.for_hooks
        self._leases = Leases(self._broker, worker_id, facts, self._queues, self._reclaimer.living)
        self._promoter = Promoter(self._broker, self._queues)
        self._alarm = Alarm(self._broker, self._hear_alarm)
        self._promoting = Role(promote.LOOK, self._promoter.promote)
        self._firing = Role(cron.LOOK, lambda: cron.fire_due(self._broker, self._queues, rarely.warn))
        self._roles = [
            Role(self._leases.every, self._renew),
            Role(self._leases.every, self._leases.announce),
            self._promoting,
            self._firing,
            Role(RECLAIM, lambda: self._count(self._reclaimer.reclaim_expired)),
            Role(AGAIN, self._try_again),
            Role(STILL, self._look_for_cancelled),
            Role(TRIM, self._trim),
            Role(RateLimitedLog.FLUSH, self._seldom.flush),
            *[Role(every, do) for every, do in chores],
        ]
        if drained is not None:
            self._roles.append(Role(BURST, self._look_whether_drained))
        self.standstills: Sequence[StuckJobs] = ()
        self._away = False  # the log says that Redis cannot be reached

    # -- called by other threads

    @property
    def waiting_since(self) -> float | None:
        """Since when jobs wait to be taken, in time.monotonic(); None: none do, or Redis does not answer."""
        return self._leases.waiting_since

    @property
    def suspects(self) -> int:
        """How many suspects wait."""
        return self._leases.suspects

    def forget_suspects(self) -> None:
        """A consumer for suspects has found no more; the next renewal counts them again."""
        self._leases.suspects = 0

    def start(self, queues: list[str]) -> None:
        """Begin, once it is known which queues the worker serves."""
        self._queues.extend(queues)
        self._leases.show({"queues": ",".join(queues)})
        self._thread.start()
        self._alarm.start(queues)

    def serve(self, queue: str) -> None:
        """Do the duties of this queue, too, from now on."""
        self._inbox.put(lambda: self._serve(queue))

    def born(self, consumer: str) -> None:
        """Keep the lease of this consumer from now on."""
        self._reclaimer.own.add(consumer)
        self._inbox.put(lambda: self._reclaimer.living.add(consumer))

    def died(self, end: ConsumerEnd) -> None:
        """A consumer is dead for certain: its jobs go back to their queues now."""
        self._inbox.put(lambda: self._count(lambda queues: self._reclaimer.reclaim_dead(end, queues)))

    def tell_stuck(self, consumer: str, headline: str, stack: str, blamed: tuple[str, int] | None) -> None:
        """Log a consumer whose loop does not turn, with its stack and the ids of its jobs."""
        self._inbox.put(lambda: log_stuck(self._broker, self._queues, consumer, headline, stack, blamed))

    def say(self, line: str) -> None:
        """Log a line, after those of earlier errands."""
        self._inbox.put(lambda: log.warning("%s", line))

    def show(self, **facts: str | int) -> None:
        """Show facts about the worker in status."""
        self._leases.show(facts)

    def stop(self) -> None:
        """Do the errands that are left, and end. Waits `GOODBYE` seconds at most: Redis may be gone."""
        if self._thread.ident is not None:
            self._alarm.stop()
            self._inbox.put(None)
            self._thread.join(timeout=GOODBYE)

    # -- the thread

    def _run(self) -> None:
        now = time.monotonic()
        for role in self._roles:
            role.due = now
        self._guarded(self._reclaim_gone)
        while True:
            try:
                errand = self._inbox.get(timeout=max(0.0, min(role.due for role in self._roles) - time.monotonic()))
            except queue.Empty:
                pass
            else:
                if errand is None:
                    break
                if not self._guarded(errand):
                    self._undone.append(errand)
            for role in self._roles:
                if role.due <= time.monotonic() and not self._guarded(role):
                    for one in self._roles:  # the others would fail, too
                        one.due = max(one.due, time.monotonic() + AGAIN * random.uniform(1.0, 1.5))
        self._try_again()
        self._seldom.flush(at_once=True)
        self._guarded(self._leases.unannounce)
        self._broker.close()

    def _guarded(self, step: Callable[[], None]) -> bool:
        """Do it; False if Redis did not answer. Any other error is only logged: the other roles must go on."""
        try:
            step()
        except RqLiteError as error:
            self._leases.waiting_since = None
            self._away = self._away or isinstance(error, BrokerUnavailable)
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

    # -- in the thread: errands and small roles

    def _serve(self, queue: str) -> None:
        if queue not in self._queues:
            self._queues.append(queue)
            self._alarm.serve(queue)
            self._leases.show({"queues": ",".join(self._queues)})
        self._reclaim_gone()

    def _renew(self) -> None:
        self._leases.renew()
        if self._away:
            self._away = False
            log.info("Redis answers again")

    def _renew_if_due(self) -> None:
        self._leases.renew_if_due()

    def _count(self, reclaim: Callable[[Sequence[str]], int]) -> None:
        """Reclaim, and only then add the new suspects: a renewal between two steps counts all suspects again."""
        found = reclaim(self._queues)
        self._leases.suspects += found

    def _reclaim_gone(self) -> None:
        self._count(self._reclaimer.reclaim_gone)

    def _hear_alarm(self, queue: str) -> None:
        """Called by the alarm's thread."""
        self._inbox.put(lambda: self._look_again(queue))

    def _look_again(self, queue: str) -> None:
        now = time.monotonic()
        self._promoter.look_again(queue, now)
        self._promoting.due = self._firing.due = now

    def _look_for_cancelled(self) -> None:
        for standstill in self.standstills:
            standstill.look(self._broker)

    def _trim(self) -> None:
        for name in self._queues:
            while self._broker.tends.trim(name):
                pass

    def _look_whether_drained(self) -> None:
        """Parked jobs don't count: this worker cannot run them, and would wait for ever."""
        assert self._drained is not None
        ours = [name for name in self._queues if name not in self._leases.newer]
        if all(left <= parked for left, parked in map(self._broker.tends.unfinished, ours)):
            self._drained()

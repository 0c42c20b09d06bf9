"""A worker's parent process: its loop, its signals, its stop. Plain Python, never patched, runs no user code."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable

from rq_lite import events
from rq_lite.broker import Broker
from rq_lite.duties.duties import Duties
from rq_lite.errors import counted
from rq_lite.logs import escaped, logger
from rq_lite.process.identity import mine
from rq_lite.process.protocol import ConsumerConfig
from rq_lite.supervisor.fleet import Fleet
from rq_lite.supervisor.watchdog import Limits, Watchdog

log = logger("rq_lite.worker")

STOPPING = (signal.SIGTERM, signal.SIGINT)
MARGIN = 3.0  # seconds beyond its grace after which a consumer that does not end is killed
LOOK = 0.5  # seconds between two checks of the consumers


class Supervisor:
    """One worker. `run` returns its exit code; `config_of` makes the configuration of consumer number n.

    1. Signal handlers are set: they only count, and wake the loop.
    2. The first consumer is started. It imports the app and reports the queues; so an app that cannot be imported is
       reported once, and ends the worker.
    3. Once it is ready: the banner is printed, the duties start in a thread of their own (duties.py), the other
       consumers are started.
    4. Each turn of the loop waits for a signal, a report or a start that is due, for at most half a second. Then it
       hears the reports and reaps what has ended (fleet.py).
    5. While the worker runs, each turn also reads the consumers' boards (watchdog.py), replaces one that is worn out,
       starts consumers for suspects, and passes notices for hooks on. SIGHUP replaces all consumers, one by one.
    6. SIGTERM, SIGINT or, in burst mode, queues that are drained: consumers are told to stop, and none is started.
       A second signal is passed on: running jobs are then given back at once.
    7. Consumers that do not end within their grace and a margin are killed; their jobs run again.
    8. When the last has ended: the duties do their last errands and take the worker out of Redis' list; the guard ends.
    """

    def __init__(
        self,
        broker: Broker,
        config_of: Callable[[int], ConsumerConfig],
        procs: int,
        limits: Limits,
        *,
        version: str,
        burst: bool = False,
    ) -> None:
        self._version = version
        self._broker = broker
        self._procs = procs
        self._grace = broker.settings.grace
        self._stops = 0
        self._reload = False
        self._drained_all = False  # there is nothing more to run
        self._hurried = False  # the second signal was passed on
        self._kill_at: float | None = None
        self._exit_code = 0
        self._wake, self._woken = os.pipe()
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        self._selector = selectors.DefaultSelector()
        facts: dict[str, str | int] = {"procs": procs, "slots": broker.settings.greenlets, "since": round(time.time())}
        self._duties = Duties(broker, str(mine()), facts, self._drained if burst else None)
        self._watchdog = Watchdog(self._duties, limits)
        self._fleet = Fleet(
            config_of,
            procs,
            self._selector,
            self._duties,
            hard_limit=self._watchdog.hard_limit,
            on_begun=self._show,
        )

    # -- the loop

    def run(self) -> int:
        self._catch_signals()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._fleet.start(1)
        while self._fleet.at_work():
            self._selector.select(self._pause())
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._fleet.hear()
            self._fleet.reap()
            self._say_if_it_gave_up()
            if self._stops:
                self._stop_consumers()
            else:
                self._fleet.report_slow()
                if self._fleet.begun:
                    self._look_after()
            self._fleet.start_due()
        self._duties.stop()
        self._fleet.close()
        return self._exit_code

    def _pause(self) -> float:
        """Seconds until something is due; at most LOOK, in case a signal gets lost."""
        dues = [*self._fleet.dues(), *([self._kill_at] if self._kill_at else [])]
        return max(0.0, min([time.monotonic() + LOOK, *dues]) - time.monotonic())

    def _look_after(self) -> None:
        now = time.monotonic()
        if self._reload:
            self._reload = False
            self._fleet.reload()
        self._fleet.replace(self._watchdog.look(self._fleet.ready(), now))
        self._fleet.start_for_suspects(now)
        self._fleet.pass_notices_on()

    # -- signals

    def _catch_signals(self) -> None:
        """Handlers do nothing but count and wake the loop."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOPPING:
            signal.signal(number, self._on_stop)
        # Under nohup the worker survives its terminal.
        ends_with_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and has_terminal()
        signal.signal(signal.SIGHUP, self._on_hangup if ends_with_terminal else self._on_reload)

    def _on_stop(self, *_: object) -> None:
        self._stops += 1
        self._fleet.stopping = True

    def _on_reload(self, *_: object) -> None:
        self._reload = True

    def _on_hangup(self, *_: object) -> None:
        """The kernel sends SIGHUP when it has taken the terminal from the session; people send it with `kill`."""
        if has_terminal():
            self._on_reload()
        else:
            self._on_stop()

    # -- the stop

    def _drained(self) -> None:
        """Called by the duties' thread, in burst mode."""
        if not self._stops:
            self._drained_all = True
            log.info("everything is drained")
        self._stops = max(1, self._stops)
        self._fleet.stopping = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._woken, b"\0")

    def _say_if_it_gave_up(self) -> None:
        gave_up, self._fleet.gave_up = self._fleet.gave_up, None
        if gave_up is None:
            return
        if gave_up.traceback:
            print(gave_up.traceback, end="", file=sys.stderr)
        print(f"rq-lite: {escaped(gave_up.error)}", file=sys.stderr)
        self._exit_code = gave_up.exit_code
        self._stops = max(1, self._stops)

    def _stop_consumers(self) -> None:
        """Tell them once; kill them when their grace and a margin are over, or soon after a second signal."""
        if self._kill_at is None:
            events.emit("stop.before", None)
            if self._fleet and not self._drained_all:
                log.info("stopping: running jobs have up to %g s", self._grace)
            self._kill_at = time.monotonic() + self._grace + MARGIN
            self._fleet.signal_all(signal.SIGTERM)
        elif self._stops > 1 and not self._hurried:
            self._hurried = True
            self._kill_at = min(self._kill_at, time.monotonic() + MARGIN)
            self._fleet.signal_all(signal.SIGTERM)
        if time.monotonic() >= self._kill_at and self._fleet:
            slow = counted(len(self._fleet), "consumer")
            log.error("killing %s that did not end in time; the jobs there will be reclaimed", slow)
            self._fleet.signal_all(signal.SIGKILL)
            self._kill_at = time.monotonic() + MARGIN

    # -- the banner

    def _show(self, queues: dict[str, int]) -> None:
        bounds = ", ".join(f"{name} ({f'bound {bound:,}' if bound else 'unbounded'})" for name, bound in queues.items())
        slots = self._broker.settings.greenlets
        print(
            f"rq-lite {self._version} worker, pid {os.getpid()}\n"
            f"  queues     {bounds}\n"
            f"  consumers  {counted(self._procs, 'process', 'processes')} × {counted(slots, 'greenlet')} = "
            f"{counted(self._procs * slots, 'slot')}\n"
            f"  redis      {self._broker.shown} (version {'.'.join(map(str, self._broker.core.version))})\n"
            f"  stop       Ctrl-C or SIGTERM; running jobs have {self._grace:g} s",
            file=sys.stderr,
            flush=True,
        )


def has_terminal() -> bool:
    """Whether this process's session has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True

"""What an app and its jobs may do with signals and timers, and with faulthandler, in a process that runs them.

All of these belong to the whole process. A handler interrupts whatever code is running, and what it raises is raised
there: in a consumer that is any job, or our loop. So a job of a consumer may not set a signal or a timer; a handler
that the app has set while it was imported is run, and what it raises is logged. In an engine handlers and timers belong
to the job that runs, and end with it. In both, an app cannot change the signals that rq_lite needs itself.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from rq_lite.errors import UsageError
from rq_lite.logs import logger

log = logger("rq_lite.consumer")

Handler = Callable[[int, FrameType | None], object]
TIMER, MASK, HANDLER, WAKEUP = range(4)


class Guarded:
    """A handler of the app, as it is set in the system."""

    __slots__ = ("_run", "handler")

    def __init__(self, handler: Handler, run: Callable[[Handler, int, FrameType | None], None]) -> None:
        self.handler = handler
        self._run = run

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._run(self.handler, number, frame)


class Signals:
    """Replaces functions of `signal` and `faulthandler`, for all code that is imported from now on.

    `own`: signals that the app cannot change. `run` calls a handler of the app once the app is imported (`imported`);
    before, and in processes that a job forks, a handler is called directly. `shared`: the process runs many jobs at
    once.
    """

    def __init__(
        self, own: Collection[int], run: Callable[[Handler, int, FrameType | None], None], *, shared: bool
    ) -> None:
        self._own = own
        self._run = run
        self._shared = shared
        self._pid = os.getpid()
        self._jobs = False  # the app is imported
        self._told: set[int] = set()
        # How to undo what the job has changed: first its timers, so that no signal comes when its handler is gone.
        self._undo: dict[tuple[int, int], Callable[[], object]] = {}
        self.set = signal.signal  # for our own handlers
        for module, functions in (
            (signal, (self._signal, self._getsignal, self._alarm, self._setitimer, self._set_wakeup_fd)),
            (signal, (self._siginterrupt, self._pthread_sigmask, self._pthread_kill)),
            (faulthandler, (self._enable, self._disable, self._register, self._unregister)),
            (faulthandler, (self._dump_traceback_later,)),
        ):
            for function in functions:
                name = function.__name__.removeprefix("_")
                real = getattr(module, name)
                setattr(module, name, functools.update_wrapper(partial(function, real), real))

    def imported(self) -> None:
        """All changes from now on are a job's."""
        self._jobs = True

    def restore(self) -> None:
        """A job has ended: undo its timers, then its handlers."""
        while self._undo:
            self._undo.pop(min(self._undo))()

    # -- signal

    def _signal(self, real: Any, /, signalnum: int, handler: Any) -> Any:
        if os.getpid() != self._pid:
            return shown(real(signalnum, handler))
        now = signal.getsignal(signalnum)
        if signalnum in self._own:
            if handler != now:
                self._tell(signalnum)
            return now
        self._refuse("signal.signal")
        before = shown(real(signalnum, guarded(handler, self._handle)))
        if self._jobs and before is not None:
            self._undo.setdefault((HANDLER, signalnum), partial(real, signalnum, guarded(before, self._handle)))
        return before

    def _getsignal(self, real: Any, /, signalnum: int) -> Any:
        return shown(real(signalnum))

    def _alarm(self, real: Any, seconds: int, /) -> Any:
        if seconds:
            self._begin_timer(signal.ITIMER_REAL, "signal.alarm")
        return real(seconds)

    def _setitimer(self, real: Any, which: int, seconds: float, interval: float = 0.0, /) -> Any:
        if seconds:
            self._begin_timer(which, "signal.setitimer")
        return real(which, seconds, interval)

    def _begin_timer(self, which: int, name: str) -> None:
        self._refuse(name)
        if self._jobs:
            self._undo.setdefault((TIMER, which), partial(signal.setitimer, which, 0.0))

    def _set_wakeup_fd(self, real: Any, /, fd: int, **options: Any) -> Any:
        self._refuse("signal.set_wakeup_fd")
        before = real(fd, **options)
        if self._jobs:
            self._undo.setdefault((WAKEUP, 0), partial(real, before))
        return before

    def _siginterrupt(self, real: Any, signalnum: int, flag: bool, /) -> None:
        self._refuse("signal.siginterrupt")
        real(signalnum, flag)

    def _pthread_sigmask(self, real: Any, /, how: int, mask: Any) -> Any:
        """The mask is one thread's alone. Blocking signals briefly (multiprocessing does) is no harm to a consumer."""
        before = real(how, mask)
        if self._jobs and not self._shared and threading.current_thread() is threading.main_thread():
            self._undo.setdefault((MASK, 0), partial(real, signal.SIG_SETMASK, before))
        return before

    def _pthread_kill(self, real: Any, thread_id: int, signalnum: int, /) -> None:
        """In a consumer `thread_id` is gevent's, which the system does not know: the call would wait for ever."""
        self._refuse("signal.pthread_kill")
        real(thread_id, signalnum)

    # -- faulthandler: it writes to one file, ours, which shows which job it was

    def _enable(self, _real: Any, /, *_: Any, **__: Any) -> None:
        pass

    def _disable(self, _real: Any, /) -> bool:
        return True

    def _register(self, real: Any, /, signum: int, *arguments: Any, **options: Any) -> None:
        if signum in self._own and os.getpid() == self._pid:
            self._tell(signum)
        else:
            real(signum, *arguments, **options)

    def _unregister(self, real: Any, /, signum: int) -> Any:
        return signum not in self._own and real(signum)

    def _dump_traceback_later(
        self, real: Any, /, timeout: float, repeat: bool = False, file: Any = None, exit: bool = False, **options: Any
    ) -> None:
        if exit:
            self._refuse("faulthandler.dump_traceback_later(exit=True)")
        real(timeout, repeat, sys.stderr if file is None else file, exit, **options)
        if self._jobs and not self._shared:
            self._undo.setdefault((TIMER, -1), faulthandler.cancel_dump_traceback_later)

    # --

    def _handle(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        if self._jobs and os.getpid() == self._pid:
            self._run(handler, number, frame)
        else:
            handler(number, frame)

    def _refuse(self, what: str) -> None:
        if self._shared and self._jobs and os.getpid() == self._pid:
            refuse(what)

    def _tell(self, number: int) -> None:
        if number not in self._told:
            self._told.add(number)
            log.warning("%s belongs to rq-lite in a worker: the app's handler for it was not set", name_of(number))


def guarded(handler: Any, run: Callable[[Handler, int, FrameType | None], None]) -> Any:
    return Guarded(handler, run) if callable(handler) else handler


def shown(handler: Any) -> Any:
    """The app's own handler, if it is a guarded one; any other as it is."""
    return handler.handler if isinstance(handler, Guarded) else handler


def name_of(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def refuse(what: str) -> NoReturn:
    """Raises UsageError, a ValueError as Python itself raises outside the main thread."""
    raise UsageError(
        f"{what} is not allowed in a job: the signal could interrupt any job of this consumer. To limit its time use "
        'the task\'s timeout=; with run_in="process" a job has signals and timers of its own'
    )

"""An app whose jobs change what a process has only once: signals, timers, streams, stacks."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

import gevent

from rq_lite import Queue
from tests.acceptance.apps.evidence import GATE, note, wait_for_gate

work = Queue("work")


class TimeUp(BaseException):
    """Raised by a signal handler; no `except Exception` catches it."""


def strike(_number: int, _frame: FrameType | None) -> None:
    raise TimeUp


socket.setdefaulttimeout(0.2)
faulthandler.enable()
faulthandler.register(signal.SIGUSR2)
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, strike)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)


@work.task
def hold(what: object) -> None:
    note("begun", what)
    wait_for_gate()
    print("held", what)
    note("done", what)


@work.task
def alarm(how: str) -> None:
    """Sets a timer in one of several ways, and still runs when it strikes."""
    if how == "setitimer":
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    if how == "handler":
        signal.signal(signalnum=signal.SIGALRM, handler=strike)
    if how == "greenlet":
        gevent.spawn(signal.alarm, 1).get()
    if how == "wakeup":
        signal.set_wakeup_fd(-1)
    if how == "gevent":
        gevent.signal_handler(signal.SIGTERM, strike)
    if how == "thread":
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
    if how == "dump":
        faulthandler.dump_traceback_later(0.05, exit=True)
    wait_for_gate()


@work.task(run_in="thread")
def alarm_in_thread(how: str) -> None:
    alarm.function(how)


@work.task
def signal_itself(what: object) -> None:
    """Sends itself a signal whose handler, set by the app, raises in the running job."""
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGHUP)
    note("done", what)


@work.task
def fork(what: object) -> None:
    """Forks: the child behaves like plain Python."""
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, strike)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            while True:
                time.sleep(1)
        except TimeUp:
            os._exit(7)
    status = os.waitpid(child, 0)[1]
    note("done", f"{what} {os.waitstatus_to_exitcode(status)}")


@work.task
def loop(what: object) -> None:
    async def until_the_gate() -> None:
        note("begun", what)
        while not GATE.exists():
            await asyncio.sleep(0.02)

    waiting = until_the_gate()
    try:
        asyncio.run(waiting)
    finally:
        waiting.close()
    note("done", what)


@work.task
def loop_in_loop(_what: object) -> None:
    """Raises because of a running loop, its own."""

    async def outer() -> None:
        asyncio.run(asyncio.sleep(0))

    asyncio.run(outer())


@work.task
def crash(what: object) -> None:
    note("begun", what)
    ctypes.string_at(0)


@work.task
def shut(what: object) -> None:
    sys.stdout.close()
    note("done", what)


@work.task
def speak(what: object) -> None:
    print(what)
    note("done", what)


@work.task(run_in="thread")
def speak_in_thread(what: object) -> None:
    speak.function(what)


@work.task(run_in="process")
def speak_in_process(what: object) -> None:
    speak.function(what)


@work.task(run_in="process")
def long_in_process(what: object) -> None:
    """Runs longer than the default timeout of sockets that the app has set."""
    time.sleep(0.5)
    note("done", what)


@work.task(run_in="process")
def alarm_in_process(what: object) -> None:
    """May use an alarm, as any program."""
    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        time.sleep(600)
    except TimeUp:
        note("done", what)


@work.task(run_in="process")
def leave_alarm_in_process(what: object) -> None:
    """Ends before its alarms do."""
    signal.signal(signal.SIGALRM, strike)
    signal.signal(signal.SIGPROF, strike)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    signal.setitimer(signal.ITIMER_PROF, 0.02, 0.02)
    note("done", what)


@work.task(run_in="process")
def look_in_process(what: object) -> None:
    timers = [signal.getitimer(which) for which in (signal.ITIMER_REAL, signal.ITIMER_PROF)]
    handlers = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGPROF)]
    assert timers == [(0.0, 0.0)] * 2, timers
    assert handlers == [signal.SIG_DFL] * 2, handlers
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert threading.current_thread() is threading.main_thread()
    note("done", what)


@work.task(run_in="process", timeout=0.2)
def late_in_process(_what: object) -> None:
    """Runs too long; the app has set a handler for the signal that interrupts an engine's job."""
    time.sleep(600)

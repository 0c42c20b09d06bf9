"""Tasks for the acceptance tests, which read from their evidence what they did."""

from __future__ import annotations

import contextvars
import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import time

import gevent

from rq_lite import Bury, Queue, Retry, current_job
from tests.acceptance.apps.evidence import FOLDER, note, wait_for_gate

work = Queue("work")
high = Queue("high")
low = Queue("low")
tiny = Queue("tiny", maxsize=2)

color = contextvars.ContextVar("color", default="none")


@work.task
def do(what: object) -> None:
    note("done", what)


@work.task
def number(n: int) -> None:
    note("done", n + 0)


@work.task(unique="{n}")
def once(n: int) -> None:
    note("done", n)


@work.task
def row(name: str, size: int) -> None:
    note("done", f"{name}{size + 0}")


@high.task
def do_high(what: object) -> None:
    note("done", f"high-{what}")


@low.task
def do_low(what: object) -> None:
    note("done", f"low-{what}")


@work.task
def hold(what: object) -> None:
    """Runs until the gate opens."""
    note("begun", what)
    wait_for_gate()
    note("done", what)


@work.task
def last(what: object) -> None:
    """Runs for longer than any test."""
    note("begun", what)
    time.sleep(600)
    note("done", what)


@work.task
def stubborn(what: object) -> None:
    """Swallows the first exception that is raised in it."""
    try:
        time.sleep(600)
    except BaseException:
        note("begun", what)
    time.sleep(600)


@work.task
def fail(what: object) -> None:
    note("begun", what)
    raise ValueError(f"cannot do {what}")


@work.task
def end_badly(how: str) -> None:
    note("begun", how)
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "greenlet":
        raise gevent.GreenletExit
    if how == "surrogate":
        raise FileNotFoundError("\udc80")
    if how == "text":
        raise Unspeakable
    end_badly(how)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@work.task
def paint(what: str) -> None:
    note("done", f"{what}:{color.get()}")
    color.set(what)


@work.task
def crash_once(_what: object) -> None:
    """The first run kills its consumer, the second raises."""
    marker = FOLDER / "crashed"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("second run")


@work.task
def crash(what: object) -> None:
    """Every run kills its consumer."""
    note("begun", what)
    os.kill(os.getpid(), signal.SIGKILL)


@work.task
def start_process(_what: object) -> None:
    """Leaves a process running, and goes on."""
    process = subprocess.Popen(["sleep", "600"])
    note("started", process.pid)
    time.sleep(600)


@work.task
def leave_orphan(what: object) -> None:
    """Leaves a process behind that ends after its parent."""
    subprocess.run(["/bin/sh", "-c", "sleep 0.1 & echo"], check=True, capture_output=True)
    note("done", what)


@tiny.task
def spread(n: int) -> None:
    """Puts n jobs into its own queue, even if it is full."""
    for _ in range(n):
        spread.put(0)
    note("done", n)


@work.task(max_crashes=1)
def poison_once(how: str) -> None:
    poison(how)


@work.task
def poison(how: str) -> None:
    """Every run brings its consumer down, in one of several ways."""
    note("begun", how)
    if how == "exit":
        os._exit(0)
    if how == "abort":
        os.abort()
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "recursion":
        end_badly(how)
    if how == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (512_000_000, 512_000_000))
        hoard: list[bytes] = []
        try:
            while True:
                hoard.append(bytes(50_000_000))
        except MemoryError:
            # As the kernel's OOM killer does, which a test cannot call.
            os.kill(os.getpid(), signal.SIGKILL)


@work.task
def hog(how: str) -> None:
    """Never lets the event loop run."""
    note("begun", how)
    if how == "python":
        while True:
            pass
    re.match(r"(a+)+$", "a" * 64 + "b")  # C code that holds the interpreter for longer than any test


@work.task(timeout=None)
def hog_for_ever(how: str) -> None:
    hog.function(how)


@work.task(timeout=0.5)
def hog_soon(how: str) -> None:
    hog.function(how)


@work.task(timeout=0.5, retries=1, backoff=0)
def hog_twice(how: str) -> None:
    hog.function(how)


@work.task(retries=5, retry_on=(ConnectionError,), no_retry_on=(ConnectionRefusedError,), backoff=0)
def picky(what: str) -> None:
    note("begun", what)
    kinds = {"reset": ConnectionResetError, "refused": ConnectionRefusedError, "value": ValueError}
    raise kinds[what](what)


@work.task(retries=2)
def again(what: str) -> None:
    """Asks to be run again."""
    note("begun", what)
    raise Retry("not yet", delay=0)


@work.task(retries=5)
def hopeless(what: str) -> None:
    note("begun", what)
    raise Bury(f"{what} cannot be helped")


@work.task
def leak(_what: object) -> None:
    LEAKED.append(bytes(os.urandom(1000) * 30_000))
    note("done", "leak")


LEAKED: list[bytes] = []


@work.task(retries=3, backoff=0)
def flaky(what: object) -> None:
    """Fails the first time."""
    marker = FOLDER / f"failed-{what}"
    if not marker.exists():
        marker.touch()
        raise ValueError("the first time")
    note("done", what)


@work.task
def speak(words: str) -> None:
    print(words, end="")
    note("done", "speak")


@work.task
def meddle(how: str) -> None:
    """Uses the pipe to the supervisor as if it were its own."""
    pipe = int(sys.argv[2])
    if how == "close":
        os.close(pipe)
    else:
        os.write(pipe, b'garbage\n{"event":"\xff"}\n{"event":1}\n{"event":"x","y":' + b"[" * 50_000 + b"\n")
    note("begun", how)


@work.task
def nap(seconds: float) -> None:
    time.sleep(seconds)
    note("done", "nap")


@work.task
def deaf(what: object) -> None:
    """Goes on, whatever is raised in it, and has a long timeout."""
    note("begun", what)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            note("swallowed", what)


@work.task(timeout=0.5)
def swallow(what: object) -> None:
    deaf.function(what)


@work.task(retries=1, backoff=0, timeout=50)
def introduce(what: str) -> None:
    """Notes its own `current_job`, and reports progress."""
    job = current_job()
    assert job is not None
    assert job is current_job()
    note("job", f"{job.id} {job.queue} {job.task.partition(':')[2]} {job.attempt} {round((job.remaining() or 0) / 10)}")
    for step in range(100):
        job.progress(step)
    job.progress(100, 200, f"half of {what}")
    if job.attempt == 1:
        raise ValueError("once more")
    wait_for_gate()


@work.task
def ask_from_elsewhere(what: object) -> None:
    """Its own greenlets and threads have no current job."""
    found = gevent.spawn(current_job).get(), gevent.get_hub().threadpool.apply(current_job)
    note("done", f"{what} {found}")


def tell_elsewhere(what: str) -> None:
    job = current_job()
    assert job is not None
    note("job", f"{job.id} {job.queue} {job.attempt} {round((job.remaining() or 0) / 10)}")
    for step in range(1000):
        job.progress(step)
    job.progress(7, 8, f"half of {what}")
    wait_for_gate()


@work.task(run_in="thread", timeout=50)
def tell_in_thread(what: str) -> None:
    tell_elsewhere(what)


@work.task(run_in="process", timeout=50)
def tell_in_process(what: str) -> None:
    tell_elsewhere(what)


@work.task(run_in="thread")
def last_in_thread(what: object) -> None:
    note("begun", what)
    for _ in range(6000):
        time.sleep(0.1)


@work.task(run_in="process")
def last_in_process(what: object) -> None:
    last.function(what)


@work.task
def leave_timeout(seconds: float) -> None:
    """Leaves a timeout that strikes this greenlet long after the job has ended."""
    gevent.Timeout(seconds).start()
    note("done", "left")


@work.task
def fork_and_return(what: str) -> None:
    """Both processes reach the end of the job."""
    os.fork()
    note("done", f"{what} {os.getpid()}")


@work.task
def fork_and_nap(what: str) -> None:
    """Forks as multiprocessing does: the child only naps, and does not do what its parent would do next."""
    child = os.fork()
    if not child:
        time.sleep(0.3)
        os._exit(0)
    os.waitpid(child, 0)
    note("done", what)


@work.task
def tick(n: int) -> None:
    for _ in range(4):
        time.sleep(0.1)
        note("ticked", n)
    note("done", n)


class Later(Retry):
    def __init__(self, words: str) -> None:
        self.words = words


@work.task(retries=1, backoff=0.01)
def fail_strangely(how: str) -> None:
    note("begun", how)
    if how == "retry":
        raise Later(how)
    if how == "syntax":
        raise SyntaxError("m", ("f", 1, "notint", "text"))  # type: ignore[arg-type]
    raise Mute


class Mute(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

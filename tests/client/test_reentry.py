"""What a signal handler, a `__del__`, a logging handler or atexit puts while a put is under way in the same thread."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import redis

import rq_lite
from rq_lite import Executor
from rq_lite.admin import operate
from rq_lite.broker import Broker
from rq_lite.broker import link as connection
from rq_lite.client import leases
from rq_lite.client.defaults import defaults
from rq_lite.client.queue import Queue
from rq_lite.client.results import readers
from rq_lite.errors import BrokerUnavailable, Empty, Full, UsageError
from tests.conftest import Server
from tests.steps import counter

OURS = (str(Path(rq_lite.__file__).parent), str(Path(redis.__file__).parent))
pytestmark = pytest.mark.timeout(100)  # a deadlock ends here, with every stack


class Strikes:
    """Calls something at each step of what runs in a `with`, once for each: between any two bytecodes of ours.

    Where it strikes no step of the call itself is struck. `only`: at one step alone, counted from 0.
    """

    def __init__(self, strike: Callable[[], object], *, only: int | None = None, lines: bool = False) -> None:
        self.seen: set[tuple[str, int]] = set()
        self._strike = strike
        self._only = only
        self._lines = lines

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = not self._lines
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        at = (f"{frame.f_code.co_filename}:{frame.f_code.co_firstlineno}", frame.f_lasti)
        if at not in self.seen:
            self.seen.add(at)
            if self._only in (None, len(self.seen) - 1):
                self._strike()
        return self._step

    def __enter__(self) -> Strikes:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)


def struck_everywhere(call: Callable[[], object], strike: Callable[[], object], least: int) -> None:
    """Until a call has no step any more at which it was not struck."""
    strikes, before = Strikes(strike), -1
    while len(strikes.seen) > before:
        before = len(strikes.seen)
        with strikes:
            call()
    assert len(strikes.seen) > least  # else it was traced not at all


@pytest.fixture
def wide(queue: Queue) -> Queue:
    queue.maxsize = 0
    return queue


class Counted:
    """A call, and how often it was made."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self.times = 0

    def __call__(self) -> None:
        self._call()
        self.times += 1


def nothing(n: int) -> None:
    pass


def puts(queue: Queue) -> dict[str, Callable[[], object]]:
    executor = Executor(queue)
    task, tracked = queue.task(name="t")(nothing), queue.task(name="r", result_ttl=60)(nothing)
    return {
        "task": lambda: task.put(1),
        "task with a result": lambda: tracked.put(1),
        "many": lambda: task.put_many([1]),
        "later": lambda: task.using(delay=60).put(1),
        "item": lambda: queue.put(1),
        "items": lambda: queue.put_many([1]),
        "executor": lambda: executor.submit(task, 1),
    }


KINDS = ["task", "task with a result", "many", "later", "item", "items", "executor"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_put_at_any_step_of_a_put_is_put_once(wide: Queue, broker: Broker, kind: str) -> None:
    put = puts(wide)[kind]
    outer, inner = Counted(put), Counted(put)
    struck_everywhere(outer, inner, 200)
    assert broker.puts.size("q")[0] == outer.times + inner.times == counter(broker, "put")


@pytest.mark.parametrize("kind", ["task", "item"])
def test_a_put_at_any_line_of_the_first_put_of_a_process_is_put(server: Server, queue: Queue, kind: str) -> None:
    """No connection is there yet, nor a broker: whoever comes first makes them."""
    queue.maxsize = 0
    put = puts(queue)[kind]
    total = number = 0
    while True:
        defaults.use(defaults.settings, None)
        inner = Counted(put)
        with Strikes(inner, only=number, lines=True):
            put()
        defaults.broker.close()
        total += 1 + inner.times
        number += 1
        if not inner.times:
            break
    assert number > 100
    with contextlib.closing(server.broker()) as looking:
        assert looking.puts.size("q")[0] == total


def test_a_put_while_its_thread_waits_for_room_is_put_or_refused(queue: Queue, broker: Broker) -> None:
    for number in range(9):
        queue.put(number)
    refused: list[int] = []

    def full() -> None:
        try:
            queue.put_nowait("x")
        except Full:
            refused.append(1)

    def outer() -> None:
        with contextlib.suppress(Full):
            queue.put("y", timeout=0.02)

    struck_everywhere(outer, full, 200)
    assert refused
    assert broker.puts.size("q")[0] == 10


def test_a_put_while_the_connections_are_closed_is_put(wide: Queue, broker: Broker) -> None:
    inner = Counted(lambda: wide.put(1))

    def close() -> None:
        broker.core.links.close()

    wide.put(1)
    struck_everywhere(close, inner, 10)
    assert broker.puts.size("q")[0] == 1 + inner.times


def test_a_put_that_finds_no_connection_but_those_below_it_says_so(
    wide: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER", 0.001)
    broker.core.links = connection.Links(broker.core.address, most=1)
    failed: list[BrokerUnavailable] = []

    def inner() -> None:
        try:
            broker.puts.put("q", [b"{}"], patience=0.001)
        except BrokerUnavailable as error:
            failed.append(error)

    outer = Counted(lambda: wide.put(1))
    struck_everywhere(outer, inner, 200)
    assert {error.outcome for error in failed} == {"not put"}
    assert "all 1 connections wait for it" in str(failed[0])
    assert broker.core.links._pool.free[0] is not None


# -- results and items


def test_a_wait_for_a_result_at_any_step_of_another_ends(wide: Queue, broker: Broker) -> None:
    task = wide.task(name="t", result_ttl=60)(nothing)
    others = []

    def ask() -> None:
        job = task.put(1)
        others.append(job)
        assert not job.done()

    def outer() -> None:
        job = task.put(2)
        others.append(job)
        assert not job.done()
        assert not job.done()

    struck_everywhere(outer, ask, 500)
    operate.purge(broker, "q")
    for job in others:
        with pytest.raises(CancelledError):
            job.result(30)


def test_a_wait_for_the_same_result_at_any_step_ends(wide: Queue, broker: Broker) -> None:
    task = wide.task(name="t", result_ttl=60)(nothing)
    for number in range(400):
        if number % 100 == 0:
            readers.stop()
        job = task.put(1)
        with Strikes(lambda job=job: job.done(), only=number):  # type: ignore[misc]
            job.done()
        assert job.cancel()
        assert job.cancelled()


def test_a_get_at_any_step_of_a_get_gets_or_says_why_not(wide: Queue, broker: Broker) -> None:
    got: list[int] = []
    refused: list[str] = []
    for number in range(12_000):
        if number % 500 == 0:
            wide.put_many(range(number, number + 500))

    def inner() -> None:
        try:
            got.append(wide.get_nowait())
            wide.task_done()
        except UsageError as error:
            refused.append(str(error))
        except Empty:
            raise AssertionError("there is enough") from None

    def outer() -> None:
        got.append(wide.get())
        wide.task_done()

    struck_everywhere(outer, inner, 500)
    assert refused
    assert "interrupts another one in the same thread" in refused[0]
    assert len(set(got)) == len(got)
    leases.leave()
    assert counter(broker, "done") + broker.puts.size("q")[0] == 12_000
    assert counter(broker, "done") == len(got)
    assert counter(broker, "inflight") == 0


# -- what strikes in real life


@pytest.fixture
def bursts() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Signals every millisecond of work, to this handler, which they interrupt no more than once."""
    before = signal.getsignal(signal.SIGVTALRM)  # pytest-timeout has SIGALRM

    def begin(handler: Callable[[], object]) -> None:
        def handle(*_: object) -> None:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            handler()
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0007)

        signal.signal(signal.SIGVTALRM, handle)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0007)

    yield begin
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("kind", ["task", "many", "item"])
def test_signal_handlers_put_during_puts(
    wide: Queue, broker: Broker, bursts: Callable[[Callable[[], object]], None], kind: str
) -> None:
    put = puts(wide)[kind]
    outer, inner = Counted(put), Counted(put)
    bursts(inner)
    while inner.times < 100 or outer.times < 500:
        outer()
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    assert broker.puts.size("q")[0] == outer.times + inner.times


def test_what_is_collected_during_puts_may_put(wide: Queue, broker: Broker) -> None:
    inner = Counted(lambda: wide.put(1))

    class Putting:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            inner()

    before = gc.get_threshold()
    gc.set_threshold(7)
    try:
        for _ in range(300):
            Putting()
            wide.put(2)
    finally:
        gc.set_threshold(*before)
        gc.collect()
    assert inner.times == 300
    assert broker.puts.size("q")[0] == 600


def test_a_logging_handler_puts_what_a_put_logs(wide: Queue, broker: Broker) -> None:
    """A connection is lost, which the put says; that line is put over another one."""

    class Putting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            wide.put(record.getMessage())

    handler = Putting()
    logging.getLogger("rq_lite").addHandler(handler)
    try:
        wide.put("before")
        for link in broker.core.links._pool.free:
            if link is not None:
                link.drop()
        wide.put("after")
    finally:
        logging.getLogger("rq_lite").removeHandler(handler)
    got = [wide.get(timeout=5) for _ in range(3)]
    assert {got[0], got[2]} == {"before", "after"}
    assert "trying again" in got[1]


AT_EXIT = """
import atexit, sys
from rq_lite import Queue
q = Queue("q", maxsize=0)
@q.task(name="t", result_ttl=60)
def t(n): pass
class Late:
    def __del__(self):
        q.put("late")
def put():
    q.put("at exit")
    t.put(1)
{body}
"""
BODIES = {
    "nothing was put before": "atexit.register(put)",
    "before our own hook": "q.put(1); q.get(); atexit.register(put)",
    "after our own hook": "atexit.register(put); q.put(1); q.get()",
    "after a wait for a result": "atexit.register(put); t.put(1).done()",
    "of what is collected last": "atexit.register(put); q.put(1); sys.late = late = Late()",
}


@pytest.mark.parametrize("body", BODIES)
def test_what_is_put_at_exit_is_put(
    wide: Queue, broker: Broker, environment: dict[str, str], tmp_path: Path, body: str
) -> None:
    script = tmp_path / "ends.py"
    script.write_text(AT_EXIT.format(body=BODIES[body]))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(script)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if "last" not in body:  # Python has taken itself apart by then: it may be put, or raise
        assert done.stderr == ""
    assert broker.puts.size("q")[0] >= 2
    assert "at exit" in list(drained(wide))


def drained(queue: Queue) -> Iterator[Any]:
    with contextlib.suppress(Empty):
        while True:
            yield queue.get_nowait()
            queue.task_done()


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, signal
from rq_lite import Queue
from rq_lite.errors import RqLiteError
q = Queue("q", maxsize=0)
put = [0]; raised = []
def handle(*_):
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    try:
        q.put("nested"); put[0] += 1
    except BaseException as error:
        raised.append(type(error).__name__ + (":loop" if "gevent's event loop" in str(error) else f":{error}"))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.002)
signal.signal(signal.SIGVTALRM, handle)
def many():
    for n in range(300):
        q.put(n)
q.put("first"); put[0] += 1
signal.setitimer(signal.ITIMER_VIRTUAL, 0.002)
for one in [gevent.spawn(many) for _ in range(5)]:
    one.get()
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
print(put[0] + 1500, len(raised), *set(raised))
"""


def test_signal_handlers_put_in_a_process_that_gevent_has_patched(
    wide: Queue, broker: Broker, environment: dict[str, str], tmp_path: Path
) -> None:
    """One that strikes in gevent's loop, where nothing may wait, is told so, and nothing is put; any other puts."""
    script = tmp_path / "patched.py"
    script.write_text(GEVENT)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(script)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, raised, *kinds = done.stdout.rstrip().split(" ", 2)
    assert broker.puts.size("q")[0] == int(count), done.stdout
    assert int(raised) < int(count)
    assert kinds in ([], ["UsageError:loop"])


FIRST = """
from gevent import monkey; monkey.patch_all()
import gevent
from rq_lite import Queue
from rq_lite.errors import UsageError
def handle(*_):
    try:
        Queue("q").put(1)
    except UsageError as error:
        print(str(error).partition(" (")[0])
gevent.get_hub().loop.run_callback(handle)
gevent.sleep(0.01)
print("goes on")
"""


def test_a_put_in_the_loop_that_would_start_the_embedded_redis_is_refused(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Starting it waits for a process, which gevent's loop must not do."""
    script = tmp_path / "patched.py"
    script.write_text(FIRST)
    environment.pop("RQ_LITE_URL", None)
    environment["RQ_LITE_HOME"] = str(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["this was called in gevent's event loop", "goes on"], done.stderr
    assert not (tmp_path / "home").exists()

"""A job's run is the same wherever it happens: in a greenlet, in a thread, in an engine, and inline in a test."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from rq_lite import Settings, UsageError
from rq_lite.broker import Broker
from rq_lite.broker.deliveries import Deliveries
from rq_lite.client.defaults import defaults
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.consumer.executor import Executor
from rq_lite.consumer.offload.channel import Answer, Channel, Run, Setup
from rq_lite.consumer.offload.engine import encode as encoded
from rq_lite.consumer.offload.held import HeldJobs
from rq_lite.consumer.offload.pools import Pools
from rq_lite.consumer.offload.processes import Died, result_of
from rq_lite.consumer.slots import Slot
from rq_lite.model.failure import RemoteFailure
from rq_lite.model.message import TAGGED, VERSION, Message, encode
from rq_lite.model.outcome import Crashed, Finished, Outcome, Parked, Retried
from rq_lite.model.retry import Report
from rq_lite.process.board import SECOND, Board, new_file, size
from rq_lite.process.subprocesses import Stacks
from rq_lite.testing.inline import run as run_inline
from rq_lite.testing.puts import PutJob
from tests.conftest import ROOT
from tests.consumer import runs

DEAD = Settings(url="redis://127.0.0.1:1", patience=0.0, max_result=1000)  # none of this needs a Redis
SETUP = Setup(settings=DEAD, app=runs.__name__, number=1, queues=["runs"])
TASKS = {name: task for name, task in registry.tasks.items() if name.startswith(f"{runs.__name__}:")}
THEN = {end: ["runs", f"{runs.__name__}:double"] for end in ("success", "failure", "done")}

Way = Callable[[bytes], Outcome]


@pytest.fixture(autouse=True)
def tasks() -> None:
    defaults.use(DEAD, Broker(settings=DEAD))
    runs.runs.sender.forget_settings()
    registry.tasks.update(TASKS)


def slot() -> Slot[Deliveries]:
    made = Slot[Deliveries](0, Board(new_file(size(1)), 1))
    made.lane = Deliveries("runs", 0)
    return made


class Away:
    """Stands for the pools of a consumer: an engine that this test has started."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._stacks = Stacks()
        inherited = (theirs.fileno(), self._stacks.file)
        command = [sys.executable, "-m", "rq_lite.consumer.offload.engine", *map(str, inherited), str(os.getpid())]
        self._process = subprocess.Popen(command, pass_fds=inherited, cwd=ROOT)
        theirs.close()
        self._channel = Channel(ours)
        self._channel.send(encoded(SETUP))
        assert self.answer().event == "ready"

    def answer(self) -> Answer:
        frame = self._channel.receive()
        assert frame is not None
        return msgspec.json.decode(frame, type=Answer)

    def ask(self, entry: bytes, timeout: int) -> Answer:
        self._channel.send(encoded(Run("runs", timeout / SECOND)) + b"\n" + entry)
        return self.answer()

    def run(self, slot: Slot[Any], task: Task[Any, Any], message: Message, entry: bytes, timeout: int) -> Any:
        slot.began = time.monotonic_ns()
        return result_of(self.ask(entry, timeout))

    def end(self) -> None:
        self._channel.end.close()
        self._process.wait()
        self._stacks.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[Away]:
    made = Away()
    yield made
    made.end()


def moved(task: Task[Any, Any], run_in: str) -> Task[Any, Any]:
    """The same task with another `run_in`."""
    made: Task[Any, Any] = object.__new__(Task)
    made.__dict__.update(task.__dict__)
    made.policy = msgspec.structs.replace(task.policy, run_in=run_in)
    made.elsewhere = run_in != "greenlet"
    return made


def in_consumer(run_in: str, pools: Any) -> Way:
    tasks = {name: moved(task, run_in) for name, task in TASKS.items()}
    executor = Executor(tasks, "inline", pools, max_result=DEAD.max_result)

    def run(entry: bytes) -> Outcome:
        for attempts in range(10):
            outcome = executor.run(slot(), (b"%d.0" % attempts if attempts else b"") + entry)
            if not isinstance(outcome, Retried):
                return outcome
        raise AssertionError("it is tried again for ever")

    return run


def inline(entry: bytes) -> Outcome:
    message = msgspec.json.decode(entry, type=Message)
    return run_inline(PutJob(id=message.id, queue="runs", task=message.task), runs.runs.sender, entry)[1]


def comparable(outcome: Outcome) -> Any:
    """Without the time that it took."""
    if outcome is None:
        return None
    fields = outcome._asdict()
    if fields.get("report"):
        report = msgspec.json.decode(fields["report"], type=Report)
        assert 0 <= report.seconds < 60
        report.seconds = 0
        fields["report"] = report
    return type(outcome), fields


@pytest.mark.parametrize("fields", [{}, {"result_ttl": 60.0, "then": THEN}], ids=["plain", "tracked"])
@pytest.mark.parametrize(
    ("task", "args", "said"),
    [
        ("double", [21], None),
        ("tomorrow", ["2026-12-31"], None),
        ("tomorrow", ["no day"], "ValidationError: argument 'day': Invalid RFC3339 encoded date"),
        ("double", [1, 2], "TypeError: double() takes 1 positional argument but 2 were given"),
        ("fail", ["this"], "ValueError: cannot do this\\nat all"),
        ("again", [], "Retry: not yet"),
        ("hopeless", [], "Bury: it cannot be helped"),
        ("picky", [], "KeyError: 'no retry'"),
        ("leave", [], "SystemExit: 3"),
        ("mumble", [], "Unspeakable: (its text could not be made)"),
        ("wrapped", ["coroutine"], "BadResult: tests.consumer.runs:wrapped returned a coroutine, which nothing runs"),
        ("wrapped", ["generator"], "BadResult: tests.consumer.runs:wrapped returned a generator, which nothing runs"),
        ("odd", ["object"], "BadResult: the result of tests.consumer.runs:odd: JSON has no word for object"),
        ("odd", ["long"], "BadResult: the result of tests.consumer.runs:odd has 2,002 bytes as JSON"),
        ("odd", ["raw"], "BadResult: the result of tests.consumer.runs:odd: JSON has no word for Raw"),
    ],
)
def test_every_way_to_run_a_job_ends_it_alike(
    engine: Away, fields: dict[str, Any], task: str, args: list[Any], said: str | None
) -> None:
    entry = encode(Message(VERSION, "id", f"{runs.__name__}:{task}", args, **fields))
    ways = {
        "greenlet": in_consumer("greenlet", None),
        "thread": in_consumer("thread", Pools(SETUP, HeldJobs(Broker(settings=DEAD), "inline"))),
        "process": in_consumer("process", engine),
        "inline": inline,
    }
    ended = {name: comparable(run(entry)) for name, run in ways.items()}
    assert ended == dict.fromkeys(ways, ended["greenlet"])
    found = ended["greenlet"]
    if said is None or (task == "odd" and not fields):  # a result that is not kept is not looked at
        assert (found and found[1]["state"]) == ("done" if fields else None)
    else:
        assert found[1]["report"].error.startswith(said)


def test_a_job_knows_its_tags_in_an_engine_and_inline(engine: Away) -> None:
    entry = encode(Message(TAGGED, "id", f"{runs.__name__}:own_tags", result_ttl=60.0, tags=("a", "b c")))
    for run in (in_consumer("process", engine), inline):
        ended = run(entry)
        assert isinstance(ended, Finished)
        assert ended.detail == b'"value":["a","b c"]'


@pytest.mark.parametrize(
    ("of_task", "head", "error"),
    [
        (None, b"0.2", ""),
        (None, b"0.3", "poison: 3 consumers died while it ran"),
        (5, b"0.4", ""),
        (1, b"0.1", "poison: 1 consumer died while it ran"),
        (None, b"0.0#id*9", ""),
        (9, b"0.2#id*10", "poison: 10 workers died while it ran"),
    ],
)
def test_a_job_with_callbacks_is_not_run_once_too_much_has_died_while_it_ran(
    of_task: int | None, head: bytes, error: str
) -> None:
    known = moved(TASKS[f"{runs.__name__}:double"], "greenlet")
    known.policy = msgspec.structs.replace(known.policy, max_crashes=of_task)
    executor = Executor({known.name: known}, "c", None, max_result=1000)  # type: ignore[arg-type]
    outcome = executor.run(slot(), head + encode(Message(VERSION, "id", known.name, [21], then=THEN)))
    assert isinstance(outcome, Finished)
    assert outcome.state == ("failed" if error else "done")
    if error:
        report = msgspec.json.decode(outcome.report, type=Report)
        assert (report.error, report.attempts) == (error, sum(map(int, re.findall(rb"\d+", head))))
        assert len(outcome.puts) == 2, "its callbacks are put"


@pytest.mark.parametrize(("of_task", "most"), [(None, 3), (1, 1)])
def test_a_task_says_itself_with_which_crash_of_an_engine_its_jobs_are_buried(of_task: int | None, most: int) -> None:
    class Engines:
        def run(self, *_: object) -> None:
            raise Died("ended with exit code 3", "in f")

    known = moved(TASKS[f"{runs.__name__}:double"], "process")
    known.policy = msgspec.structs.replace(known.policy, max_crashes=of_task)
    executor = Executor({known.name: known}, "c", Engines())  # type: ignore[arg-type]
    entry = encode(Message(VERSION, "id", known.name, [21]))
    assert executor.run(slot(), entry) == Crashed("ended with exit code 3", "in f", most)


def test_a_task_that_is_not_known_is_parked_for_another_worker_and_said_to_a_test(engine: Away) -> None:
    entry = encode(Message(VERSION, "id", "nobody:knows"))
    assert in_consumer("greenlet", None)(entry) == Parked("nobody:knows")
    with pytest.raises(RemoteFailure, match="task 'nobody:knows' is unknown in a fresh process") as raised:
        result_of(engine.ask(entry, 60 * SECOND))
    assert raised.value.final
    with pytest.raises(UsageError, match="no task 'nobody:knows' is known here"):
        inline(entry)

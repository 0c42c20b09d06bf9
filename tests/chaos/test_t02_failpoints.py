"""T2: every moment at which something can go wrong, times everything that can happen there. Nothing is lost.

Each test acts once at one moment of a worker or a producer, lets the system come to rest (with another worker, if the
first is gone), and has the history of all its processes judged.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rq_lite import events
from rq_lite.broker import Acks
from rq_lite.chaos.check import check
from rq_lite.chaos.invariants import Demands
from rq_lite.chaos.rest import at_rest, look, undocumented
from rq_lite.client.defaults import defaults
from rq_lite.model.message import VERSION, Message, entry_of, new_id
from rq_lite.process.identity import mine
from tests.acceptance.conftest import Lab, Worker, children
from tests.conftest import until

ENDS = "tests.acceptance.apps.ends"
ACTIONS = ("kill", "stop", "raise", "drop")
CONSUMER = ("register", "take", "run", "ack", "settle")
SUPERVISOR = ("renew", "announce", "promote", "reclaim", "start")
BEFORE_A_RUN = {"register.before", "register.after", "take.before"}
SLOTS = 4
FIRST = 10  # jobs; what a failpoint's process had in flight is at most SLOTS


def around(*steps: str) -> list[str]:
    return [f"{step}.{end}" for step in steps for end in ("before", "after")]


def cells(*events_: str) -> pytest.MarkDecorator:
    """All of these events in one run, and each of them in a run of its own (`make chaos`)."""
    alone = [pytest.param([event], id=event, marks=pytest.mark.long) for event in events_]
    return pytest.mark.parametrize("armed", [*alone, pytest.param(list(events_), id="all")])


class Scene:
    """A lab whose processes write a history, and failpoints in it."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.queues = ["work"]
        self.history = folder / "history"
        self.marks = folder / "marks"
        for made in (self.history, self.marks):
            made.mkdir()
        self.harness = events.History(self.history, "harness")
        self.calm = dict(lab.environment, RQ_LITE_HISTORY=str(self.history))
        self.workers: list[Worker] = []
        self.use(self.calm)

    def arm(self, armed: list[str], action: str, second: tuple[str, ...] = ()) -> None:
        """What is started from now on acts at each of these events, once; at the second of those in `second`."""
        self.armed, self.action = armed, action
        failpoints = ",".join(f"{event}:{action}@{1 + (event in second)}" for event in armed)
        self.use(self.calm | {"RQ_LITE_FAILPOINT": failpoints, "RQ_LITE_FAILPOINT_ONCE": str(self.marks)})

    def rounds(self, armed: list[str], action: str, second: tuple[str, ...] = ()) -> Iterator[int]:
        """Arms all these events, and comes to rest when each was reached; meanwhile the test gives work, in rounds.

        Two at once where an action brings down a process, one for the jobs of a consumer that is dead already: with the
        third death a job would be buried as poisonous.
        """
        left = armed
        number = 0
        while left:
            at_once = len(left) if action in ("stop", "drop") else 1 if left[0].startswith("reclaim") else 2
            self.arm(left[:at_once], action, second)
            left = left[at_once:]
            tries = len(self.armed) + 2
            while not self.reached:
                assert tries, f"never reached: {[event for event in self.armed if not (self.marks / event).exists()]}"
                tries -= 1
                yield number
                number += 1
            self.rest()

    def use(self, environment: dict[str, str]) -> None:
        self.lab.environment = self.lab.commands.environment = environment

    @property
    def reached(self) -> bool:
        return all((self.marks / event).exists() for event in self.armed)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What this process does meanwhile is in the history, too."""
        events.subscribers[:] = [events.History(self.history, "producer")]
        try:
            yield
        finally:
            events.subscribers.clear()

    def work(self, *options: str) -> Worker:
        self.workers.append(self.lab.work("--greenlets", str(SLOTS), *options, app=self.lab.app))
        return self.workers[-1]

    def rest(self) -> None:
        """The worker that a failpoint hit goes on or ends; another one does what is left."""
        assert self.reached
        if self.action in ("kill", "raise"):
            for event in self.armed:
                self.harness("fault", None, {"kind": f"{self.action} at {event}", "inflight": SLOTS})
        for worker in self.workers:
            worker.wait()
        self.workers.clear()
        self.use(self.calm)
        if any(self.lab.broker.tends.unfinished(queue)[0] for queue in self.queues):
            self.work("--burst").wait()

    def judge(self, *, dead: int = 0) -> None:
        left = [pid for worker in self.lab.workers for pid in children(worker.pid)]
        for queue in self.queues:
            self.harness("look", None, {"queue": queue, "look": look(self.lab.broker, queue)})
        facts = {"queues": {queue: at_rest(self.lab.broker, queue) for queue in self.queues}, "processes": left}
        self.harness("final", None, {**facts, "keys": undocumented(self.lab.broker)})
        verdict = check(self.history, Demands(drained=True))
        assert verdict.ok, "\n".join(verdict.violations)
        assert verdict.put == sum(self.lab.state(queue).put for queue in self.queues) > 0
        assert (self.lab.state().dead, self.lab.state().suspects, self.lab.state().inflight) == (dead, 0, 0)
        if self.action in ("stop", "drop"):
            assert verdict.stale == 0


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Scene:
    return Scene(lab, tmp_path)


def leave_behind(scene: Scene, count: int) -> None:
    """Jobs in flight of a consumer of this machine that is no more."""
    lab = scene.lab
    gone = str(mine()._replace(start="1"))
    lab.broker.takes.register("work", gone)
    link = lab.broker.link()
    (taken,) = lab.broker.takes.exchange(gone, [Acks("work", [])], count, link)
    link.close()
    assert len(taken.jobs) == count


def put_unique(scene: Scene, n: int) -> None:
    """A job that is unique until its end, one until its start, and for each another one that it keeps out."""
    made = (Message(VERSION, new_id(), f"{scene.lab.app}:once", [n], unique=f"{mode}:{mode}:{n}") for mode in "eess")
    reply = scene.lab.broker.puts.put("work", [entry_of(message, "work") for message in made], marked=True)
    assert [word[0] for word in reply.words] == ["p", "d", "p", "d"]


def has_done_all(lab: Lab, worker: Worker) -> bool:
    return lab.broker.tends.unfinished("work")[0] == 0 or worker.process.poll() is not None


@pytest.mark.parametrize("action", ACTIONS)
@cells(*around(*CONSUMER, *SUPERVISOR))
def test_of_a_worker_that_drains_a_queue(scene: Scene, armed: list[str], action: str) -> None:
    expected: list[str] = []
    for number in scene.rounds(armed, action):
        done = [f"{number}-{n}" for n in range(FIRST)]
        with scene.told():
            scene.lab.put("do", *done)
            if any(event.startswith("reclaim") for event in scene.armed):
                leave_behind(scene, 2)
            put_unique(scene, 1000 + number)
            scene.lab.put("flaky", f"{number}-x", f"{number}-y")
            scene.lab.put("hopeless", f"{number}-z")
        expected += [*done, f"{number}-x", f"{number}-y", f"{1000 + number}", f"{1000 + number}"]
        scene.work("--burst").wait()
    scene.judge(dead=number + 1)
    assert set(expected) == set(scene.lab.seen("done"))
    if BEFORE_A_RUN.issuperset(armed) or action in ("stop", "drop"):
        assert sorted(expected) == sorted(scene.lab.seen("done"))


@pytest.mark.parametrize("action", ACTIONS)
@cells(*around("run", "settle"))
def test_of_a_worker_whose_jobs_lead_to_others(
    scene: Scene, armed: list[str], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callbacks and follow-ups are put in the step that ends their job, or not at all; of unique jobs there is one."""
    monkeypatch.setenv("EVIDENCE", scene.lab.environment["EVIDENCE"])
    defaults.use(scene.lab.broker.settings, scene.lab.broker)
    ends: Any = importlib.import_module(ENDS)
    for queue in (ends.work, ends.news):
        queue.sender.__dict__.pop("settings", None)
    scene.lab.app, scene.queues = ENDS, ["work", "news"]
    squares: list[str] = []
    for number in scene.rounds(armed, action):
        with scene.told():
            for n in range(number * SLOTS, (number + 1) * SLOTS):
                ends.square.put(n)
                squares.append(str(n * n))
            for n in (number, number):
                ends.once.put(n)
                ends.once_waiting.put(n)
            squares += [f"once {number}", f"waiting {number}"]
            ends.unfit.put("set")
        scene.work("--burst").wait()
    scene.judge(dead=number + 1)
    assert {*scene.lab.seen("got")} == {*squares}
    assert all(line.startswith("failed") for line in scene.lab.seen("told"))
    if action in ("stop", "drop"):
        assert sorted(scene.lab.seen("got")) == sorted(squares)
        assert len(scene.lab.seen("told")) == number + 1


@pytest.mark.parametrize("action", ACTIONS)
@cells("stop.before", "leave.before", *around("give_back"))
def test_of_a_worker_that_stops(scene: Scene, armed: list[str], action: str) -> None:
    held: list[str] = []
    for number in scene.rounds(armed, action):
        scene.lab.close_gate()
        put = [f"{number}-{n}" for n in range(SLOTS + 2)]
        with scene.told():
            scene.lab.put("hold", *put)
        held += put
        begun = len(scene.lab.seen("begun"))
        worker = scene.work("--grace", "0")
        scene.lab.until_seen("begun", begun + SLOTS)
        worker.signal(signal.SIGTERM)
        worker.wait()
        scene.lab.open_gate()  # for those that are left
    scene.judge()
    assert sorted(scene.lab.seen("done")) == sorted(held)


@pytest.mark.parametrize("action", ACTIONS)
@cells(*around("reconcile"))
def test_of_a_consumer_that_finds_what_it_never_heard_of(scene: Scene, armed: list[str], action: str) -> None:
    lab = scene.lab
    numbers: list[int] = []
    for _ in scene.rounds(armed, action):
        worker = scene.work()
        (consumer,) = until(lambda: lab.broker.tends.consumers("work"), "the consumer is registered")
        link = lab.broker.link()
        taken: list[bytes] = []
        with scene.told():
            while not taken:  # the consumer itself may be faster
                numbers.append(len(numbers))
                lab.put("do", numbers[-1])
                # As if a take of its own had done this, and the answer had been lost.
                taken = lab.broker.takes.exchange(consumer, [Acks("work", [])], 1, link)[0].jobs
        link.close()
        lab.broker.read(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
        until(partial(has_done_all, lab, worker), "all is done, or the worker has ended")
        worker.signal(signal.SIGTERM)
        worker.wait()
    scene.judge()
    done = sorted(map(int, lab.seen("done")))
    assert set(done) == set(numbers)
    assert done == numbers or action in ("kill", "raise")  # what it had done of its own may run again then


@pytest.mark.parametrize("action", ACTIONS)
@cells(*around("declare", "put"))
def test_of_a_producer(scene: Scene, armed: list[str], action: str) -> None:
    lab = scene.lab
    (lab.folder / "lines").write_text("".join(f"{n}\n" for n in range(30)))
    arguments = ["lines", "--task", "tests.acceptance.apps.jobs:do", "--resume", "f", "--batch", "10"]
    codes = []
    for _ in scene.rounds(armed, action, second=("put.before", "put.after")):
        codes.append(lab.commands.run("produce", *arguments).returncode)
    scene.use(scene.calm)
    if action == "drop":
        assert codes == [0]
    else:
        assert 0 not in codes
        assert lab.commands.run("produce", *arguments).returncode == 0
    scene.rest()
    scene.judge()
    assert sorted(map(int, lab.seen("done"))) == list(range(30))

"""T2: every moment at which something can go wrong, times everything that can happen there. Nothing is lost.

Each test acts once at one moment of a worker or a producer, lets the system come to rest (with another worker, if the
first is gone), and has the history of all its processes judged.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rq_lite import events
from rq_lite.broker import Acks
from rq_lite.chaos.check import check
from rq_lite.chaos.invariants import Demands
from rq_lite.chaos.rest import at_rest, undocumented
from rq_lite.client.defaults import defaults
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


class Scene:
    """A lab whose processes write a history, and one failpoint in it."""

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

    def arm(self, moment: str, action: str, nth: int = 1) -> None:
        """What is started from now on acts there, once."""
        self.moment, self.action = moment, action
        failpoint = {"RQ_LITE_FAILPOINT": f"{moment}:{action}@{nth}", "RQ_LITE_FAILPOINT_ONCE": str(self.marks)}
        self.use(self.calm | failpoint)

    def use(self, environment: dict[str, str]) -> None:
        self.lab.environment = self.lab.commands.environment = environment

    @property
    def reached(self) -> bool:
        return (self.marks / self.moment).exists()

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
        """The worker that the failpoint hit goes on or ends; another one does what is left."""
        assert self.reached
        if self.action in ("kill", "raise"):
            self.harness("fault", None, {"kind": f"{self.action} at {self.moment}", "inflight": SLOTS})
        for worker in self.workers:
            worker.wait()
        self.use(self.calm)
        if any(self.lab.broker.tends.unfinished(queue)[0] for queue in self.queues):
            self.work("--burst").wait()

    def judge(self, *, dead: int = 0) -> None:
        left = [pid for worker in self.workers for pid in children(worker.pid)]
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


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", around(*CONSUMER, *SUPERVISOR))
def test_of_a_worker_that_drains_a_queue(scene: Scene, moment: str, action: str) -> None:
    with scene.told():
        scene.lab.put("do", *range(FIRST))
        leave_behind(scene, 2)
        scene.lab.put("flaky", "x", "y")
        scene.lab.put("hopeless", "z")
    scene.arm(moment, action)
    worker = scene.work("--burst")
    until(lambda: scene.reached or worker.process.poll() is not None, "the moment comes")
    scene.rest()
    scene.judge(dead=1)
    assert {*map(str, range(FIRST)), "x", "y"} == set(scene.lab.seen("done"))
    if moment in BEFORE_A_RUN or action in ("stop", "drop"):
        assert len(scene.lab.seen("done")) == FIRST + 2


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", around("run", "settle"))
def test_of_a_worker_whose_jobs_lead_to_others(
    scene: Scene, moment: str, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callbacks are put in the step that ends their job, or not at all."""
    monkeypatch.setenv("EVIDENCE", scene.lab.environment["EVIDENCE"])
    defaults.use(scene.lab.broker.settings, scene.lab.broker)
    ends: Any = importlib.import_module(ENDS)
    for queue in (ends.work, ends.news):
        queue.sender.__dict__.pop("settings", None)
    scene.lab.app, scene.queues = ENDS, ["work", "news"]
    with scene.told():
        for n in range(SLOTS):
            ends.square.put(n)
        ends.unfit.put("set")
    scene.arm(moment, action)
    scene.work("--burst")
    until(lambda: scene.reached, "the moment comes")
    scene.rest()
    scene.judge(dead=1)
    assert {*scene.lab.seen("got")} == {str(n * n) for n in range(SLOTS)}
    assert all(line.startswith("failed") for line in scene.lab.seen("told"))
    if action in ("stop", "drop"):
        assert (len(scene.lab.seen("got")), len(scene.lab.seen("told"))) == (SLOTS, 1)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", ["stop.before", "leave.before", *around("give_back")])
def test_of_a_worker_that_stops(scene: Scene, moment: str, action: str) -> None:
    with scene.told():
        scene.lab.put("hold", *range(SLOTS + 2))
    scene.arm(moment, action)
    worker = scene.work("--grace", "0")
    scene.lab.until_seen("begun", SLOTS)
    worker.signal(signal.SIGTERM)
    worker.wait()
    scene.lab.open_gate()
    scene.rest()
    scene.judge()
    assert sorted(scene.lab.seen("done")) == sorted(map(str, range(SLOTS + 2)))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", around("reconcile"))
def test_of_a_consumer_that_finds_what_it_never_heard_of(scene: Scene, moment: str, action: str) -> None:
    lab = scene.lab
    scene.arm(moment, action)
    worker = scene.work()
    until(lambda: lab.state().consumers, "the consumer is registered")
    (consumer,) = lab.broker.tends.consumers("work")
    link = lab.broker.link()
    numbers: list[int] = []
    taken: list[bytes] = []
    with scene.told():
        while not taken:  # the consumer itself may be faster
            numbers.append(len(numbers))
            lab.put("do", numbers[-1])
            # As if a take of its own had done this, and the answer had been lost.
            taken = lab.broker.takes.exchange(consumer, [Acks("work", [])], 1, link)[0].jobs
    lab.broker.read(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    until(lambda: scene.reached, "the moment comes")
    until(lambda: lab.broker.tends.unfinished("work")[0] == 0 or worker.process.poll() is not None, "all is done")
    worker.signal(signal.SIGTERM)
    scene.rest()
    scene.judge()
    done = sorted(map(int, lab.seen("done")))
    assert set(done) == set(numbers)
    assert done == numbers or action in ("kill", "raise")  # what it had done of its own may run again then


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", around("declare", "put"))
def test_of_a_producer(scene: Scene, moment: str, action: str) -> None:
    lab = scene.lab
    (lab.folder / "lines").write_text("".join(f"{n}\n" for n in range(30)))
    arguments = ["lines", "--task", "tests.acceptance.apps.jobs:do", "--resume", "f", "--batch", "10"]
    scene.arm(moment, action, nth=2 if moment.startswith("put") else 1)
    ended = lab.commands.run("produce", *arguments)
    assert scene.reached
    scene.use(scene.calm)
    if action == "drop":
        assert ended.returncode == 0
    else:
        assert ended.returncode != 0
        assert lab.commands.run("produce", *arguments).returncode == 0
    scene.rest()
    scene.judge()
    assert sorted(map(int, lab.seen("done"))) == list(range(30))

"""Batches in a consumer's slots: real greenlets and threads, no Redis and no process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import gevent
import msgspec
import pytest

from rq_lite import BatchFailed, Bury, JobEvent, Queue, Retry, current_job
from rq_lite.broker import Broker
from rq_lite.broker.deliveries import Deliveries
from rq_lite.client.defaults import defaults
from rq_lite.client.middleware import registered
from rq_lite.client.registry import registry
from rq_lite.consumer.executor import Executor
from rq_lite.consumer.offload.held import HeldJobs
from rq_lite.consumer.offload.pools import Pools
from rq_lite.consumer.slots import Slot, Slots
from rq_lite.model.message import VERSION, Message, encode
from rq_lite.model.outcome import Finished, Outcome, Retried
from rq_lite.model.retry import Report
from rq_lite.process.board import ELSEWHERE, LANE, Board, new_file, size
from tests.conftest import until
from tests.consumer.test_run import DEAD, SETUP

LONG = 60.0  # seconds that no test lasts


def reach(condition: Callable[[], object], what: str) -> None:
    """`until`, while greenlets go on."""

    def turned() -> object:
        gevent.sleep(0.001)
        return condition()

    until(turned, what)


class Untold(HeldJobs):
    """Redis, which is not there, is not told which jobs gather."""

    def add(self, slot: Slot[Any]) -> None:
        pass


class Lab:
    """A consumer's slots, and a task `t` that runs in batches; the jobs' ids are their delivery tags."""

    def __init__(self, function: Callable[..., Any], *, slots: int = 20, **options: Any) -> None:
        self.queue = Queue("batched")
        define: Any = self.queue.task
        self.plain = self.queue.task(name="plain")(gevent.sleep)
        tasks = {"t": define(name="t", **options)(function), "plain": self.plain}
        executor = Executor(tasks, "c", Pools(SETUP, Untold(Broker(settings=DEAD), "c")), max_result=DEAD.max_result)
        self.lanes = {name: Deliveries(name, number * LANE) for number, name in enumerate(("q", "other"))}
        self.board = Board(new_file(size(slots)), slots)
        self.outcomes: dict[int, Outcome] = {}
        self.ignored: list[int] = []
        self.slots: Slots[Deliveries] = Slots(self.board, executor.run, self._finished)
        self.slots.start()
        gevent.sleep(0)
        self._tag = 0

    def _finished(self, lane: Deliveries | None, tag: int, outcome: Outcome) -> None:
        if lane is None:
            self.ignored.append(tag)
        else:
            self.outcomes[tag] = outcome

    def feed(self, *arguments: Any, task: str = "t", queue: str = "q", head: bytes = b"", **fields: Any) -> None:
        """A job for each argument; a tuple is several."""
        jobs = []
        for number, given in enumerate(arguments, self._tag + 1):
            args = list(given) if isinstance(given, tuple) else [given]
            jobs.append(head + encode(Message(VERSION, str(number), task, args, **fields)))
        self.slots.feed(self.lanes[queue], self._tag, jobs)
        self._tag += len(jobs)

    def until_gathered(self, count: int) -> None:
        places = [self.board.place(slot) for slot in range(self.board.slots)]
        reach(lambda: sum(self.board.words[at + 1] == ELSEWHERE for at in places) == count, f"{count} jobs gather")

    def end(self) -> dict[int, Outcome]:
        """The outcomes, by tag, once all have ended."""
        reach(lambda: self.slots.idle, "all jobs have ended")
        return self.outcomes

    def errors(self) -> dict[int, str]:
        """Of the jobs that were buried."""
        return {
            tag: msgspec.json.decode(outcome.report, type=Report).error
            for tag, outcome in self.end().items()
            if isinstance(outcome, Finished) and outcome.state == "failed"
        }


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "tasks", {})
    monkeypatch.setattr(registry, "queues", {})
    defaults.use(DEAD, Broker(settings=DEAD))


Calls = list[list[Any]]


@pytest.fixture
def calls() -> Calls:
    """What the function was called with."""
    return []


# -- when it is called


def test_a_full_batch_is_one_call_and_each_job_is_done(calls: Calls) -> None:
    lab = Lab(calls.append, batch=3, batch_wait=LONG)
    lab.feed(*range(7))
    lab.until_gathered(1)
    assert calls == [[0, 1, 2], [3, 4, 5]]
    assert lab.outcomes == dict.fromkeys(range(1, 7))
    lab.feed(7, 8)
    assert lab.end() == dict.fromkeys(range(1, 10))
    assert calls[2] == [6, 7, 8]


def test_without_company_it_is_called_after_batch_wait(calls: Calls) -> None:
    lab = Lab(calls.append, batch=3, batch_wait=0.3)
    began = time.monotonic()
    lab.feed("a", "b")
    lab.until_gathered(2)
    lab.end()
    assert calls == [["a", "b"]]
    assert time.monotonic() - began >= 0.3


def test_without_batch_wait_only_jobs_that_came_together_run_together(calls: Calls) -> None:
    lab = Lab(calls.append, batch=3, batch_wait=0)
    lab.feed("a", "b")
    lab.end()
    lab.feed("c")
    lab.end()
    assert calls == [["a", "b"], ["c"]]


def test_a_batch_that_is_larger_than_the_slots_does_not_wait_for_more(calls: Calls) -> None:
    lab = Lab(calls.append, slots=4, batch=100, batch_wait=LONG)
    lab.feed(*range(6))
    reach(lambda: calls, "the first is called")
    assert calls == [[0, 1, 2, 3]]
    lab.slots.close()
    lab.end()
    assert calls[1] == [4, 5]


def test_another_task_may_take_the_last_slot(calls: Calls) -> None:
    lab = Lab(calls.append, slots=3, batch=100, batch_wait=LONG)
    lab.feed("a", "b")
    lab.until_gathered(2)
    lab.feed(LONG, task="plain", timeout=0.5)
    reach(lambda: len(lab.outcomes) == 2, "it is called, since no more can come")
    assert calls == [["a", "b"]]
    lab.end()


def test_a_consumer_that_takes_no_more_lets_it_begin(calls: Calls) -> None:
    lab = Lab(calls.append, batch=100, batch_wait=LONG)
    lab.feed("a")
    lab.until_gathered(1)
    lab.slots.close()
    lab.end()
    assert calls == [["a"]]


def test_only_jobs_of_one_queue_with_one_timeout_run_together(calls: Calls) -> None:
    lab = Lab(calls.append, batch=2, batch_wait=LONG)
    lab.feed("a", "b", timeout=5)
    lab.feed("c", queue="other")
    lab.feed("d", timeout=6)
    lab.feed("e")
    lab.until_gathered(3)
    assert calls == [["a", "b"]]
    lab.slots.close()
    lab.end()
    assert sorted(calls[1:]) == [["c"], ["d"], ["e"]]


def test_a_job_that_may_have_killed_a_consumer_runs_without_others(calls: Calls) -> None:
    lab = Lab(calls.append, batch=3, batch_wait=LONG)
    lab.feed("a", "b")
    lab.feed("x", head=b"0.1")
    reach(lambda: calls, "it is called")
    assert calls == [["x"]]
    lab.feed("c", head=b"2.0")
    lab.end()
    assert calls[1] == ["a", "b", "c"]


def test_several_batches_run_at_once() -> None:
    running: list[int] = []
    most: list[int] = []

    def function(those: list[int]) -> None:
        running.append(len(those))
        most.append(len(running))
        gevent.sleep(0.05)
        running.pop()

    lab = Lab(function, batch=2, batch_wait=LONG)
    lab.feed(*range(6))
    lab.end()
    assert max(most) == 3


# -- what the function gets


def test_elements_are_restored_and_one_that_cannot_be_fails_alone() -> None:
    calls: list[list[date]] = []

    def function(days: list[date]) -> list[date]:
        calls.append(days)
        return days

    lab = Lab(function, batch=2, batch_wait=LONG, result_ttl=60)
    lab.feed("2026-12-31", "no day", ("2026-12-31", 5), "2027-01-01", result_ttl=60)
    errors = lab.errors()
    assert calls == [[date(2026, 12, 31), date(2027, 1, 1)]]
    assert errors[2].startswith("ValidationError: argument 'days': Invalid RFC3339 encoded date")
    assert errors[3].startswith("TypeError: too many positional arguments; a job of the batch takes (days: datetime")
    assert [lab.outcomes[tag].detail for tag in (1, 4)] == [b'"value":"2026-12-31"', b'"value":"2027-01-01"']  # type: ignore[union-attr]


def test_several_arguments_are_a_tuple() -> None:
    calls: list[list[tuple[date, int]]] = []

    def function(rows: list[tuple[date, int]]) -> None:
        calls.append(rows)

    lab = Lab(function, batch=2, batch_wait=LONG)
    lab.feed(("2026-12-31", 1), ("2027-01-01", 2))
    lab.end()
    assert calls == [[(date(2026, 12, 31), 1), (date(2027, 1, 1), 2)]]


@pytest.mark.parametrize("run_in", ["greenlet", "thread"])
def test_it_runs_in_no_job_s_name_and_in_a_context_of_its_own(run_in: str) -> None:
    found: list[Any] = []
    lab = Lab(lambda those: found.append(current_job()), batch=2, batch_wait=LONG, run_in=run_in)
    lab.feed("a", "b")
    assert lab.end() == {1: None, 2: None}
    assert found == [None]


# -- how its jobs end


def test_each_job_has_its_own_result() -> None:
    lab = Lab(lambda those: [2 * n for n in those], batch=3, batch_wait=LONG)
    lab.feed(1, 2, 3, result_ttl=60.0)
    assert [outcome.detail for outcome in lab.end().values()] == [b'"value":2', b'"value":4', b'"value":6']  # type: ignore[union-attr]


def test_a_result_that_json_cannot_carry_fails_its_own_job() -> None:
    lab = Lab(lambda those: [*those[:-1], object()], batch=2, batch_wait=LONG, retries=5)
    lab.feed("a", "b", result_ttl=60.0)
    (error,) = lab.errors().values()
    assert error.startswith("BadResult: the result of t: JSON has no word for object")
    assert lab.outcomes[1] == Finished("done", b'"value":"a"', 60_000, puts=[])


@pytest.mark.parametrize(
    ("returned", "came"),
    [([1], "returned 1"), ([1, 2, 3], "returned 3"), ((1, 2), "returned a tuple"), ("ab", "returned a str")],
)
def test_results_of_another_shape_fail_every_job_and_none_is_tried_again(returned: Any, came: str) -> None:
    lab = Lab(lambda those: returned, batch=2, batch_wait=LONG, retries=5)
    lab.feed("a", "b")
    said = (
        f"BadResult: t {came} for a batch of 2 jobs; it must return None, or a list with a result for each, in their "
        "order"
    )
    assert lab.errors() == {1: said, 2: said}


def test_batch_failed_fails_its_jobs_and_the_others_are_done() -> None:
    def function(those: list[str]) -> None:
        raise BatchFailed(
            {0: ValueError("bad"), 2: Bury("never"), 3: Retry("later", delay=7)}, results=[None, "two", None, None]
        )

    lab = Lab(function, batch=4, batch_wait=LONG, retries=1, retry_on=ConnectionError)
    lab.feed(*"abcd", result_ttl=60.0)
    assert lab.errors() == {1: "ValueError: bad", 3: "Bury: never"}
    assert lab.outcomes[4] == Retried(7000)
    assert lab.outcomes[2] == Finished("done", b'"value":"two"', 60_000, puts=[])


def test_an_empty_batch_failed_means_that_all_are_done() -> None:
    def function(those: list[str]) -> None:
        raise BatchFailed({})

    lab = Lab(function, batch=2, batch_wait=LONG)
    lab.feed("a", "b")
    assert lab.end() == {1: None, 2: None}


@pytest.mark.parametrize(
    ("errors", "results", "said"),
    [
        ({2: ValueError()}, None, "BadResult: t raised BatchFailed for element 2 of a batch of 2 jobs, which is"),
        ({0: ValueError()}, [1], "BadResult: t returned 1 for a batch of 2 jobs"),
        ({-1: ValueError()}, None, "UsageError: BatchFailed: -1 is no place in the list"),
        ({"a": ValueError()}, None, "UsageError: BatchFailed: 'a' is no place in the list"),
        ({True: ValueError()}, None, "UsageError: BatchFailed: True is no place in the list"),
        ({0: "text"}, None, "UsageError: BatchFailed: the error of element 0 is 'text', not an exception"),
        ({0: ValueError}, None, "UsageError: BatchFailed: the error of element 0 is <class 'ValueError'>, not an"),
        ([ValueError()], None, "UsageError: BatchFailed takes a dict of the places of failed elements and their"),
    ],
)
def test_a_batch_failed_that_cannot_be_right_fails_every_job(errors: Any, results: Any, said: str) -> None:
    def function(those: list[str]) -> None:
        raise BatchFailed(errors, results=results)

    lab = Lab(function, batch=2, batch_wait=LONG)
    lab.feed("a", "b")
    found = lab.errors()
    assert found.keys() == {1, 2}
    assert all(error.startswith(said) for error in found.values()), found


@pytest.mark.parametrize("run_in", ["greenlet", "thread"])
def test_any_other_error_fails_every_job_with_the_function_s_own_traceback(run_in: str) -> None:
    def function(those: list[str]) -> None:
        raise SystemExit("enough")

    lab = Lab(function, batch=3, batch_wait=LONG, run_in=run_in)
    lab.feed("a", "b", "c")
    assert lab.errors() == dict.fromkeys((1, 2, 3), "SystemExit: enough")
    reports = [msgspec.json.decode(outcome.report, type=Report) for outcome in lab.outcomes.values()]  # type: ignore[union-attr]
    for report in reports:
        assert report.traceback == reports[0].traceback
        assert report.traceback.splitlines()[1].endswith("in function")


def test_hooks_are_called_for_each_job_around_the_call() -> None:
    told: list[Any] = []

    class Diary:
        def before_run(self, job: JobEvent) -> None:
            told.append(("before", job.id, job.attempt, job.queue))

        def after_run(self, job: JobEvent) -> None:
            told.append(("after", job.id, repr(job.exception)))

    def function(those: list[str]) -> None:
        told.append(those)
        raise BatchFailed({1: ValueError("bad")})

    before = registered.use({"diary": Diary()})
    try:
        lab = Lab(function, batch=2, batch_wait=LONG)
        lab.feed("a", "b", head=b"2.0")
        lab.end()
    finally:
        registered.use(before)
    assert told == [
        ("before", "1", 3, "q"), ("before", "2", 3, "q"), ["a", "b"],
        ("after", "2", "ValueError('bad')"), ("after", "1", "None"),
    ]  # fmt: skip


# -- time limits


@pytest.mark.parametrize("run_in", ["greenlet", "thread"])
def test_the_time_limit_is_one_for_all_counts_from_the_call_and_is_on_the_board(run_in: str) -> None:
    boards: list[Any] = []

    def function(those: list[str]) -> None:
        boards.extend(lab.board.together(lab.board.running(1)))
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            (gevent.sleep if run_in == "greenlet" else time.sleep)(0.01)

    lab = Lab(function, batch=3, batch_wait=LONG, run_in=run_in)
    lab.feed(LONG, task="plain")  # in the first slot
    lab.feed("a", "b", timeout=0.3)
    lab.until_gathered(2)
    gevent.sleep(0.4)  # longer than the limit: they only wait
    called = time.monotonic()
    lab.feed("c", timeout=0.3)
    reach(lambda: len(lab.outcomes) == 3, "they have ended")
    assert time.monotonic() - called >= 0.3
    assert [(job.tag, job.deadline) for job in boards] == [(tag, boards[0].deadline) for tag in (2, 3, 4)]
    assert called + 0.3 <= boards[0].deadline <= called + 5
    assert lab.board.overdue(time.monotonic() + 10) == []
    reports = [msgspec.json.decode(outcome.report, type=Report) for outcome in lab.outcomes.values()]  # type: ignore[union-attr]
    assert all(report.error.startswith("JobTimeout: soft limit of 0.3 s: not done after 0.") for report in reports)
    assert all("in function" in report.traceback for report in reports)


def test_a_function_that_goes_on_after_its_limit_and_returns_has_done_its_jobs() -> None:
    raised: list[str] = []

    def function(those: list[str]) -> None:
        for _ in range(2):
            try:
                gevent.sleep(LONG)
            except BaseException as error:
                raised.append(type(error).__name__)

    lab = Lab(function, batch=2, batch_wait=LONG)
    lab.feed("a", "b", timeout=0.1)
    assert lab.end() == {1: None, 2: None}
    assert raised == ["Expired", "Expired"]


# -- cancelling, stopping, losing


@pytest.mark.parametrize("name", ["1", "2"])
def test_a_job_that_is_cancelled_while_it_gathers_is_dropped(calls: Calls, name: str) -> None:
    lab = Lab(calls.append, batch=3, batch_wait=LONG)
    lab.feed("a", "b")
    lab.until_gathered(2)
    lab.slots.cancel(lab.lanes["q"], [name])
    reach(lambda: lab.outcomes, "it has ended")
    assert lab.outcomes == {int(name): Finished("cancelled", job=name)}
    lab.feed("c", "d")
    lab.end()
    assert calls == [[*{"1": "b", "2": "a"}[name], "c", "d"]]


def test_a_batch_that_all_jobs_have_left_is_not_called(calls: Calls) -> None:
    lab = Lab(calls.append, batch=3, batch_wait=0.05)
    lab.feed("a")
    lab.until_gathered(1)
    lab.slots.cancel(lab.lanes["q"], ["1"])
    lab.end()
    gevent.sleep(0.2)  # longer than batch_wait
    lab.feed("b")
    lab.end()
    assert calls == [["b"]]


@pytest.mark.parametrize("fails", [False, True])
def test_a_job_that_is_cancelled_while_its_batch_runs_does_not_interrupt_it(fails: bool) -> None:
    gate, calls = gevent.event.Event(), []

    def function(those: list[str]) -> None:
        calls.append(those)
        gate.wait(LONG)
        if fails:
            raise BatchFailed({0: ValueError("a"), 1: ValueError("b")})

    lab = Lab(function, batch=3, batch_wait=LONG, retries=1)
    lab.feed("a", "b", "c")
    reach(lambda: calls, "it runs")
    lab.slots.cancel(lab.lanes["q"], ["1"])
    gevent.sleep(0.3)
    assert lab.outcomes == {}
    gate.set()
    lab.end()
    if fails:
        assert lab.outcomes[1] == Finished("cancelled", job="1")
        assert isinstance(lab.outcomes[2], Retried)
        assert lab.outcomes[3] is None
    else:
        assert lab.outcomes == {1: None, 2: None, 3: None}
    lab.feed("d", "e", "f")  # in the same slots: nothing of the cancel is left
    gate.clear()
    gevent.spawn_later(0.05, gate.set)
    lab.end()
    assert (lab.outcomes[6], isinstance(lab.outcomes[4], Retried)) == (None, fails)


@pytest.mark.parametrize("run_in", ["greenlet", "thread"])
def test_a_stop_interrupts_the_call_once_and_its_jobs_are_given_back(run_in: str) -> None:
    ended: list[str] = []

    def function(those: list[str]) -> None:
        ended.append("begun")
        end = time.monotonic() + LONG
        try:
            while time.monotonic() < end:
                (gevent.sleep if run_in == "greenlet" else time.sleep)(0.01)
        finally:
            ended.append("tidied up")

    lab = Lab(function, batch=3, batch_wait=LONG, run_in=run_in)
    lab.feed("a", "b", "c")
    reach(lambda: ended, "it runs")
    gevent.joinall(lab.slots.stop_running(), timeout=10, raise_error=True)
    assert ended == ["begun", "tidied up"]
    assert lab.outcomes == {}
    assert sorted(tag for _, tag in lab.slots.held()) == [1, 2, 3]


def test_a_call_that_ends_in_spite_of_a_stop_has_done_its_jobs() -> None:
    calls: list[list[str]] = []

    def function(those: list[str]) -> None:
        calls.append(those)
        try:
            gevent.sleep(LONG)
        except BaseException:
            return

    lab = Lab(function, batch=2, batch_wait=LONG)
    lab.feed("a", "b")
    reach(lambda: calls, "it runs")
    lab.slots.stop_running()
    reach(lambda: len(lab.outcomes) == 2, "they have ended")
    assert lab.outcomes == {1: None, 2: None}


def test_a_stop_gives_back_what_gathers(calls: Calls) -> None:
    lab = Lab(calls.append, batch=3, batch_wait=LONG)
    lab.feed("a", "b")
    lab.until_gathered(2)
    gevent.joinall(lab.slots.stop_running(), timeout=10, raise_error=True)
    assert sorted(tag for _, tag in lab.slots.held()) == [1, 2]
    assert (calls, lab.outcomes) == ([], {})


def test_a_job_that_another_consumer_has_by_now_is_not_in_the_list(calls: Calls) -> None:
    lab = Lab(calls.append, batch=3, batch_wait=LONG)
    lab.feed("a", "b")
    lab.until_gathered(2)
    assert lab.slots.disown(lab.lanes["q"], {2}) == 1
    lab.feed("c")
    lab.end()
    assert calls == [["b", "c"]]
    assert (lab.outcomes, lab.ignored) == ({2: None, 3: None}, [1])


def test_what_an_earlier_job_left_behind_in_a_greenlet_does_not_end_a_batch() -> None:
    timeouts: list[gevent.Timeout] = []

    def function(those: list[str]) -> None:
        for timeout in timeouts:
            reach(lambda timeout=timeout: not timeout.pending, "it is over")  # type: ignore[misc]

    lab = Lab(function, slots=2, batch=2, batch_wait=LONG)
    careless = lab.queue.task(name="careless")(lambda: timeouts.append(gevent.Timeout.start_new(0.1)))
    lab.slots._run.__self__._tasks["careless"] = careless  # type: ignore[attr-defined]
    lab.feed((), (), task="careless")
    lab.end()
    lab.feed("a", "b")
    lab.end()
    assert len(timeouts) == 2
    assert (lab.outcomes[3], lab.outcomes[4]) == (None, None)


def test_in_a_child_that_the_function_forks_nothing_goes_on() -> None:
    codes: list[int] = []

    def function(those: list[str]) -> None:
        pid = os.fork()
        if pid:
            codes.append(os.waitpid(pid, 0)[1])

    lab = Lab(function, batch=2, batch_wait=LONG)
    lab.feed("a", "b")
    assert lab.end() == {1: None, 2: None}
    assert codes == [0]


def test_a_task_may_have_no_time_limit() -> None:
    lab = Lab(lambda those: gevent.sleep(0.05), batch=2, batch_wait=LONG, timeout=None)
    lab.feed("a", "b")
    assert lab.end() == {1: None, 2: None}

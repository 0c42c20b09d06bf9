"""Schedules in Redis: what is written at a worker's start, and that each slot is fired once, whatever happens."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker, keys
from rq_lite.client import schedules
from rq_lite.client.queue import Queue
from rq_lite.client.task import Task
from rq_lite.duties import cron
from rq_lite.duties.duties import Duties
from rq_lite.errors import BadArgument, BrokerOutOfMemory, UsageError
from rq_lite.model.message import as_is, decode
from rq_lite.model.schedule import LATE, Schedule, from_json, job_id, to_json
from tests.conftest import Server, until
from tests.faults.proxy import Proxy
from tests.steps import KEY, at_maxmemory, counter, everything, length, put, take, waiting

HOUR = 3_600_000


def schedule(**options: Any) -> Schedule:
    return Schedule(**{"every": HOUR, "queue": "q", "task": "t", "args": [7], **options})


def plan(broker: Broker, name: str = "s", slot: int = 0, **options: Any) -> int:
    """A schedule that is due since its slot, in ms; by default one that has just come."""
    slot = slot or broker.plans.clock() // HOUR * HOUR
    assert broker.plans.plan(name, b"", to_json("s", schedule(**options), as_is), slot)
    return slot


def jobs(broker: Broker) -> list[str]:
    """The ids of the jobs that wait, the next one first."""
    return [decode(raw)[0].id for raw in reversed(broker.read(("LRANGE", KEY.pending, 0, -1))[0])]


@pytest.fixture(autouse=True)
def declared(broker: Broker) -> None:
    broker.puts.declare("q", 3)


# -- firing


def test_what_is_due_is_put_and_moves_on(broker: Broker) -> None:
    slot = plan(broker)
    cron.fire_due(broker, ["q"])
    assert jobs(broker) == [job_id("s", slot)]
    now = broker.plans.planned("s")
    assert now is not None
    assert (now.slot, now.last) == (slot + HOUR, slot)
    raw = broker.read(("LINDEX", KEY.pending, 0))[0]
    assert (counter(broker, "put"), counter(broker, "bytes"), length(broker, KEY.bell)) == (1, len(raw), 1)


def test_what_is_not_due_is_left_alone(broker: Broker) -> None:
    slot = plan(broker, slot=broker.plans.clock() + 5000)
    left = cron.fire_due(broker, ["q"])
    assert 4 < left <= 5
    assert jobs(broker) == []
    assert broker.plans.due()[1:] == ([], slot)


def test_no_bound_refuses_it(broker: Broker) -> None:
    put(broker, 1, 2, 3)
    plan(broker)
    cron.fire_due(broker, ["q"])
    assert len(jobs(broker)) == 4


def test_each_slot_is_fired_once_however_many_try_at_once(broker: Broker, server: Server) -> None:
    """Eight supervisors that all have seen the same slot."""
    count = 20
    for number in range(count):
        plan(broker, f"s{number}")
    now, due, _ = broker.plans.due()
    brokers = [server.broker().open() for _ in range(8)]
    gate = threading.Barrier(8)

    def race(own: Broker) -> None:
        gate.wait()
        for planned in due:
            cron.fire(own, planned, now, ["q"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, brokers))
    for own in brokers:
        own.close()
    assert len(jobs(broker)) == len(set(jobs(broker))) == count


def test_a_fire_that_is_sent_again_changes_nothing(broker: Broker) -> None:
    plan(broker)
    now, (seen,), _ = broker.plans.due()
    cron.fire(broker, seen, now, ["q"])
    before = everything(broker)
    cron.fire(broker, seen, now, ["q"])
    assert everything(broker) == before


def test_a_fire_whose_answer_is_lost_is_done_once(broker: Broker, proxy: Proxy) -> None:
    plan(broker)
    own = Broker(proxy.url, settings=broker.settings)
    now, due, _ = own.plans.due()
    assert own.core.scripts is not None
    proxy.swallow_replies(own.core.scripts["fire"].digest)
    with pytest.raises(Exception, match="cannot be reached"):
        cron.fire(own, due[0], now, ["q"])
    proxy.calm()
    cron.fire(own, due[0], now, ["q"])
    cron.fire_due(own, ["q"])
    own.close()
    assert len(jobs(broker)) == 1


def test_a_schedule_that_was_changed_meanwhile_is_not_fired_as_it_was(broker: Broker) -> None:
    plan(broker)
    now, (seen,), _ = broker.plans.due()
    assert broker.plans.plan("s", seen.definition, to_json("s", schedule(args=[8]), as_is), None)
    cron.fire(broker, seen, now, ["q"])
    assert jobs(broker) == []
    cron.fire_due(broker, ["q"])
    assert decode(broker.read(("LINDEX", KEY.pending, 0))[0])[0].args == [8]


def test_a_schedule_that_was_removed_meanwhile_is_not_fired(broker: Broker) -> None:
    plan(broker)
    now, (seen,), _ = broker.plans.due()
    assert broker.plans.plan("s", seen.definition, b"", None)
    cron.fire(broker, seen, now, ["q"])
    assert jobs(broker) == []
    assert broker.read(("EXISTS", keys.SCHEDULES, keys.SCHEDULES_DUE, keys.SCHEDULES_LAST))[0] == 0


@pytest.mark.parametrize(("missed", "fired"), [("skip", 0), ("once", 1), ("all", 5)])
def test_missed_slots(broker: Broker, missed: str, fired: int) -> None:
    """Five were due, the last half an hour ago."""
    now = broker.plans.clock()
    latest = (now - HOUR // 2) // HOUR * HOUR
    # Slots are counted from 1970: let the last one be long over whatever the time is.
    every = HOUR if now - latest > 120_000 else HOUR + 600_000
    slot = now // every * every - 4 * every
    late = now - (slot + 4 * every) > 60_000
    plan(broker, slot=slot, every=every, missed=missed)
    cron.fire_due(broker, ["q"])
    assert len(jobs(broker)) == (fired if late or missed != "skip" else 1)
    assert jobs(broker) == [job_id("s", slot + n * every) for n in range(5)][5 - len(jobs(broker)) :]
    planned = broker.plans.planned("s")
    assert planned is not None
    assert planned.slot == slot + 5 * every


def test_a_clock_that_is_put_back_fires_no_slot_again(broker: Broker) -> None:
    """As if it had shown tomorrow for a moment: the schedule waits until that comes."""
    slot = plan(broker, slot=broker.plans.clock() // HOUR * HOUR + 24 * HOUR)
    _, due, upcoming = broker.plans.due()
    assert (due, upcoming) == ([], slot)
    (seen,) = broker.plans.all_planned()
    cron.fire(broker, seen, slot + 5, ["q"])
    cron.fire_due(broker, ["q"])
    assert jobs(broker) == [job_id("s", slot)]


def test_a_definition_that_is_not_understood_holds_nobody_up(broker: Broker, caplog: Any) -> None:
    broker.plans.plan("broken", b"", b'{"v":9}', 1)
    broker.plans.plan("odd", b"", b'{"every":60000,"queue":"q","task":"t","job":{"no":"field"}}', 1)
    broker.read(("ZADD", keys.SCHEDULES_DUE, 2, "orphan"))
    plan(broker)
    assert cron.fire_due(broker, ["q"]) > 0, "they are not looked at all the time"
    assert len(jobs(broker)) == 1
    assert caplog.text.count("it waits") == 2 * 3  # a second look at what has moved on
    assert [planned.name for planned in broker.plans.due()[1]] == ["broken", "odd", "orphan"]


def test_many_that_are_due_leave_other_duties_their_turn(broker: Broker) -> None:
    for number in range(cron.AT_A_TIME + 5):
        plan(broker, f"s{number}")
    assert cron.fire_due(broker, ["q"]) == 0
    assert len(jobs(broker)) == cron.AT_A_TIME
    assert cron.fire_due(broker, ["q"]) > 0
    assert len(set(jobs(broker))) == cron.AT_A_TIME + 5


def test_a_slot_that_comes_while_others_are_fired_is_not_slept_through(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedule's next slot is due before the first look has ended."""
    slot = plan(broker, every=1000, slot=broker.plans.clock() // 1000 * 1000 - 1000, missed="all")
    looks = broker.plans.due
    seen: list[int] = []

    def early() -> Any:
        now, due, upcoming = looks()
        seen.append(now)
        return (min(now, slot), due, upcoming) if len(seen) == 1 else (now, due, upcoming)

    monkeypatch.setattr(broker.plans, "due", early)
    assert cron.fire_due(broker, ["q"]) <= 1
    assert jobs(broker)[:2] == [job_id("s", slot), job_id("s", slot + 1000)]


def test_at_maxmemory_it_waits(broker: Broker) -> None:
    plan(broker)
    with at_maxmemory(broker), pytest.raises(BrokerOutOfMemory):
        cron.fire_due(broker, ["q"])
    cron.fire_due(broker, ["q"])
    assert len(jobs(broker)) == 1


def test_where_nobody_works_nothing_is_put_and_nothing_is_forgotten(broker: Broker) -> None:
    slot = plan(broker)
    assert cron.fire_due(broker, ["other"]) == cron.LOOK
    assert (jobs(broker), broker.read(("LLEN", keys.of("other").pending))[0]) == ([], 0)
    cron.fire_due(broker, ["other", "q"])
    assert jobs(broker) == [job_id("s", slot)]


@pytest.mark.parametrize(("missed", "fired"), [("skip", 0), ("once", 1), ("all", 3)])
def test_slots_of_a_queue_that_is_shut_down_are_missed_ones(broker: Broker, missed: str, fired: int) -> None:
    every = 2 * LATE
    slot = plan(broker, missed=missed, every=every, slot=(broker.plans.clock() // every - 2) * every)
    operate.shutdown(broker, "q")
    (seen,) = broker.plans.due()[1]
    late = slot + 2 * every + LATE + 1  # so long was nobody allowed to put
    assert cron.fire(broker, seen, late, ["q"]) is (missed == "skip"), "it waits, or is left out"
    assert cron.fire_due(broker, ["q"]) > 0, "it is not looked at all the time"
    assert (jobs(broker), counter(broker, "put"), length(broker, KEY.bell)) == ([], 0, 64)
    operate.reopen(broker, "q")
    cron.fire(broker, seen, late, ["q"])
    assert jobs(broker) == [job_id("s", slot + n * every) for n in range(3)][3 - fired :]


# -- what a worker writes at its start


@pytest.fixture
def hourly(queue: Queue) -> Task[..., Any]:
    @queue.task(every=3600, args=["x"], name="hourly")
    def hourly(word: str) -> None: ...

    return hourly


def planned(broker: Broker, name: str) -> tuple[Schedule, int]:
    found = broker.plans.planned(name)
    assert found is not None
    definition = from_json("s", found.definition, as_is)
    assert definition is not None
    return definition, found.slot


def test_an_apps_schedule_is_written_once(broker: Broker, hourly: Task[..., Any]) -> None:
    schedules.declare(broker, [hourly])
    definition, slot = planned(broker, "hourly")
    assert (definition.task, definition.args, definition.every, definition.origin) == ("hourly", ["x"], HOUR, "app")
    assert 0 < slot - broker.plans.clock() <= HOUR
    assert length(broker, KEY.alarm) == 1
    before = everything(broker)
    schedules.declare(broker, [hourly])
    assert everything(broker) == before


def test_a_start_after_an_absence_does_not_forget_what_was_missed(broker: Broker, hourly: Task[..., Any]) -> None:
    schedules.declare(broker, [hourly])
    missed = broker.plans.clock() // HOUR * HOUR - 9 * HOUR
    broker.read(("ZADD", keys.SCHEDULES_DUE, missed, "hourly"))
    schedules.declare(broker, [hourly])
    assert planned(broker, "hourly")[1] == missed


def test_other_arguments_keep_the_slot_and_other_times_do_not(
    broker: Broker, queue: Queue, hourly: Task[..., Any]
) -> None:
    schedules.declare(broker, [hourly])
    broker.read(("ZADD", keys.SCHEDULES_DUE, HOUR, "hourly"))
    changed = Task(hourly.function, queue, "hourly", hourly.policy, hourly.again and hourly.again._replace(args=["y"]))
    schedules.declare(broker, [changed])
    assert planned(broker, "hourly")[0].args == ["y"]
    assert planned(broker, "hourly")[1] == HOUR

    @queue.task(cron="0 0 1 1 *", args=["x"])
    def yearly(word: str) -> None: ...

    again = Task(yearly.function, queue, "hourly", yearly.policy, yearly.again)
    schedules.declare(broker, [again])
    definition, slot = planned(broker, "hourly")
    assert definition.cron == "0 0 1 1 *"
    assert slot > broker.plans.clock()


def test_a_task_that_has_lost_its_schedule_is_fired_no_more(
    broker: Broker, queue: Queue, hourly: Task[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    schedules.declare(broker, [hourly])
    schedules.declare(broker, [])
    assert broker.plans.planned("hourly") is not None, "this app does not know the task: another one's may"
    caplog.set_level("INFO")
    plain = Task(hourly.function, queue, "hourly", hourly.policy)
    for _ in range(2):  # two consumers
        schedules.declare(broker, [plain])
        assert broker.read(("EXISTS", keys.SCHEDULES, keys.SCHEDULES_DUE, keys.SCHEDULES_LAST))[0] == 0
    assert caplog.text.count("schedule hourly is removed: the app's task has no schedule any more") == 1
    schedules.declare(broker, [hourly])
    assert planned(broker, "hourly")[1] > broker.plans.clock()


@pytest.mark.parametrize("definition", [b'{"v":9}', to_json("s", schedule(origin="operator"), as_is)])
def test_what_no_app_has_planned_stands_though_a_task_of_this_name_has_no_schedule(
    broker: Broker, queue: Queue, hourly: Task[..., Any], definition: bytes
) -> None:
    broker.plans.plan("hourly", b"", definition, HOUR)
    schedules.declare(broker, [Task(hourly.function, queue, "hourly", hourly.policy)])
    found = broker.plans.planned("hourly")
    assert found is not None
    assert found.definition == definition


def test_what_an_operator_has_planned_under_the_name_stands(
    broker: Broker, hourly: Task[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    plan(broker, "hourly", origin="operator")
    schedules.declare(broker, [hourly])
    assert caplog.text.count("schedule hourly: the operator's is kept, the app's is not written") == 1
    assert planned(broker, "hourly")[0].origin == "operator"


def test_a_plan_whose_answer_was_lost_is_found_done(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered with MOVED the second time; a look says that all is well."""
    done = broker.plans.plan

    def twice(name: str, known: bytes, definition: bytes, slot: int | None) -> bool:
        assert done(name, known, definition, slot)
        return done(name, known, definition, slot)

    monkeypatch.setattr(broker.plans, "plan", twice)
    assert schedules.write(broker, "s", schedule())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"every": 5}, "missing a required argument: 'word'"),
        ({"every": 5, "args": ["x", "y"]}, "too many positional arguments"),
        ({"every": 5, "kwargs": {"wort": "x"}}, "missing a required argument"),
        ({"every": 5, "args": [{1, 2}], "kwargs": {}}, "JSON"),
        ({"every": 5, "args": [object()]}, "JSON"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_definition(queue: Queue, options: Any, what: str) -> None:
    with pytest.raises(BadArgument, match=what):

        @queue.task(**options)
        def takes_one(word: str) -> None: ...


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"args": ["x"]}, "args= belong to a schedule"),
        ({"every": 5, "args": "x"}, "args must be a list"),
        ({"cron": "0 0 31 2 *"}, "no such day"),
        ({"cron": "0 0 * * *", "tz": "Mars"}, "no such time zone"),
    ],
)
def test_schedules_that_cannot_be_are_refused_at_definition(queue: Queue, options: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        queue.task(**options)


# -- the alarm


def alarm(broker: Broker) -> int:
    return int(broker.read(("LLEN", KEY.alarm), ("DEL", KEY.alarm))[0])


def test_the_alarm_rings_for_what_is_due_before_all_else(broker: Broker) -> None:
    operate.configure(broker, "q", 0)
    assert [put(broker, 1, delay=60_000).accepted, alarm(broker)] == [1, 1]
    assert [put(broker, 2, delay=90_000).accepted, alarm(broker)] == [1, 0]
    assert [put(broker, 3, at=broker.plans.clock() + 30_000).accepted, alarm(broker)] == [1, 1]
    assert [put(broker, 4).accepted, alarm(broker)] == [1, 0]


def test_the_alarm_rings_for_retried_and_parked_jobs(broker: Broker, link: Any) -> None:
    broker.takes.register("q", "c")
    put(broker, 1, 2, 3)
    first = take(broker, link, 3).tag + 1
    broker.takes.retry("q", "c", [(first, 90_000), (first + 1, 60_000)], link)
    assert alarm(broker) == 1
    broker.takes.park("q", "c", [(first + 2, "t")], link)  # 15 s
    assert alarm(broker) == 1
    put(broker, 4)
    take(broker, link, 3)
    broker.takes.retry("q", "c", [(first + 3, 90_000)], link)
    assert alarm(broker) == 0


def test_a_supervisor_that_waits_hears_of_what_is_due_earlier(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks by itself once in an hour here: only the alarm can have told it."""
    monkeypatch.setattr("rq_lite.duties.promote.LOOK", 3600.0)
    monkeypatch.setattr("rq_lite.duties.cron.LOOK", 3600.0)
    duties = Duties(broker, "w", {}, None)
    duties.start(["q"])
    until(lambda: broker.read(("EXISTS", keys.worker("w")))[0], "its first round is over")
    put(broker, 1, delay=3_000_000)
    put(broker, 2, delay=200)
    until(lambda: waiting(broker) == [2], "it was promoted")
    plan(broker)
    broker.plans.sound_alarm("q")
    until(lambda: len(jobs(broker)) == 2, "the schedule was fired")
    duties.stop()

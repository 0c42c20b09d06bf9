"""Whatever way a signed job takes through Redis, it comes out as it was put."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import msgspec
import pytest

from rq_lite import Queue, Settings
from rq_lite.admin import dead, operate
from rq_lite.broker import Broker, Link, keys
from rq_lite.client import schedules
from rq_lite.client.defaults import defaults
from rq_lite.client.registry import registry
from rq_lite.duties import cron
from rq_lite.model import completion
from rq_lite.model.message import VERSION, Message, decode, encode, marked
from rq_lite.model.schedule import Schedule, from_json, to_json
from rq_lite.model.signing import Refused
from tests.conftest import Server, until
from tests.steps import KEY, bury, reclaim, take

TEXT = encode(Message(VERSION, "id-1", "t", ["x"]))


@pytest.fixture
def broker(server: Server, broker: Broker) -> Iterator[Broker]:
    signing = server.broker(secret="a secret for these tests", park=0).open()
    signing.puts.declare("q", 10)
    signing.takes.register("q", "c")
    yield signing
    signing.close()


def put(broker: Broker, *, tracked: bool = False) -> bytes:
    entry = (
        marked(broker.core.seal("q", TEXT), "id-1", priority=2.5, tracked=True)
        if tracked
        else broker.core.seal("q", TEXT)
    )
    assert broker.puts.put("q", [entry]).accepted == 1
    return entry


def took(broker: Broker, link: Link) -> tuple[int, bytes]:
    """The delivery tag and the entry of the next job, once it can be taken."""

    def look() -> tuple[int, bytes] | None:
        broker.tends.promote("q", 100)
        reply = take(broker, link, 1)
        return (reply.tag + 1, reply.jobs[0]) if reply.jobs else None

    found: tuple[int, bytes] = until(look, "a job is there")
    return found


@pytest.mark.parametrize("tracked", [False, True], ids=["plain", "marked"])
def test_through_every_transition(broker: Broker, link: Link, tracked: bool) -> None:
    first = put(broker, tracked=tracked)
    tag, entry = took(broker, link)
    assert entry == first
    broker.takes.give_back("q", "c", [tag])
    tag, entry = took(broker, link)
    assert entry == first
    broker.takes.retry("q", "c", [(tag, 1)])
    tag, entry = took(broker, link)
    check(broker, entry, 1, 0)
    broker.takes.park("q", "c", [(tag, "t")], link)
    tag, entry = took(broker, link)
    check(broker, entry, 1, 0)
    assert reclaim(broker, certain=True) == (1, 0)
    broker.takes.register("q", "c")
    tag, entry = took(broker, link)
    check(broker, entry, 1, 1)
    assert reclaim(broker, certain=True) == (1, 0)
    broker.takes.register("q", "c")
    _, tag, entry = broker.takes.isolate("q", "c", link)
    check(broker, entry, 1, 2)
    assert reclaim(broker, certain=True) == (1, 0)
    (job,) = dead.buried(broker, "q")
    assert (job.id, job.task) == ("id-1", "t")
    report = msgspec.json.decode(broker.read(("HGET", KEY.dead, job.tag))[0].partition(b"\n")[0])
    assert (report["id"], report["task"]) == ("id-1", "t"), "the script has read it, too"
    check(broker, job.entry, 1, 3)
    operate.requeue(broker, "q", [job.tag])
    broker.takes.register("q", "c")
    tag, entry = took(broker, link)
    assert entry == first if not tracked else entry.removeprefix(b"0.0") == first.removeprefix(b"0.0")
    bury(broker, "q", "c", [(tag, b"{}")])
    assert [job.id for job in dead.buried(broker, "q")] == ["id-1"], "no report says it, but the job"


def check(broker: Broker, entry: bytes, attempts: int, crashes: int) -> None:
    opened = broker.core.opened("q", entry)
    assert decode(opened) == decode(entry) == (decode(TEXT)[0], attempts, crashes, 0)
    assert opened.endswith(TEXT)
    assert entry[-64:] == broker.core.seal("q", TEXT)[-64:]


def test_a_job_that_is_moved_to_another_queue_is_refused(broker: Broker, link: Link) -> None:
    broker.puts.declare("other", 10)
    broker.takes.register("other", "c")
    put(broker)
    broker.read(("RPOPLPUSH", KEY.pending, KEY.pending.replace("{q}", "{other}")))
    assert take(broker, link, 1).jobs == []
    (entry,) = broker.read(("LRANGE", KEY.pending.replace("{q}", "{other}"), 0, -1))[0]
    with pytest.raises(Refused, match="for another queue"):
        broker.core.opened("other", entry)


def test_a_delayed_put_is_signed(broker: Broker, link: Link) -> None:
    broker.puts.put("q", [broker.core.seal("q", TEXT)], delay=1)
    assert broker.core.opened("q", took(broker, link)[1]) == TEXT


# -- callbacks


def test_a_callback_is_signed_for_the_queue_it_goes_to(broker: Broker, link: Link) -> None:
    put(broker, tracked=True)
    tag, _ = took(broker, link)
    message = Message(VERSION, "id-1", "t", ["x"], then={"success": ["other", "a"], "done": ["q", "b"]})
    puts = completion.Puts(lambda task: {"result_ttl": 5.0} if task == "b" else {}, broker.core.seal)
    assert broker.takes.finish("q", "c", [(tag, completion.done(message, "q", 1, b"7", puts))], link) == 0
    (entry,) = broker.read(("LRANGE", keys.of("other").pending, 0, -1))[0]
    assert decode(broker.core.opened("other", entry))[0].args == [7]
    with pytest.raises(Refused):
        broker.core.opened("q", entry)
    entry = took(broker, link)[1]
    assert entry.startswith(b"0.0#id-1.done{")
    assert decode(broker.core.opened("q", entry))[0].task == "b"


# -- schedules


def schedule(**options: object) -> Schedule:
    return Schedule(**{"every": 3_600_000, "queue": "q", "task": "t", "args": [7], **options})  # type: ignore[arg-type]


def planned(broker: Broker, name: str) -> bytes:
    found = broker.plans.planned(name)
    assert found is not None
    return found.definition


def due_now(broker: Broker, name: str) -> None:
    broker.read(("ZADD", keys.SCHEDULES_DUE, 3_600_000, name))


@pytest.mark.parametrize("job", [{}, {"result_ttl": 60.0}], ids=["plain", "tracked"])
def test_what_a_schedule_puts_is_signed(broker: Broker, link: Link, job: dict[str, float]) -> None:
    assert schedules.write(broker, "s", schedule(job=job))
    assert schedules.write(broker, "s", schedule(job=job)), "again it is the same"
    due_now(broker, "s")
    cron.fire_due(broker, ["q"])
    (entry,) = broker.read(("LRANGE", KEY.pending, 0, -1))[0]
    assert decode(broker.core.opened("q", entry))[0].args == [7]


def test_a_schedule_that_somebody_else_wrote_is_not_fired(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    schedules.write(broker, "mine", schedule())
    mine = planned(broker, "mine")
    for name, definition in (
        ("unsigned", encode(schedule())),
        ("altered", mine.replace(b"[7]", b"[8]")),
        ("copied", mine),  # under another name
        ("a-job", broker.core.seal("q", encode(schedule()))),  # signed, but for a queue
    ):
        assert broker.plans.plan(name, b"", definition, 3_600_000)
    cron.fire_due(broker, ["q"])
    assert broker.read(("LLEN", KEY.pending)) == [0]
    assert caplog.text.count("is not signed with this worker's secret: it waits") == 4
    assert cron.fire_due(broker, ["q"]) > 0, "they are not looked at all the time"
    assert [planned.slot for planned in broker.plans.all_planned() if planned.name != "mine"] == [3_600_000] * 4


def test_a_schedule_of_others_with_another_secret_is_left_to_them(
    broker: Broker, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    others = server.broker(secret="a secret of somebody else")
    schedules.write(others, "s", schedule())
    due_now(broker, "s")
    cron.fire_due(broker, ["mine"])
    assert caplog.text == ""
    cron.fire_due(others, ["q"])
    assert broker.read(("LLEN", KEY.pending)) == [1]
    others.close()


def test_a_schedule_with_another_key_is_written_anew_and_keeps_its_slot(broker: Broker, server: Server) -> None:
    schedules.write(broker, "s", schedule())
    before = broker.plans.planned("s")
    newer = server.broker(secret="a newer key for these,a secret for these tests")
    schedules.write(newer, "s", schedule())
    after = broker.plans.planned("s")
    assert before is not None
    assert after is not None
    assert after.definition != before.definition
    assert after.slot == before.slot
    assert from_json("s", before.definition, newer.core.opened) == from_json("s", after.definition, newer.core.opened)
    newer.close()


def test_the_first_secret_signs_what_an_app_has_written_before(broker: Broker) -> None:
    assert broker.plans.plan("s", b"", encode(schedule()), 3_600_000)
    schedules.write(broker, "s", schedule())
    assert planned(broker, "s") == to_json("s", schedule(), broker.core.seal)


# -- the secret


def test_a_pickled_queue_does_not_hold_the_secret(broker: Broker) -> None:
    """A pickle may end up anywhere, also as an item in Redis."""
    raw = pickle.dumps(Queue("pickled", broker=broker))
    assert b"a secret for these tests" not in raw
    before = defaults.use(Settings(secret="the reader has its own"))
    try:
        assert pickle.loads(raw).sender.settings.secret == "the reader has its own"
    finally:
        defaults.use(*before)
        registry.queues.pop("pickled")

"""Every script, walked on the fake Redis of rq_lite.testing and on each real one: the same answers, the same keys."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from rq_lite.admin import dead, operate, status
from rq_lite.broker import Acks, Broker, Death, Feed, Link, keys, scripts
from rq_lite.broker.scheduling import Planned
from rq_lite.model.message import VERSION, Message, encode
from rq_lite.model.outcome import Finished
from rq_lite.testing import fake
from tests.conftest import until, with_fakeredis
from tests.steps import KEY, bury, drop, entry, everything, put, take, waiting

MINUTE = 60_000
REPORT = '{"id":"a/b","task":"t","error":"ValueError: é"}'.encode()
SOON = Planned("s", b'{"every":60}', 2_000_000_000_000)


def tracked(job_id: str, **more: Any) -> bytes:
    """An entry of which a client hears how it ends. Its first argument is larger than any integer of C."""
    return b"0.0#%s" % job_id.encode() + encode(Message(VERSION, job_id, "t", [10**30, "é/"], result_ttl=60, **more))


class Walk:
    """A broker, a consumer's connection, and what was answered to the steps until now."""

    def __init__(self, broker: Broker, link: Link) -> None:
        self.broker, self.link = broker, link
        self.answers: list[Any] = []

    def __call__(self, *answers: Any) -> None:
        self.answers += answers

    def take(self, want: int, *acks: int, queue: str = "q") -> list[int]:
        """The delivery tags of what was taken."""
        (taken,) = self.broker.takes.exchange("c", [Acks(queue, list(acks))], want, self.link)
        self(taken)
        return [taken.tag + 1 + number for number in range(len(taken.jobs))]

    def isolated(self) -> Iterator[int]:
        """The delivery tags of all suspects, taken one by one."""
        while True:
            code, tag, job = self.broker.takes.isolate("q", "c", self.link)
            self((code, tag, job))
            if not tag:
                return
            yield tag


def producing(walk: Walk) -> None:
    broker = walk.broker
    walk(broker.puts.put("q", [tracked("x")]), broker.puts.declare("q", 6, 0, "fifo", headroom=2))
    walk(put(broker, 1, 2, 3), put(broker, 4, delay=MINUTE), put(broker, 5, 6, 7), broker.puts.size("q"))
    walk(put(broker, 8, origin="over t"), put(broker, 9, 10, origin="over t"), put(broker, 11, origin="wait p 1 0"))
    walk(put(broker, origin="wait p 0 1"), put(broker, 12, woken=True), broker.puts.wait_room("q", 0.01))
    operate.configure(broker, "q", 50, 100_000, -1)
    for expected in ("", "wrong"):
        walk(put(broker, 13, 14, feed=Feed("f", "at", expected, ["1", "2"])))
    moves = [("at", "2", "3"), ("at", "0", "4"), ("b", "", "5")]
    walk(broker.puts.mark_feed("q", "f", moves), broker.puts.feed("q", "f"))
    walk(waiting(broker), broker.puts.wait_room("q", 1.0))


def consuming(walk: Walk) -> None:
    broker, link, takes = walk.broker, walk.link, walk.broker.takes
    walk(take(broker, link, 1))  # it has no lease
    takes.register("q", "c")
    walk(broker.tends.renew("q", ["c", "unknown"]), takes.wait_bell(["r", "q"], 1.0, link))
    one, two, three, four, *rest = walk.take(8)
    walk.take(0, one, one, 99)
    walk(takes.inflight("q", "c"), takes.booked("q", "c", [two, 99], link))
    walk(
        takes.retry("q", "c", [(two, 1), (99, 1)], link), bury(broker, "q", "c", [(three, REPORT), (99, REPORT)], link)
    )
    walk(takes.park("q", "c", [(four, "some:task"), (99, "t")], link), takes.give_back("q", "c", rest[2:]))
    charged = rest[:2]
    for _ in range(3):  # a suspect after the second time, buried after the third
        walk(
            takes.crashed("q", "c", [(tag, "SIGSEGV", 'File "/é.py"\nx', 3) for tag in charged], link), waiting(broker)
        )
        charged = list(walk.isolated()) or walk.take(2)
    walk(broker.tends.reclaim("q", "c", certain=False))
    walk(
        broker.tends.reclaim("q", "c", certain=True, noting=True, death=Death("SIGKILL", where="in é")), waiting(broker)
    )
    for death in (Death("gone", worker=True), Death("dead")):
        takes.register("q", "c")
        walk.take(1)
        walk(broker.tends.reclaim("q", "c", certain=True, noting=True, death=death, limits={"t": 9}), waiting(broker))
    takes.register("q", "c")
    until(lambda: broker.tends.promote("q")[0], "the job that is tried again is due")
    walk.take(0, *walk.take(100))


def telling(walk: Walk) -> None:
    """Of tracked jobs, with callbacks, results and watchers."""
    broker, link, takes = walk.broker, walk.link, walk.broker.takes
    walk(broker.puts.declare("q"), broker.puts.put("q", [tracked(f"j{number}") for number in range(7)]))
    broker.puts.expect_tracked("q")
    walk(broker.puts.watch("q", "client", [f"j{number}" for number in range(7)]))
    takes.register("q", "c")
    done, failed, dropped, poison, *_ = walk.take(5)
    takes.progress("q", "c", "j0", done, b'"tag":1', b'"done":1', link)
    walk(broker.puts.progress_of("q", "j0"), broker.puts.is_running("q", "j0"))
    takes.progress("q", "c", "j0", done, b'"tag":1', b"", link)
    ends = [
        (done, Finished("done", b'"value":1', MINUTE, b"", [("other", tracked("j0:done")), ("q", entry(1))])),
        (failed, Finished("failed", b'"error":"' + b"x" * 20_000 + b'"', MINUTE, REPORT)),
        (99, Finished("done", b"", 0, b"")),
    ]
    walk(takes.finish("q", "c", ends, link), broker.puts.result("q", "j0"))
    walk(*(operate.cancel(broker, "q", job_id) for job_id in ("j2", "j5", "j0", "stranger")))
    walk(takes.wait_call(["q"], "c", link), takes.marked("q", ["j2", "j3"], link), takes.marks("q", b"", link))
    walk(drop(broker, "q", "c", [(dropped, "j2"), (99, "j9")], link), bury(broker, "q", "c", [(poison, REPORT)], link))
    walk(broker.puts.watch("q", "late", ["j0", "j1", "j6"]), operate.cancel(broker, "q", "j4", interrupt=False))


def operating(walk: Walk) -> None:
    broker = walk.broker
    buried = sorted(dead.buried(broker, "q"), key=lambda job: job.tag)
    walk([(job.error, job.attempts, job.crashes) for job in buried])
    tags = [job.tag for job in buried]
    walk(
        operate.requeue(broker, "q", [tags[0], 99]), operate.forget(broker, "q", [tags[1], 99]), broker.tends.trim("q")
    )
    operate.pause(broker, "q")
    walk(broker.tends.renew("q", []), walk.take(1))
    operate.resume(broker, "q")
    walk(broker.tends.unfinished("q"), status.states(broker, ["q"])["q"].pending, status.queues(broker))
    broker.tends.announce("w", {"host": "h", "pid": 1}, 60)
    walk(len(status.workers(broker)), operate.shutdown(broker, "q"), put(broker, 1), walk.take(1), walk.take(1))
    operate.reopen(broker, "q")
    broker.puts.declare("unused")
    walk(operate.delete(broker, "q"), operate.delete(broker, "unused"), status.queues(broker))
    walk(put(broker, 1, 2), operate.purge(broker, "q"), put(broker, 3), operate.shutdown(broker, "q", immediate=True))


def planning(walk: Walk) -> None:
    plans = walk.broker.plans
    walk(plans.plan("s", b"", SOON.definition, SOON.slot), plans.plan("s", b"", b"{}", 1))
    walk(plans.plan("gone", b"", b"{}", 1), plans.plan("gone", b"{}", b"", None), plans.all_planned(), plans.due())
    walk.broker.puts.declare("r")
    for upcoming in (2_000_000_060_000, 2_000_000_120_000):
        walk(plans.fire(SOON, "r", [entry(1), tracked("s1")], upcoming, SOON.slot))
    walk(plans.planned("s"), walk.broker.tends.unfinished("r"))


def ranked(walk: Walk) -> None:
    """A queue by priority."""
    broker = walk.broker
    broker.puts.declare("p", 10, 0, "priority")
    entries = [b"0.0@%s" % priority + entry(number) for number, priority in enumerate((b"2", b"-1.5", b"1", b"-1.5"))]
    walk(broker.puts.put("p", entries), operate.cancel(broker, "p", f"{2:08}"))
    broker.takes.register("p", "c")
    tags = walk.take(2, queue="p")
    walk(broker.takes.give_back("p", "c", tags[:1]), list(broker.reads.window(keys.of("p").pending, 0, 5)))


def large(walk: Walk) -> None:
    """What is more than an answer may hold."""
    broker = walk.broker
    broker.core.portion = 100
    place = keys.of("l")
    broker.puts.declare("l")
    walk(broker.puts.put("l", [b'{"id":"l"}' + b"x" * 250, entry(1), entry(2)]))
    walk(list(broker.reads.window(place.pending, 0, 3)), broker.reads.head(place.pending, 20))
    broker.takes.register("l", "c")
    walk(walk.take(3, queue="l"), walk.take(3, queue="l"))


def walked(broker: Broker) -> tuple[set[str], list[Any], dict[Any, Any]]:
    """The scripts that were called, what the steps were answered, and what is left behind."""
    called: set[str] = set()
    call = scripts.Script.__call__

    def noted(self: scripts.Script, link: Link, keys_: tuple[str, ...], *args: Any) -> Any:
        called.add(self.name)
        return call(self, link, keys_, *args)

    walk = Walk(broker, broker.link())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scripts.Script, "__call__", noted)
        for steps in (producing, consuming, telling, operating, planning, ranked, large):
            steps(walk)
    walk.link.close()
    left = {}
    for name, held in everything(broker).items():
        kind, ttl = broker.read(("TYPE", name), ("PTTL", name))
        if kind in (b"hash", b"zset"):  # of a zset the scores tell the order, but for what came in the same millisecond
            held = dict(zip(held[::2], held[1::2], strict=True))
        left[name] = (kind, set(held) if kind == b"set" else held, math.ceil(ttl / MINUTE))
    return called, plain(walk.answers), plain(left)


def plain(value: Any) -> Any:
    """Without what differs from run to run: moments, ids of connections. JSON as what it says, hashes without order."""
    if isinstance(value, dict):
        return {re.sub(r"producer:\w+", "producer", str(plain(name))): plain(held) for name, held in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(str(plain(one)) for one in value)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return [parsed(line) for line in value.decode().split("\n")]
    return math.ceil(value) if isinstance(value, float) else timeless(repr(value))


def parsed(line: str) -> str:
    try:
        return timeless(json.dumps(json.loads(line), sort_keys=True, ensure_ascii=False))
    except ValueError:
        return timeless(line)


def timeless(text: str) -> str:
    return re.sub(r"\b1\d{12}\b", "now", text)


@with_fakeredis
def test_a_walk_leaves_on_the_fake_what_it_leaves_on_a_real_server(broker: Broker) -> None:
    called, answers, left = walked(broker)
    with fake(patience=0.1) as pretended:
        names, said, kept = walked(pretended)
    assert called == names == set(scripts.names())
    for answer, other in zip(answers, said, strict=True):
        assert other == answer
    assert kept.keys() == left.keys()
    for name in left:
        assert kept[name] == left[name], name
    assert any(KEY.meta in name for name in left)

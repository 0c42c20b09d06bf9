"""What the format is ready for: one grammar of heads, marks and versions that are not known yet, guards of slots."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker, Code, Death, Link, keys, scripts
from rq_lite.cli import cli
from rq_lite.client.queue import Queue
from rq_lite.client.results import AGAIN
from rq_lite.consumer.executor import Executor
from rq_lite.errors import BrokerUnsuitable
from rq_lite.model.message import VERSION, Message, encode, entry_of, parse
from rq_lite.model.outcome import Finished, Parked
from tests.broker.test_scripts import run_every_script
from tests.conftest import until
from tests.steps import KEY, counter, entry, everything, put, suspects, take, took

NEWER = b"0.0#00000001~flow.node/1" + entry(1)


@pytest.fixture
def link(broker: Broker) -> Iterator[Link]:
    broker.puts.declare("q")
    with closing(broker.link()) as link:
        broker.takes.register("q", "c", link=link)
        yield link


# -- one grammar


def as_lua_reads_it(broker: Broker, raw: bytes) -> list[Any]:
    return list(broker.read(("EVAL", READ, 0, raw))[0])


READ = scripts.with_library(
    """local attempts, crashes, at, id, priority, unknown, deaths, mode, name, expires = parse(ARGV[1])
return {attempts, crashes, at or false, id or false, priority or false, unknown or false, deaths,
  mode and mode .. ':' .. name or false, expires or false}"""
)
WORD = st.text("AZaz09_.:%-", max_size=8).map(str.encode)
NUMBER = st.integers(0, 10**10).map(lambda n: str(n).encode())
PRIORITY = st.one_of(st.floats().map(lambda n: repr(n).encode()), WORD)
MARKS = st.lists(
    st.one_of(
        st.builds(b"@%s".__mod__, PRIORITY),
        st.builds(b"#%s".__mod__, WORD),
        st.builds(b"*%s".__mod__, NUMBER),
        st.builds(b"~%s.%s/%s".__mod__, st.tuples(WORD, WORD, NUMBER)),
        st.builds(bytes.__add__, st.sampled_from([b"^", b"!", b"?", b"&", b"+", b" ", b"\n", b"\0", b"\xff"]), WORD),
        st.binary(max_size=3),
    ),
    max_size=4,
).map(b"".join)
IN_ORDER = st.builds(
    lambda *parts: b"".join(parts),
    st.one_of(st.just(b""), st.builds(b"@%s".__mod__, PRIORITY)),
    st.one_of(st.just(b""), st.builds(b"#%s".__mod__, WORD)),
    st.one_of(st.just(b""), st.builds(b"*%s".__mod__, NUMBER)),
    st.one_of(st.just(b""), st.builds(b"~%s".__mod__, WORD)),
    st.one_of(st.just(b""), st.builds(b"!%s:%s".__mod__, st.tuples(st.sampled_from([b"e", b"s", b"x"]), WORD))),
    st.one_of(st.just(b""), st.builds(b"?%s".__mod__, NUMBER), st.just(b"?" + b"1" * 16)),
    st.one_of(st.just(b""), st.sampled_from([b"&new", b"!e:a", b"?1", b"/x", b"x"])),
)
LONG = st.sampled_from([b"#" + b"a" * 200, b"#" + b"a" * 201, b"@" + b"1" * 30, b"@" + b"1" * 31, b"~" + b"x" * 500])
HEADS = st.one_of(
    st.builds(lambda a, c, marks: b"%s.%s%s{" % (a, c, marks), NUMBER, NUMBER, st.one_of(MARKS, IN_ORDER, LONG)),
    st.builds(lambda marks: b"0.0%s{}" % marks, IN_ORDER),
    st.binary(max_size=12),
    st.builds(lambda raw: raw + b"{", st.binary(max_size=12)),
    st.just(b"{"),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(raw=HEADS)
def test_lua_and_python_read_a_head_the_same(broker: Broker, raw: bytes) -> None:
    head = parse(raw)
    found = as_lua_reads_it(broker, raw)
    if head is None:
        assert found == [0, 0, None, None, None, None, 0, None, None]
    else:
        assert found == [
            head.attempts, head.crashes, head.at + 1, head.id, head.priority, head.unknown, head.deaths, head.unique,
            head.expires,
        ]  # fmt: skip


def test_the_protocol_has_the_grammar_that_the_code_reads() -> None:
    text = (scripts.FOLDER.parents[2] / "docs" / "internals" / "protocol.md").read_text()
    assert "<attempts>.<crashes>[@priority][#id][*deaths][~flow.node/index][^lane][!mode:name][?expires_ms]" in text


@pytest.mark.parametrize("job_id", ["a b", "{x}#1", "ü" * 90, "18c-1"], ids=["space", "marks", "long", "usual"])
def test_whoever_waits_for_a_job_with_any_id_hears_of_its_end(broker: Broker, link: Link, job_id: str) -> None:
    broker.puts.expect_tracked("q")
    raw = entry_of(Message(VERSION, job_id, "t", result_ttl=60.0), "q")
    heard = threading.Event()
    job = Queue("q", broker=broker).job(job_id)
    job.add_done_callback(lambda _: heard.set())
    until(lambda: broker.read(("KEYS", KEY.prefix + "job:*"))[0], "it is watched")
    broker.puts.put("q", [raw])
    assert take(broker, link, 1).jobs == [raw]
    assert broker.puts.is_running("q", job_id)
    broker.takes.finish("q", "c", [(1, Finished("done", b'"value":7'))], link)
    assert heard.wait(AGAIN / 2), "it was pushed, not asked for again"
    assert job.result(timeout=30) == 7
    assert json.loads(broker.puts.result("q", job_id) or b"") == {"state": "done", "value": 7}


# -- the guards


def test_every_call_declares_the_guard_of_each_queue_it_touches(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, list[str]]] = []
    names = {script.digest: name for name, script in scripts.load(flags=broker.core.version >= (7, 0)).items()}
    call = Link.call

    def spied(self: Link, *command: Any) -> Any:
        if command[0] == "EVALSHA":
            sent.append((names[command[1]], list(command[3 : 3 + command[2]])))
        return call(self, *command)

    monkeypatch.setattr(Link, "call", spied)
    run_every_script(broker, link)
    broker.takes.exchange("c", [Acks("q", []), Acks("r", [])], 1, link)
    broker.takes.finish("q", "c", [(99, Finished("done", puts=[("r", entry(5))]))], link)
    assert {name for name, _ in sent} == set(scripts.names())
    for name, declared in sent:
        slots = [key[: key.index("}") + 1] for key in declared if "}" in key]
        guards = [key for key in declared if key.endswith("}:never")]
        assert guards == [f"{slot}:never" for slot in dict.fromkeys(slots)], name
        assert declared[len(declared) - len(guards) :] == guards
    assert sorted(len(declared) for name, declared in sent if name == "exchange")[-1] == 18
    assert broker.read(("KEYS", "*never*"))[0] == []


def test_the_guard_is_known_to_the_catalogue_as_a_key_that_never_exists() -> None:
    known = {key.pattern: key.type for key in keys.CATALOGUE if key.pattern.endswith(keys.GUARD)}
    assert known == {"rq:{<queue>}:never": "none", "rq-lite:{schedules}:never": "none"}
    assert keys.guarded(("rq-lite:worker:x", keys.WORKERS)) == ("rq-lite:worker:x", keys.WORKERS)
    assert keys.guarded((keys.SCHEDULES, keys.SCHEDULES_DUE, KEY.pending, KEY.meta))[4:] == (
        "rq-lite:{schedules}:never", "rq:{q}:never",
    )  # fmt: skip


def test_time_is_asked_for_in_one_place() -> None:
    """Where a server does not allow it in scripts, it can become an argument."""
    found = [file.stem for file in scripts.FOLDER.glob("*.lua") if re.search(r"'TIME'", file.read_text())]
    assert found == ["lib"]
    assert (scripts.FOLDER / "lib.lua").read_text().count("'TIME'") == 1


# -- marks that are not known here


def test_an_entry_with_unknown_marks_keeps_them_on_every_way(broker: Broker, link: Link) -> None:
    broker.puts.put("q", [NEWER])
    assert take(broker, link, 1).jobs == [NEWER]
    broker.tends.reclaim("q", "c", certain=True, death=Death("killed"))
    broker.takes.register("q", "c", link=link)
    reply = take(broker, link, 1)
    assert reply.jobs == [NEWER.replace(b"0.0", b"0.1", 1)]
    broker.takes.finish("q", "c", [(reply.tag + 1, Finished("failed", report=b"{}"))], link)
    operate.requeue(broker, "q", [reply.tag + 1])
    assert take(broker, link, 1).jobs == [NEWER]


def test_what_a_newer_version_has_marked_is_never_poison_here(broker: Broker, link: Link) -> None:
    """This version does not know what its end sets free."""
    broker.puts.put("q", [NEWER.replace(b"0.0", b"0.2", 1)])
    take(broker, link, 1)
    broker.tends.reclaim("q", "c", certain=True, death=Death("killed"))
    assert (counter(broker, "failed"), counter(broker, "suspects")) == (0, 1)
    assert broker.read(("LINDEX", KEY.suspects, 0))[0] == NEWER.replace(b"0.0", b"0.3", 1)


# -- a newer format


def test_nothing_is_taken_of_a_queue_of_a_newer_format_and_results_still_count(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    put_elsewhere(broker)
    assert took(broker, link, 1) == [1]
    broker.read(("HSET", KEY.meta, "format", 3))
    lanes = [Acks("q", [1]), Acks("other", [])]
    here, other = broker.takes.exchange("c", lanes, 5, link)
    assert (here.code, here.stale, here.jobs) == (Code.NEWER, 0, [])
    assert (other.code, other.jobs) == (Code.OK, [entry(3)])
    assert (counter(broker, "done"), counter(broker, "inflight")) == (1, 0)
    assert broker.takes.isolate("q", "c", link)[:2] == (Code.NEWER, 0)
    broker.takes.register("q", "d", link=link)
    assert "d" not in broker.tends.consumers("q")
    assert broker.tends.renew("q", ["c"])[1:] == (0, 0, 2)
    broker.read(("HSET", KEY.meta, "format", 1))
    assert took(broker, link, 1) == [2]


def put_elsewhere(broker: Broker) -> None:
    broker.puts.declare("other")
    broker.takes.register("other", "c")
    broker.puts.put("other", [entry(3)])


@pytest.mark.parametrize("written", ["3", "x"])
@pytest.mark.parametrize(
    "step",
    [
        lambda broker: operate.configure(broker, "q", 5),
        lambda broker: operate.resume(broker, "q"),
        lambda broker: operate.shutdown(broker, "q", immediate=True),
        lambda broker: operate.purge(broker, "q"),
        lambda broker: operate.cancel(broker, "q", "00000001"),
        lambda broker: operate.requeue(broker, "q", [1]),
        lambda broker: operate.forget(broker, "q", [1]),
    ],
    ids=["configure", "resume", "shutdown", "purge", "cancel", "requeue", "forget"],
)
def test_an_operator_is_told_the_way_out(
    broker: Broker, link: Link, step: Callable[[Broker], Any], written: str
) -> None:
    put(broker, 1, 2)
    take(broker, link, 1)
    broker.takes.finish("q", "c", [(1, Finished("failed", report=b"{}"))], link)
    broker.read(("HSET", KEY.meta, "format", written))
    before = everything(broker)
    with pytest.raises(BrokerUnsuitable, match=r"'q' has a newer format.*pip install --upgrade"):
        step(broker)
    assert everything(broker) == before


def test_a_command_says_it_in_a_line(broker: Broker, link: Link) -> None:
    put(broker, 1)
    broker.read(("HSET", KEY.meta, "format", 3))
    done = CliRunner().invoke(cli, ["queue", "purge", "q", "--yes", "--url", broker.url])
    assert isinstance(done.exception, BrokerUnsuitable), done.output
    assert broker.tends.unfinished("q") == (1, 0)


def test_to_get_from_a_newer_queue_says_so(broker: Broker, link: Link) -> None:
    broker.read(("HSET", KEY.meta, "format", 3))
    with pytest.raises(BrokerUnsuitable, match="newer format"):
        Queue("q", broker=broker).get(timeout=5)


@pytest.mark.parametrize(("raw", "what"), [(NEWER, "(marks ~)"), (entry(1).replace(b'"v":1', b'"v":3'), "(version 3)")])
def test_a_worker_parks_what_a_newer_version_has_put_and_says_what_it_does_not_know(
    caplog: pytest.LogCaptureFixture, raw: bytes, what: str
) -> None:
    executor = Executor({}, "c1", None)  # type: ignore[arg-type]
    slot: Any = None
    with caplog.at_level(logging.WARNING):
        assert executor.run(slot, raw) == Parked(what)
    (line,) = caplog.records
    assert line.message.startswith(f"parked: a job with {what.strip('()')}")
    assert "which this version of rq_lite does not know (c1)" in line.message


def test_getting_parks_what_a_newer_version_has_put(
    broker: Broker, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    item = encode(Message(VERSION, "00000002", "", [7]))
    broker.puts.put("q", [NEWER, item.replace(b'"v":1', b'"v":3'), item])
    with caplog.at_level(logging.WARNING):
        assert Queue("q", broker=broker).get(timeout=30) == 7
    assert broker.tends.unfinished("q") == (3, 2)
    assert counter(broker, "failed") == 0
    assert suspects(broker) == []
    said = [line.message for line in caplog.records]
    assert [line.partition(", which")[0] for line in said] == [
        "queue 'q': parked a job with marks ~ (~flow.node/1)", "queue 'q': parked a job with version 3",
    ]  # fmt: skip

"""Small parts that need no Redis: transient errors, identity, rate-limited logs, back-off, the order of queues."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import pickle
import random
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import MasterDownError, ReadOnlyError

from rq_lite.broker import is_transient
from rq_lite.broker.address import Address
from rq_lite.cli import dead_view, jobs_view
from rq_lite.cli.text import json_line
from rq_lite.consumer.consumer import Order
from rq_lite.errors import BrokerUnavailable, JobFailed, JobTimeout, QueueFull, RqLiteError, UsageError
from rq_lite.logs import RateLimitedLog, escaped, one_line
from rq_lite.model.backoff import full_jitter
from rq_lite.model.names import NAME
from rq_lite.model.states import EDGES, State
from rq_lite.process import identity
from rq_lite.process.identity import Identity, mine, parse, start_of, surely_dead
from rq_lite.process.protocol import ChildEvent, ConsumerConfig
from rq_lite.settings import Settings
from rq_lite.supervisor.child import Child

linux = pytest.mark.skipif(not identity.PROC.joinpath("self/stat").exists(), reason="needs /proc")

# -- transient errors


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("gone"),
        redis.TimeoutError("Timeout reading from socket"),
        BrokenPipeError(),
        redis.BusyLoadingError("Redis is loading the dataset in memory"),
        ReadOnlyError("You can't write against a read only replica."),
        MasterDownError("Link with MASTER is down"),
        redis.ResponseError("UNBLOCKED force unblock from blocking operation"),
        redis.ResponseError("BUSY Redis is busy running a script."),
        redis.ResponseError("Error running script (call to f_0): @user_script:1: -READONLY You can't write"),
    ],
)
def test_what_will_pass_is_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        redis.AuthenticationError("invalid password"),
        redis.ResponseError("BUSYGROUP exists"),
        redis.ResponseError("WRONGTYPE"),
        redis.ResponseError("Error running script (call to f_0): @user_script:1: READONLY is no variable"),
        ValueError("READONLY"),
    ],
)
def test_what_will_not_pass_is_not_transient(error: Exception) -> None:
    assert not is_transient(error)


# -- identity


def test_an_identity_is_read_back_from_its_text() -> None:
    who = mine()
    assert parse(str(who)) == who
    assert who.pid == os.getpid()
    assert NAME.fullmatch(str(who)), "it must fit into a key"


def test_no_identity_is_used_twice() -> None:
    assert len({str(mine()) for _ in range(50)}) == 50


@pytest.mark.parametrize("host", ["a.b.example.org", "Grüße", "under_score", "", "x" * 300])
def test_any_host_name_makes_an_identity(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert parse(str(mine())) is not None


def test_digits_of_other_scripts_are_no_identity() -> None:
    assert parse("a.000000000000:3:0:0000000000000000") is not None
    assert parse("a.000000000000:٣:0:0000000000000000") is None


@given(st.text() | st.from_regex(r"[a-z]+\.[0-9a-f]{11,13}:\d*:\d*:[0-9a-f]{15,17}"))
def test_any_other_text_is_no_identity_and_not_surely_dead(text: str) -> None:
    who = parse(text)
    if who is None:
        assert not surely_dead(text)
    else:
        assert parse(str(who)) == who


@linux
def test_who_lives_is_not_dead() -> None:
    assert not surely_dead(str(mine()))


@linux
def test_a_process_that_is_hidden_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another user, where /proc shows everybody only his own."""

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    who = str(mine())
    monkeypatch.setattr(identity, "start_of", lambda pid: None)
    assert surely_dead(who)
    monkeypatch.setattr(os, "kill", refuse)
    assert not surely_dead(who)


@linux
def test_a_process_that_ended_is_surely_dead_and_its_zombie_too() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = start_of(child.pid)
    assert start is not None
    who = str(mine()._replace(pid=child.pid, start=start))
    assert not surely_dead(who)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie until it is waited for
    assert surely_dead(who)
    child.communicate()
    assert surely_dead(who)


@linux
def test_another_process_of_the_same_number_is_not_the_dead_one() -> None:
    assert surely_dead(str(mine()._replace(start="1")))


@linux
@pytest.mark.parametrize("changes", [{"machine": "0" * 12}, {"start": "0"}])
def test_of_other_machines_nothing_is_sure(changes: dict[str, Any]) -> None:
    who = mine()._replace(pid=2**22 + 1, start="5")
    assert surely_dead(str(who))
    assert not surely_dead(str(who._replace(**changes)))


def test_without_proc_nobody_is_surely_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(identity, "PROC", tmp_path)
    who = mine()
    assert who.start == "0"
    assert not surely_dead(str(who))


def test_an_identity_is_plain_text() -> None:
    who = Identity("host", "0123456789ab", 7, "99", "0123456789abcdef")
    assert str(who) == "host.0123456789ab:7:99:0123456789abcdef"


# -- seldom


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, list[str]]]:
    logger, lines = logging.getLogger("rq_lite.test_small"), Lines()
    logger.addHandler(lines)
    yield logger, lines.lines
    logger.removeHandler(lines)


def test_a_line_comes_at_once_and_then_seldom_with_a_count(log: tuple[logging.Logger, list[str]]) -> None:
    now = 100.0
    seldom = RateLimitedLog(log[0], seconds=5.0, clock=lambda: now)
    for moment in (100.0, 100.0, 104.9, 105.0, 109.0, 200.0, 300.0):
        now = moment
        seldom.warn("key", f"at {moment:g}")
    assert log[1] == ["at 100", "at 105 (2 more like it)", "at 200 (1 more like it)", "at 300"]


def test_each_key_has_a_count_of_its_own(log: tuple[logging.Logger, list[str]]) -> None:
    seldom = RateLimitedLog(log[0], clock=lambda: 0.0)
    for key in ("a", "b", "a"):
        seldom.warn(key, key)
    assert log[1] == ["a", "b"]


def test_what_was_left_out_is_counted_also_where_no_such_line_comes_again(
    log: tuple[logging.Logger, list[str]],
) -> None:
    now = 0.0
    seldom = RateLimitedLog(log[0], seconds=5.0, clock=lambda: now)
    for _ in range(3):
        seldom.warn("kind", "one")
    seldom.flush()
    assert log[1] == ["one"]
    now = 5.0
    seldom.flush()
    seldom.flush()
    assert log[1] == ["one", "kind: 2 more like it"]
    for _ in range(2):
        seldom.warn("kind", "two")
    seldom.flush(at_once=True)
    assert log[1][2:] == ["two", "kind: 1 more like it"]


def test_keys_of_others_do_not_fill_the_memory(log: tuple[logging.Logger, list[str]]) -> None:
    seldom = RateLimitedLog(log[0], most=10, clock=lambda: 0.0)
    for number in range(1000):
        seldom.warn(str(number), "line")
    assert len(seldom._last) <= 10
    assert len(log[1]) == 1000


@given(st.text())
def test_a_line_is_one_harmless_line(text: str) -> None:
    line = one_line(text, 50)
    assert len(line) <= 50
    assert not {unicodedata.category(char) for char in line} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_what_is_escaped_and_what_is_not() -> None:
    assert escaped("put x\x1b[31m\r\n \x7f \x9b \u202e \u2028 \ufeff \udce9 \U000e0001") == (
        r"put x\x1b[31m\r\n \x7f \x9b \u202e \u2028 \ufeff \udce9 \U000e0001"
    )
    plain = "caf\u00e9, \u6771\u3000\u4eac, 5\u202f000\u00a0kg, \U0001f40d, a\\x1bb"
    assert escaped(plain) == plain
    assert one_line("\x1b" * 4, 16) == r"\x1b\x1b\x1b\x1b"
    assert one_line("\x1b" * 5, 16) == r"\x1b\x1b\x1b\..."


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda some: st.lists(some) | st.dictionaries(st.text(), some))
)
def test_a_line_of_json_is_harmless_and_says_the_same(value: object) -> None:
    line = json_line(value)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == value


# -- back-off


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_a_delay_is_within_its_range(attempt: int, chance: float) -> None:
    delay = full_jitter(attempt, base=1.0, cap=600.0, chance=lambda: chance)
    assert 0 <= delay <= min(600.0, 2.0 ** min(attempt - 1, 20))


def test_delays_double_up_to_the_cap() -> None:
    longest = [full_jitter(attempt, base=2.0, cap=20.0, chance=lambda: 1.0) for attempt in range(1, 7)]
    assert longest == [2.0, 4.0, 8.0, 16.0, 20.0, 20.0]


def test_delays_spread() -> None:
    chance = random.Random(1).random
    delays = [full_jitter(5, chance=chance) for _ in range(200)]
    assert min(delays) < 2
    assert max(delays) > 14


# -- the order of queues


def test_a_strict_order_is_always_the_same() -> None:
    order = Order({"b": 1.0, "a": 100.0}, strict=True)
    assert [order() for _ in range(5)] == [["b", "a"]] * 5


def test_a_single_queue_needs_no_chance() -> None:
    assert Order({"only": 2.0}, strict=False)() == ["only"]


def test_every_queue_is_asked_every_time() -> None:
    order = Order({"a": 1.0, "b": 50.0, "c": 0.01}, strict=False, chance=random.Random(3))
    assert {tuple(sorted(order())) for _ in range(100)} == {("a", "b", "c")}


def test_weights_say_how_often_a_queue_comes_first() -> None:
    order = Order({"a": 3.0, "b": 1.0}, strict=False, chance=random.Random(7))
    first = Counter(order()[0] for _ in range(4000))
    assert 0.70 < first["a"] / 4000 < 0.80


# -- connections


def test_an_address_makes_as_many_connections_as_are_asked_for() -> None:
    """A thousand greenlets may wait for room at once, each on a connection of its own."""
    address = Address("unix:///nowhere.sock")
    assert len([address.connection() for _ in range(1100)]) == 1100


# -- errors and states


def test_each_error_of_ours_has_an_exit_code_that_is_no_success() -> None:
    kinds = [RqLiteError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(kinds) > 10
    assert all((0 < kind.exit_code < 126 or kind.exit_code == 130) and kind.__doc__ for kind in kinds)  # 130: Ctrl-C


def test_a_full_queue_says_how_it_stands() -> None:
    error = QueueFull("q", size=10_000, maxsize=10_000, consumers=2, last_seen=3.4)
    assert str(error) == "queue 'q' is full: 10,000 jobs waiting, bound 10,000; 2 consumers alive, last seen 3 s ago"


@pytest.mark.parametrize(
    "error",
    [
        QueueFull("q", size=1, maxsize=1, consumers=0, last_seen=None),
        JobFailed("KeyError", "'x'", "Traceback …", job_id="7"),
        BrokerUnavailable("gone", outcome="unknown"),
        JobTimeout(),
        UsageError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_can_be_handed_to_another_process(error: RqLiteError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), arrived.args) == (type(error), str(error), error.args)
    assert vars(arrived) == vars(error)


def test_every_state_is_reached_and_only_the_last_ones_are_final() -> None:
    assert {went for _, _, went in EDGES} == set(State)
    assert {came for _, came, _ in EDGES} == {None, *State} - {State.GONE}


def test_a_report_to_a_supervisor_that_is_gone_is_no_error() -> None:
    there, here = os.pipe()
    os.close(there)
    ChildEvent("left").send(here)
    os.close(here)
    ChildEvent("left").send(here)  # a job has closed it


@linux
@pytest.mark.parametrize("call", [(os, "pipe", 1), (os, "pipe", 2), (os, "memfd_create", 2), (subprocess, "Popen", 1)])
def test_a_consumer_that_cannot_be_started_leaves_no_file_open(
    monkeypatch: pytest.MonkeyPatch, call: tuple[Any, str, int]
) -> None:
    module, name, number = call
    real, calls = getattr(module, name), itertools.count(1)

    def fails(*arguments: Any, **more: Any) -> Any:
        if next(calls) == number:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*arguments, **more)

    monkeypatch.setattr(module, name, fails)
    before = set(Path("/proc/self/fd").iterdir())
    plan = ConsumerConfig(
        settings=Settings(), app="", queues={}, strict=True, verbose=False, number=1, parent=os.getpid()
    )
    with pytest.raises(OSError, match="Too many open files"):
        Child(plan)
    assert set(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("told", [b"{", b"\xff", b'{"note":"\xff"}', b"1" * 5000, b'{"done":' + b"[" * 100_000])
def test_what_is_no_progress_is_shown_as_it_is(told: bytes) -> None:
    assert jobs_view.progress(told, 0.0) == dead_view.shortened(dead_view.text_of(told))

"""The heads of the scripts say what the scripts do, who calls them, and docs/internals/protocol.md says it too."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Acks, Broker, Feed, Link, consuming, keys, producing, reading, scheduling, scripts, tending
from rq_lite.broker.scheduling import Planned
from rq_lite.broker.scripts import Code
from rq_lite.model.outcome import Finished
from tests.conftest import pattern
from tests.steps import KEY, entry, put, took

PROTOCOL = Path(__file__).parents[2] / "docs" / "internals" / "protocol.md"
NAMES = scripts.names()
PARTS = {"purpose", "KEYS", "ARGV", "returns", "oom", "callers"}
WITHOUT_ARGV = {"delete", "resume", "size", "unfinished"}


def body(name: str) -> str:
    """The script without its comments."""
    lines = (scripts.FOLDER / f"{name}.lua").read_text().splitlines()
    return "\n".join(line.partition("--")[0] for line in lines)


def listed(name: str) -> list[str]:
    """The keys that the head lists, in their order."""
    text = scripts.head(name)["KEYS"].removeprefix("for each queue: ").partition(" then for each ")[0]
    return re.findall(r"[a-z:<>{}-]+", re.sub(r"[\d\[\]]", "", text))


def test_there_are_scripts() -> None:
    assert len(NAMES) == 32
    assert "lib" not in NAMES


def test_each_paragraph_of_the_library_defines_what_it_is_found_by() -> None:
    """A blank line within a function would cut it in two."""
    parts = scripts.library()
    assert all(defined for defined, _ in parts)
    assert len(frozenset().union(*(defined for defined, _ in parts))) == sum(len(defined) for defined, _ in parts)


def test_a_script_gets_only_what_it_needs_of_the_library() -> None:
    assert scripts.with_library("return 1") == "return 1"
    made = scripts.with_library("-- now_ms\nreturn {ring_room(1)}")
    assert re.findall(r"^local function (\w+)", made, re.MULTILINE) == ["ring", "waiting", "ring_room"]
    assert made.endswith("-- now_ms\nreturn {ring_room(1)}")


@pytest.mark.parametrize("name", NAMES)
def test_a_head_has_all_its_parts(name: str) -> None:
    head = scripts.head(name)
    assert set(head) == PARTS - ({"ARGV"} if name in WITHOUT_ARGV else set())
    assert all(head.values())
    assert head["oom"].split(",")[0] in ("allowed", "refused")
    assert ("ARGV[" in body(name) or "ARGV" in body(name)) == (name not in WITHOUT_ARGV)


def callers() -> dict[str, dict[str, str | None]]:
    """The functions and methods that run each script, with what they say of themselves."""
    found: dict[str, dict[str, str | None]] = {name: {} for name in NAMES}
    modules = [
        ast.parse(inspect.getsource(side)) for side in (reading, producing, consuming, tending, scheduling, operate)
    ]
    owners: list[ast.Module | ast.ClassDef] = [*modules]
    owners += [node for module in modules for node in module.body if isinstance(node, ast.ClassDef)]
    for function in [node for owner in owners for node in owner.body if isinstance(node, ast.FunctionDef)]:
        called = re.findall(r"(?:core\.run|_settle)\(\s*'(\w+)'|scripts\['(\w+)'\]", ast.unparse(function))
        for script in {first or other for first, other in called}:
            found[script][f"Broker.{function.name}"] = ast.get_docstring(function)
    return found


def test_every_method_that_runs_a_script_stands_in_its_head_and_is_described() -> None:
    found = callers()
    assert {name: {*those} for name, those in found.items()} == {
        name: {*scripts.head(name)["callers"].split(", ")} for name in NAMES
    }
    assert all(said for those in found.values() for caller, said in those.items() if "._" not in caller)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_in_the_head_is_used_and_no_other(name: str) -> None:
    code, names = body(name), listed(name)
    unpacked = re.search(r"local ([\w, ]+) = unpack\(KEYS", code)
    if unpacked:
        variables = unpacked[1].split(", ")
        assert [one.replace("index", "dead:index") for one in variables] == [one.split(":<")[0] for one in names]
        assert len(variables) == len(names)
        for variable in variables:
            assert len(re.findall(rf"\b{variable}\b", code)) > 1, f"{variable} is not used"
    else:
        assert {int(number) for number in re.findall(r"KEYS\[(\d)\]", code)} == set(range(1, len(names) + 1))


def test_every_script_is_sent_the_keys_that_its_head_lists(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, list[tuple[str, ...]]] = {}
    call = scripts.Script.__call__

    def recorded(self: scripts.Script, link: Link, keys_: tuple[str, ...], *args: Any) -> Any:
        sent.setdefault(self.name, []).append(keys_)
        return call(self, link, keys_, *args)

    monkeypatch.setattr(scripts.Script, "__call__", recorded)
    run_every_script(broker, link)
    assert sorted(sent) == list(NAMES)
    for name, calls in sent.items():
        expected = listed(name)
        for names in calls:
            count = len(expected)
            for i, key in enumerate(names):
                short = key.removeprefix(KEY.prefix)
                assert pattern(expected[i % count]).fullmatch(short), (name, key)
            assert len(names) == {"exchange": 2 * count, "put": len(names)}.get(name, count)
    assert [len(names) for names in sent["put"]] == [7, 8]


def run_every_script(broker: Broker, link: Link) -> None:
    broker.puts.declare("q")
    broker.tends.announce("w", {"host": "h"}, 60)
    put(broker, 1)
    put(broker, 2, feed=Feed("f", "at", "", ["1"]))
    broker.takes.register("q", "c")
    broker.tends.renew("q", ["c"])
    broker.takes.exchange("c", [Acks("q", []), Acks("q", [])], 1, link)
    steps: list[Callable[[], Any]] = [
        lambda: broker.takes.retry("q", "c", [(1, 1)], link),
        lambda: broker.takes.park("q", "c", [(1, "t")], link),
        lambda: broker.takes.give_back("q", "c", [1]),
        lambda: broker.takes.crashed("q", "c", [(1, "how", "where", 3)], link),
        lambda: broker.tends.reclaim("q", "c", certain=True),
        lambda: broker.takes.isolate("q", "c", link),
        lambda: broker.takes.finish("q", "c", [(1, Finished("done", b"", 0, b""))], link),
        lambda: broker.puts.watch("q", "client", ["1"]),
        lambda: broker.tends.promote("q"),
        lambda: broker.puts.mark_feed("q", "f", [("at", "", "")]),
        lambda: operate.configure(broker, "q", 5),
        lambda: operate.resume(broker, "q"),
        lambda: broker.tends.unfinished("q"),
        lambda: operate.requeue(broker, "q", [1]),
        lambda: operate.forget(broker, "q", [1]),
        lambda: broker.tends.trim("q"),
        lambda: operate.cancel(broker, "q", "some id"),
        lambda: broker.takes.progress("q", "c", "some id", 1, b'"tag":1', b'"done":1', link),
        lambda: operate.purge(broker, "q"),
        lambda: broker.plans.plan("s", b"", b"{}", 1),
        lambda: broker.plans.fire(Planned("s", b"{}", 1), "q", [], 2, None),
        lambda: broker.puts.size("q"),
        lambda: operate.shutdown(broker, "q"),
        lambda: operate.delete(broker, "q"),
        lambda: broker.reads._in_pieces(KEY.inflight("c"), 9, link),
        lambda: list(broker.reads.window(KEY.pending, 0, 1)),
    ]
    for step in steps:
        step()


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_always_the_same_text(name: str) -> None:
    """Redis keeps every text that it was ever sent: nothing may be pasted into one."""
    for flags in (True, False):
        one, other = (scripts.Script(name, flags=flags), scripts.Script(name, flags=flags))
        assert (one.text, one.digest) == (other.text, other.digest)
        assert one.text.endswith((scripts.FOLDER / f"{name}.lua").read_text())
    flagged = scripts.Script(name, flags=True).text.startswith("#!lua flags=allow-oom\n")
    assert flagged == (scripts.head(name)["oom"] == "allowed")


def test_two_brokers_of_one_redis_share_the_scripts(broker: Broker, server: Any) -> None:
    broker.puts.declare("q")
    put(broker, 1)
    cached = "number_of_cached_scripts"

    def count() -> str:
        info: str = broker.read(("INFO", "memory"))[0].decode()
        return next(line for line in info.splitlines() if line.startswith(cached))

    before = count()
    other = server.broker()
    put(other, 2)
    other.close()
    assert count() == before


def test_scripts_that_redis_forgot_are_sent_again(broker: Broker, link: Link) -> None:
    broker.puts.declare("q")
    broker.takes.register("q", "c", link=link)
    put(broker, 1)
    broker.read(("SCRIPT", "FLUSH"))
    put(broker, 2)
    broker.read(("SCRIPT", "FLUSH"))
    assert took(broker, link, 5) == [1, 2]


def test_codes_are_the_numbers_on_top_of_the_library() -> None:
    line = re.search(r"^local (OK, [A-Z, ]+) = ([-\d, ]+)$", (scripts.FOLDER / "lib.lua").read_text(), re.MULTILINE)
    assert line
    numbers = dict(zip(line[1].split(", "), map(int, line[2].split(", ")), strict=True))
    assert numbers == {code.name: code.value for code in Code}


@pytest.mark.parametrize("name", NAMES)
def test_no_script_goes_through_everything(name: str) -> None:
    """Work is in proportion to the call's batch, however long the queue is."""
    if name in ("cancel", "window"):
        return  # they look at a thousand entries of each end (see test_cancel.py), and at a page of a command's
    whole = r"'(LRANGE|LREM|LINDEX|LINSERT|SMEMBERS|HGETALL|HKEYS|HVALS|KEYS|SCAN|LPOS)'"
    text = body(name)
    if name == "put":
        text = text.replace("redis.call('LINDEX', pending, order == 'lifo' and 0 or -1)", "")  # an end of the list
    if name == "purge":  # a step of 100 among the first 10,000
        text = text.replace("redis.call('LRANGE', place, -1 - to, -1 - from)", "").replace("'LREM', place, -#ends", "")
    assert not re.search(whole, text)


# -- docs/internals/protocol.md


def test_the_protocol_names_every_key() -> None:
    text = PROTOCOL.read_text()
    assert [key.pattern for key in keys.CATALOGUE if f"`{key.pattern}`" not in text] == []


def test_the_protocol_names_every_script() -> None:
    text = PROTOCOL.read_text()
    assert [name for name in NAMES if f"`{name}`" not in text] == []


def test_the_protocol_names_every_field_of_meta_that_scripts_use() -> None:
    text = PROTOCOL.read_text()
    calls = [
        line
        for name in (*NAMES, scripts.LIBRARY)
        for line in re.findall(r"redis\.call\('H\w+', meta, (.*)", body(name))
    ]
    fields = {field for line in calls for field in re.findall(r"'([a-z_]{2,})'", line)}
    fields |= {"seen", "paused", "unknown:<task>", "maxsize", "declared_maxsize", "declared_maxbytes"}
    fields -= {"declared_", "fifo"}
    assert {"wanted", "rate_done", "parked", "bytes", "tag"} < fields
    assert [field for field in sorted(fields) if not re.search(rf"`{field}`", text)] == []


def test_an_entry_by_hand_is_taken(broker: Broker, link: Link) -> None:
    """As the protocol says: a plain LPUSH takes part."""
    broker.puts.declare("q")
    broker.takes.register("q", "c", link=link)
    broker.read(("LPUSH", KEY.pending, entry(5)))
    assert took(broker, link, 1) == [5]

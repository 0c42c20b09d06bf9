"""Follow-ups: put when, and only when, the run that names them is accepted."""

from __future__ import annotations

from collections import Counter

from rq_lite.broker import keys
from tests.acceptance.conftest import Lab

APP = "tests.acceptance.apps.follows"


def test_a_tree_of_follow_ups_is_run_once_whatever_the_bound(lab: Lab) -> None:
    lab.put("branch", 6, app=APP)
    lab.drain(app=APP)
    names = Counter(lab.seen("branches"))
    assert (len(names), set(names.values())) == (127, {1})
    state = lab.state()
    assert (state.put, state.done, state.dead, state.pending, state.inflight) == (127, 127, 0, 0, 0)


def test_each_way_to_run_a_job_puts_what_follows_an_accepted_run_and_nothing_else(lab: Lab) -> None:
    for task in ("in_thread", "in_process", "fails_once", "fails", "dies_once", "large"):
        lab.put(task, 0, app=APP)
    lab.put("many", 1000, 1001, app=APP)
    lab.drain("-q", "work", "-q", "follows", app=APP)
    leaves = Counter(lab.seen("leaves"))
    named = {leaf: count for leaf, count in leaves.items() if not leaf.startswith("leaf")}
    assert named == dict.fromkeys(["of a thread", "of a process", "of attempt 2", "of life 2"], 1)
    assert {leaf for leaf in leaves if leaf.startswith("leaf")} == {f"leaf {n}" for n in range(1000)}
    errors = sorted(dead.report["error"] for dead in lab.dead())
    assert [error.partition(";")[0] for error in errors] == [
        "UsageError: then: a run may have 1,000 follow-ups",
        "UsageError: then: the follow-ups of a run may have 1,000,000 bytes together (max_payload)",
        "ValueError: never",
    ]
    assert lab.state("follows").put == 1004
    assert lab.broker.read(("HGET", keys.of("follows").meta, "tracked")) == [None]

"""The checker finds what is wrong in forged histories, and nothing in those that are right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rq_lite.chaos.check import check
from rq_lite.errors import UsageError
from tests.chaos.forged import Forged, Q, kinds


@pytest.fixture
def forged() -> Forged:
    return Forged()


# -- right histories


def test_a_job_put_taken_run_and_acked_is_fine(forged: Forged) -> None:
    forged.put("a")
    forged.work("c1", 1, "a")
    forged.rest(put=1, done=1)
    found = forged.check(drained=True, fifo=True, recover=0, most_runs=1)
    assert found.ok, found.violations
    assert (found.put, found.runs, found.distinct, found.accepted, found.again) == (1, 1, 1, 1, 0)


@pytest.mark.parametrize("place", ["pending", "scheduled", "suspects", "dead"])
def test_a_job_that_waits_in_one_place_is_fine(forged: Forged, place: str) -> None:
    forged.put("a")
    forged.rest(put=1, done=0, **{place: ["a"]})
    assert kinds(forged.check()) == []


def test_a_job_in_flight_is_in_one_place(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.rest(put=1, done=0, inflight={"c1": {"1": "a"}})
    assert kinds(forged.check()) == []


def test_jobs_that_did_not_fit_are_put_again(forged: Forged) -> None:
    forged.put("a", "b", accepted=1)
    forged.put("b", accepted=0)
    forged.put("b")
    forged.work("c1", 1, "a")
    forged.work("c1", 2, "b")
    forged.rest(put=2, done=2)
    assert kinds(forged.check(drained=True)) == []


def test_a_lost_reply_to_a_take_is_made_good(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"}, at="reconcile.after")
    forged.run("c1", 1, "a")
    forged.ack("c1", 1)
    forged.rest(put=1, done=1)
    assert kinds(forged.check(drained=True)) == []


def test_a_lost_reply_to_an_ack_and_the_ack_sent_again(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.run("c1", 1, "a")
    forged.ask("c1", 1)
    forged.say("c1", "ack.failed", consumer="c1", queue=Q, tags=[1])
    forged.ack("c1", 1)
    forged.rest(put=1, done=1)
    assert kinds(forged.check(drained=True)) == []


@pytest.mark.parametrize("answer", ["ack.failed", None])
@pytest.mark.parametrize("done", [True, False])
def test_an_ack_without_an_answer_may_have_been_accepted(forged: Forged, answer: str | None, done: bool) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.run("c1", 1, "a")
    forged.ask("c1", 1)
    if answer:
        forged.say("c1", answer, consumer="c1", queue=Q, tags=[1])
    forged.rest(put=1, done=int(done), pending=[] if done else ["a"])
    assert kinds(forged.check()) == []


def test_an_ack_without_an_answer_was_counted_and_its_job_still_waits(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.ask("c1", 1)
    forged.rest(put=1, done=1, pending=["a"])
    assert kinds(forged.check()) == ["I1 COUNTERS"]


def test_the_late_ack_of_a_reclaimed_job_is_stale(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.begin("c1", 1, "a")
    forged.fault(inflight=1)
    forged.say("supervisor", "reclaim.after", queue=Q, consumer="c1", moved=1)
    forged.work("c2", 2, "a")
    forged.end("c1", 1, "a")
    forged.ack("c1", 1, stale=1)
    forged.heal()
    forged.rest(put=1, done=1)
    found = forged.check(drained=True, most_runs=2)
    assert found.ok, found.violations
    assert (found.stale, found.again, found.faults, found.inflight) == (1, 1, 1, 1)


def test_of_a_batch_of_acks_some_are_stale(forged: Forged) -> None:
    forged.put("a", "b")
    forged.take("c1", {1: "a", 2: "b"})
    forged.run("c1", 1, "a")
    forged.run("c1", 2, "b")
    forged.fault(inflight=1)
    forged.take("c2", {3: "b"})
    forged.ack("c1", 1, 2, stale=1)
    forged.run("c2", 3, "b")
    forged.ack("c2", 3)
    forged.rest(put=2, done=2)
    assert kinds(forged.check(drained=True)) == []


def test_runs_that_failed_are_repeated_without_a_fault(forged: Forged) -> None:
    forged.put("a")
    for tag, outcome, verb in ((1, "retry", "retry"), (2, "park", "park"), (3, "cut", "give_back")):
        forged.take("c1", {tag: "a"})
        forged.run("c1", tag, "a", outcome)
        forged.settle("c1", verb, tag)
    forged.work("c2", 4, "a")
    forged.rest(put=1, done=1)
    assert kinds(forged.check(drained=True, most_runs=4)) == []


def buried(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.run("c1", 1, "a", "bury")
    forged.finish("c1", 1, buried=[1])


def test_a_dead_job_that_is_requeued_is_accepted_later(forged: Forged) -> None:
    buried(forged)
    forged.say("harness", "requeue.after", queue=Q, tags=[1])
    forged.work("c1", 2, "a")
    forged.rest(put=1, done=1, failed=1)
    assert kinds(forged.check(drained=True)) == []


def test_tracked_jobs_are_done_or_buried_with_the_callbacks_that_they_lead_to(forged: Forged) -> None:
    forged.put("a", "b", "c")
    forged.take("c1", {1: "a", 2: "b", 3: "c"})
    forged.run("c1", 1, "a")
    forged.run("c1", 2, "b", "bury")
    forged.finish("c1", 1, 2, buried=[2], puts=["a.success", "b.failure"])
    forged.run("c1", 3, "c")
    forged.finish("c1", 3, puts=["c.success"], stale=None)
    forged.work("c1", 4, "a.success")
    forged.work("c1", 5, "b.failure")
    forged.work("c1", 6, "c.success")
    forged.rest(put=6, done=5, failed=1, dead=["b"])
    assert kinds(forged.check(drained=True)) == []


def test_a_callback_is_lost_or_comes_from_nowhere(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.run("c1", 1, "a")
    forged.finish("c1", 1, puts=["a.success"])
    forged.work("c1", 2, "a.done")
    forged.rest(put=2, done=2)
    assert kinds(forged.check(drained=True)) == ["I1 LOST", "I3 INVENTED"]


def test_a_tracked_job_is_done_twice(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.run("c1", 1, "a")
    forged.finish("c1", 1)
    forged.fault(inflight=1)
    forged.take("c2", {2: "a"})
    forged.run("c2", 2, "a")
    forged.finish("c2", 2)
    forged.rest(put=1, done=2)
    assert "I5 DOUBLED ACCEPTANCE" in kinds(forged.check())


def test_what_was_given_back_is_acked(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.settle("c1", "give_back", 1)
    forged.ack("c1", 1)
    forged.rest(put=1, done=1)
    assert kinds(forged.check()) == ["I5 DOUBLED ACCEPTANCE"]


def test_purged_and_dropped_jobs_are_not_lost(forged: Forged) -> None:
    buried(forged)
    forged.put("b")
    forged.rest(put=2, done=0, failed=1, purged=1, dropped=1)
    assert kinds(forged.check(drained=True)) == []


def test_a_purge_may_take_a_job_whose_ack_was_not_answered(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.ask("c1", 1)
    forged.rest(put=1, done=0, purged=1)
    assert kinds(forged.check(drained=True)) == []


def test_an_unsure_put_that_was_seen_is_no_breach_and_is_counted(forged: Forged) -> None:
    forged.put_fails("a")
    forged.work("c1", 1, "a")
    forged.rest(put=1, done=1)
    found = forged.check(drained=True)
    assert found.ok, found.violations
    assert (found.put, found.recovered) == (0, 1)


def test_an_unsure_put_that_was_not_seen_is_no_breach(forged: Forged) -> None:
    forged.put_fails("a")
    forged.rest(put=0, done=0)
    found = forged.check(drained=True)
    assert found.ok, found.violations
    assert found.recovered == 0


def test_the_put_of_a_killed_producer_is_unsure(forged: Forged) -> None:
    forged.say("producer", "put.before", queue=Q, jobs=["a", "b"])
    forged.work("c1", 1, "a")
    forged.rest(put=2, done=1, pending=["b"])
    assert forged.check().recovered == 2


def test_what_a_running_job_puts_may_exceed_the_bound(forged: Forged) -> None:
    forged.put("a", size=15, maxsize=10, unbounded=True)
    forged.put("b", accepted=0, size=15, maxsize=10)
    forged.put("b", size=15, maxsize=0)
    forged.rest(put=2, done=0, pending=["a", "b"])
    assert kinds(forged.check()) == []


def test_unknown_moments_and_facts_are_ignored(forged: Forged) -> None:
    forged.say("c1", "loop.turned", queue=7, jobs="none")
    forged.put("a", colour="green")
    forged.work("c1", 1, "a")
    forged.rest(put=1, done=1, weather="fine")
    assert kinds(forged.check()) == []


# -- I1, I2: lost, doubled, left over


def test_a_job_that_is_nowhere_is_lost(forged: Forged) -> None:
    forged.put("a")
    forged.rest(put=1, done=0)
    found = forged.check()
    assert kinds(found) == ["I1 LOST"]
    assert "'a'" in found.violations[0]
    assert "never delivered" in found.violations[0]


def test_a_job_whose_consumer_took_it_along_is_lost(forged: Forged) -> None:
    forged.put("a")
    forged.take("c7", {12: "a"})
    forged.rest(put=1, done=0)
    found = forged.check()
    assert kinds(found) == ["I1 LOST"]
    assert "tag 12 to c7: not settled" in found.violations[0]


def test_a_job_of_which_every_ack_was_stale_is_lost(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.run("c1", 1, "a")
    forged.ack("c1", 1, stale=1)
    forged.rest(put=1, done=0)
    assert kinds(forged.check()) == ["I1 LOST"]


def test_an_unanswered_ack_does_not_excuse_the_loss_of_a_later_delivery(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.run("c1", 1, "a")
    forged.ask("c1", 1)
    forged.take("c2", {2: "a"})
    forged.rest(put=1, done=0)
    assert kinds(forged.check()) == ["I1 LOST"]


def test_one_of_several_unanswered_acks_went_nowhere(forged: Forged) -> None:
    forged.put("a", "b")
    forged.take("c1", {1: "a", 2: "b"})
    forged.ask("c1", 1, 2)
    forged.rest(put=2, done=1)
    assert kinds(forged.check()) == ["I1 COUNTERS"]


def test_an_unsure_put_that_was_taken_can_be_lost(forged: Forged) -> None:
    forged.put_fails("a")
    forged.take("c1", {1: "a"})
    forged.rest(put=1, done=0)
    assert kinds(forged.check()) == ["I1 LOST"]


def test_a_purge_excuses_as_many_jobs_as_it_says(forged: Forged) -> None:
    forged.put("a", "b")
    forged.rest(put=2, done=0, purged=1)
    assert kinds(forged.check()) == ["I1 LOST"]


def test_a_job_in_two_places_is_doubled(forged: Forged) -> None:
    forged.put("a")
    forged.rest(put=1, done=0, pending=["a"], inflight={"c1": {"1": "a"}})
    found = forged.check()
    assert kinds(found) == ["I1 DOUBLED"]
    assert "pending and inflight" in found.violations[0]


def test_a_job_twice_in_one_place_is_doubled(forged: Forged) -> None:
    forged.put("a")
    forged.rest(put=1, done=0, pending=["a", "a"])
    assert kinds(forged.check()) == ["I1 DOUBLED"]


def test_an_accepted_job_that_still_waits_is_doubled(forged: Forged) -> None:
    forged.put("a")
    forged.work("c1", 1, "a")
    forged.rest(put=1, done=1, scheduled=["a"])
    assert kinds(forged.check()) == ["I1 DOUBLED"]


def test_a_put_that_was_accepted_twice_is_doubled(forged: Forged) -> None:
    forged.put("a")
    forged.put("a", producer="another")
    forged.work("c1", 1, "a")
    forged.rest(put=1, done=1)
    assert kinds(forged.check()) == ["I1 DOUBLED"]


@pytest.mark.parametrize(("put", "done"), [(0, 1), (2, 1), (1, 0), (1, 2)])
def test_counters_that_disagree(forged: Forged, put: int, done: int) -> None:
    forged.put("a")
    forged.work("c1", 1, "a")
    forged.rest(put=put, done=done)
    assert kinds(forged.check()) == ["I1 COUNTERS"]


@pytest.mark.parametrize(("put", "agrees"), [(0, False), (1, True), (2, True), (3, False)])
def test_an_unsure_put_widens_what_the_counter_may_say(forged: Forged, put: int, agrees: bool) -> None:
    forged.put("a")
    forged.put_fails("b")
    forged.put_fails("c", outcome="not put")
    forged.rest(put=put, done=0, pending=["a"])
    assert kinds(forged.check()) == ([] if agrees else ["I1 COUNTERS"])


def test_a_queue_that_the_final_record_leaves_out(forged: Forged) -> None:
    forged.put("a")
    forged.work("c1", 1, "a")
    forged.say("harness", "final", queues={}, keys=[], processes=[])
    assert kinds(forged.check()) == ["I1 COUNTERS"]


def test_without_a_final_record_nothing_is_proved(forged: Forged) -> None:
    forged.put("a")
    forged.work("c1", 1, "a")
    found = forged.check(drained=True)
    assert kinds(found) == ["I1 no final record"]


@pytest.mark.parametrize("place", ["pending", "scheduled", "suspects"])
def test_a_job_that_waits_where_all_should_have_been_run(forged: Forged, place: str) -> None:
    forged.put("a")
    forged.rest(put=1, done=0, **{place: ["a"]})
    assert kinds(forged.check(drained=True)) == ["I2 LEFT OVER"]


def test_a_job_in_flight_where_all_should_have_been_run(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.rest(put=1, done=0, inflight={"c1": {"1": "a"}})
    assert kinds(forged.check(drained=True)) == ["I2 LEFT OVER"]


# -- I3: invented


@pytest.mark.parametrize("at", ["take.after", "reconcile.after"])
def test_a_job_that_is_taken_and_was_never_put(forged: Forged, at: str) -> None:
    forged.take("c1", {1: "ghost"}, at=at)
    forged.rest(put=0, done=0)
    found = forged.check()
    assert kinds(found) == ["I3 INVENTED"]
    assert "'ghost'" in found.violations[0]


def test_a_job_that_runs_and_was_never_put(forged: Forged) -> None:
    forged.begin("c1", 1, "ghost")
    forged.rest(put=0, done=0)
    assert kinds(forged.check()) == ["I3 INVENTED"]


def test_a_job_that_waits_and_was_never_put(forged: Forged) -> None:
    forged.rest(put=0, done=0, pending=["ghost"])
    assert kinds(forged.check()) == ["I3 INVENTED"]


def test_a_job_that_runs_although_its_put_said_not_put(forged: Forged) -> None:
    forged.put_fails("a", outcome="not put")
    forged.begin("c1", 1, "a")
    forged.rest(put=0, done=0)
    assert kinds(forged.check()) == ["I3 INVENTED"]


def test_not_put_says_nothing_of_an_earlier_put_that_was_unsure(forged: Forged) -> None:
    forged.put_fails("a")
    forged.put_fails("a", outcome="not put")
    forged.work("c1", 1, "a")
    forged.rest(put=1, done=1)
    assert kinds(forged.check()) == []


def test_not_put_says_nothing_of_an_earlier_put_that_was_not_answered(forged: Forged) -> None:
    forged.say("producer", "put.before", queue=Q, jobs=["a"])
    forged.put_fails("a", outcome="not put")
    forged.work("c1", 1, "a")
    forged.rest(put=1, done=1)
    assert kinds(forged.check()) == []


def test_a_job_that_runs_although_there_was_no_room_for_it(forged: Forged) -> None:
    forged.put("a", accepted=0)
    forged.begin("c1", 1, "a")
    forged.rest(put=0, done=0)
    assert kinds(forged.check()) == ["I3 INVENTED"]


def test_a_killed_producer_s_open_put_does_not_blur_another_s_refusal(forged: Forged) -> None:
    forged.say("killed", "put.before", queue=Q, jobs=["a"])
    forged.put("b", producer="next", accepted=0)
    forged.begin("c1", 1, "b")
    forged.rest(put=0, done=0)
    assert kinds(forged.check()) == ["I3 INVENTED"]


def test_a_delivery_is_settled_that_nobody_was_given(forged: Forged) -> None:
    forged.put("a")
    forged.ack("c1", 5)
    forged.rest(put=1, done=1, pending=["a"])
    assert kinds(forged.check()) == ["I3 INVENTED"]


# -- I4, I12: too many runs


def run_again(forged: Forged) -> None:
    """Two consumers have run it, the second's result counts."""
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.begin("c1", 1, "a")
    forged.work("c2", 2, "a")


def test_more_runs_than_the_faults_explain(forged: Forged) -> None:
    run_again(forged)
    forged.fault(inflight=0)
    forged.rest(put=1, done=1)
    found = forged.check()
    assert kinds(found) == ["I4 DOUBLED RUNS"]
    assert "1 runs beyond" in found.violations[0]
    assert "'a' (2)" in found.violations[0]


def test_a_job_that_was_tried_too_often(forged: Forged) -> None:
    run_again(forged)
    forged.fault(inflight=1)
    forged.rest(put=1, done=1)
    assert kinds(forged.check(most_runs=2)) == []
    assert kinds(forged.check(most_runs=1)) == ["I12 TOO MANY RUNS"]


# -- I5: the fence


def test_two_acks_of_a_job_are_accepted(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.take("c2", {2: "a"})
    forged.ack("c2", 2)
    forged.ack("c1", 1)
    forged.rest(put=1, done=2)
    found = forged.check()
    assert kinds(found) == ["I5 DOUBLED ACCEPTANCE", "I5 STALE ACCEPTED"]
    assert "tag 1 to c1: acked; tag 2 to c2: acked" in found.violations[0]


def test_the_ack_of_a_reclaimed_delivery_is_accepted(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.take("c2", {2: "a"})
    forged.ack("c1", 1)
    forged.ack("c2", 2, stale=1)
    forged.rest(put=1, done=1)
    assert kinds(forged.check()) == ["I5 STALE ACCEPTED"]


def test_one_delivery_is_acked_twice(forged: Forged) -> None:
    forged.put("a")
    forged.work("c1", 1, "a")
    forged.ack("c1", 1)
    forged.rest(put=1, done=2)
    assert "I5 DOUBLED ACCEPTANCE" in kinds(forged.check())


def test_one_delivery_is_brought_back_and_acked(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.settle("c1", "retry", 1)
    forged.ack("c1", 1)
    forged.rest(put=1, done=1)
    assert kinds(forged.check()) == ["I5 DOUBLED ACCEPTANCE"]


def test_a_buried_job_comes_back_though_nobody_requeued_it(forged: Forged) -> None:
    buried(forged)
    forged.work("c1", 2, "a")
    forged.fault(inflight=1)
    forged.rest(put=1, done=1, failed=1)
    assert kinds(forged.check()) == ["I5 DOUBLED ACCEPTANCE"]


def test_a_buried_job_is_in_flight_though_nobody_heard_of_it(forged: Forged) -> None:
    buried(forged)
    forged.rest(put=1, done=0, failed=1, inflight={"c2": {"2": "a"}})
    assert kinds(forged.check()) == ["I5 DOUBLED ACCEPTANCE"]


def test_a_stale_ack_is_accepted_in_a_batch_of_which_some_were_refused(forged: Forged) -> None:
    forged.put("a", "b")
    forged.take("c1", {1: "a", 2: "b"})
    forged.take("c2", {3: "a", 4: "b"})
    forged.ack("c1", 1, 2, stale=1)
    forged.ack("c2", 3, 4)
    forged.rest(put=2, done=3)
    assert kinds(forged.check()) == ["I5 STALE ACCEPTED"]


def test_a_tag_is_used_for_two_jobs(forged: Forged) -> None:
    forged.put("a", "b")
    forged.take("c1", {1: "a"})
    forged.take("c2", {1: "b"})
    forged.rest(put=2, done=0, pending=["a", "b"])
    assert kinds(forged.check()) == ["I5 TAG USED TWICE"]


def test_a_delivery_has_two_owners(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.begin("c2", 1, "a")
    forged.rest(put=1, done=0, pending=["a"])
    assert kinds(forged.check()) == ["I5 TAG USED TWICE"]


# -- I6, I7: the bound, leaks


def test_a_put_beyond_the_bound(forged: Forged) -> None:
    forged.put("a", size=11, maxsize=10)
    forged.rest(put=1, done=0, pending=["a"])
    assert kinds(forged.check()) == ["I6 BOUND BROKEN"]


@pytest.mark.parametrize("left", [{"keys": ["rq:{q}:mystery"]}, {"processes": [4711]}])
def test_something_is_left_behind(forged: Forged, left: dict[str, Any]) -> None:
    forged.rest(put=0, done=0, **left)
    found = forged.check()
    assert kinds(found) == ["I7 LEAK"]
    assert str(next(iter(left.values()))[0]) in found.violations[0]


# -- I10: order


def test_jobs_that_overtake_one_another(forged: Forged) -> None:
    forged.put("a", "b")
    forged.put("c")
    for tag, job in enumerate("acb", 1):
        forged.work("c1", tag, job)
    forged.rest(put=3, done=3)
    assert kinds(forged.check()) == []
    found = forged.check(fifo=True)
    assert kinds(found) == ["I10 OUT OF ORDER"]
    assert len(found.violations) == 1
    assert "before 'b'" in found.violations[0]
    assert "job 'c'" in found.violations[0]


def test_the_order_holds_per_producer_and_for_first_runs_only(forged: Forged) -> None:
    forged.put("a", "b")
    forged.put("x", "y", producer="another")
    forged.take("c1", {1: "x"})
    forged.run("c1", 1, "x", "retry")
    forged.settle("c1", "retry", 1)
    for tag, job in enumerate("aybx", 2):
        forged.work("c1", tag, job)
    forged.rest(put=4, done=4)
    assert kinds(forged.check(fifo=True)) == []


# -- I11: recovery


def waited(forged: Forged, seconds: float) -> None:
    """A job waits while a fault ends, and is taken so many seconds later."""
    forged.put("a")
    forged.fault()
    forged.heal()
    forged.now += seconds - 1
    forged.work("c1", 1, "a")
    forged.rest(put=1, done=1)


def test_no_jobs_are_taken_for_too_long_after_a_fault(forged: Forged) -> None:
    waited(forged, seconds=30)
    found = forged.check(recover=29)
    assert kinds(found) == ["I11 NO RECOVERY"]
    assert "30.0 s later" in found.violations[0]


def test_jobs_are_taken_in_time_after_a_fault(forged: Forged) -> None:
    waited(forged, seconds=30)
    found = forged.check(recover=30)
    assert found.ok, found.violations
    assert found.recovery == 30


def test_jobs_are_never_taken_again_after_a_fault(forged: Forged) -> None:
    forged.put("a")
    forged.fault()
    forged.heal()
    forged.rest(put=1, done=0, pending=["a"])
    found = forged.check(recover=1000)
    assert kinds(found) == ["I11 NO RECOVERY"]
    assert "never" in found.violations[0]


def test_a_fault_that_ends_when_nothing_waits_needs_no_recovery(forged: Forged) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.fault()
    forged.heal()
    forged.run("c1", 1, "a")
    forged.ack("c1", 1)
    forged.now += 100
    forged.put("b")
    forged.work("c1", 2, "b")
    forged.rest(put=2, done=2)
    found = forged.check(recover=5)
    assert found.ok, found.violations
    assert found.recovery is None


# -- files


def test_a_last_line_that_was_cut_short_is_left_out(forged: Forged, tmp_path: Path) -> None:
    forged.put("a")
    forged.take("c1", {1: "a"})
    forged.begin("c1", 1, "a")
    forged.rest(put=1, done=0, inflight={"c1": {"1": "a"}})
    whole = (forged.write(tmp_path) / "c1.jsonl").read_bytes()
    assert check(tmp_path).runs == 1
    for length in range(len(whole)):
        (tmp_path / "c1.jsonl").write_bytes(whole[:length])
        found = check(tmp_path)
        assert found.ok, found.violations
        assert found.runs == int(length == len(whole) - 1), "only the newline is missing"


def test_a_line_that_is_no_json_is_named(forged: Forged, tmp_path: Path) -> None:
    forged.put("a")
    file = forged.write(tmp_path) / "producer.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
    with pytest.raises(UsageError, match=r"producer\.jsonl, line 2: "):
        check(tmp_path)


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_known_moment_without_its_facts_is_named(forged: Forged, tmp_path: Path, end: str) -> None:
    forged.put("a")
    with (forged.write(tmp_path) / "producer.jsonl").open("a") as file:
        file.write('{"t":9,"at":"put.after"}' + end)
    with pytest.raises(UsageError, match=r"producer\.jsonl, line 4: .*queue"):
        check(tmp_path)


def test_a_file_that_begins_otherwise_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"t":1,"at":"final","queues":{}}\n')
    with pytest.raises(UsageError, match=r"other\.jsonl, line 1: .*process\.begin"):
        check(tmp_path)


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_files_is_no_history(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no history"):
        check(tmp_path / name)


def test_a_second_final_record_is_refused(forged: Forged) -> None:
    forged.rest(put=0, done=0)
    forged.rest(put=0, done=0)
    with pytest.raises(UsageError, match="second final"):
        forged.check()


# -- the program


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rq_lite.chaos.check", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_program_says_one_line_when_all_is_well(forged: Forged, tmp_path: Path) -> None:
    forged.put("a")
    forged.work("c1", 1, "a")
    forged.rest(put=1, done=1)
    ran = program(forged.write(tmp_path), "--drained", "--fifo", "--recover", 5, "--most-runs", 1)
    assert (ran.returncode, ran.stderr, ran.stdout.count("\n")) == (0, "", 1)
    assert "1 put" in ran.stdout


def test_the_program_shows_twenty_violations_and_how_many_more(forged: Forged, tmp_path: Path) -> None:
    forged.put(*(f"job-{n}" for n in range(25)))
    forged.rest(put=25, done=0, keys=["left"])
    ran = program(forged.write(tmp_path))
    lines = ran.stdout.splitlines()
    assert (ran.returncode, ran.stderr) == (1, "")
    assert sum("I1 LOST" in line for line in lines) == 20
    assert lines[20] == "and 6 more: 5 of I1, 1 of I7"


def test_the_program_refuses_what_is_no_history(tmp_path: Path) -> None:
    ran = program(tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert str(tmp_path) in ran.stderr
    assert "Traceback" not in ran.stderr

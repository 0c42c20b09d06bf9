"""Hooks of an app, in the consumer and in the engines of a real worker."""

from __future__ import annotations

from collections import Counter

import pytest

from rq_lite.broker import keys
from tests.acceptance.conftest import Lab
from tests.conftest import until

APP = "tests.acceptance.apps.hooked"


def told(lab: Lab) -> list[str]:
    return [run.what for run in lab.runs("hooks")]


def pids(lab: Lab, hook: str) -> set[int]:
    return {run.pid for run in lab.runs("hooks") if run.what.startswith(hook)}


@pytest.mark.parametrize("kind", ["greenlet", "thread", "process"])
def test_hooks_around_runs_wherever_these_are(lab: Lab, kind: str) -> None:
    jobs = [f"{kind}-{what}" for what in ("fine", "bad", "puts", "late")[: 3 if kind == "thread" else 4]]
    lab.put(kind, *jobs, app=APP)
    lab.drain("--cpu-procs", "1", app=APP)
    found = Counter(told(lab))
    for what in jobs:
        assert found[f"before_run:{what}:work:1:True"] == 1
    raised = {"bad": "Bury", "late": "Interrupted" if kind == "process" else "Expired"}
    for what in jobs:
        error = raised.get(what.partition("-")[2], "NoneType")
        assert sum(found[f"after_run:{what}:{name}"] for name in (error, "JobTimeout")) == 1
    assert found[f"on_failure:{kind}-bad:Bury"] == found[f"on_bury:{kind}-bad"] == 1
    assert found["before_put:child"] == found["before_run:child:work:1:True"] == 1
    if kind != "thread":
        assert found[f"on_failure:{kind}-late:JobTimeout"] == found[f"on_bury:{kind}-late"] == 1
    (consumer,) = pids(lab, "on_failure")
    assert pids(lab, "worker_start:consumer:1:work") == pids(lab, "worker_stop:consumer") == {consumer}
    assert (consumer in pids(lab, f"before_run:{kind}")) == (kind != "process")
    assert pids(lab, f"before_run:{kind}-") - {consumer} <= pids(lab, "worker_start:engine:1:work")
    assert (lab.state().done, lab.state().dead) == (3, len(jobs) - 2)


def test_an_engine_s_death_is_a_failure_and_what_a_job_forks_has_no_hooks(lab: Lab) -> None:
    lab.put("process", "forks", "dies", app=APP)
    worker = lab.work("--cpu-procs", "1", app=APP)
    until(lambda: "on_failure:dies:Crashed" in told(lab), "the consumer has told of it")
    until(lambda: "on_retry:dies:1" in told(lab), "it has told what follows")
    assert worker.stop() == 0
    assert told(lab).count("after_run:forks:NoneType") == 1


def test_jobs_that_a_supervisor_settles_are_told_of_by_a_consumer_that_lives(lab: Lab) -> None:
    """One kills its consumer, the other goes on beyond its hard limit."""
    lab.put("kill", "kills", app=APP)
    lab.put("hang", "hangs", app=APP)
    worker = lab.work("--greenlets", "1", "--grace", "0", app=APP)
    until(lambda: "on_retry:hangs:1" in told(lab), "both were told of")
    until(lambda: lab.state().done == 1, "the second run of the one that hangs is done")
    found = [run for run in lab.runs("hooks") if run.what.startswith("on_")]
    assert Counter(run.what for run in found) == Counter(
        ["on_failure:kills:poison", "on_bury:kills", "on_failure:hangs:JobTimeout", "on_retry:hangs:1"]
    )
    assert pids(lab, "on_").isdisjoint(pids(lab, "before_run:kills")), "told by another consumer"
    assert worker.stop() == 0
    assert lab.broker.read(("EXISTS", keys.of("work").notices)) == [0]

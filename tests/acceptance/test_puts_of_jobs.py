"""Jobs that put jobs: into queues of their own worker without waiting, into others as producers do."""

from __future__ import annotations

import re

import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker
from rq_lite.client.defaults import DEFAULT, defaults
from rq_lite.client.job import Job
from rq_lite.errors import JobFailed
from tests.acceptance.apps import brings
from tests.acceptance.conftest import Lab
from tests.conftest import until

APP = "tests.acceptance.apps.brings"


@pytest.fixture
def here(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process puts where the workers take."""
    monkeypatch.setattr(defaults, "_brokers", {DEFAULT: broker})
    monkeypatch.setattr(defaults, "_settings", broker.settings)
    for queue in (brings.rows, brings.pages, brings.mails, brings.narrow):
        queue.sender.forget_settings()


@pytest.mark.usefixtures("here")
def test_an_import_into_the_queue_of_its_own_worker_brings_all_its_rows(lab: Lab) -> None:
    brings.import_all.put(50_000)
    brings.import_in_a_process.put(3_000)
    brings.import_in_a_thread.put(3_000)
    worker = lab.drain("-q", "rows", "--greenlets", "100", app=APP)
    state = lab.state("rows")
    assert (state.done, state.dead, state.put) == (56_003, 0, 56_003)
    assert (state.over, state.over_by, state.retried) == (0, {}, 0)
    assert re.search(r"queue 'rows' holds [\d,]+ jobs, \d+ times its bound of 1,000", worker.said)
    assert "brings:import_all" in worker.said


@pytest.mark.usefixtures("here")
def test_a_crawl_that_finds_more_than_its_bound_loses_no_page(lab: Lab) -> None:
    brings.page.put(1)
    lab.drain("-q", "pages", "--greenlets", "100", app=APP)
    state = lab.state("pages")
    assert (state.done, state.dead, state.put, state.retried) == (brings.PAGES, 0, brings.PAGES, 0)


@pytest.mark.usefixtures("here")
def test_producers_wait_while_jobs_hold_a_queue_above_its_bound(lab: Lab) -> None:
    operate.pause(lab.broker, "rows")
    brings.import_all.put(3_000)
    operate.resume(lab.broker, "rows")
    worker = lab.work("-q", "rows", "--greenlets", "1", app=APP)
    until(lambda: lab.state("rows").over, "it is over its bound")
    operate.pause(lab.broker, "rows")
    state = lab.state("rows")
    assert state.over_by.keys() == {f"{APP}:import_all"}
    shown = lab.commands.run("status", "rows").stdout
    assert re.search(rf"[\d,]+ jobs over its bound: put by running jobs of {APP}:import_all \([\d,]+\)", shown)
    with lab.commands.start("produce", "--task", f"{APP}:store", "--count", "3") as producer:
        lab.until_blocked(1)
        operate.resume(lab.broker, "rows")
        assert producer.wait(60) == 0
    until(lambda: lab.state("rows").done == 3_004, "all is done")
    assert worker.stop() == 0


@pytest.mark.usefixtures("here")
def test_jobs_wait_for_room_in_a_queue_of_another_worker(lab: Lab) -> None:
    jobs = [brings.write.put(30), brings.write.put(30), brings.write_in_a_process.put(30)]
    worker = lab.work("-q", "rows", "--greenlets", "10", app=APP)
    until(lambda: lab.state("mails").blocked_jobs == 3, "all three wait")
    assert lab.state("mails").pending == 5
    assert "running jobs of other workers that wait for room here: 3" in lab.commands.run("status").stdout
    late = brings.write_soon.put(0.3)
    with pytest.raises(JobFailed, match=r"QueueFull: .*5 jobs waiting.* each may wait for the other$"):
        late.result(60)
    other = lab.work("-q", "mails", app=APP)
    assert [job.result(60) for job in jobs] == [30, 30, 30]
    lab.until_seen("mails", 90)
    until(lambda: lab.state("mails").blocked_jobs == 0, "none waits")
    assert [worker.stop(), other.stop()] == [0, 0]
    assert (lab.state("rows").retried, lab.state("mails").dead) == (0, 0)


@pytest.mark.usefixtures("here")
def test_headroom_refuses_what_a_job_puts_beyond_it(lab: Lab) -> None:
    assert lab.commands.run("queue", "set", "narrow", "--headroom", "none").returncode != 0  # not known yet
    job: Job = brings.widen.put(100)
    worker = lab.work("-q", "narrow", "--greenlets", "1", app=APP)
    with pytest.raises(JobFailed, match=r"in a job whose own worker serves this queue.*headroom") as caught:
        job.result(60)
    assert caught.value.type == "QueueFull"
    until(lambda: lab.broker.tends.unfinished("narrow")[0] == 0, "what was put is done")
    assert lab.state("narrow").put == 1 + 15
    assert "any number" not in lab.commands.run("queue", "set", "narrow", "--headroom", "50").stdout
    assert lab.state("narrow").headroom == 50
    assert "--headroom must be" in lab.commands.run("queue", "set", "narrow", "--headroom", "-1").stderr
    assert lab.commands.run("queue", "set", "narrow", "--headroom", "none").returncode == 0
    brings.widen.put(100).result(60)
    assert worker.stop() == 0

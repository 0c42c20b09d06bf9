"""Where a job is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rq_lite.admin import jobs
from rq_lite.broker import Broker, Death, Link
from rq_lite.cli import cli
from rq_lite.model.message import TAGGED, VERSION, Message, encode, entry_of
from rq_lite.model.outcome import Finished
from rq_lite.model.states import State
from tests.conftest import Server
from tests.steps import entry, put, take


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 1000, 0)
    broker.takes.register("q", "c", link=link)


def test_a_job_that_is_taken_while_one_looks_for_it_is_found(
    broker: Broker, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(broker, 1)
    sizes = jobs.sizes

    def slipping(*args: Any) -> Any:
        seen = sizes(*args)
        take(broker, link, 1)
        return seen

    monkeypatch.setattr(jobs, "sizes", slipping)
    found = jobs.find(broker, "q", "00000001").job
    assert found is not None
    assert found.state is State.INFLIGHT


def test_a_job_that_never_was_is_not_found(broker: Broker) -> None:
    put(broker, 1)
    assert jobs.find(broker, "q", "00000002") == (None, 0)


def test_crashes_are_among_the_attempts_wherever_a_job_is(broker: Broker) -> None:
    broker.puts.put("q", [b"2.1" + entry(1)])
    (waiting,) = jobs.page(broker, "q", State.PENDING, 0, 1)
    assert (waiting.attempts, waiting.crashes) == (3, 1)


def test_near_reads_both_ends_each_job_once(broker: Broker) -> None:
    put(broker, *range(450))
    for far, expected in ((1000, [*range(450)]), (225, [*range(450)]), (224, [*range(224), *range(226, 450)]),
                          (130, [*range(130), *range(320, 450)]), (1, [0, 449])):  # fmt: skip
        found = [job.id for job in jobs.near(broker, "q", State.PENDING, 450, far)]
        assert found == [f"{number:08}" for number in expected]


# -- by their tags


def tagged(job_id: str, *tags: str) -> bytes:
    return encode(Message(TAGGED, job_id, "t", tags=tags))


def run(server: Server, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--url", server.url])


def ids(server: Server, *arguments: str) -> list[str]:
    done = run(server, *arguments)
    assert done.exit_code == 0, done.output
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.fixture
def everywhere(broker: Broker, link: Link) -> None:
    """In each place a job with the tags "a" and "b c", and one without tags."""
    for name in ("dead", "suspect", "inflight"):
        broker.puts.put("q", [tagged(name, "a", "b c"), entry(1)])
        reply = take(broker, link, 2)
        if name == "dead":
            ends = [(reply.tag + n, Finished("failed", report=b'{"task":"t","error":"no"}')) for n in (1, 2)]
            broker.takes.finish("q", "c", ends, link)
        if name == "suspect":
            for _ in range(2):
                broker.tends.reclaim("q", "c", certain=True, death=Death("killed"))
                broker.takes.register("q", "c", link=link)
                take(broker, link, 2)
    broker.puts.put("q", [tagged("scheduled", "a", "b c"), entry(1)], delay=600_000)
    broker.puts.put("q", [tagged("pending", "b c", "a"), tagged("half", "a"), entry(1)])
    held = entry_of(Message(VERSION, "held", "t", unique="e:t:k"), "q")
    newer = entry_of(Message(TAGGED, "replacing", "t", tags=("a", "b c"), unique="e:t:k"), "q")
    broker.puts.put("q", [held, b"r 0 " + newer], marked=True)


@pytest.mark.usefixtures("everywhere")
def test_jobs_are_found_by_their_tags_in_every_place(server: Server) -> None:
    found = run(server, "jobs", "list", "--json", "--tag", "a", "--tag", "b c")
    assert found.stderr == ""
    jobs_found = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(job["id"], job["state"]) for job in jobs_found] == [
        (place.value.removesuffix("s"), place.value) for place in jobs.PLACES
    ]
    assert [job["tags"] for job in jobs_found] == [["a", "b c"], ["b c", "a"], *[["a", "b c"]] * 4]
    assert ids(server, "jobs", "list", "--tag", "a", "--state", "pending") == ["pending", "half"]
    assert ids(server, "jobs", "list", "--tag", "a", "--task", "other") == []
    assert run(server, "jobs", "list", "--tag", "b").stderr == "no job matches\n"


@pytest.mark.usefixtures("everywhere")
def test_tags_are_shown(server: Server) -> None:
    rows = {row[0]: row for line in run(server, "jobs", "list").stdout.splitlines() if (row := line.split("\t"))}
    assert (rows["pending"][8], rows["00000001"][8]) == ("b c, a", "")
    assert "\ntags       b c, a" in run(server, "jobs", "show", "pending").stdout
    for command in ("jobs", "dead"):
        assert "\ntags       a, b c" in run(server, command, "show", "tag:1" if command == "dead" else "dead").stdout
    assert "\ntags" not in run(server, "jobs", "show", "00000001").stdout


@pytest.mark.usefixtures("everywhere")
def test_buried_jobs_are_listed_put_back_and_dropped_by_their_tags(broker: Broker, server: Server) -> None:
    assert len(ids(server, "dead", "list")) == 2
    assert [
        json.loads(line)["tags"] for line in run(server, "dead", "list", "--tag", "a", "--json").stdout.splitlines()
    ] == [["a", "b c"]]
    assert run(server, "dead", "purge", "--tag", "a", "--tag", "x", "--yes").stdout.startswith("no job dropped")
    assert run(server, "dead", "requeue", "--tag", "b c").stdout == "queue 'q': 1 job requeued\n"
    assert len(ids(server, "dead", "list")) == 1
    assert len(ids(server, "jobs", "list", "--tag", "b c", "--state", "pending")) == 2


def test_a_search_says_how_far_it_looked_and_looks_further_if_asked_to(broker: Broker, server: Server) -> None:
    put(broker, *range(20))
    broker.puts.put("q", [tagged("middle", "a")])
    put(broker, *range(20))
    broker.puts.put("q", [tagged("late", "a")], delay=600_000)
    found = run(server, "jobs", "list", "--tag", "a", "--far", "20", "--json")
    assert [json.loads(line)["id"] for line in found.stdout.splitlines()] == ["late"]
    assert found.stderr == (
        "queue 'q': looked at the first and the last 20 of 41 jobs in pending; --far N looks further\n"
    )
    found = run(server, "jobs", "list", "--tag", "a", "--far", "21")
    assert ([line.split("\t")[0] for line in found.stdout.splitlines()], found.stderr) == (["middle", "late"], "")
    assert "say one of these, too" in str(run(server, "jobs", "list", "--far", "9").exception)

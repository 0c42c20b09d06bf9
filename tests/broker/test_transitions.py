"""The other ways that a delivery can end, the duties, and what an operator does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from rq_lite.admin import operate
from rq_lite.broker import Broker, Code, Death, Link, Reclaimed
from rq_lite.model.message import decode
from tests.conftest import Server, until
from tests.steps import (
    KEY,
    blocked,
    bury,
    counter,
    entry,
    everything,
    length,
    now_ms,
    number_of,
    owned,
    put,
    reclaim,
    started_waiting,
    suspects,
    take,
    took,
    waiting,
)

GARBAGE = b"\x00 no job \xff\n\x00"


@pytest.fixture(autouse=True)
def declared(broker: Broker, link: Link) -> None:
    broker.puts.declare("q", 1000, 0)
    broker.takes.register("q", "c", link=link)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def headers(broker: Broker) -> list[tuple[int, int]]:
    """(attempts, crashes) of the jobs in the queue, the next to be taken first."""
    return [decode(raw)[1:3] for raw in reversed(broker.read(("LRANGE", KEY.pending, 0, -1))[0])]


def members(broker: Broker) -> list[tuple[bytes, int]]:
    """What is scheduled: the entries and when they are due (ms), in order."""
    flat = broker.read(("ZRANGE", KEY.scheduled, 0, -1, "WITHSCORES"))[0]
    return [(flat[i].partition(b"|")[2], int(flat[i + 1])) for i in range(0, len(flat), 2)]


def promoted(broker: Broker) -> int:
    """Promote once something is due; how many."""
    return int(until(lambda: broker.tends.promote("q")[0], "a job is due"))


def with_settings(server: Server, broker: Broker, **changes: float) -> Broker:
    return Broker(server.url, settings=msgspec.structs.replace(broker.settings, **changes))


# -- bury


def test_a_buried_job_keeps_its_report_and_its_bytes(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    report = json.dumps({"error": "ZeroDivisionError"}).encode()
    assert bury(broker, "q", "c", [(1, report)], link) == 0
    assert broker.read(("HGET", KEY.dead, 1))[0] == report + b"\n" + entry(1)
    buried_at = int(broker.read(("ZSCORE", KEY.dead_index, 1))[0])
    assert 0 <= now_ms(broker) - buried_at < 60_000
    assert (counter(broker, "failed"), counter(broker, "inflight")) == (1, 0)
    assert owned(broker, "q", "c", link) == {}


def test_what_is_no_job_is_buried_unchanged(broker: Broker, link: Link) -> None:
    broker.puts.put("q", [GARBAGE])
    assert take(broker, link, 1).jobs == [GARBAGE]
    bury(broker, "q", "c", [(1, b"{}")], link)
    assert broker.read(("HGET", KEY.dead, 1))[0] == b"{}\n" + GARBAGE


def test_burying_what_is_not_ours_is_stale_and_keeps_nothing(broker: Broker, link: Link) -> None:
    assert bury(broker, "q", "c", [(1, b"{}"), (2, b"{}")], link) == 2
    assert counter(broker, "stale") == 2
    assert counter(broker, "failed") == 0
    assert broker.read(("EXISTS", KEY.dead, KEY.dead_index))[0] == 0


def test_the_dead_set_keeps_the_newest_and_counts_what_it_drops(server: Server, broker: Broker, link: Link) -> None:
    narrow = with_settings(server, broker, dead_max=3)
    put(broker, *range(10))
    for tag in range(1, 6):
        take(broker, link, 1)
        bury(narrow, "q", "c", [(tag, b"{}")], link)
        # Burials within one millisecond are in the order of their tags as text: here of one digit.
        assert broker.read(("HLEN", KEY.dead))[0] == min(tag, 3)
    assert sorted(map(int, broker.read(("HKEYS", KEY.dead))[0])) == [3, 4, 5]
    assert broker.read(("ZCARD", KEY.dead_index))[0] == 3
    assert counter(broker, "dropped") == 2


def test_the_dead_set_forgets_the_old(server: Server, broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 2)
    bury(broker, "q", "c", [(1, b"{}")], link)
    broker.read(("ZADD", KEY.dead_index, now_ms(broker) - 5000, 1))
    narrow = with_settings(server, broker, dead_age=4.0)
    bury(narrow, "q", "c", [(2, b"{}")], link)
    assert broker.read(("HKEYS", KEY.dead), ("ZRANGE", KEY.dead_index, 0, -1)) == [[b"2"], [b"2"]]
    assert counter(broker, "dropped") == 1


def test_the_last_burial_says_that_the_queue_is_drained(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    bury(broker, "q", "c", [(1, b"{}")], link)
    assert length(broker, KEY.drained) == 1


# -- retry


def test_a_retried_job_is_charged_an_attempt_and_is_due_later(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    before = now_ms(broker)
    assert broker.takes.retry("q", "c", [(1, 5000)], link) == 0
    ((raw, due),) = members(broker)
    assert raw == b"1.0" + entry(1)
    assert before + 5000 <= due <= now_ms(broker) + 5000
    assert (counter(broker, "retried"), counter(broker, "inflight")) == (1, 0)
    assert counter(broker, "bytes") == len(raw)


def test_each_retry_charges_one_more_attempt(broker: Broker, link: Link) -> None:
    put(broker, 1)
    for tag in (1, 2, 3):
        taken = take(broker, link, 1)
        broker.takes.retry("q", "c", [(taken.tag + 1, 1)], link)
        assert members(broker)[0][0] == b"%d.0%s" % (tag, entry(1))
        assert promoted(broker) == 1
    assert headers(broker) == [(3, 0)]


def test_promote_brings_back_what_is_due_and_says_when_the_next_is(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 2)
    assert broker.tends.promote("q") == (0, None)
    broker.takes.retry("q", "c", [(1, 60_000), (2, 1)], link)
    assert promoted(broker) == 1
    moved, seconds = broker.tends.promote("q")
    assert moved == 0
    assert seconds is not None
    assert 0 < seconds <= 60
    assert waiting(broker) == [2]
    assert length(broker, KEY.bell) >= 1


def test_promote_moves_a_batch_at_a_time(broker: Broker) -> None:
    put(broker, 1, 2, 3, delay=1)
    due = members(broker)[-1][1]
    until(lambda: now_ms(broker) >= due, "all are due")
    assert broker.tends.promote("q", most=2)[0] == 2
    assert broker.tends.promote("q", most=2) == (1, None)
    assert waiting(broker) == [1, 2, 3]


def test_a_retry_of_what_is_not_ours_is_stale(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    assert broker.takes.retry("q", "other", [(1, 5000)], link) == 1
    assert members(broker) == []
    assert set(owned(broker, "q", "c", link)) == {1}
    assert (counter(broker, "stale"), counter(broker, "retried")) == (1, 0)


def test_retrying_what_is_no_job_keeps_its_bytes(broker: Broker, link: Link) -> None:
    odd = [GARBAGE, b"{\x00}", b"1.{x", b"7"]
    broker.puts.put("q", odd)
    take(broker, link, 4)
    broker.takes.retry("q", "c", [(tag, 1) for tag in (1, 2, 3, 4)], link)
    kept = [raw for raw, _ in members(broker)]
    assert sorted(kept) == sorted([GARBAGE, b"1.0{\x00}", b"1.{x", b"7"])


# -- park


def test_a_parked_job_is_uncharged_and_noted(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    before = now_ms(broker)
    assert broker.takes.park("q", "c", [(1, "mod:missing")], link) == 0
    ((raw, due),) = members(broker)
    assert raw == entry(1)
    assert due >= before + broker.settings.park * 1000
    assert (counter(broker, "parked"), counter(broker, "inflight")) == (1, 0)
    note = broker.read(("HGET", KEY.meta, "unknown:mod:missing"))[0].split()
    assert before <= int(note[0]) <= now_ms(broker)
    assert note[1] == b"c"


def test_a_parked_job_that_is_promoted_is_parked_no_more(server: Server, broker: Broker, link: Link) -> None:
    brief = with_settings(server, broker, park=0.001)
    put(broker, 1)
    take(broker, link, 1)
    brief.takes.park("q", "c", [(1, "t")], link)
    assert promoted(broker) == 1
    assert counter(broker, "parked") == 0
    assert headers(broker) == [(0, 0)]


def test_notes_of_unknown_tasks_have_a_cap(broker: Broker, link: Link) -> None:
    put(broker, *range(200))
    take(broker, link, 200)
    broker.takes.park("q", "c", [(tag, f"task{tag}") for tag in range(1, 201)], link)
    fields = broker.read(("HKEYS", KEY.meta))[0]
    notes = [field for field in fields if field.startswith(b"unknown:")]
    assert 0 < len(notes) < 64
    assert counter(broker, "parked") == 200


def test_a_note_of_an_endless_name_is_cut(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    broker.takes.park("q", "c", [(1, "x" * 5000)], link)
    assert max(map(len, broker.read(("HKEYS", KEY.meta))[0])) == len("unknown:") + 200


def test_parking_what_is_not_ours_is_stale(broker: Broker, link: Link) -> None:
    assert broker.takes.park("q", "c", [(1, "t")], link) == 1
    assert (counter(broker, "stale"), counter(broker, "parked")) == (1, 0)
    assert broker.read(("HEXISTS", KEY.meta, "unknown:t"))[0] == 0


# -- give back


def test_what_is_given_back_is_at_the_head_in_its_order_and_uncharged(broker: Broker, link: Link) -> None:
    put(broker, *range(12))
    take(broker, link, 11)
    assert broker.takes.give_back("q", "c", [11, 2, 9, 10]) == 0  # tags; the order in which they are named is no matter
    assert waiting(broker) == [1, 8, 9, 10, 11]
    assert headers(broker) == [(0, 0)] * 5
    assert counter(broker, "inflight") == 7
    assert counter(broker, "bytes") == 5 * len(entry(0))
    assert length(broker, KEY.bell) >= 4


def test_giving_back_twice_is_stale(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    broker.takes.give_back("q", "c", [1])
    assert broker.takes.give_back("q", "c", [1], link=link) == 1
    assert waiting(broker) == [1]
    assert (counter(broker, "inflight"), counter(broker, "stale")) == (0, 1)


def test_what_is_given_back_goes_beyond_the_bound(broker: Broker, link: Link) -> None:
    operate.configure(broker, "q", maxsize=2)
    put(broker, 1, 2)
    take(broker, link, 2)
    put(broker, 3, 4)
    broker.takes.give_back("q", "c", [1, 2])
    assert waiting(broker) == [1, 2, 3, 4]


# -- crashed: the death of a job's own process


def test_a_job_whose_process_died_is_charged_a_crash_and_next_again(broker: Broker, link: Link) -> None:
    put(broker, *range(12))
    take(broker, link, 11)
    deaths = [(tag, "how", "where", 3) for tag in (11, 2, 9)]  # in whatever order they are named
    assert broker.takes.crashed("q", "c", deaths, link) == 0
    assert waiting(broker) == [1, 8, 10, 11]
    assert headers(broker) == [(0, 1)] * 3 + [(0, 0)]
    assert (counter(broker, "crashed"), counter(broker, "inflight"), counter(broker, "reclaimed")) == (3, 8, 0)
    assert counter(broker, "bytes") == sum(map(len, broker.read(("LRANGE", KEY.pending, 0, -1))[0]))
    assert length(broker, KEY.bell) >= 3
    assert set(owned(broker, "q", "c", link)) == {1, 3, 4, 5, 6, 7, 8, 10}


def test_the_deaths_of_processes_and_consumers_count_together(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    broker.takes.crashed("q", "c", [(1, "was killed by signal 11", "", 3)], link)
    assert took(broker, link, 1) == [1]
    broker.tends.reclaim("q", "c", certain=True, death=Death("d"))
    broker.takes.register("q", "c", link=link)
    assert (waiting(broker), suspects(broker)) == ([], [(1, (0, 2))])
    _, tag, _ = broker.takes.isolate("q", "c", link)
    assert broker.takes.crashed("q", "c", [(tag, "ended with exit code 3", "in f", 3)], link) == 0
    assert broker.tends.unfinished("q")[0] == 0
    assert (counter(broker, "failed"), counter(broker, "inflight"), counter(broker, "suspects")) == (1, 0, 0)
    assert length(broker, KEY.drained) == 1
    (raw,) = broker.read(("HVALS", KEY.dead))[0]
    report = json.loads(raw.partition(b"\n")[0])
    assert raw.endswith(b"\n0.3" + entry(1))
    assert {name: report[name] for name in ("id", "task", "attempts", "crashes", "consumer", "traceback")} == {
        "id": "00000001", "task": "t", "attempts": 3, "crashes": 3, "consumer": "c", "traceback": "in f",
    }  # fmt: skip
    assert report["error"] == "poison: 3 processes died while it ran; the last: ended with exit code 3"


def test_a_crash_that_is_told_again_after_a_lost_answer_is_charged_once(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 1)
    assert broker.takes.crashed("q", "c", [(1, "how", "", 3)], link) == 0
    before = {name: value for name, value in everything(broker).items() if name != KEY.meta.encode()}
    assert broker.takes.crashed("q", "c", [(1, "how", "", 3)], link) == 1
    assert {name: value for name, value in everything(broker).items() if name != KEY.meta.encode()} == before
    assert (counter(broker, "crashed"), counter(broker, "stale")) == (1, 1)


def test_a_crash_that_is_told_after_its_consumer_was_reclaimed_changes_nothing(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    broker.tends.reclaim("q", "c", certain=True, death=Death("d", "none"))
    assert broker.takes.crashed("q", "c", [(1, "how", "", 3)], link) == 1
    assert headers(broker) == [(0, 0)]


def test_a_crash_keeps_the_marks_of_its_job(broker: Broker, link: Link) -> None:
    broker.puts.put("q", [b"0.0@-1.5#00000001" + entry(1)])
    take(broker, link, 1)
    broker.takes.crashed("q", "c", [(1, "how", "", 3)], link)
    assert broker.read(("LRANGE", KEY.pending, 0, -1))[0] == [b"0.1@-1.5#00000001" + entry(1)]


# -- reclaim


def test_a_living_consumer_is_not_reclaimed(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    before = everything(broker)
    assert broker.tends.reclaim("q", "c", certain=False) is None
    assert everything(broker) == before


def test_the_jobs_of_the_dead_return_to_the_head_charged(broker: Broker, link: Link) -> None:
    put(broker, *range(12))
    take(broker, link, 11)
    assert reclaim(broker, certain=True) == (11, 0)
    assert waiting(broker) == list(range(12))
    assert headers(broker) == [(0, 1)] * 11 + [(0, 0)]  # a crash is no attempt of theirs
    assert (counter(broker, "reclaimed"), counter(broker, "inflight")) == (11, 0)
    assert counter(broker, "bytes") == sum(map(len, broker.read(("LRANGE", KEY.pending, 0, -1))[0]))
    assert broker.tends.consumers("q") == {}


def test_a_lease_that_ended_is_enough(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    broker.read(("ZADD", KEY.consumers, now_ms(broker) - 1, "c"))
    assert reclaim(broker, certain=False) == (1, 0)
    assert waiting(broker) == [1]


def test_every_crash_is_counted_apart_from_the_attempts(broker: Broker, link: Link) -> None:
    put(broker, 1)
    taken = take(broker, link, 1)
    broker.takes.retry("q", "c", [(taken.tag + 1, 1)], link)
    promoted(broker)
    take(broker, link, 1)
    broker.tends.reclaim("q", "c", certain=True)
    assert headers(broker) == [(1, 1)]


def test_many_jobs_are_reclaimed_in_batches_and_none_is_left_unwatched(broker: Broker, link: Link) -> None:
    put(broker, *range(1000))
    take(broker, link, 1000)
    moved = cursor = 0
    steps: list[Reclaimed] = []
    while not steps or steps[-1].left:
        assert "c" in broker.tends.consumers("q")  # whoever goes on finds it
        step = broker.tends.reclaim("q", "c", certain=True, most=64, cursor=cursor)
        assert step is not None
        steps.append(step)
        moved, cursor = moved + step.moved, step.cursor
        assert moved + step.left == 1000
    assert len(steps) > 5
    assert max(step.moved for step in steps) < 200
    assert broker.tends.consumers("q") == {}
    assert sorted(waiting(broker)) == list(range(1000))
    assert counter(broker, "inflight") == 0


def test_a_consumer_reclaimed_in_part_takes_nothing_more(broker: Broker, link: Link) -> None:
    put(broker, *range(1000))
    take(broker, link, 900)
    assert reclaim(broker, certain=True, most=64)[1] > 0
    assert take(broker, link, 1).code is Code.NOLEASE
    until(lambda: reclaim(broker, certain=True)[1] == 0, "everything is reclaimed")
    assert sorted(waiting(broker)) == list(range(1000))


def test_two_who_reclaim_at_once_move_each_job_once(broker: Broker, link: Link, pool: ThreadPoolExecutor) -> None:
    put(broker, *range(1000))
    take(broker, link, 1000)

    def reclaim_all(_: int) -> int:
        moved = cursor = 0
        while step := broker.tends.reclaim("q", "c", certain=True, most=50, cursor=cursor):
            moved, cursor = moved + step.moved, step.cursor
            if not step.left:
                break
        return moved

    assert sum(pool.map(reclaim_all, range(4))) == 1000
    assert sorted(waiting(broker)) == list(range(1000))
    assert (counter(broker, "reclaimed"), counter(broker, "inflight")) == (1000, 0)


def crashed(broker: Broker, link: Link, times: int) -> None:
    """Job 1 is taken, and its consumer dies, so many times; from the second on it runs alone."""
    for number in range(times):
        if number < 2:
            assert took(broker, link, 1) == [1]
        else:
            assert broker.takes.isolate("q", "c", link)[2]
        broker.tends.reclaim("q", "c", certain=True, death=Death("killed by signal 9"))
        broker.takes.register("q", "c", link=link)


def test_after_the_second_crash_a_job_waits_to_run_alone(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    crashed(broker, link, 2)
    assert waiting(broker) == [2]
    assert suspects(broker) == [(1, (0, 2))]
    assert (counter(broker, "suspects"), counter(broker, "bytes")) == (1, len(entry(2)))
    assert broker.tends.unfinished("q")[0] == 2
    code, tag, job = broker.takes.isolate("q", "c", link)
    assert (code, number_of(job)) == (Code.OK, 1)
    assert owned(broker, "q", "c", link) == {tag: job}
    assert (counter(broker, "suspects"), counter(broker, "inflight")) == (0, 1)
    assert take(broker, link, 0, acks=[tag]).stale == 0
    assert broker.tends.unfinished("q")[0] == 1


def test_after_the_third_crash_a_job_is_buried_as_poison(broker: Broker, link: Link) -> None:
    put(broker, 1)
    crashed(broker, link, 3)
    assert broker.tends.unfinished("q")[0] == 0
    assert (counter(broker, "failed"), counter(broker, "inflight"), counter(broker, "suspects")) == (1, 0, 0)
    (raw,) = broker.read(("HVALS", KEY.dead))[0]
    report = json.loads(raw.partition(b"\n")[0])
    assert raw.endswith(b"\n0.3" + entry(1))
    assert {name: report[name] for name in ("id", "task", "attempts", "crashes", "consumer")} == {
        "id": "00000001", "task": "t", "attempts": 3, "crashes": 3, "consumer": "c",
    }  # fmt: skip
    assert report["error"] == "poison: 3 consumers died while it ran; the last: killed by signal 9"


def workers_die(broker: Broker, link: Link, times: int) -> list[Reclaimed]:
    """Job 1 is taken, and its whole worker dies, so many times."""
    steps = []
    for _ in range(times):
        assert broker.takes.isolate("q", "c", link)[2] or took(broker, link, 1) == [1]
        step = broker.tends.reclaim("q", "c", certain=True, death=Death("it is gone", worker=True))
        assert step is not None
        steps.append(step)
        broker.takes.register("q", "c", link=link)
    return steps


def test_the_death_of_a_whole_worker_is_no_crash_and_isolates_late_and_buries_only_after_many(
    broker: Broker, link: Link
) -> None:
    put(broker, 1)
    workers_die(broker, link, 4)
    assert broker.read(("LRANGE", KEY.pending, 0, -1))[0] == [b"0.0*4" + entry(1)]
    workers_die(broker, link, 5)
    assert broker.read(("LRANGE", KEY.suspects, 0, -1))[0] == [b"0.0*9" + entry(1)]
    (step,) = workers_die(broker, link, 1)
    assert step == (1, 0, 0, 0, 1, [("00000001", "t", 0, 10, True)])
    (raw,) = broker.read(("HVALS", KEY.dead))[0]
    report = json.loads(raw.partition(b"\n")[0])
    assert (report["attempts"], report["crashes"]) == (10, 0)
    assert report["error"] == "poison: 10 workers died while it ran; the last: it is gone"
    (tag,) = broker.read(("HKEYS", KEY.dead))[0]
    assert operate.requeue(broker, "q", [int(tag)]).moved == 1
    assert broker.read(("LRANGE", KEY.pending, 0, -1))[0] == [entry(1)], "its next life has no past"


def test_crashes_and_deaths_of_workers_are_counted_apart(broker: Broker, link: Link) -> None:
    broker.puts.put("q", [b"0.0@-1.5#00000001" + entry(1)])
    workers_die(broker, link, 3)
    crashed(broker, link, 1)
    assert broker.read(("LRANGE", KEY.pending, 0, -1))[0] == [b"0.1@-1.5#00000001*3" + entry(1)]


def test_without_a_limit_no_number_of_dead_workers_buries_a_job(broker: Broker, link: Link) -> None:
    patient = Broker(broker.url, settings=msgspec.structs.replace(broker.settings, max_worker_deaths=0))
    broker.puts.put("q", [b"0.0*9999" + entry(1)])
    workers_die(patient, link, 2)
    assert broker.read(("LRANGE", KEY.suspects, 0, -1))[0] == [b"0.0*10001" + entry(1)]
    patient.close()


def test_the_setting_says_with_which_crash_a_job_is_buried_unless_its_task_does(broker: Broker, link: Link) -> None:
    strict = Broker(broker.url, settings=msgspec.structs.replace(broker.settings, max_crashes=1))
    for limits, buried in (({"t": 2}, 0), ({"other": 9}, 1)):
        put(broker, 1)
        assert took(broker, link, 1) == [1]
        step = strict.tends.reclaim("q", "c", certain=True, death=Death("d"), limits=limits)
        assert step is not None
        assert step.buried == buried
        if buried:
            (raw,) = broker.read(("HVALS", KEY.dead))[0]
            assert "poison: 1 consumer died while it ran; the last: d" in raw.decode()
        broker.takes.register("q", "c", link=link)
        broker.read(("DEL", KEY.pending))
    strict.close()


@pytest.mark.parametrize(
    "raw", [b"no job", b"0.2{", b'0.2{"id":7,"task":[]}', b'0.2{"id":"\xff"}', b"0.2" + b"[" * 5000]
)
def test_poison_that_is_no_job_is_reclaimed_all_the_same(broker: Broker, link: Link, raw: bytes) -> None:
    broker.puts.put("q", [raw])
    take(broker, link, 1)
    assert reclaim(broker, certain=True) == (1, 0)
    assert broker.tends.unfinished("q")[0] == (0 if raw.startswith(b"0.2{") else 1)


def test_only_the_one_to_blame_is_charged(broker: Broker, link: Link) -> None:
    put(broker, 1, 2, 3)
    taken = take(broker, link, 3)
    broker.tends.reclaim("q", "c", certain=True, death=Death("stuck", str(taken.tag + 2)))
    assert waiting(broker) == [1, 2, 3]
    assert headers(broker) == [(0, 0), (0, 1), (0, 0)]


def test_whoever_is_stopped_is_charged_nothing(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    broker.tends.reclaim("q", "c", certain=True, death=Death("stopped", "none"))
    assert headers(broker) == [(0, 0)]


def test_a_suspect_stays_one_on_every_way_back(broker: Broker, link: Link) -> None:
    put(broker, 1)
    crashed(broker, link, 2)
    _, tag, _ = broker.takes.isolate("q", "c", link)
    assert broker.takes.give_back("q", "c", [tag]) == 0
    assert suspects(broker) == [(1, (0, 2))]
    _, tag, _ = broker.takes.isolate("q", "c", link)
    assert broker.takes.retry("q", "c", [(tag, 1)], link) == 0
    promoted(broker)
    assert suspects(broker) == [(1, (1, 2))]
    assert (waiting(broker), counter(broker, "bytes")) == ([], 0)
    assert broker.tends.unfinished("q")[0] == 1


def test_no_suspect_without_a_lease_or_from_a_paused_queue(broker: Broker, link: Link) -> None:
    put(broker, 1)
    crashed(broker, link, 2)
    assert broker.takes.isolate("q", "stranger", link)[:2] == (Code.NOLEASE, 0)
    operate.pause(broker, "q")
    assert broker.takes.isolate("q", "c", link)[:2] == (Code.OK, 0)
    assert suspects(broker) == [(1, (0, 2))]
    assert operate.purge(broker, "q") == 1
    assert broker.tends.unfinished("q")[0] == 0


def test_who_was_reclaimed_is_fenced_off(broker: Broker, link: Link) -> None:
    put(broker, 1, 2)
    take(broker, link, 1)
    broker.tends.reclaim("q", "c", certain=True)
    broker.takes.register("q", "d", link=link)
    assert took(broker, link, 1, consumer="d") == [1]
    reply = take(broker, link, 1, acks=[1])
    assert (reply.code, reply.stale, reply.jobs) == (Code.NOLEASE, 1, [])
    assert bury(broker, "q", "c", [(1, b"{}")], link) == 1
    assert broker.takes.retry("q", "c", [(1, 1)], link) == 1
    assert broker.takes.give_back("q", "c", [1]) == 1
    assert set(owned(broker, "q", "d", link)) == {2}
    assert counter(broker, "done") == 0


def test_reclaiming_nobody_does_nothing(broker: Broker) -> None:
    before = everything(broker)
    assert reclaim(broker, consumer="stranger", certain=True) == (0, 0)
    assert everything(broker) == before


# -- purge, configure, pause


def test_purge_drops_what_waits_and_leaves_what_runs(broker: Broker, link: Link) -> None:
    put(broker, *range(10))
    take(broker, link, 3)
    put(broker, 20, 21, delay=60_000)
    broker.takes.park("q", "c", [(1, "t")], link)
    assert operate.purge(broker, "q") == 10
    assert waiting(broker) == []
    assert members(broker) == []
    assert counter(broker, "purged") == 10
    assert counter(broker, "bytes") == counter(broker, "parked") == 0
    assert set(owned(broker, "q", "c", link)) == {2, 3}
    assert length(broker, KEY.bell) == 0
    assert broker.tends.unfinished("q") == (2, 0)


@pytest.mark.parametrize("tracked", [False, True])
def test_there_may_be_nothing_to_purge(broker: Broker, link: Link, tracked: bool) -> None:
    if tracked:
        broker.puts.expect_tracked("q")
    put(broker, 1)
    take(broker, link, 1)
    assert operate.purge(broker, "q") == 0
    assert operate.shutdown(broker, "q", immediate=True) == 0
    assert set(owned(broker, "q", "c", link)) == {1}


def test_purge_makes_room_for_who_waits(broker: Broker, pool: ThreadPoolExecutor) -> None:
    operate.configure(broker, "q", maxsize=2)
    broker.read(("DEL", KEY.room))
    put(broker, 1, 2)
    put(broker, 3)
    future = started_waiting(broker, pool, broker.puts.wait_room, "q", 2.0)
    operate.purge(broker, "q")
    assert future.result() is True


def test_a_new_bound_wakes_a_producer_that_waits(broker: Broker, pool: ThreadPoolExecutor) -> None:
    future = started_waiting(broker, pool, broker.puts.wait_room, "q", 2.0)
    operate.configure(broker, "q", maxsize=2000)
    assert future.result() is True
    assert broker.puts.declare("q") == (2000, 0)


def test_configure_changes_only_what_it_names(broker: Broker) -> None:
    operate.configure(broker, "q", maxsize=7)
    operate.configure(broker, "q", maxbytes=5000)
    assert broker.puts.declare("q") == (7, 5000)


def test_resume_wakes_consumers(broker: Broker, link: Link, pool: ThreadPoolExecutor) -> None:
    operate.pause(broker, "q")
    put(broker, 1)
    broker.read(("DEL", KEY.bell))
    other = broker.link()
    future = started_waiting(broker, pool, broker.takes.wait_bell, ["q"], 2.0, other)
    operate.resume(broker, "q")
    assert future.result() == "q"
    other.close()
    assert took(broker, link, 1) == [1]


def test_waiting_for_room_ends_by_itself(broker: Broker) -> None:
    assert broker.puts.wait_room("q", 0.01) is False
    assert blocked(broker) == 0


# -- unfinished


def test_unfinished_counts_what_waits_is_scheduled_or_runs(broker: Broker, link: Link) -> None:
    assert broker.tends.unfinished("q") == (0, 0)
    put(broker, 1, 2, 3)
    put(broker, 4, delay=60_000)
    taken = take(broker, link, 2)
    broker.takes.park("q", "c", [(taken.tag + 1, "t")], link)
    assert broker.tends.unfinished("q") == (4, 1)


def test_a_token_of_an_earlier_time_does_not_end_a_join(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    take(broker, link, 0, acks=[1])
    assert length(broker, KEY.drained) == 1
    put(broker, 2)
    assert broker.tends.unfinished("q") == (1, 0)
    assert length(broker, KEY.drained) == 0


def test_who_finds_the_queue_drained_tells_the_next(broker: Broker) -> None:
    assert broker.tends.unfinished("q") == (0, 0)
    assert broker.tends.wait_drained("q", 2.0) is True


def test_parked_jobs_leave_no_token_that_a_join_would_chase(broker: Broker, link: Link) -> None:
    put(broker, 1)
    take(broker, link, 1)
    broker.takes.park("q", "c", [(1, "t")], link)
    broker.tends.unfinished("q")
    assert broker.tends.wait_drained("q", 0.01) is False


def test_everybody_who_waits_for_the_end_hears_of_it(broker: Broker, link: Link, pool: ThreadPoolExecutor) -> None:
    put(broker, 1)
    take(broker, link, 1)

    def wait() -> bool:
        heard = broker.tends.wait_drained("q", 2.0)
        return heard and broker.tends.unfinished("q")[0] == 0

    futures = [started_waiting(broker, pool, wait) for _ in range(3)]
    take(broker, link, 0, acks=[1])
    assert [future.result() for future in futures] == [True] * 3


def test_numbers_survive_a_job_that_nobody_put_through_the_script(broker: Broker, link: Link) -> None:
    """Another program may push by itself; it only spoils the count of bytes, and an empty queue starts anew."""
    broker.read(("LPUSH", KEY.pending, entry(1)))
    assert [number_of(raw) for raw in take(broker, link, 1).jobs] == [1]
    put(broker, 2)
    assert counter(broker, "bytes") == len(entry(2))

"""What is leased by a process whose threads, forks and Redis come in between."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from rq_lite import Queue, leasing
from rq_lite.broker import Broker
from rq_lite.lane import Held
from rq_lite.settings import Settings
from tests.conftest import SERVERS, Server
from tests.redis.steps import counter, threads


def test_an_item_is_chosen_and_settled_in_one_step(
    queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two threads that have got nothing themselves could choose the same one of the process."""
    queue.put("a")
    queue.get()
    lane = queue._lane
    done = lane._done

    def settle(held: Held) -> None:
        assert lane._guard.locked()
        done(held)

    monkeypatch.setattr(lane, "_done", settle)
    with threads() as pool:
        pool.submit(queue.task_done).result(30)
    assert counter(broker, "done") == 1


@pytest.mark.parametrize("how", ["give back", "bury"])
def test_what_goes_back_is_not_found_again_by_a_look_at_what_is_owned(queue: Queue, broker: Broker, how: str) -> None:
    queue.put("a")
    held = queue._take(None)
    lane = held.lane
    with threads() as pool:
        with lane._talk:  # an exchange of another thread is under way
            back = lane.give_back if how == "give back" else partial(lane.bury, error=OSError())
            future = pool.submit(back, held)
            lane._audit_at = 0.0
            lane._exchange(0)
            assert lane.ready == 0
        future.result(30)
    assert lane.ready == 0
    assert broker.size("q")[0] == (how == "give back")
    assert broker.inflight("q", lane._consumer) == set()


def test_a_fork_has_nothing_of_what_its_parent_has_got(queue: Queue, broker: Broker) -> None:
    queue.put("a")
    with queue.lease() as item:
        (held,) = next(iter(queue._lane._held.values()))
        child = os.fork()
        if not child:
            try:
                held.lane.give_back(held)
                held.lane.settle(held)
                with pytest.raises(ValueError, match="too many times"):
                    queue.task_done()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert (item, broker.size("q")[0]) == ("a", 0)
    assert (counter(broker, "done"), counter(broker, "stale")) == (1, 0)


def test_the_end_does_not_wait_for_a_redis_that_is_gone(tmp_path: Path) -> None:
    server = Server(SERVERS.get("wheel") or SERVERS["path"], tmp_path).start()
    ever = Broker(server.url, settings=Settings(url=server.url, patience=10_000.0))
    for name in ("q", "r"):
        queue = Queue(name, broker=ever)
        queue.put(1)
        queue.get()
        queue.task_done()
    server.kill()
    leasing.leave()
    ever.close()

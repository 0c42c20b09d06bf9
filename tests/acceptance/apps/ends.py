"""Tasks whose jobs are tracked."""

from __future__ import annotations

import math
import os
import signal
import time

from rq_lite import Ended, Queue, current_job, events, gather
from tests.acceptance.apps.evidence import note, wait_for_gate

work = Queue("work")
news = Queue("news", maxsize=3)

work.task(result_ttl=60)(math.factorial)


@news.task
def got(result: object) -> None:
    note("got", result)


@news.task(result_ttl=60)
def told(ended: Ended) -> None:
    note("told", f"{ended.state} {ended.args} {ended.result} {ended.attempts} {ended.error}")


@news.task
def told_plainly(ended: dict[str, object]) -> None:
    note("told", ended["state"])


@work.task(result_ttl=60, on_success=got)
def square(n: int) -> int:
    return n * n


@work.task(unique="{n}")
def once(n: int) -> None:
    let_follow(f"once {n}")


@work.task(unique="{n}", until="start")
def once_waiting(n: int) -> None:
    let_follow(f"waiting {n}")


def let_follow(what: str) -> None:
    job = current_job()
    assert job is not None
    following = job.then(got.s(what))
    events.emit("then", None, queue=job.queue, job=job.id, attempt=job.attempt, following=following.id)


@work.task(result_ttl=60, on_done=told)
def hold(n: int) -> int:
    note("begun", n)
    wait_for_gate()
    return n


@work.task(result_ttl=60, on_success=got, on_failure=told, retries=1, backoff=0.01)
def fail(n: int) -> None:
    raise ValueError(f"no {n}")


@work.task(result_ttl=60)
def complain(words: str) -> None:
    raise ValueError(words)


@work.task(result_ttl=60, run_in="process")
def complain_elsewhere(words: str) -> None:
    raise ValueError(words)


@work.task(on_done=told_plainly)
def quiet() -> None: ...


@work.task(result_ttl=60, on_failure=told)
def unfit(what: str) -> object:
    if what == "set":
        return {1}
    if what == "surrogate":
        return "\ud800"
    if what == "deep":
        found: list[object] = []
        found.append(found)
        return found
    return "x" * 2_000_000


@work.task(result_ttl=60, on_failure=told)
def poison(_what: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@work.task(result_ttl=60, on_failure=told, timeout=0.2)
def swallow(_what: object) -> None:
    while True:
        try:
            time.sleep(600)
        except BaseException:
            note("swallowed", 1)


@work.task(result_ttl=60)
def sum_of_squares(n: int) -> int:
    """A job that waits for other jobs."""
    return sum(gather(*[square.put(i) for i in range(n)]))


@work.task(result_ttl=60)
def nothing(n: int) -> int:
    return n


@work.task(result_ttl=60, run_in="thread")
def in_thread(n: int) -> tuple[int, bytes]:
    return n, b"thread"


@work.task(result_ttl=60, run_in="process")
def in_process(n: int) -> tuple[int, bytes]:
    return n, b"process"

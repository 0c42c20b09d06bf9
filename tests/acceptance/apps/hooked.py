"""Hooks around jobs of each kind, which note what they are called with."""

from __future__ import annotations

import ctypes
import os
import signal

import gevent

from rq_lite import Bury, JobEvent, Queue, WorkerEvent, current_job, middleware
from tests.acceptance.apps.evidence import note

work = Queue("work")


@middleware
class Told:
    def worker_start(self, worker: WorkerEvent) -> None:
        note("hooks", f"worker_start:{worker.process}:{worker.number}:{','.join(worker.queues)}")

    def worker_stop(self, worker: WorkerEvent) -> None:
        note("hooks", f"worker_stop:{worker.process}")
        raise RuntimeError("it ends all the same")

    def before_put(self, job: JobEvent) -> None:
        note("hooks", f"before_put:{job.args[0]}")

    def before_run(self, job: JobEvent) -> None:
        here = current_job()
        known = here is not None and (here.id, here.queue, here.attempt) == (job.id, job.queue, job.attempt)
        note("hooks", f"before_run:{job.args[0]}:{job.queue}:{job.attempt}:{known}")

    def after_run(self, job: JobEvent) -> None:
        note("hooks", f"after_run:{job.args[0]}:{type(job.exception).__name__}")
        raise RuntimeError("it is done all the same")

    def on_failure(self, job: JobEvent) -> None:
        note("hooks", f"on_failure:{job.args[0]}:{(job.error or '').partition(':')[0]}")

    def on_retry(self, job: JobEvent) -> None:
        note("hooks", f"on_retry:{job.args[0]}:{job.attempt}")

    def on_bury(self, job: JobEvent) -> None:
        note("hooks", f"on_bury:{job.args[0]}")
        raise gevent.Timeout(0)  # which no `except Exception` catches


@work.task(max_crashes=1)
def kill(what: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@work.task(timeout=0.2, retries=1, backoff=0)
def hang(what: str) -> None:
    job = current_job()
    assert job is not None
    while job.attempt == 1:
        pass


def do(what: str) -> None:
    if what.endswith("bad"):
        raise Bury("it is bad")
    if what.endswith("late"):
        while True:
            gevent.sleep(0.01) if what == "greenlet-late" else None
    if what.endswith("forks") and not os.fork():
        return
    if what.endswith("dies"):
        ctypes.string_at(0)
    if what.endswith("puts"):
        TASKS["greenlet"].put("child")


TASKS = {
    kind: work.task(name=f"{__name__}:{kind}", run_in=kind, timeout=0.5 if kind != "thread" else 5)(do)
    for kind in ("greenlet", "thread", "process")
}

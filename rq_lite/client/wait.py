"""Waiting for several jobs at once."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED
from typing import Any, NamedTuple

from rq_lite.broker import Broker
from rq_lite.client import results
from rq_lite.client.job import Job
from rq_lite.errors import UsageError


class Waited(NamedTuple):
    """As concurrent.futures.wait returns it."""

    done: set[Job]
    not_done: set[Job]


def watch(jobs: Sequence[Job]) -> None:
    """Watch all of them, hundreds with one request to Redis. Raises UsageError for a job that keeps no result."""
    fresh: dict[Broker, list[Job]] = {}
    for job in jobs:
        if not isinstance(job, Job):
            raise UsageError(f"jobs to wait for are what Task.put and Executor.submit return, not {job!r}")
        if job.result_ttl is None:
            job.expect()
        if job.prepare() or not concurrent.futures.Future.done(job):
            fresh.setdefault(job.broker, []).append(job)
    for broker, some in fresh.items():
        results.watch(broker, some)


def wait(jobs: Iterable[Job], timeout: float | None = None, return_when: str = ALL_COMPLETED) -> Waited:
    """`concurrent.futures.wait` for jobs: those that have ended, and the others."""
    listed = list(jobs)
    watch(listed)
    done, rest = concurrent.futures.wait(listed, timeout, return_when)
    return Waited(done, rest)  # type: ignore[arg-type]


def as_completed(jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Job]:
    """`concurrent.futures.as_completed` for jobs: each as it ends; TimeoutError after `timeout` s."""
    listed = list(jobs)
    watch(listed)
    return concurrent.futures.as_completed(listed, timeout)  # type: ignore[return-value]


def gather(*jobs: Job, return_exceptions: bool = False, timeout: float | None = None) -> list[Any]:
    """The results in the order of the jobs. The first error is raised, or with `return_exceptions` each returned."""
    done, rest = wait(jobs, timeout, ALL_COMPLETED if return_exceptions else concurrent.futures.FIRST_EXCEPTION)
    failed = next((job for job in jobs if job in done and error_of(job)), None)
    if failed is not None and not return_exceptions:
        failed.result()
    if rest:
        raise TimeoutError(f"{len(rest)} of {len(jobs)} jobs have not ended")
    return [error_of(job) or job.result() for job in jobs]


def error_of(job: Job) -> BaseException | None:
    """The error of a job that has ended, if any."""
    return concurrent.futures.CancelledError() if job.cancelled() else job.exception()

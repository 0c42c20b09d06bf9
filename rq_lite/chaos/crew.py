"""The processes of a run under faults: producers, and workers, some of which are killed.

Only processes of the run are ever killed: the workers are this process's children, the consumers the workers'.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rq_lite.chaos.schedule import Choices, Step
from rq_lite.errors import BrokerError
from rq_lite.process.background import ENDING, BackgroundProcess
from rq_lite.process.identity import PROC, start_of

CONSUMER = "rq_lite.consumer.boot"  # in its command line
PRODUCERS = 2
WORKERS = 2  # so that one can reclaim from the other; only one if there is only one consumer
# A consumer holds a job per slot, and as many whose results are on their way to Redis in an exchange.
HELD_PER_SLOT = 2
GRACE = 5.0  # seconds for running jobs at the end: less than a process has to end


class Process(NamedTuple):
    pid: int
    parent: int
    command: str


class Victim(NamedTuple):
    worker: BackgroundProcess
    consumer: Process | None  # None: the worker itself
    inflight: int  # jobs that it can have in flight, at most


class Crew:
    """Starts, kills and ends the processes. `folder` is for their logs, `history` for the events that they write."""

    def __init__(self, choices: Choices, url: str, folder: Path, history: Path) -> None:
        self._choices = choices
        self._folder = folder
        # The URL may hold a password, so it is not an option. Redis may be away for a while.
        self._environ = {
            "RQ_LITE_URL": url,
            "RQ_LITE_HISTORY": str(history),
            "RQ_LITE_FAILPOINT": "",
            "RQ_LITE_PATIENCE": "60",
        }
        self._begun = 0
        self._seen: dict[int, str | None] = {}  # every process of the run: pid → when it began
        self.producers: list[BackgroundProcess] = []
        self.workers: list[BackgroundProcess] = []
        self._procs = shares(choices.procs, min(WORKERS, choices.procs))

    def start(self) -> None:
        first = 0
        for jobs in shares(self._choices.jobs, PRODUCERS):
            # Far apart: jobs that replace those that were not put have numbers of their own, too.
            words = [
                "rq_lite.chaos.producer",
                str(first),
                str(jobs),
                str(self._choices.nap),
                str(int(self._choices.mixed)),
            ]
            self.producers.append(self._part("producer", words))
            first += 10**12
        for procs in self._procs:
            self.workers.append(self._worker(procs))

    def _worker(self, procs: int) -> BackgroundProcess:
        words = ["rq_lite.testing.work", "rq_lite.chaos.app", "--procs", str(procs)]
        words += ["--greenlets", str(self._choices.greenlets), "--grace", str(GRACE)]
        return self._part("worker", words)

    def _part(self, name: str, words: list[str]) -> BackgroundProcess:
        self._begun += 1
        return BackgroundProcess(f"{name}-{self._begun}", words, self._folder, environ=self._environ)

    @property
    def put(self) -> bool:
        """Whether the producers have put everything."""
        return all(producer.exit_code == 0 for producer in self.producers)

    def tend(self) -> None:
        """Restart workers that found no Redis at their start, as a service manager would."""
        for number, worker in enumerate(self.workers):
            if worker.exit_code == BrokerError.exit_code:
                worker.stop()
                self.workers[number] = self._worker(self._procs[number])

    def trouble(self) -> str | None:
        """The error of a process that has ended although the run did not kill it; None without one."""
        # Exit codes are read once: a producer that is done in between is no trouble.
        producers = [producer for producer in self.producers if producer.exit_code not in (None, 0)]
        return next(filter(None, (part.trouble() for part in (*self.workers, *producers))), None)

    # -- kills

    def victim(self, step: Step) -> Victim:
        """The process that this step kills, picked by age; a worker while no consumer lives."""
        consumers = self._children(CONSUMER)
        worker = self.workers[int(step.pick * len(self.workers))]
        if not step.supervisor and consumers:
            return Victim(worker, consumers[int(step.pick * len(consumers))], self._held(1))
        return Victim(worker, None, self._held(sum(one.parent == worker.pid for one in consumers)))

    def kill(self, victim: Victim) -> None:
        """Send SIGKILL. A worker's consumers end with it, and a new worker is started at once."""
        if victim.consumer is not None:
            # It may just have ended by itself; its supervisor replaces it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.consumer.pid, signal.SIGKILL)
            return
        number = self.workers.index(victim.worker)
        victim.worker.kill()
        self.workers[number] = self._worker(self._procs[number])

    def held(self) -> int:
        """How many jobs can be in flight, at most."""
        return self._held(len(self._children(CONSUMER)))

    def _held(self, consumers: int) -> int:
        return consumers * HELD_PER_SLOT * self._choices.greenlets

    def _children(self, command: str = "") -> list[Process]:
        """The workers' children with this in their command lines, by age, including those that are still starting."""
        workers = {worker.pid for worker in self.workers}
        found = [one for one in processes() if one.parent in workers]
        for one in found:
            self._seen.setdefault(one.pid, start_of(one.pid))
        return [one for one in found if command in one.command]

    # -- the end

    def stop(self) -> None:
        """Stop all processes."""
        self._children()
        for part in (*self.producers, *self.workers):
            part.stop()

    def survivors(self) -> list[int]:
        """Processes of the run that still live, after ENDING seconds at most in which they may end."""
        until = time.monotonic() + ENDING
        while left := [pid for pid, began in self._seen.items() if began is not None and start_of(pid) == began]:
            if time.monotonic() > until:
                break
            time.sleep(0.01)
        return left


def shares(total: int, parts: int) -> list[int]:
    """`total` in `parts` shares that are as equal as possible."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def processes() -> Iterator[Process]:
    """All processes of this machine, in the order of their pids."""
    if PROC.exists():
        for pid in sorted(int(place.name) for place in PROC.iterdir() if place.name.isdigit()):
            with contextlib.suppress(OSError):
                command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield Process(pid, parent_of(pid), command)
        return
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, check=True, errors="replace")
    for line in listed.stdout.splitlines():
        words = line.split(None, 2)
        yield Process(int(words[0]), int(words[1]), words[2])


def parent_of(pid: int) -> int:
    # The name in brackets may have any characters, so count from behind it.
    return int((PROC / str(pid) / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[1])

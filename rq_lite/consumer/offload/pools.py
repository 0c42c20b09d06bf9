"""Jobs that their slot's greenlet does not run itself: a thread, an engine (their task's `run_in`) or a batch does."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from rq_lite.client.task import Task
from rq_lite.consumer.batches import Batches
from rq_lite.consumer.offload.channel import Setup
from rq_lite.consumer.offload.held import HeldJobs
from rq_lite.consumer.offload.processes import ProcessPool
from rq_lite.consumer.offload.threads import Threads
from rq_lite.consumer.slots import Slot
from rq_lite.model.message import Message
from rq_lite.process.board import ELSEWHERE


class Pools:
    """The two pools of a consumer, each made when the first job needs it, and its batches."""

    def __init__(self, hire: Setup, held: HeldJobs) -> None:
        self._hire = hire
        self._held = held
        self._folder = Path.cwd()  # before any job can change it
        self._most = max(1, hire.settings.cpu_procs)
        self._batches = Batches(lambda: self._threads)

    @cached_property
    def _threads(self) -> Threads:
        return Threads(self._most)

    @cached_property
    def _engines(self) -> ProcessPool:
        return ProcessPool(self._hire, self._most, self._hire.settings.grace, self._folder)

    def run(self, slot: Slot[Any], task: Task[Any, Any], message: Message, entry: bytes, timeout: int) -> Any:
        """The function's result; from an engine as JSON (msgspec.Raw), `null` unless the job is tracked.

        The job waits in its slot until there is a place, or its batch is complete, and its `timeout` (ns) counts from
        then on. Raises what the
        function raises, or RemoteFailure; Died if the engine dies.
        """
        slot.deadline = slot.words[slot.due] = ELSEWHERE  # not NEVER: the job may be cancelled while it waits
        self._held.add(slot)
        if task.policy.batch is not None:
            return self._batches.run(slot, task, message, entry, timeout)
        if task.policy.run_in == "process":
            return self._engines.run(slot, entry, timeout)
        return self._threads.run(slot, task, message, timeout)

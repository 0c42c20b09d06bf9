"""Renews the leases of a worker's consumers, and tells Redis about the worker."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence, Set

from rq_lite.broker import Broker, newer_format
from rq_lite.logs import logger

log = logger("rq_lite.worker")

RENEW = 2.0  # seconds between two renewals, at most; they also measure the throughput that status shows


class Leases:
    """The leases of the consumers in `living`, on the queues of a list that its owner may extend.

    A renewal also returns for each queue whether jobs wait and how many are suspects. Other threads read this here:
    `waiting_since` (time.monotonic() since when jobs wait to be taken; None: none do, or Redis does not answer) and
    `suspects` (how many).
    """

    def __init__(
        self, broker: Broker, worker: str, facts: dict[str, str | int], queues: Sequence[str], living: Set[str]
    ) -> None:
        self._broker = broker
        self._worker = worker
        self._facts = {**facts, "host": socket.gethostname(), "pid": os.getpid()}
        self._queues = queues
        self._living = living
        self._renewed = 0.0  # when the leases were last renewed
        self._paused: set[str] = set()  # queues that the log calls paused
        self.newer: set[str] = set()  # queues that have a newer format, as the log says
        self.every = min(RENEW, broker.settings.lease / 6)
        self.waiting_since: float | None = None
        self.suspects = 0

    def renew(self) -> None:
        self._renewed = time.monotonic()
        found = [self._broker.tends.renew(name, sorted(self._living)) for name in self._queues]
        self.suspects = sum(one.suspects for one in found)
        self._tell_newer({name for name, one in zip(self._queues, found, strict=True) if one.paused == 2})
        self._tell_paused({name for name, one in zip(self._queues, found, strict=True) if one.paused == 1})
        if not any(one.waiting for one in found):
            self.waiting_since = None
        elif self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def renew_if_due(self) -> None:
        """Called between the steps of a long duty."""
        if time.monotonic() > self._renewed + self.every:
            self.renew()

    def show(self, facts: dict[str, str | int]) -> None:
        """Show facts about the worker in status, from the next `announce` on. Any thread may call it."""
        self._facts = {**self._facts, **facts}

    def announce(self) -> None:
        self._broker.tends.announce(
            self._worker, {**self._facts, "consumers": len(self._living)}, self._broker.settings.lease
        )

    def unannounce(self) -> None:
        self._broker.tends.unannounce(self._worker)

    def _tell_newer(self, newer: set[str]) -> None:
        for name in sorted(newer - self.newer):
            log.error("%s; nothing is taken from it here, other queues are served", newer_format(name))
        self.newer = newer

    def _tell_paused(self, paused: set[str]) -> None:
        """Log why a worker takes nothing, though jobs wait and slots are free."""
        for name in sorted(paused - self._paused):
            log.warning("queue %r is paused, nothing is taken from it: `rq-lite queue resume %s`", name, name)
        for name in sorted(self._paused - paused):
            log.info("queue %r is no longer paused, jobs are taken from it again", name)
        self._paused = paused

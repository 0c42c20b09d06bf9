"""What this process is: its settings and its default broker, and whether it runs jobs.

A consumer sets these before it imports the app; everywhere else they come from the environment on first use.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any, Protocol

from rq_lite.broker import Broker
from rq_lite.settings import Settings, load_settings

DEFAULT = "default"


class PutSink(Protocol):
    """Takes the place of Redis for puts and their results, in tests."""

    def __call__(self, queue: Any, entries: Any, options: Any, verdicts: Any = None) -> int:
        """Take encoded jobs; how many were put."""

    def watch(self, jobs: Any) -> None:
        """Let these jobs `hear` how they have ended."""


class Defaults:
    """One for each interpreter: `defaults`."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._brokers: dict[str, Broker] = {}  # the default one, once it is made: `setdefault` is one step
        # In a consumer and its engines: the queues that its worker serves. None: no jobs run here.
        self.serves: Collection[str] | None = None
        self.token = os.urandom(8).hex()  # names this process
        self.instead: PutSink | None = None

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            self._settings = load_settings()
        return self._settings

    @property
    def broker(self) -> Broker:
        """The default broker, made on first use."""
        return self._brokers.get(DEFAULT) or self._brokers.setdefault(DEFAULT, Broker(settings=self.settings))

    def use(self, settings: Settings | None, broker: Broker | None = None) -> tuple[Settings | None, Broker | None]:
        """Use these settings (and this broker), whatever the environment says; return the previous ones."""
        before = self._settings, self._brokers.get(DEFAULT)
        self._settings, self._brokers = settings, {} if broker is None else {DEFAULT: broker}
        return before


defaults = Defaults()


def _rename() -> None:
    """In a forked child, which needs a token of its own."""
    defaults.token = os.urandom(8).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_rename)

"""The ways a run can end. Done is the common one and costs nothing: it is None."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Bury(NamedTuple):
    """Given up; `report` is one line of JSON for the dead set."""

    report: bytes


class Retry(NamedTuple):
    """Run it again after so many milliseconds, charged an attempt."""

    delay: int


class Park(NamedTuple):
    """This worker does not know the task; another may."""

    task: str


Outcome: TypeAlias = Bury | Retry | Park | None

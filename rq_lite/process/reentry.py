"""Calls that a signal handler, a `__del__` or a weakref's callback makes in the middle of our work, in the same thread.

Puts and waits for results work there: they take no lock that the interrupted call could be holding, except RLocks whose
data is consistent at each step. Calls that use the one connection of a getter cannot work there, and raise UsageError
instead of waiting for themselves.
"""

from __future__ import annotations

import threading

from rq_lite.errors import UsageError


def interrupts(lock: threading.RLock) -> bool:
    """Whether the calling thread holds this lock already."""
    return lock._is_owned()  # type: ignore[attr-defined,no-any-return]


def alone(lock: threading.RLock) -> threading.RLock:
    """The lock, for a `with`. Raises UsageError if the calling thread holds it already."""
    if lock._is_owned():  # type: ignore[attr-defined]
        raise UsageError(
            "a get (or task_done, lease, close) interrupts another one in the same thread, as in a signal handler or "
            "__del__, and would wait for itself: set a flag there, and make the call after the handler has returned"
        )
    return lock

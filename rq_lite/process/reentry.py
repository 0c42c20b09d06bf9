"""What a signal handler, a `__del__` or a weakref's callback does in the middle of our own work, in the same thread.

Puts and waits for results go on there: on their way is no lock that the interrupted call could be holding, but where
everything is right at each step (an RLock). What uses the one connection of a lane cannot, and says so instead of
waiting for itself.
"""

from __future__ import annotations

import threading

from rq_lite.errors import UsageError


def interrupts(lock: threading.RLock) -> bool:
    """Whether the thread that asks holds this lock already."""
    return lock._is_owned()  # type: ignore[attr-defined,no-any-return]


def alone(lock: threading.RLock) -> threading.RLock:
    """The lock, for a `with`. Raises UsageError where the thread that asks holds it already."""
    if interrupts(lock):
        raise UsageError(
            "a get (or task_done, lease, close) interrupts another one in the same thread, as in a signal handler or "
            "__del__, and would wait for itself: set a flag there, and make the call after the handler has returned"
        )
    return lock

"""The errors of rq_lite; each knows the exit code that a command ends with.

RqLiteError                     1
 ├─ UsageError                  2   settings, names and numbers that cannot be right
 ├─ BrokerError                 3   something is wrong with Redis, or on the way to it
 │   ├─ BrokerUnavailable       3   not reachable, refused, or gone for longer than the caller may wait
 │   ├─ BrokerUnsuitable        3   too old, or not a Redis; or a queue with a newer format
 │   └─ BrokerOutOfMemory       3   Redis is at maxmemory: puts are refused, takes and acks go on
 ├─ QueueFull (queue.Full)      4   no room within the time the caller was ready to wait
 ├─ QueueEmpty (queue.Empty)    1   nothing to get within the time the caller was ready to wait
 ├─ ShutDown (queue.ShutDown)   1   the queue was shut down: puts are refused, or nothing is left to get
 ├─ JobFailed                   1   the job whose result was asked for was buried
 │   ├─ JobExpired              1   it was not begun in time (`using(expires=…)`)
 │   └─ JobDropped              1   its queue was full, and drops jobs then
 ├─ BatchFailed                 1   raised by the function of a batch: some of its jobs have failed
 ├─ PutRefused                  1   this job can never be put as it stands
 │   ├─ BadArgument (TypeError) 1   an argument that JSON cannot carry, or that the task does not take
 │   └─ PayloadTooLarge         1   encoded, it is larger than max_payload or the queue's maxbytes
 ├─ Duplicate                   1   a put was kept out by a job with the same key or id
 ├─ JobTimeout (TimeoutError)   1   a job that was not done within its time; for retry_on=
 ├─ SourceError                 1   a line of a source that cannot be read
 └─ FeedMoved                   1   another producer has moved the same named feed
"""

from __future__ import annotations

import operator
import queue
import sys
from collections.abc import Mapping, Sequence
from typing import Any

if sys.version_info >= (3, 13):
    from queue import ShutDown as _ShutDown
else:

    class _ShutDown(Exception):
        """The standard library has it from 3.13 on."""


__all__ = [
    "AppFailed",
    "BadArgument",
    "BatchFailed",
    "BrokerError",
    "BrokerOutOfMemory",
    "BrokerUnavailable",
    "BrokerUnsuitable",
    "Duplicate",
    "Empty",
    "FeedMoved",
    "Full",
    "JobDropped",
    "JobExpired",
    "JobFailed",
    "JobTimeout",
    "PayloadTooLarge",
    "PutRefused",
    "QueueEmpty",
    "QueueFull",
    "RqLiteError",
    "ShutDown",
    "SourceError",
    "UsageError",
]


def counted(count: int, noun: str, many: str = "") -> str:
    """How messages say a number of things: `1 job`, `2,000 jobs`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


class RqLiteError(Exception):
    """The base of all errors that rq_lite raises on purpose.

    `put`, in an error that a put raises: how many jobs of the same call were put before.
    """

    exit_code = 1
    put = 0

    def __reduce__(self) -> Any:
        # Unpickled without a call of __init__: pools of processes hand errors on in pickles.
        return unpickled, (type(self), self.args, self.__dict__)


def unpickled(kind: type[RqLiteError], args: tuple[Any, ...], facts: dict[str, Any]) -> RqLiteError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class UsageError(RqLiteError, ValueError):
    """A setting, name or number that cannot be right; the message names it and the way out."""

    exit_code = 2


class AppFailed(UsageError):
    """The module that should register tasks cannot be imported; `__cause__` is its own error."""


class BrokerError(RqLiteError):
    """Something is wrong with Redis, or on the way to it; messages never hold the password."""

    exit_code = 3


class BrokerUnavailable(BrokerError):
    """Redis cannot be reached, or has been gone for longer than the caller may wait.

    `outcome` says what is known of the step that was under way: `"not done"` (of a put: `"not put"`), or
    `"unknown"` when the request may have reached Redis and only its answer was lost.
    """

    def __init__(self, message: str, *, outcome: str = "not done") -> None:
        super().__init__(message)
        self.outcome = outcome


class BrokerUnsuitable(BrokerError):
    """The server is older than Redis 6.2, or no Redis; or a newer rq_lite has put jobs that this one does not know."""


class BrokerOutOfMemory(BrokerError):
    """Redis is at its maxmemory and refuses to store more; taking and finishing jobs goes on."""


class QueueFull(RqLiteError, queue.Full):
    """The queue had no room within the time the caller was ready to wait.

    `queue` is its name, `size` how many jobs wait, `maxsize` their bound, `bytes` and `maxbytes` the same in bytes (0:
    no such bound), `consumers` how many are alive, `last_seen` how many seconds ago the last one showed a sign of life
    (None: never).
    """

    exit_code = 4

    def __init__(
        self,
        queue: str,
        *,
        size: int,
        maxsize: int,
        consumers: int,
        last_seen: float | None,
        bytes: int = 0,
        maxbytes: int = 0,
        hint: str = "",
    ) -> None:
        seen = "none was ever seen" if last_seen is None else f"last seen {last_seen:.0f} s ago"
        bounds = [f"bound {maxsize:,}"] if maxsize or not maxbytes else []
        bounds += [f"{counted(bytes, 'byte')}, maxbytes {maxbytes:,}"] if maxbytes else []
        super().__init__(
            f"queue {queue!r} is full: {counted(size, 'job')} waiting, {', '.join(bounds)}; "
            f"{counted(consumers, 'consumer')} alive, {seen}{hint}"
        )
        self.queue = queue
        self.size = size
        self.maxsize = maxsize
        self.bytes = bytes
        self.maxbytes = maxbytes
        self.consumers = consumers
        self.last_seen = last_seen


class QueueEmpty(RqLiteError, queue.Empty):
    """Nothing to get within the time the caller was ready to wait."""


# As the standard library calls them.
Full, Empty = QueueFull, QueueEmpty


class ShutDown(RqLiteError, _ShutDown):
    """The queue was shut down, for all processes: puts are refused, or nothing is left to get."""


class JobFailed(RqLiteError):
    """The job whose result was asked for was buried.

    `type` is the name of the exception's class where it ran (no class is ever made from it), `message` its text,
    `traceback` its traceback as text.
    """

    def __init__(self, type: str, message: str, traceback: str = "", *, job_id: str = "") -> None:
        super().__init__(f"job {job_id}: {type}: {message}".removesuffix(": "))
        self.type = type
        self.message = message
        self.traceback = traceback
        self.job_id = job_id


class JobExpired(JobFailed):
    """The job had not begun by the time that `using(expires=…)` gave it, or did not begin again by then."""


class JobDropped(JobFailed):
    """The queue of the job was full, and its policy is to drop jobs then: `Queue(…, full="drop-new")`."""


class JobReplaced(JobFailed):
    """A newer job of the same key was put in the place of this one: `on_conflict="replace"`."""


class Duplicate(RqLiteError):
    """A put was kept out: `job` has the same key or id. None if it is not known (`until="forever"`)."""

    def __init__(self, message: str, *, job: Any = None) -> None:
        super().__init__(message)
        self.job = job


class BatchFailed(RqLiteError):
    """Raised by the function of a batch: some of its jobs have failed, each with an error of its own.

    `errors` maps places in the list (0 is the first element) to exceptions; the jobs of all other elements are done.
    `results`: what the function would have returned, a result for each element; those of failed jobs are not used.
    Raises UsageError for keys that are no such numbers, and values that are no exceptions.
    """

    def __init__(self, errors: Mapping[int, BaseException], *, results: Sequence[Any] | None = None) -> None:
        if not isinstance(errors, Mapping):
            raise UsageError(
                f"BatchFailed takes a dict of the places of failed elements and their errors, as in "
                f"{{0: ValueError(…)}}, not {type(errors).__name__}"
            )
        self.errors = {place_of(key, error): error for key, error in errors.items()}
        self.results = results
        super().__init__(f"{counted(len(self.errors), 'job')} of the batch failed")


def place_of(key: Any, error: Any) -> int:
    """The place of a failed element. Raises UsageError."""
    if isinstance(key, bool) or not hasattr(key, "__index__") or operator.index(key) < 0:
        raise UsageError(f"BatchFailed: {key!r:.80} is no place in the list: whole numbers from 0 are")
    if not isinstance(error, BaseException):
        raise UsageError(f"BatchFailed: the error of element {operator.index(key)} is {error!r:.80}, not an exception")
    return operator.index(key)


class PutRefused(RqLiteError):
    """This job can never be put as it stands."""


class BadArgument(PutRefused, TypeError):
    """An argument that JSON cannot carry unchanged, or arguments that the task does not take."""


class PayloadTooLarge(PutRefused, ValueError):
    """The encoded job is larger than `max_payload`, or than the queue's `maxbytes` can ever hold."""


class JobTimeout(RqLiteError, TimeoutError):
    """A job was not done within its `timeout`.

    `retry_on=` and the dead set name it. In the job itself a private class is raised instead, so that no `except`
    clause of the job catches it.
    """


class SourceError(RqLiteError):
    """A source, or a line in it, that cannot be read; the message names the line."""


class FeedMoved(RqLiteError):
    """Another producer has moved the feed of this name meanwhile."""

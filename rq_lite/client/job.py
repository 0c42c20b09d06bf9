"""A job: what was put, and a future for how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import Any

import msgspec

from rq_lite.admin import jobs, operate
from rq_lite.broker import Broker, Cancelled
from rq_lite.client.current import Progress
from rq_lite.client.defaults import defaults
from rq_lite.client.results import is_passing, watch
from rq_lite.errors import JobDropped, JobExpired, JobFailed, JobReplaced, UsageError
from rq_lite.model.unreadable import UNREADABLE

# The attributes that concurrent.futures keeps in a future.
OF_A_FUTURE = frozenset({"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"})
# Jobs with callbacks, by id(): kept here, since the program may hold no reference to them.
CALLING: dict[int, Job] = {}


class Problem(msgspec.Struct):
    """Why a job has failed."""

    type: str = "Unknown"
    message: str = ""
    traceback: str = ""


class Result(msgspec.Struct):
    """How a job has ended: what `result:<id>` holds."""

    state: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Problem = msgspec.field(default_factory=Problem)


decode = msgspec.json.Decoder(Result).decode
as_progress = msgspec.json.Decoder(Progress).decode
NOT_KEPT = "not kept"  # a state that only this process uses: the result is gone
CANCELLED = b'{"state":"cancelled"}'
# Ends of a job that was not run, or not again, and their errors.
NOT_RUN: dict[str, tuple[type[JobFailed], str]] = {
    "expired": (JobExpired, "it was not begun in time"),
    "dropped": (JobDropped, "its queue was full"),
    "replaced": (JobReplaced, "a newer job of its key was put in its place"),
}
# Errors that do not say how it has ended.
LOST, UNKNOWN_STATE = NOT_AN_END = ("Expired", "UnknownState")
SETTLING = 1.0  # seconds that the reader's thread may take to settle a future after it has heard of its end
SHOWN = 200  # bytes of an unreadable result that its error shows


class Job(Future[Any]):
    """One job as it was put, and a `concurrent.futures.Future` of its result, if it keeps one.

    The future costs nothing until it is used: at the first use the job is watched, from then on its end is pushed to
    this process. Callbacks of `add_done_callback` run in the thread that reads results: be brief there.
    """

    duplicate = False  # a put was kept out by this job, or (if that is not known) by another with the same key
    was_dropped = False  # by its put, as the queue was full
    tags: tuple[str, ...] = ()  # most jobs have none: no attribute of their own for that
    _progress: Progress | None = None  # the latest that was heard

    def __init__(
        self,
        *,
        id: str,
        queue: str,
        task: str,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        broker: Broker | None = None,
        result_ttl: float | None = None,
        tags: tuple[str, ...] = (),
        returns: Any = None,
    ) -> None:
        # Not the future's own __init__: a lock and two lists, which most jobs never need. See __getattr__.
        self.id = id
        self.queue = queue
        self.task = task
        self.args = args
        self.kwargs = {} if kwargs is None else kwargs
        self.result_ttl = result_ttl  # None: no result is kept
        if tags:
            self.tags = tags
        self._broker = broker
        self._returns = returns

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("id", "queue", "task", "args", "kwargs"))
        return f"Job({said})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (self.queue, self.id) == (other.queue, other.id)

    def __hash__(self) -> int:
        return hash((self.queue, self.id))

    def __reduce__(self) -> Any:
        fields = ("id", "queue", "task", "args", "kwargs", "result_ttl", "tags")
        return _job, ({name: getattr(self, name) for name in fields}, self._returns)

    @property
    def broker(self) -> Broker:
        return self._broker or defaults.broker

    # -- the future

    def __getattr__(self, name: str) -> Any:
        if name not in OF_A_FUTURE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        # Also called by code that reads the attributes itself: concurrent.futures.wait, asyncio.wrap_future.
        if self.prepare() and self.result_ttl is not None:
            watch(self.broker, [self])
        return self.__dict__[name]

    def prepare(self) -> bool:
        """Make the future's attributes; False if they were there already."""
        if "_done_callbacks" in self.__dict__:
            return False
        # Without a lock, which a signal handler might find held by its own thread: the parts that are stored first are
        # those of all threads.
        made = vars(Future())
        parts = self.__dict__.setdefault("_parts", made)
        for name, part in parts.items():
            self.__dict__.setdefault(name, part)
        return parts is made

    def expect(self) -> Job:
        """Make sure that this process hears of its end. Raises UsageError for a job that keeps no result."""
        if self.result_ttl is None:
            raise UsageError(
                f"job {self.id} of {self.task} keeps no result: say @queue.task(result_ttl=…), or put it with "
                "task.using(result_ttl=…)"
            )
        self.prepare()
        if not super().done():
            watch(self.broker, [self])
        return self

    def hear(self, result: bytes) -> None:
        """Receive its end, or its progress, as JSON; only the first end counts."""
        if is_passing(result):
            self._progress = progress_in(result) or self._progress
            return
        first = object()
        if (
            self.__dict__.setdefault("_heard", first) is not first
        ):  # one step, also if two threads deliver its end at once
            return
        CALLING.pop(id(self), None)
        try:
            found = self._read(result)
        except Exception as error:  # restoring the result's type may raise anything
            found = JobFailed("BadResult", f"it cannot be read: {error}; it is {text_of(result)}", job_id=self.id)
        if found is CANCELLED:
            super().cancel()
            self.set_running_or_notify_cancel()
        elif isinstance(found, JobFailed):
            self.set_exception(found)
        else:
            self.set_result(found)

    def _read(self, result: bytes) -> Any:
        """What it returned, a JobFailed, or CANCELLED. Raises an error of any class if it cannot be read."""
        try:
            found = decode(result)
        except UNREADABLE:  # a stack may be any bytes
            found = decode(result.decode(errors="replace"))
        if found.state == "done":
            return msgspec.json.decode(found.value, type=Any if self._returns is None else self._returns)
        if found.state == "cancelled":
            return CANCELLED
        if found.state == "failed":
            return JobFailed(found.error.type, found.error.message, found.error.traceback, job_id=self.id)
        if found.state in NOT_RUN:
            kind, why = NOT_RUN[found.state]
            return kind(kind.__name__, why, job_id=self.id)
        if found.state == NOT_KEPT:
            return JobFailed(LOST, "its result had expired before it was asked for", job_id=self.id)
        return JobFailed(UNKNOWN_STATE, f"a newer worker may know what this means: {text_of(result)}", job_id=self.id)

    def result(self, timeout: float | None = None) -> Any:
        """What it returned; waits for it. Raises TimeoutError, JobFailed, or CancelledError (concurrent.futures)."""
        self.expect()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """JobFailed, or None; waits like `result`."""
        self.expect()
        return super().exception(timeout)

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        self.expect()
        return super().done()

    def running(self) -> bool:
        """Whether it runs just now. A job that waits in its consumer for a thread, process or batch does not.

        What Redis knows of that is a few tenths of a second old.
        """
        return not self.done() and self.broker.puts.is_running(self.queue, self.id)

    def state(self) -> str:
        """How it has ended, or `waiting`, `scheduled`, `running`; or `unknown`: nothing of it is found.

        Ends are `done`, `failed`, `cancelled`, `expired`, `dropped`, `replaced`.

        For a job with and without a result; Redis is asked each time. That costs one read if its result is kept, a few
        if a consumer has it, else a search of up to 10,000 jobs from each end of each place (three times, if nothing is
        found). So `unknown` means: it was never put; or it has ended, and no result is kept (any more); or more than
        20,000 jobs wait, and it is in the middle.
        """
        if self.was_dropped:
            return "dropped"
        if defaults.instead is None:
            found = jobs.word(self.broker, self.queue, self.id)
            if found != jobs.UNKNOWN or "_heard" not in self.__dict__:
                return found
        elif not self.done():
            return "waiting"
        try:
            error = super().exception(SETTLING)
        except CancelledError:
            return "cancelled"
        if isinstance(error, JobFailed) and error.type in NOT_AN_END:
            return jobs.UNKNOWN
        other = (state for state, (kind, _) in NOT_RUN.items() if isinstance(error, kind))
        return next(other, "done" if error is None else "failed")

    def exists(self) -> bool:
        """Whether anything of it is found, or was heard by this process: its state is not `unknown`."""
        return self.state() != jobs.UNKNOWN

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.result_ttl is not None and self.done() and super().cancelled()

    def cancel(self, *, interrupt: bool = True) -> bool:
        """Remove it if it waits, interrupt it if it runs; False if it has ended already.

        Without `interrupt` a running job that keeps a result goes on: False.
        """
        if self.result_ttl is not None and self.done():
            return super().cancelled()
        done = operate.cancel(self.broker, self.queue, self.id, interrupt=interrupt)
        if done is Cancelled.REMOVED and self.result_ttl is not None:
            self.hear(CANCELLED)  # its end is known before the push of it arrives
            with contextlib.suppress(Exception):
                super().exception(SETTLING)  # the reader's thread may have heard it first, and be settling it
        return done not in (Cancelled.UNKNOWN, Cancelled.RUNNING)

    @property
    def progress(self) -> Progress | None:
        """The progress that it has reported (see `current_job`); None if it has not."""
        if self.result_ttl is not None and (self.done() or self._progress is not None):
            return self._progress
        told = self.broker.puts.progress_of(self.queue, self.id)
        return None if told is None else progress_in(told)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn` with this job when it has ended."""
        self.expect()
        CALLING[id(self)] = self
        if "_heard" in self.__dict__:  # it has ended meanwhile
            CALLING.pop(id(self), None)
        super().add_done_callback(fn)

    def __await__(self) -> Generator[Any, None, Any]:
        """In asyncio: `await job`. Cancelling the wait does not cancel the job."""
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()

        def tell(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(heard.set)

        # In a thread: it may have to wait for Redis.
        await loop.run_in_executor(None, self.add_done_callback, tell)
        await heard.wait()
        return self.result(0)


def progress_in(told: bytes) -> Progress | None:
    """A job's progress; None if it cannot be read."""
    with contextlib.suppress(*UNREADABLE):
        return as_progress(told)
    return None


def text_of(result: bytes) -> str:
    """The beginning of a result, to be shown."""
    return repr(result[:SHOWN].decode(errors="replace"))


def _job(fields: dict[str, Any], returns: Any) -> Job:
    return Job(**fields, returns=returns)

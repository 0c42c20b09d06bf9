"""Hooks: methods of an app that are called around puts and runs of all its tasks. docs/hooks.md has the table.

An app registers objects when it is imported (`@rq_lite.middleware`). A process checks once, after that import, whether
there are hooks around runs, and if so uses another function for its runs (consumer/run.py): without any, a job pays
nothing. The error of a hook is logged, and changes nothing.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import msgspec

from rq_lite.client.registry import name_of
from rq_lite.errors import RqLiteError, UsageError
from rq_lite.logs import RateLimitedLog, logger
from rq_lite.model.definition import NOT_PLAIN
from rq_lite.model.failure import error_text
from rq_lite.model.message import Message, bare, decode

log = logger("rq_lite")
seldom = RateLimitedLog(log)

T = TypeVar("T")
Hook = Callable[[Any], object]

LIKE_A_HOOK = re.compile(r"(before|after|on|worker)_")
# Errors of a hook itself; Ctrl-C, and what ends or interrupts a job, are not caught.
FAILURES = (Exception, SystemExit)


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as hooks see it. The table in docs/hooks.md says which hook gets which fields."""

    id: str
    queue: str
    task: str
    args: Sequence[Any]  # as in the JSON
    kwargs: dict[str, Any]
    tags: tuple[str, ...] = ()
    attempt: int = 0  # which run of it, the first is 1; 0: it is put
    seconds: float = 0.0  # that the run took
    exception: BaseException | None = None  # what ended the run, as an object: only in the process of the run
    error: str | None = None  # the same as one line: "ValueError: …"
    traceback: str = ""
    delay: float | None = None  # seconds until the next run


class WorkerEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a worker that runs jobs."""

    process: str  # consumer, engine
    number: int  # of the consumer in its worker, from 1; 0: it runs suspects
    queues: tuple[str, ...]


class Hooks:
    """All hooks. A registered object has those that it needs."""

    def before_put(self, job: JobEvent) -> None:
        """The job is about to be put."""

    def after_put(self, job: JobEvent) -> None:
        """Redis has the job."""

    def before_run(self, job: JobEvent) -> None:
        """The job's function is about to be called, in the same context (of contextvars)."""

    def after_run(self, job: JobEvent) -> None:
        """The job's function has returned, raised, or was interrupted."""

    def on_failure(self, job: JobEvent) -> None:
        """A run of the job has failed."""

    def on_retry(self, job: JobEvent) -> None:
        """The job will run again."""

    def on_bury(self, job: JobEvent) -> None:
        """The job is given up."""

    def worker_start(self, worker: WorkerEvent) -> None:
        """This process has imported the app, and will run jobs."""

    def worker_stop(self, worker: WorkerEvent) -> None:
        """This consumer runs no more jobs, and ends."""


NAMES = tuple(name for name in vars(Hooks) if LIKE_A_HOOK.match(name))
LAST_FIRST = ("after_put", "after_run", "worker_stop")  # what was opened last is closed first


class Registered:
    """The hooks of the programs that were imported, by name, in the order in which they are called."""

    def __init__(self) -> None:
        self._objects: dict[str, object] = {}
        self._sort()

    def add(self, key: str, hooks: object) -> None:
        self._objects[key] = hooks
        self._sort()

    def use(self, objects: dict[str, object]) -> dict[str, object]:
        """Use these from now on; return the previous ones."""
        before, self._objects = self._objects, dict(objects)
        self._sort()
        return before

    def _sort(self) -> None:
        self.hooks: dict[str, list[Hook]] = {name: [] for name in NAMES}
        for one in self._objects.values():
            for name, found in self.hooks.items():
                if has(one, name):
                    found.insert(0 if name in LAST_FIRST else len(found), getattr(one, name))
        self.puts = bool(self.hooks["before_put"] or self.hooks["after_put"])
        self.runs = bool(self.hooks["before_run"] or self.hooks["after_run"])
        self.failures = bool(self.hooks["on_failure"] or self.hooks["on_retry"] or self.hooks["on_bury"])


registered = Registered()


def has(one: object, name: str) -> bool:
    """Whether an object has this hook itself, instead of inheriting the empty one of Hooks."""
    return hasattr(one, name) and getattr(type(one), name, None) is not getattr(Hooks, name)


def middleware(hooks: T) -> T:
    """Register an object's hooks, to be called from now on; above a class, those of an instance that is made here.

    Raises UsageError for an object that has no hook, or a method that is named like one and is not one.
    """
    one = hooks() if isinstance(hooks, type) else hooks
    kind = name_of(type(one))
    names = [name for name in dir(one) if LIKE_A_HOOK.match(name) and callable(getattr(one, name))]
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        why = f"no hook is called {', '.join(unknown)}" if unknown else "it has no hook"
        raise UsageError(f"middleware {kind}: {why}; the hooks are {', '.join(NAMES)}")
    for name in names:
        for unfit, is_one, _ in NOT_PLAIN:
            if is_one(getattr(one, name)):
                raise UsageError(f"middleware {kind}: {name} is {unfit}; hooks are plain functions: write `def`")
    # A class whose module is imported again replaces itself; an object that is registered twice is called once.
    registered.add(kind if isinstance(hooks, type) else f"{kind} {id(one)}", one)
    return hooks


def emit(name: str, event: JobEvent | WorkerEvent) -> None:
    """Call the hooks of this name."""
    for hook in registered.hooks[name]:
        try:
            hook(event)
        except FAILURES as error:
            report(hook, error)


def report(hook: Hook, error: BaseException) -> None:
    """Log what a hook has raised."""
    name = getattr(hook, "__qualname__", repr(hook))
    kind = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    seldom.warn(
        f"hook {name}: {kind}", f"hook {name} raised {kind}: {error_text(error)}{where}; nothing else is affected"
    )


# Whether a hook of a put is being called here: its own puts call no hooks, or there would be no end.
_called: ContextVar[bool] = ContextVar("rq_lite_put_hooks", default=False)


def put_with_hooks(
    queue: str, entries: Sequence[bytes], put: Callable[[], int], went_in: Callable[[int], bool], *, kept: bool
) -> int:
    """A put with its hooks. `went_in`: whether the job with this number in `entries` was neither kept out nor dropped.

    `kept`: jobs count as put even if `put` raises, as in `inline`, where a job has raised.
    """
    if _called.get():
        return put()
    events = [put_event(queue, entry) for entry in entries]
    tell_of_puts("before_put", events)
    done = len(entries) if kept else 0
    try:
        done = put()
    except RqLiteError as error:
        done = max(done, error.put)
        raise
    finally:
        tell_of_puts("after_put", [event for number, event in enumerate(events[:done]) if went_in(number)])
    return done


def put_event(queue: str, entry: bytes) -> JobEvent | None:
    """None for a plain item: hooks are for jobs."""
    message = decode(bare(entry))[0]
    return event_of(message, queue) if message.task else None


def event_of(message: Message, queue: str, attempt: int = 0) -> JobEvent:
    """A job, as its hooks get it. Its arguments are copies, lest a hook changes those of the run."""
    return JobEvent(
        id=message.id,
        queue=queue,
        task=message.task,
        args=tuple(message.args),
        kwargs=dict(message.kwargs),
        tags=message.tags,
        attempt=attempt,
    )


def tell_of_puts(name: str, events: Sequence[JobEvent | None]) -> None:
    token = _called.set(True)
    try:
        for event in events:
            if event is not None:
                emit(name, event)
    finally:
        _called.reset(token)

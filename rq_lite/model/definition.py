"""What `@queue.task(…)` takes: the policy, and what else defines a task: its name, its schedule, a plain function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from rq_lite.errors import UsageError
from rq_lite.model.option import UNSET, Option, declared
from rq_lite.model.policy import POLICY, Policy
from rq_lite.model.schedule import Recurrence, recurring

# Kinds of functions whose body does not run when they are called, and what to write instead.
NOT_PLAIN = (
    ("a coroutine function", inspect.iscoroutinefunction, 'run_in="process" and asyncio.run(…) in it'),
    ("an async generator function", inspect.isasyncgenfunction, 'run_in="process" and asyncio.run(…) in it'),
    ("a generator function", inspect.isgeneratorfunction, "a loop instead of `yield`"),
)


class Again(NamedTuple):
    """A task that runs again and again: when, and with which arguments."""

    when: Recurrence
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What `@queue.task(…)` says beside the policy: the task's name, and when it runs by itself."""

    name: Annotated[str | None, Option("what jobs call it, in every program", default="`module:function`")] = None
    cron: Annotated[Any, Option("it runs by itself, at these times: [schedules.md](schedules.md)")] = None
    every: Annotated[
        Any, Option("it runs by itself, at this interval: seconds, or a timedelta, counted from 1970-01-01 UTC")
    ] = None
    tz: Annotated[Any, Option("time zone of `cron`", default="UTC")] = None
    missed: Annotated[
        str | None,
        Option(
            'what is made up for when no worker ran: `"once"`: one run for all missed times, `"all"` (at most the last '
            '100), or `"skip"`',
            default='`"once"`',
        ),
    ] = None
    args: Annotated[Any, Option("arguments of the runs by `cron` or `every`", default="none")] = UNSET
    kwargs: Annotated[Any, Option("their arguments by name", default="none")] = UNSET

    @property
    def again(self) -> Again | None:
        """None without `cron` and `every`. Raises UsageError."""
        when = recurring(self.cron, self.every, self.tz, self.missed)
        given = {name: value for name in ("args", "kwargs") if (value := getattr(self, name)) is not UNSET}
        if when is None:
            if given:
                raise UsageError(f"{'= and '.join(given)}= belong to a schedule: say cron= or every=, too")
            return None
        args = given.get("args", ())
        if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
            raise UsageError(f"args must be a list or tuple, not {args!r}")
        return Again(when, args, given.get("kwargs", {}))


DEFINITION = declared(Definition)
OF_TASK = {"name": DEFINITION["name"], **POLICY, **DEFINITION}


def options_of_task(given: Mapping[str, Any]) -> tuple[Definition, Policy]:
    """From what `@queue.task(…)` is given; raises UsageError."""
    unknown = sorted(given.keys() - OF_TASK.keys())
    if unknown:
        raise UsageError(f"@queue.task: no option is called {', '.join(unknown)}")
    policy = Policy(**{name: value for name, value in given.items() if name in POLICY})
    return Definition(**{name: value for name, value in given.items() if name in DEFINITION}), policy


def check_plain(name: str, function: Callable[..., Any]) -> None:
    """Raises UsageError for a function that would not run when it is called."""
    for kind, is_one, instead in NOT_PLAIN:
        if is_one(function) or is_one(getattr(function, "__call__", None)):  # noqa: B004
            raise UsageError(f"task {name}: {kind}; jobs are plain functions: write `def`, with {instead}")

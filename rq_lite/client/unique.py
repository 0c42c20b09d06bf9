"""The uniqueness and the expiry of a task's jobs: what their messages and their puts say of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rq_lite.client.defaults import defaults
from rq_lite.errors import BadArgument, UsageError
from rq_lite.model.names import encoded_id
from rq_lite.model.policy import Policy
from rq_lite.model.put_options import Options
from rq_lite.model.signature import signature_of
from rq_lite.model.unique import UNTIL, lock, name_of_id, name_of_key, parameters_of

if TYPE_CHECKING:
    from rq_lite.client.put import Sender
    from rq_lite.client.task import Task


class Claims:
    """What a task with its options claims for each of its jobs: a lock, a time until which it must begin, or both."""

    def __init__(self, task: Task[Any, Any], template: str | None, policy: Policy, options: Options) -> None:
        self._task = task
        self._template = template
        self._options = options
        self._until = options.policy.get("until", policy.until)
        self.on_conflict: str = options.policy.get("on_conflict", policy.on_conflict)
        self._max_wait: float = options.policy.get("max_wait", policy.max_wait) or 0.0
        self._check_replace()

    def _check_replace(self) -> None:
        """Raises UsageError for what does not go with `replace`."""
        where = f"task {self._task.name}"
        if self.on_conflict != "replace":
            if self._max_wait:
                raise UsageError(f'{where}: max_wait= belongs to on_conflict="replace"')
            return
        if self._options.id is not None:
            raise UsageError(
                f'{where}: a put with an id of its own cannot have on_conflict="replace": nothing replaces itself; '
                'use unique="{…}", whose jobs have ids of their own'
            )
        if self._template is None:
            return
        if self._until not in UNTIL:
            raise UsageError(
                f'{where}: on_conflict="replace" needs until="end" or "start": with until={self._until!r} the job that '
                "was put first may be over"
            )
        if self._max_wait and self._options.at is not None:
            raise UsageError(f"{where}: max_wait= goes with delay=, not with at=")
        if 0 < self._max_wait < self._options.delay:
            raise UsageError(f"{where}: max_wait={self._max_wait:g} is less than delay={self._options.delay:g}")

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any], job_id: str) -> tuple[dict[str, Any], bytes]:
        """Further fields of the message, and what stands in front of the entry when it is put. Raises BadArgument."""
        fields: dict[str, Any] = {}
        guard = b""
        sender = self._task.queue.sender
        sender.marks = True
        name = self._name(args, kwargs)
        if name is not None:
            replaces = self.on_conflict == "replace"
            unique, guard = lock(name, self._until, encoded_id(job_id), replaces, self._max_wait)
            if unique is not None:
                fields["unique"] = unique
        expires = self._options.expires_at(clock_of(sender) if defaults.instead is None else here)
        if expires is not None:
            fields["expires"] = expires
        return fields, guard

    def of_schedule(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The fields of each job of a schedule. Raises UsageError for what needs a put of its own for each job."""
        if self._options.expires is not None or self._options.id is not None:
            raise UsageError(f"task {self._task.name}: a schedule's jobs can have neither id= nor expires=")
        name = self._name(args, kwargs)
        if name is None:
            return {}
        if self._until not in UNTIL:
            raise UsageError(f'task {self._task.name}: jobs of a schedule can be unique until "end" or "start" only')
        return {"unique": lock(name, self._until, "")[0]}

    def _name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        if self._options.id is not None:
            return name_of_id(self._options.id)
        if self._template is None:
            return None
        try:
            found = self._task.arguments.signature.bind(*args, **kwargs)
            found.apply_defaults()
            return name_of_key(self._task.name, self._template.format(**found.arguments))
        except Exception as error:  # a template may name attributes and items that this value does not have
            raise BadArgument(
                f"task {self._task.name}: unique={self._template!r} makes no key of these arguments: "
                f"{error if isinstance(error, UsageError) else f'{type(error).__name__}: {error}'}"
            ) from None

    def said(self) -> str:
        """What is there already, for an error."""
        if self._options.id is not None:
            return f"a job with the id {self._options.id!r}"
        return f"a job of task {self._task.name} with the same key (unique={self._template!r})"


def claims_of(task: Task[Any, Any]) -> Claims | None:
    """None for most tasks: their jobs claim nothing. Raises UsageError for options that do not go together."""
    policy, options = task.policy, task.put_options
    template = options.policy.get("unique", policy.unique)
    if template is None and options.id is None and options.expires is None:
        return None
    if options.id is not None and template is not None:
        raise UsageError(f"task {task.name}: a put has either an id of its own or a key (unique=), not both")
    if template is not None:
        # Not always `arguments`: annotations may name what comes later.
        known = (signature_of(task.function) if policy.batch is None else task.arguments.signature).parameters
        strange = [name for name in parameters_of(template) if name not in known]
        if strange:
            raise UsageError(
                f"task {task.name}: unique={template!r} names {', '.join(strange)}; "
                f"its parameters are {', '.join(known) or 'none'}"
            )
    return Claims(task, template, policy, options)


def clock_of(sender: Sender) -> Callable[[], int]:
    """The clock of its Redis: ms since 1970."""
    core = sender.broker.core
    return partial(core.clock.now, core.read)


def here() -> int:
    """This machine's clock, where no Redis is: ms since 1970."""
    return round(time.time() * 1000)

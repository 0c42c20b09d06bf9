"""A task with arguments, to be put by something else: after a run, for now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rq_lite.client.defaults import defaults
from rq_lite.errors import UsageError
from rq_lite.model.message import new_id

if TYPE_CHECKING:
    from rq_lite.client.job import Job
    from rq_lite.client.task import Task


class Signature:
    """Made by `task.s(…)` and `task.si(…)`; the options are those of the task, as in `task.using(retries=2).s(…)`.

    `takes_input`: where the result of an earlier step is handed on, it becomes the first argument (`s`), or does not
    (`si`).
    """

    __slots__ = ("args", "kwargs", "takes_input", "task")

    def __init__(
        self, task: Task[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, takes_input: bool
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.takes_input = takes_input

    def __repr__(self) -> str:
        given = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.task.name}.{'s' if self.takes_input else 'si'}({', '.join(given)})"

    def put(self) -> Job:
        """Put the job now. Raises what `put` of the task raises."""
        return self.task.put(*self.args, **self.kwargs)

    def follow_up(self) -> tuple[Job, bytes, int]:
        """The job that follows a run, its entry, and `max_payload`. Raises UsageError, BadArgument, PayloadTooLarge."""
        task = self.task
        if task.put_options.delay or task.put_options.at is not None:
            raise UsageError(f"then: {self!r} has a delay or a time; what follows a run is due at once")
        chosen = task.queue.sender.chosen_broker
        if chosen is not None and defaults.instead is None and chosen.url != defaults.broker.url:
            raise UsageError(
                f"then: queue {task.queue.name!r} is bound to Redis at {chosen.shown}, this job to "
                f"{defaults.broker.shown}: one step cannot reach both; put that job directly"
            )
        task.arguments.check(self.args, self.kwargs)
        job = task.job(new_id(), self.args, self.kwargs)
        return job, task.encoded(self.args, self.kwargs, job.id), task.queue.sender.settings.max_payload

"""A task whose function is called for several jobs at once: what one of its jobs takes, and how each of them ended."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rq_lite.errors import BadArgument, BatchFailed, UsageError, counted
from rq_lite.model.arguments import Arguments, in_words, innermost, resolved, shown
from rq_lite.model.completion import BadResult
from rq_lite.model.signature import POSITIONAL, signature_of

Kind = inspect.Parameter
EMPTY = Kind.empty


class BatchArguments(Arguments):
    """What one job of a batch takes: an element of the list that the function takes.

    The list's annotation says what an element is: of `list[Page]` one argument, a Page; of `list[tuple[str, int]]` two,
    a str and an int, which become a tuple. The results are treated in the same way: those of `-> list[int]` are ints.
    """

    def _taken_by(self, function: Callable[..., object]) -> inspect.Signature:
        signature = signature_of(function)
        taken = [p for p in signature.parameters.values() if p.kind in POSITIONAL]
        others = [p for p in signature.parameters.values() if p not in taken]
        if len(taken) != 1 or any(p.kind is Kind.VAR_POSITIONAL or is_required(p) for p in others):
            raise UsageError(
                f"task {self.task}: with batch= its function takes one argument, a list with an element for each job; "
                f"this one takes {in_words(signature)}"
            )
        element = self._element(taken[0], innermost(function))
        self._several = is_tuple(element)
        returned = element_of_result(signature.return_annotation, innermost(function))
        return inspect.Signature(parameters_for(taken[0].name, element), return_annotation=returned)

    def _element(self, parameter: inspect.Parameter, function: Any) -> Any:
        """The annotation of an element. One that cannot be resolved is left as it is."""
        try:
            kind = EMPTY if parameter.annotation is EMPTY else resolved(parameter.annotation, function)
        except Exception:  # Arguments says it when it comes to restoring
            return parameter.annotation
        if kind in (EMPTY, Any):
            return EMPTY
        if not takes_a_list(kind):
            raise UsageError(
                f"task {self.task}: with batch= its function gets a list with an element for each job; annotate "
                f"{parameter.name!r} as list[…], not {shown(kind)}"
            )
        return next(iter(typing.get_args(kind)), EMPTY)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if kwargs:
            named = ", ".join(f"{name}=" for name in kwargs)
            raise BadArgument(
                f"task {self.task}: {named} is given by name; its jobs run in batches and take their arguments by "
                f"position: {in_words(self.signature)}"
            )
        super().check(args, kwargs)

    def element(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A job's element of the list. Raises TypeError if it was put with other arguments, or ValidationError."""
        if kwargs or not self._fewest <= len(args) <= self._most:
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{error}; a job of the batch takes {in_words(self.signature)}") from None
        if not self.plain:
            args, _ = self.restore(args, kwargs)
        return tuple(args) if self._several else args[0]


def arguments_of(task: str, function: Callable[..., object], batch: int | None) -> Arguments:
    """What a put of the task takes. Raises UsageError for a function that takes no list, though it is for a batch."""
    return Arguments(task, function) if batch is None else BatchArguments(task, function)


def is_required(parameter: inspect.Parameter) -> bool:
    return parameter.kind is Kind.KEYWORD_ONLY and parameter.default is EMPTY


def takes_a_list(kind: Any) -> bool:
    """Whether a list is of this type: `list[…]`, `Sequence[…]`, `Iterable[…]`."""
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(list, origin)


def is_tuple(element: Any) -> bool:
    return element is tuple or typing.get_origin(element) is tuple


def parameters_for(name: str, element: Any) -> list[inspect.Parameter]:
    """The parameters of one job: those of a tuple's parts, or one."""
    if not is_tuple(element):
        return [Kind(name, Kind.POSITIONAL_ONLY, annotation=element)]
    parts = typing.get_args(element)
    if not parts or parts[1:] == (...,):
        return [Kind(name, Kind.VAR_POSITIONAL, annotation=parts[0] if parts else EMPTY)]
    return [Kind(f"{name}_{n}", Kind.POSITIONAL_ONLY, annotation=part) for n, part in enumerate(parts, 1)]


def element_of_result(annotation: Any, function: Any) -> Any:
    """The annotation of one job's result: of `list[int]`, and of `list[int] | None`, an int."""
    try:
        kind = EMPTY if annotation is EMPTY else resolved(annotation, function)
    except Exception:
        return annotation
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    lists = [one for one in kinds if takes_a_list(one) and typing.get_args(one)]
    return typing.get_args(lists[0])[0] if len(lists) == 1 else EMPTY


class Ran(NamedTuple):
    """How the call has ended for one job of the batch."""

    value: Any = None
    error: BaseException | None = None
    trace: types.TracebackType | None = None  # of the error, as it was when the call ended

    def result(self) -> Any:
        """Return the value, or raise the error, which several jobs may have."""
        if self.error is None:
            return self.value
        raise self.error.with_traceback(self.trace)


def failed_by(error: BaseException) -> Ran:
    return Ran(None, error, error.__traceback__)


def sorted_out(task: str, count: int, returned: Any) -> list[Ran]:
    """From what the function has returned for a batch of `count` jobs: how each has ended. Raises BadResult."""
    if returned is None:
        return [Ran()] * count
    if type(returned) is not list or len(returned) != count:
        came = f"{len(returned):,}" if type(returned) is list else f"a {type(returned).__qualname__}"
        raise BadResult(
            f"{task} returned {came} for a batch of {counted(count, 'job')}; it must return None, or a list with a "
            "result for each, in their order"
        )
    return [Ran(value) for value in returned]


def failed_apart(task: str, count: int, failed: BatchFailed) -> list[Ran]:
    """From what the function has raised: how each job has ended. Raises BadResult."""
    beyond = [place for place in failed.errors if place >= count]
    if beyond:
        raise BadResult(
            f"{task} raised BatchFailed for element {beyond[0]:,} of a batch of {counted(count, 'job')}, which is "
            f"numbered from 0 to {count - 1:,}"
        )
    ran = sorted_out(task, count, failed.results)
    for place, error in failed.errors.items():
        ran[place] = failed_by(error)
    return ran

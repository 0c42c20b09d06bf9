"""A task's arguments on their way through JSON: refused by the put, or the same in the job; never changed.

Values that JSON has no word for (bytes, datetime, Decimal, UUID, set, tuple, dataclass, …) are restored if the
parameter's annotation names their type; without such an annotation they are refused. An annotation that cannot be used
does not affect the other parameters.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from rq_lite.errors import BadArgument
from rq_lite.model.signature import signature_of

IMPORT = "import the types it names outside `if TYPE_CHECKING:`"
# The end of the message about a value that JSON has no word for; `mended` replaces it by a better one.
ANNOTATE = "; annotate the parameter with the type to have it restored"
SCALARS = frozenset({str, int, bool, type(None)})
PLAIN = frozenset({str, int, float, bool, type(None), list, dict, Any, object, inspect.Parameter.empty})


class Arguments:
    """What one function takes. Built on first use: annotations may name what is defined further down."""

    def __init__(self, task: str, function: Callable[..., object]) -> None:
        self.task = task
        self.signature = self._taken_by(function)
        parameters = list(self.signature.parameters.values())
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        required = [p for p in positional if p.default is p.empty]
        self._fewest, self._most = len(required), len(positional)
        self._simple = not any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        self._hints, self._result = hints_of(function, self.signature)
        # The type that its result is restored to; None: the result comes out of JSON as it went in.
        self.returns = self._result.kind if self._result.restores else None
        self._special = {name: hint.kind for name, hint in self._hints.items() if hint.restores}
        # Parameters whose annotations cannot be resolved, and why.
        self.unread = {name: hint.unread for name, hint in self._hints.items() if hint.unread}
        # Whether all arguments come out of JSON as they went in, with nothing to restore.
        self.plain = not self._special
        self._names = [p.name for p in positional]
        self._keywords = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._others = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)

    def _taken_by(self, function: Callable[..., object]) -> inspect.Signature:
        """What a put gives."""
        return signature_of(function)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise BadArgument if the task does not take these, or JSON cannot carry one of them."""
        if kwargs or not (self._simple and self._fewest <= len(args) <= self._most):
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise BadArgument(f"task {self.task}: {error}; it takes {in_words(self.signature)}") from None
        # Arguments that are restored are always checked: a str, given for bytes, could come back as bytes.
        special = bool(self._special)
        for index, value in enumerate(args):
            if special or type(value) not in SCALARS:
                self._check_one(self._name(index), value, str(index + 1))
        for name, value in kwargs.items():
            if special or type(value) not in SCALARS:
                self._check_one(self._of(name), value, name)

    def _check_one(self, parameter: str | None, value: Any, shown: str) -> None:
        wanted = self._special.get(parameter or "")
        try:
            trouble = json_trouble(value) if wanted is None else round_trip_trouble(value, wanted)
        except RecursionError:
            trouble = "it is nested too deeply, or contains itself"
        if trouble:
            hint = self._hints.get(parameter or "", Hint())
            raise BadArgument(f"task {self.task}: argument {parameter or shown!r}: {mended(trouble, hint.way_out)}")

    def result_trouble(self, result: Any) -> str | None:
        """Why JSON cannot carry this result of the task unchanged; None if it can."""
        trouble = json_trouble(result) if self.returns is None else round_trip_trouble(result, self.returns)
        return trouble and mended(trouble, self._result.way_out.replace("the parameter", "what the task returns"))

    def blame(self, args: Sequence[Any], kwargs: Mapping[str, Any], error: Exception) -> BadArgument:
        """The error for the first argument that does not encode."""
        named = [(self._name(i) or str(i + 1), value) for i, value in enumerate(args)] + list(kwargs.items())
        for name, value in named:
            try:
                msgspec.json.encode(value)
            except Exception as reason:
                return BadArgument(f"task {self.task}: argument {name!r}: JSON cannot carry it: {reason}")
        return BadArgument(f"task {self.task}: JSON cannot carry the arguments: {error}")

    def _name(self, index: int) -> str | None:
        return self._names[index] if index < len(self._names) else self._rest

    def _of(self, name: str) -> str | None:
        """The parameter that takes an argument of this name."""
        return name if name in self._keywords else self._others

    def restore(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as the annotations say; raises msgspec.ValidationError naming the argument."""
        args = [self._restored(self._name(i), value) for i, value in enumerate(args)]
        return args, {name: self._restored(self._of(name), value) for name, value in kwargs.items()}

    def _restored(self, parameter: str | None, value: Any) -> Any:
        wanted = self._special.get(parameter or "")
        if wanted is None:
            return value
        try:
            return msgspec.convert(value, wanted)
        except (msgspec.ValidationError, TypeError) as error:  # TypeError: from a class that refuses isinstance
            raise msgspec.ValidationError(f"argument {parameter!r}: {error}") from None

    def from_text(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Convert text (a row of a table) as the annotations say: "4" for an int is 4. Raises BadArgument."""
        typed: dict[str, Any] = {}
        for name, value in values.items():
            hint = self._hints.get(self._of(name) or "", Hint())
            try:
                if hint.unfit:
                    raise TypeError(hint.unfit)
                typed[name] = msgspec.convert(value, hint.kind, strict=False)
            except (msgspec.ValidationError, TypeError) as error:
                raise BadArgument(f"task {self.task}: argument {name!r}: {error}") from None
        return typed


class Hint(NamedTuple):
    """What one annotation means."""

    kind: Any = Any
    restores: bool = False  # values that JSON has no word for come back as this type
    way_out: str = ANNOTATE  # the end of the message about a value that JSON has no word for
    unread: str = ""  # why it cannot be resolved; then it is ignored
    unfit: str = ""  # why it cannot restore anything


def in_words(signature: inspect.Signature) -> str:
    """The signature as it is written in the source; an unresolved annotation by its name."""
    return str(
        signature.replace(
            parameters=[
                p.replace(annotation=getattr(p.annotation, "__forward_arg__", p.annotation))
                for p in signature.parameters.values()
            ]
        )
    )


def hints_of(function: Callable[..., object], signature: inspect.Signature) -> tuple[dict[str, Hint], Hint]:
    """What the annotations mean, by parameter, and that of the result. One that cannot be used affects no other."""
    function = innermost(function)
    hints = {p.name: hint_of(p.annotation, function) for p in signature.parameters.values()}
    return hints, hint_of(signature.return_annotation, function)


def innermost(function: Any) -> Any:
    """The function that the annotations were written for, behind wrappers and partials."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    return function


def names_at(function: Any) -> dict[str, Any]:
    """The names that annotations of this function, class or callable object may use."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    found: dict[str, Any] = getattr(function, "__globals__", {} if module is None else vars(module))
    return found


def hint_of(annotation: Any, function: Any) -> Hint:
    """What an annotation of this function means."""
    if annotation is inspect.Signature.empty:
        return Hint()
    try:
        kind = resolved(annotation, function)
    except Exception as error:  # an annotation may raise anything: its names may exist for type checkers only
        return unresolved(error)
    if is_plain(kind):
        return Hint(kind, way_out=f"{ANNOTATE} (now it is {shown(kind)})")
    try:
        check_restorable(kind)
    except (TypeError, RuntimeError) as error:
        why, _, _ = str(error).partition(" - type `")  # msgspec repeats the type
        unfit = f"its annotation {shown(kind)} does not say what to restore: {why}; name one type"
        return Hint(kind, way_out=f"; {unfit}", unfit=unfit)
    except Exception as error:  # a field of a dataclass has an annotation that cannot be resolved
        return unresolved(error)
    return Hint(kind, restores=True)


def resolved(annotation: Any, function: Any) -> Any:
    """The type that an annotation of this function means; raises anything if it cannot be resolved."""
    parameters = getattr(function, "__type_params__", ())
    alone = types.SimpleNamespace(__annotations__={"it": annotation}, __type_params__=parameters)
    return typing.get_type_hints(alone, names_at(function))["it"]


def unresolved(error: Exception) -> Hint:
    why = f"its annotation cannot be resolved ({type(error).__name__}: {error})"
    return Hint(way_out=f"; {why}: {IMPORT}", unread=why)


def check_restorable(kind: Any) -> None:
    """Raise TypeError if no value of this type can be made from JSON, or whatever its own annotations raise."""
    if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
        raise TypeError("a Protocol names no class")
    for part in typing.get_args(kind):
        if isinstance(part, type):
            check_restorable(part)
    msgspec.json.Decoder(kind)


def shown(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def is_plain(kind: Any) -> bool:
    """Whether values of this annotation are what JSON gives back anyway, or may be anything."""
    if isinstance(kind, (typing.ParamSpecArgs, typing.ParamSpecKwargs)):
        return True
    with contextlib.suppress(TypeError):  # the annotation cannot be hashed
        if kind in PLAIN:
            return True
    if typing.get_origin(kind) in (list, dict, typing.Union, types.UnionType):
        return all(is_plain(part) for part in typing.get_args(kind))
    return False


def mended(trouble: str, way_out: str) -> str:
    """The message with `way_out` at its end, if an annotation could help."""
    return trouble.removesuffix(ANNOTATE) + way_out if trouble.endswith(ANNOTATE) else trouble


def json_trouble(value: Any) -> str | None:
    """Why JSON cannot carry the value unchanged; None if it can."""
    kind = type(value)
    if kind in SCALARS:
        return None
    if kind is float:
        return None if math.isfinite(value) else f"JSON has no word for {value}"
    if kind is list:
        return next(filter(None, map(json_trouble, value)), None)
    if kind is dict:
        odd = next((key for key in value if type(key) is not str), None)
        if odd is not None:
            return f"JSON has no word for {odd!r} as a key: only str"
        return next(filter(None, map(json_trouble, value.values())), None)
    return f"JSON has no word for {kind.__qualname__}{ANNOTATE}"


def round_trip_trouble(value: Any, wanted: Any) -> str | None:
    try:
        text = msgspec.json.encode(value)
        back = msgspec.json.decode(text, type=wanted)
    except Exception as error:
        return f"{value!r:.80} does not go through JSON as {shown(wanted)}: {error}; put what JSON can carry"
    # (1,) and (1.0,) are equal: their JSON tells them apart. A set may be written in another order, but not longer.
    if type(back) is not type(value) or back != value or len(msgspec.json.encode(back)) != len(text):
        return f"{value!r:.80} comes back from JSON as {back!r:.80}: the annotation is {shown(wanted)}"
    return None

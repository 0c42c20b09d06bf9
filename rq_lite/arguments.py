"""A task's arguments on their way through JSON: refused at put, or the same on the other side; never changed.

What JSON has no word for (bytes, datetime, Decimal, UUID, set, tuple, dataclass, …) is restored where the
task's annotation says what it was; without such an annotation it is refused.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from rq_lite.errors import BadArgument

ANNOTATE = "; annotate the parameter with the type to have it restored"
SCALARS = frozenset({str, int, bool, type(None)})
PLAIN = frozenset({str, int, float, bool, type(None), list, dict, Any, object, inspect.Parameter.empty})


class Arguments:
    """What one function takes. Built on first use: annotations may name what is defined further down."""

    def __init__(self, task: str, function: Callable[..., object]) -> None:
        self.task = task
        self.signature = signature_of(function)
        parameters = list(self.signature.parameters.values())
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        required = [p for p in positional if p.default is p.empty]
        self._fewest, self._most = len(required), len(positional)
        self._simple = not any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        self._hints = hints_of(function)
        returns = self._hints.pop("return", None)
        # What restores its result; None: it comes out of JSON as it went in.
        self.returns = None if returns is None or is_plain(returns) or not restorable(returns) else returns
        self._special = {n: kind for n, kind in self._hints.items() if not is_plain(kind) and restorable(kind)}
        # Whether they come out of JSON as they went in, with nothing to restore.
        self.plain = not self._special
        self._names = [p.name for p in positional]
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._others = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise BadArgument if the task does not take these, or JSON cannot carry one of them."""
        if kwargs or not (self._simple and self._fewest <= len(args) <= self._most):
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise BadArgument(f"task {self.task}: {error}; it takes {self.signature}") from None
        # What is restored is always looked at: a str would come back as the bytes that it may stand for.
        special = bool(self._special)
        for index, value in enumerate(args):
            if special or type(value) not in SCALARS:
                self._check_one(self._name(index), value, str(index + 1))
        for name, value in kwargs.items():
            if special or type(value) not in SCALARS:
                self._check_one(name if name in self.signature.parameters else self._others, value, name)

    def _check_one(self, parameter: str | None, value: Any, shown: str) -> None:
        wanted = self._special.get(parameter or "")
        try:
            trouble = json_trouble(value) if wanted is None else round_trip_trouble(value, wanted)
        except RecursionError:
            trouble = "it is nested too deeply, or contains itself"
        if trouble:
            raise BadArgument(f"task {self.task}: argument {parameter or shown!r}: {trouble}")

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

    def restore(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as the annotations say; raises msgspec.ValidationError naming the argument."""
        args = [self._restored(self._name(i), value) for i, value in enumerate(args)]
        restored = {
            name: self._restored(name if name in self.signature.parameters else self._others, value)
            for name, value in kwargs.items()
        }
        return args, restored

    def _restored(self, parameter: str | None, value: Any) -> Any:
        wanted = self._special.get(parameter or "")
        if wanted is None:
            return value
        try:
            return msgspec.convert(value, wanted)
        except msgspec.ValidationError as error:
            raise msgspec.ValidationError(f"argument {parameter!r}: {error}") from None

    def from_text(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Text (a row of a table) as the annotations say: "4" for an int is 4. Raises BadArgument."""
        typed: dict[str, Any] = {}
        for name, value in values.items():
            wanted = self._hints.get(name)
            try:
                typed[name] = value if wanted is None else msgspec.convert(value, wanted, strict=False)
            except (msgspec.ValidationError, TypeError) as error:
                raise BadArgument(f"task {self.task}: argument {name!r}: {error}") from None
        return typed


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:  # some functions written in C have none
        kinds = {"args": inspect.Parameter.VAR_POSITIONAL, "kwargs": inspect.Parameter.VAR_KEYWORD}
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds.items()])


def hints_of(function: Callable[..., object]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # whatever an annotation raises: it names something that exists for type checkers only
        return {}


def is_plain(kind: Any) -> bool:
    """Whether values of this annotation are what JSON gives back anyway."""
    if isinstance(kind, typing.Hashable) and kind in PLAIN:
        return True
    if typing.get_origin(kind) in (list, dict, typing.Union, types.UnionType):
        return all(is_plain(part) for part in typing.get_args(kind))
    return False


def restorable(kind: Any) -> bool:
    try:
        msgspec.json.Decoder(kind)
    except (TypeError, RuntimeError):
        return False
    return True


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
        return f"{value!r:.80} does not go through JSON as {wanted}: {error}"
    # (1,) and (1.0,) are equal: their texts tell them apart. A set may be written in another order, but not longer.
    if type(back) is not type(value) or back != value or len(msgspec.json.encode(back)) != len(text):
        return f"{value!r:.80} comes back from JSON as {back!r:.80}"
    return None

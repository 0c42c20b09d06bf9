"""What a function takes when it is called: its wrappers' parameters, not those of the function in them.

`inspect.signature` looks through decorators made with `functools.wraps`. That is right for a wrapper that hands on its
`*args, **kwargs`, and wrong for one that supplies an argument, or takes others. Which arguments a wrapper adds is read
from its source; without the source it is taken to hand on all it gets.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import sys
import textwrap
import types
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

if sys.version_info >= (3, 14):
    from annotationlib import Format

Kind = inspect.Parameter
POSITIONAL = (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD)
BY_NAME = (Kind.POSITIONAL_OR_KEYWORD, Kind.KEYWORD_ONLY)


class Added(NamedTuple):
    """What a wrapper adds to the `*args, **kwargs` that it hands on."""

    before: int = 0  # arguments in front of `*args`
    names: frozenset[str] = frozenset()  # arguments by name
    defaults: frozenset[str] = frozenset()  # arguments by name that the caller may give instead


def signature_of(function: Any) -> inspect.Signature:
    try:
        return as_called(function)
    except ValueError:  # some functions written in C have none
        return inspect.Signature([Kind("args", Kind.VAR_POSITIONAL), Kind("kwargs", Kind.VAR_KEYWORD)])


def as_called(function: Any) -> inspect.Signature:
    """Raises ValueError if it has none."""
    if isinstance(function, functools.partial):
        return bound(signature_of(function.func), *function.args, **function.keywords)
    if isinstance(function, types.MethodType):
        return bound(signature_of(function.__func__), function.__self__)
    wrapped = getattr(function, "__wrapped__", None)
    if not callable(wrapped):
        return written(function)
    if not isinstance(function, types.FunctionType):
        call = type(function).__call__
        if not isinstance(call, types.FunctionType):  # functools.cache and the like hand on what they get
            return signature_of(wrapped)
        return through(call, bound(bare(call), function), wrapped, signature_of(wrapped), function)
    said = vars(function).get("__signature__")
    if said is not None and said is not getattr(wrapped, "__signature__", None):
        return written(function)
    return through(function, bare(function), wrapped, signature_of(wrapped))


def through(
    wrapper: types.FunctionType, own: inspect.Signature, wrapped: Any, inner: inspect.Signature, within: Any = None
) -> inspect.Signature:
    """The signature of a wrapper, with what the function in it says of arguments that are handed on.

    `within`: the object whose `__call__` the wrapper is.
    """
    kinds = {p.kind: p.name for p in own.parameters.values()}
    if kinds.keys() == {Kind.VAR_POSITIONAL, Kind.VAR_KEYWORD}:
        added = added_by(
            wrapper, names_of(wrapped, wrapper, within), kinds[Kind.VAR_POSITIONAL], kinds[Kind.VAR_KEYWORD]
        )
        if added is not None:
            with contextlib.suppress(ValueError):  # it adds what the function does not take
                found = bound(inner, *[None] * added.before, **dict.fromkeys(added.names | added.defaults))
                return found.replace(parameters=[p for p in found.parameters.values() if p.name not in added.names])
    if Kind.VAR_KEYWORD not in kinds:
        return own
    *first, last = own.parameters.values()
    known = [
        p.replace(kind=Kind.KEYWORD_ONLY, default=...)
        for p in inner.parameters.values()
        if p.kind in BY_NAME and p.name not in own.parameters
    ]
    return own.replace(parameters=[*first, *known, last])


def written(function: Any) -> inspect.Signature:
    """The signature of a function without wrappers, or the one that it names itself."""
    if sys.version_info >= (3, 14):  # which by default evaluates annotations here
        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def bare(function: types.FunctionType) -> inspect.Signature:
    """The signature of a wrapper's own code; `functools.wraps` has copied the annotations of the function in it."""
    code = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    code.__kwdefaults__ = function.__kwdefaults__
    if sys.version_info >= (3, 14):
        code.__annotate__ = function.__annotate__
    else:
        code.__annotations__ = function.__annotations__
    return written(code)


def bound(signature: inspect.Signature, *args: Any, **kwargs: Any) -> inspect.Signature:
    """What is left to give once these arguments were given. Raises ValueError if they do not fit."""

    def like(*_: Any, **__: Any) -> None: ...

    like.__signature__ = signature  # type: ignore[attr-defined]
    return written(functools.partial(like, *args, **kwargs))


# -- what a wrapper's source says


def added_by(wrapper: types.FunctionType, inside: Collection[str], args: str, kwargs: str) -> Added | None:
    """What it adds; None if it changes what it gets in another way. `inside` is what it calls the wrapped function."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(wrapper.__code__)))
    except (OSError, TypeError, SyntaxError):
        return Added()
    every = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [call for call in every if ast.unparse(call.func) in inside]
    if not calls and not all(hands_on(call, inside, args, kwargs) for call in every):
        return None
    before: set[tuple[int, frozenset[str | None]]] = set() if calls else {(0, frozenset())}  # something else calls it
    names, defaults = set[str](), set[str]()
    for call in calls:
        front, rest = call.args[:-1], call.args[-1] if call.args else None
        named = [keyword.arg for keyword in call.keywords]
        if not (is_star(rest, args) and named[-1:] == [None] and is_name(call.keywords[-1].value, kwargs)):
            return None
        if any(isinstance(one, ast.Starred) for one in front) or None in named[:-1]:
            return None
        before.add((len(front), frozenset(named[:-1])))
    if len(before) != 1:
        return None
    for node in ast.walk(tree):
        change = changes(node, args, kwargs)
        if change is None:
            return None
        names |= change.names
        defaults |= change.defaults
    count, named_in_calls = before.pop()
    return Added(count, frozenset({*names, *filter(None, named_in_calls)}), frozenset(defaults))


def names_of(wrapped: Any, wrapper: types.FunctionType, within: Any) -> set[str]:
    """How the wrapper's source may name the function in it: `f`, or `self.f`."""
    found = {name for name, value in closed_over(wrapper) if value is wrapped}
    if within is not None:
        this = wrapper.__code__.co_varnames[0]
        found |= {f"{this}.{name}" for name, value in getattr(within, "__dict__", {}).items() if value is wrapped}
    return found


def hands_on(call: ast.Call, inside: Collection[str], args: str, kwargs: str) -> bool:
    """Whether a call that is given the wrapped function, as `run(f, *args, **kwargs)`, gets nothing else for it."""
    at = next((i for i, one in enumerate(call.args) if ast.unparse(one) in inside), len(call.args))
    rest = all(is_star(one, args) or is_name(one, args) or is_name(one, kwargs) for one in call.args[at + 1 :])
    named = {keyword.arg is None for keyword in call.keywords}
    return at == len(call.args) or (rest and len(named) < 2)


def closed_over(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # it is empty
            yield name, cell.cell_contents


def changes(node: ast.AST, args: str, kwargs: str) -> Added | None:
    """What this piece of a wrapper adds to its arguments; None if it changes them in another way."""
    if isinstance(node, ast.Name) and node.id in (args, kwargs) and not isinstance(node.ctx, ast.Load):
        return None
    if isinstance(node, ast.Subscript) and is_name(node.value, kwargs) and not isinstance(node.ctx, ast.Load):
        return Added(names=word(node.slice)) if isinstance(node.ctx, ast.Store) and word(node.slice) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_name(node.func.value, kwargs):
        match node.func.attr:
            case "setdefault" if node.args and word(node.args[0]):
                return Added(defaults=word(node.args[0]))
            case "update" if not node.args and all(keyword.arg for keyword in node.keywords):
                return Added(names=frozenset(keyword.arg or "" for keyword in node.keywords))
            case "setdefault" | "update" | "pop" | "popitem" | "clear":
                return None
    return Added()


def word(node: ast.expr) -> frozenset[str]:
    """The text that it is, as the only element."""
    return frozenset([node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else [])


def is_name(node: ast.expr | None, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def is_star(node: ast.expr | None, name: str) -> bool:
    return isinstance(node, ast.Starred) and is_name(node.value, name)

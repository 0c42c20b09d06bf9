"""What is checked at a put is what will be called: a decorator's parameters, where it does not hand on what it gets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from rq_lite.errors import BadArgument
from rq_lite.model.arguments import Arguments
from rq_lite.model.signature import signature_of

HALF = Decimal("0.5")


def order(db: str, n: Decimal, note: str = "") -> tuple[str, Decimal, str]:
    return db, n, note


def named(n: Decimal, *, db: str, note: str = "") -> tuple[str, Decimal, str]:
    return db, n, note


def hands_on(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        assert (args, kwargs) is not None
        return f(*args, **kwargs)

    return wrapper


def in_front(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return f("db", *args, **kwargs)
        except ValueError:
            return f("other", *args, **kwargs)

    return wrapper


def by_name(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return f(*args, db="db", **kwargs)

    return wrapper


def as_item(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        kwargs["db"] = "db"
        return f(*args, **kwargs)

    return wrapper


def updated(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        kwargs.update(db="db")
        return f(*args, **kwargs)

    return wrapper


def by_default(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("db", "db")
        return f(*args, **kwargs)

    return wrapper


def fewer(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(n: Any) -> Any:
        return f("db", n)

    return wrapper


def fewer_by_name(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(**kwargs: Any) -> Any:
        return f("db", **kwargs)

    return wrapper


def takes_one(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        tenant = kwargs.pop("tenant")
        return f(tenant, *args, **kwargs)

    return wrapper


def not_seen(f: Any) -> Any:
    """The function is called by another one, as retrying decorators do."""

    def call(g: Any, *args: Any, **kwargs: Any) -> Any:
        return g(*args, **kwargs)

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call(f, *args, **kwargs)

    return wrapper


def called_with_more(f: Any) -> Any:
    """By another one, too, but with more arguments: which of them are for the function is not known."""

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return functools.partial(f, "db")(*args, **kwargs)

    return wrapper


def named_for_another(f: Any) -> Any:
    def call(g: Any, *args: Any, **kwargs: Any) -> Any:
        return g(*args, **kwargs)

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call(f, *args, db="db", **kwargs)

    return wrapper


def replaced(f: Any) -> Any:
    def call(g: Any, *args: Any, **kwargs: Any) -> Any:
        return g(*args, **kwargs)

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        args = ("db", *args)
        return call(f, *args, **kwargs)

    return wrapper


class InFront:
    """A decorator that is a class."""

    def __init__(self, function: Any) -> None:
        functools.update_wrapper(self, function)
        self.inner = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner("db", *args, **kwargs)


class HandsOn(InFront):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class Fewer(InFront):
    def __call__(self, n: Decimal) -> Any:
        return self.inner("db", n)


class Shop:
    def order(self, n: Decimal, note: str = "") -> tuple[str, Decimal, str]:
        return "db", n, note

    def __call__(self, n: Decimal, note: str = "") -> tuple[str, Decimal, str]:
        return "db", n, note


GOOD = [((HALF,), {}), ((HALF, "x"), {}), ((HALF,), {"note": "x"}), ((), {"n": HALF, "note": "x"})]
BAD = [((), {}), ((HALF, "x", 1), {}), ((HALF,), {"colour": 1}), ((HALF,), {"n": HALF})]
BY_NAME = [((), {"n": HALF}), ((), {"n": HALF, "note": "x"})]
NOTE_BY_NAME = [pair for pair in GOOD if len(pair[0]) < 2]
WAYS: list[tuple[Callable[..., Any], list[Any], list[Any]]] = [
    (in_front(order), GOOD, [*BAD, ((HALF,), {"db": "x"})]),
    (hands_on(in_front(order)), GOOD, BAD),
    (in_front(hands_on(order)), GOOD, BAD),
    (by_name(named), NOTE_BY_NAME, [*BAD, ((HALF, "x"), {}), ((HALF,), {"db": "x"})]),
    (as_item(named), NOTE_BY_NAME, [*BAD, ((HALF, "x"), {})]),
    (updated(named), NOTE_BY_NAME, [*BAD, ((HALF, "x"), {})]),
    (by_default(named), [*NOTE_BY_NAME, ((HALF,), {"db": "y"})], [*BAD, ((HALF, "x"), {})]),
    (fewer(order), [((HALF,), {})], [*BAD, ((HALF, "x"), {}), ((HALF,), {"note": "x"})]),
    (fewer_by_name(order), [((), {"n": HALF})], [((HALF,), {})]),
    (takes_one(order), [((), {"n": HALF, "tenant": "t"})], []),
    (not_seen(functools.partial(order, "db")), GOOD, BAD),
    (called_with_more(order), BY_NAME, []),
    (named_for_another(named), BY_NAME, []),
    (replaced(order), BY_NAME, []),
    (InFront(order), GOOD, [*BAD, ((HALF,), {"db": "x"})]),
    (HandsOn(InFront(order)), GOOD, BAD),
    (in_front(HandsOn(order)), GOOD, BAD),
    (Fewer(order), [((HALF,), {})], [*BAD, ((HALF, "x"), {}), ((HALF,), {"note": "x"})]),
    (functools.partial(order, "db"), GOOD, BAD),
    (functools.partial(hands_on(order), "db"), GOOD, BAD),
    (hands_on(functools.partial(order, "db")), GOOD, BAD),
    (functools.cache(in_front(order)), GOOD, BAD),
    (staticmethod(in_front(order)), GOOD, BAD),
    (Shop().order, GOOD, BAD),
    (Shop(), GOOD, BAD),
]


@pytest.mark.parametrize("number", range(len(WAYS)))
def test_what_is_taken_can_be_called_and_what_is_refused_cannot(number: int) -> None:
    function, good, bad = WAYS[number]
    arguments = Arguments("mod:f", function)
    for args, kwargs in good:
        arguments.check(args, kwargs)
        back, named_back = arguments.restore([str(a) for a in args], {k: str(v) for k, v in kwargs.items()})
        assert (function(*back, **named_back)[1], function(*back, **named_back)) == (HALF, function(*args, **kwargs))
    for args, kwargs in bad:
        with pytest.raises(BadArgument, match="; it takes "):
            arguments.check(args, kwargs)
    if function not in (WAYS[4][0], WAYS[5][0]):
        for args, kwargs in bad:
            with pytest.raises(TypeError):
                function(*args, **kwargs)


def test_without_its_source_a_decorator_is_taken_to_hand_on_what_it_gets() -> None:
    made: dict[str, Any] = {"functools": functools, "order": order}
    exec("def deco(f):\n @functools.wraps(f)\n def wrapper(*a, **k): return f('db', *a, **k)\n return wrapper", made)
    assert str(signature_of(made["deco"](order))) == str(signature_of(order))


def test_a_decorator_that_names_its_signature_is_believed() -> None:
    wrapper = hands_on(order)
    wrapper.__signature__ = signature_of(lambda n: n)
    assert str(signature_of(wrapper)) == "(n)"
    assert str(signature_of(fewer(wrapper))) == str(signature_of(fewer(order)))  # `wraps` copies it to the next one

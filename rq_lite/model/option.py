"""What a task's option is, and what follows from that: its check, its default in words, its line in a docstring.

It is declared as metadata of the field that holds it: `retries: Annotated[int, Option(…)] = 0`. Those of a task are in
policy.py and definition.py, those of a put in put_options.py.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from rq_lite.checks import in_words

F = TypeVar("F", bound=Callable[..., Any])
UNSET: Any = msgspec.UNSET
Check: TypeAlias = Callable[[str, Any], Any]  # an option's name and a value; the value to be used, or UsageError


def as_given(_name: str, value: Any) -> Any:
    return value


def or_none(check: Check) -> Check:
    """The same check, of an option that may also be None."""
    return lambda name, value: None if value is None else check(name, value)


class Option(NamedTuple):
    """What an option is, beside its name, type and default: those are its field's."""

    meaning: str  # as docs/tasks.md says it
    check: Check = as_given
    # Only in Policy: the check of a value that a put gives instead (None: a put may not). Its job then has the value,
    # in the field of the message that is called like the option.
    puts: Check | None = None
    always: bool = False  # each job has the task's value, too: the process that ends a job may not know its task
    of_put_alone: bool = False  # it says how a job is put, and is no field of its message
    then: str = ""  # of a callback: the word for it in a job's `then`
    default: str = ""  # in words, if those for the field's default will not do


class Declared(NamedTuple):
    """An option with the default of its field."""

    option: Option
    default: Any

    @property
    def default_in_words(self) -> str:
        return self.option.default or in_words(self.default)


def declared(struct: type[msgspec.Struct]) -> dict[str, Declared]:
    """The options among its fields."""
    return {
        field.name: Declared(field.type.__metadata__[0], field.default)
        for field in msgspec.structs.fields(struct)
        if hasattr(field.type, "__metadata__")
    }


def use_checked(said: msgspec.Struct, options: Mapping[str, Declared]) -> None:
    """Check each option that is not the default, and store what the check returns. Raises UsageError."""
    for name, (option, default) in options.items():
        value = getattr(said, name)
        if value is not default and (meant := option.check(name, value)) is not value:
            msgspec.structs.force_setattr(said, name, meant)


def documented(options: Mapping[str, Declared]) -> Callable[[F], F]:
    """Append to the docstring of a function what each option means."""

    def decorate(function: F) -> F:
        if function.__doc__ is not None:  # None with python -OO
            function.__doc__ = "\n".join((function.__doc__.rstrip() + "\n", *map(line, options)))
        return function

    def line(name: str) -> str:
        words = f"{options[name].option.meaning} ({options[name].default_in_words})"
        plain = re.sub(r"\[[\w.]+\]\(([\w.]+)\)", r"docs/\1", words).replace("`", "")
        return textwrap.fill(plain, 110, initial_indent=f"        {name:<13}", subsequent_indent=" " * 21)

    return decorate

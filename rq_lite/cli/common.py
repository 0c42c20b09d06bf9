"""Options and helpers that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from rq_lite.admin import status
from rq_lite.broker import Broker
from rq_lite.errors import UsageError
from rq_lite.settings import FIELD_TYPES, FIELDS, SETTINGS, Settings, load_settings

F = TypeVar("F", bound=Callable[..., Any])
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def setting_options(*names: str) -> Callable[[F], F]:
    """Options for these settings; the command passes their values on to `settings_from`."""
    for name in names:
        assert SETTINGS[name].help, f"the setting {name} has no help= for a command's option"

    def decorate(command: F) -> F:
        for name in reversed(names):
            setting, kind = SETTINGS[name], FIELD_TYPES[name]
            command = click.option(
                f"--{name.replace('_', '-')}",
                type=kind if kind in (int, float) else str,
                metavar=setting.metavar,
                help=setting.help.format(default=FIELDS[name].default),
            )(command)
        return command

    return decorate


url_option = setting_options("url")


def duration(_context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """Seconds from "90", "90s", "15m", "2h", "7d"."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([smhd]?)", text.strip(), re.ASCII)
    if match is None:
        raise UsageError(
            f"{option.opts[0]} {text!r}: say seconds, or a number with s, m, h or d, as in 90, 15m, 2h, 7d"
        )
    return float(match[1]) * UNITS[match[2]]


def settings_from(**options: Any) -> Settings:
    """The settings, overridden by the options that were given."""
    return load_settings(options)


def open_broker(settings: Settings, *, quiet: bool = False) -> Broker:
    """A broker whose Redis has answered."""
    return Broker(settings=settings, quiet=quiet).open()


def known_queue(broker: Broker, name: str) -> str:
    """The name. Raises UsageError, which lists the known queues, if Redis has no queue of this name."""
    names = status.queues(broker)
    if name not in names:
        raise UsageError(f"unknown queue {name!r}; known queues: {', '.join(names) if names else 'none yet'}")
    return name

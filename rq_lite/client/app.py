"""The user's program: the module that registers tasks, found by name and imported."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.errors import AppFailed, UsageError


def import_app(app: str) -> None:
    """Import a module (`package.module`, or `file.py` in the current folder) that registers tasks.

    Raises UsageError; AppFailed, with the cause, when the module itself raised.
    """
    import_module(app.partition(":")[0])
    if not registry.tasks:
        raise UsageError(f"app {app!r} has no tasks: decorate functions with @queue.task in it, or in what it imports")


def find_task(spec: str) -> Task[Any, Any]:
    """The task called `module:name`. Raises UsageError naming the tasks that there are."""
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise UsageError(f"task {spec!r}: say MODULE:TASK, as in workers.crawl:fetch")
    found: Any = import_module(module)
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


def import_module(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = name.removesuffix(".py").strip("./").replace("/", ".") if name.endswith(".py") else name
    if "" in module.split("."):
        raise UsageError(f"{name!r} is no module: say one that can be imported from here, as in tasks or shop.tasks")
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise AppFailed(f"{name!r} cannot be imported: {type(error).__name__}: {error}") from error

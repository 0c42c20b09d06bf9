"""The plan of the code: which folder may import which, and what a process does not load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import rq_lite
from rq_lite.cli import COMMANDS

HOME = Path(rq_lite.__file__).parent
# A folder, or a module of rq_lite/ itself, imports only what is named before it.
LAYERS = [
    *("errors", "checks", "logs", "events", "redis_url", "settings"),
    *("model", "process", "embedded", "broker", "duties", "admin", "client", "consumer", "supervisor"),
    *("feeds", "cli", "testing", "chaos", "demo", "web", "contrib", "__main__", "pytest_plugin"),
]
NEVER = {"supervisor": {"client", "consumer", "gevent"}}  # though the first two are named before it
FOR_NONE = set(LAYERS[LAYERS.index("cli") :])  # no other folder needs these
FILES = {
    ".".join(["rq_lite", *file.relative_to(HOME).with_suffix("").parts]).removesuffix(".__init__"): file
    for file in HOME.rglob("*.py")
}


def imported(file: Path, *, for_types: bool = True) -> set[str]:
    """The modules that it imports, anywhere in it; `for_types`: under `if TYPE_CHECKING` as well."""
    found = set()
    aside: set[ast.AST] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if not for_types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            aside |= set(ast.walk(node))
        elif isinstance(node, ast.Import) and node not in aside:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node not in aside:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in FILES else f"{node.module}" for name in names}
    return found


def layer(module: str) -> str:
    return module.removeprefix("rq_lite.").split(".")[0]


def test_a_folder_imports_only_those_that_are_named_before_it() -> None:
    for module, file in FILES.items():
        own = layer(module)
        for other in {layer(name) for name in imported(file)} - {own}:
            assert other not in NEVER.get(own, ()), f"{module} imports {other}"
            assert other not in FOR_NONE or own in FOR_NONE, f"{module} imports {other}"
            if other in LAYERS and own != "rq_lite":  # rq_lite/__init__.py names what is public
                assert LAYERS.index(other) < LAYERS.index(own), f"{module} imports {other}, which is named after it"


def test_imports_make_no_circle() -> None:
    graph = {name: (imported(file, for_types=False) & FILES.keys()) - {"rq_lite"} for name, file in FILES.items()}
    TopologicalSorter(graph).prepare()


def test_few_modules_are_in_no_folder() -> None:
    assert len(list(HOME.glob("*.py"))) <= 10


# -- what a process loads

LOADED = """
import runpy, sys
sys.argv = ["rq-lite", *{arguments}]
try:
    runpy.run_module("rq_lite", run_name="__main__")
except SystemExit:
    pass
import json
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded(*arguments: str) -> set[str]:
    """The modules that `rq-lite` with these arguments has loaded."""
    code = LOADED.format(arguments=list(arguments))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stderr))


def test_a_supervisor_loads_neither_gevent_nor_what_consumers_and_clients_need() -> None:
    """The parent of `rq-lite work`. redis-py loads asyncio by itself, in `redis/__init__`: no module of ours does."""
    modules = loaded("work", "--help")
    assert "rq_lite.supervisor.supervisor" in modules
    assert not {"gevent", "rich", "cronsim"} & modules
    ours = modules & FILES.keys()
    assert not {"client", "consumer", "testing", "chaos", "demo"} & set(map(layer, ours))
    assert not {name for name in ours if "asyncio" in {found.split(".")[0] for found in imported(FILES[name])}}


NEEDED = {  # of the packages and folders that take long to load, those that a command uses
    "work": {"redis", "supervisor", "duties"},
    "status": {"redis", "rich"},
    "health": {"redis"},
    "queue": {"redis"},
    "redis": set[str](),
    "dead": {"redis", "rich"},
    "jobs": {"redis", "rich"},
    "schedule": {"redis", "client", "duties", "rich"},
    "produce": {"redis", "client", "duties", "feeds", "rich", "watchfiles"},
    "bench": {"redis", "client", "duties", "supervisor", "rich"},
    "demo": {"redis", "client", "duties", "feeds", "rich"},
}
COSTLY = {"redis", "rich", "gevent", "cronsim", "watchfiles"} | {"client", "consumer", "supervisor", "duties", "feeds"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_loads_only_what_it_uses(command: str) -> None:
    modules = loaded(command, "--help")
    own = {layer(name) for name in modules & FILES.keys()}
    assert ((modules - FILES.keys()) | own) & COSTLY <= NEEDED[command]


def test_no_class_has_more_than_25_methods() -> None:
    counts = {
        f"{file.stem}.{node.name}": sum(isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) for part in node.body)
        for file in FILES.values()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert {name: count for name, count in counts.items() if count > 25} == {}
    assert max(counts.values()) > 20, "it counts them"

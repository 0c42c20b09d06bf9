"""The plan of the code: which folder may import which, and what a process does not load."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import rq_lite

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

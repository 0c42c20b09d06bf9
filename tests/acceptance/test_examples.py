"""The examples, each run as its page in docs/ says, print what it says.

A page shows an example as a block of Python that begins with `# examples/NAME.py`, and below it, as a block of text,
what it prints. Those called test_… are run by pytest, and only shown.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TESTS = sorted((ROOT / "examples").glob("test_*.py"))
EXAMPLES = sorted({*(ROOT / "examples").glob("*.py")} - {*TESTS})
SHOWN = re.compile(r"```python\n# (examples/\w+\.py)\n(.*?)```\n.*?```text\n(.*?)```", re.DOTALL)


def pages() -> dict[str, tuple[str, str, str]]:
    """What the pages show: example to (page, code, what it prints)."""
    found = {}
    for page in sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]):
        for name, code, printed in SHOWN.findall(page.read_text()):
            found[name] = (page.name, code, printed)
    return found


def run(environment: dict[str, str], *module: str) -> subprocess.CompletedProcess[str]:
    """A module and its arguments."""
    command = [sys.executable, "-m", *module]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_prints_what_its_page_says(example: Path, environment: dict[str, str]) -> None:
    name = str(example.relative_to(ROOT))
    assert name in pages(), f"no page shows {name}"
    page, code, printed = pages()[name]
    assert code == example.read_text(), f"docs/{page} shows another text of {name}"
    done = run(environment, name.removesuffix(".py").replace("/", "."))
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_the_example_of_a_secret_tells_only_of_its_own_jobs(environment: dict[str, str]) -> None:
    first, second = run(environment, "examples.secret"), run(environment, "examples.secret")
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr


@pytest.mark.parametrize("example", TESTS, ids=lambda file: file.stem)
def test_an_example_of_tests_passes(example: Path, environment: dict[str, str]) -> None:
    name = str(example.relative_to(ROOT))
    shown = f"```python\n# {name}\n{example.read_text()}```\n"
    assert any(shown in page.read_text() for page in (ROOT / "docs").glob("*.md")), f"no page shows {name} as it is"
    done = run(environment, "pytest", "-q", "-p", "rq_lite.pytest_plugin", name)
    assert done.returncode == 0, done.stdout + done.stderr

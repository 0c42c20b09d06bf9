"""`python -m benchmarks.venvs [NAME…]`: one virtual environment per section of requirements-peers.txt."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Iterable

from benchmarks.contenders import FOLDER, VENVS

PINNED = FOLDER / "requirements-peers.txt"
HEADING = re.compile(r"#\s*\[(\w+)\]\s*")


def main() -> None:
    peers = sections(PINNED.read_text().splitlines())
    names = sys.argv[1:] or list(peers)
    unknown = sorted(set(names) - set(peers))
    if unknown:
        sys.exit(f"no other library is called {', '.join(unknown)}; {PINNED.name} has {', '.join(peers)}")
    for name in names:
        install(name, peers[name])


def sections(lines: Iterable[str]) -> dict[str, list[str]]:
    """The requirements below each heading `# [name]`; other comments and empty lines are left out."""
    found: dict[str, list[str]] = {}
    for line in map(str.strip, lines):
        heading = HEADING.fullmatch(line)
        if heading:
            requirements = found.setdefault(heading[1], [])
        elif line and not line.startswith("#"):
            requirements.append(line)
    return found


def install(name: str, requirements: list[str]) -> None:
    """Create the library's environment if it is missing, and install these versions."""
    folder = VENVS / name
    if not folder.exists():
        venv.create(folder, with_pip=True)
    print(f"{name} …", flush=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements], check=True)


if __name__ == "__main__":
    main()

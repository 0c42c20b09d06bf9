"""The lock files hold what pyproject.toml asks for, and nothing of the machine they were written on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SYSTEMS = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64"), ("darwin", "arm64")]
PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]


def asked(extra: str = "") -> list[Requirement]:
    """What the project needs, or one of its extras with what that is made of."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    found = []
    for requirement in map(Requirement, lines):
        if requirement.name == "rq_lite":
            found += [each for name in sorted(requirement.extras) for each in asked(name)]
        else:
            found.append(requirement)
    return found


def locked(name: str) -> dict[str, tuple[Requirement, set[str]]]:
    """The requirements of a lock file with their hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    found: dict[str, tuple[Requirement, set[str]]] = {}
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement = Requirement(line.partition("--hash")[0])
            found[canonicalize_name(requirement.name)] = (requirement, set(re.findall(r"--hash=(\S+)", line)))
    return found


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("requirements-dev.txt", asked() + asked("dev")), ("requirements.txt", asked() + asked("demo"))],
)
def test_what_is_asked_for_is_locked(name: str, wanted: list[Requirement]) -> None:
    """On every machine that we support: one release, which pyproject.toml allows."""
    found = locked(name)
    for requirement in wanted:
        pinned, _ = found[canonicalize_name(requirement.name)]
        (only,) = pinned.specifier
        assert only.operator == "=="
        assert requirement.specifier.contains(only.version, prereleases=True), requirement
        for python in PYTHONS:
            for system, machine in SYSTEMS:
                there = {
                    "python_version": python,
                    "python_full_version": f"{python}.9",
                    "sys_platform": system,
                    "platform_machine": machine,
                    "platform_python_implementation": "CPython",
                }
                assert applies(requirement.marker, there) is applies(pinned.marker, there), (pinned, there)


def applies(marker: Marker | None, there: dict[str, str]) -> bool:
    return marker is None or marker.evaluate(there)


@pytest.mark.parametrize("name", ["requirements-dev.txt", "requirements.txt"])
def test_a_lock_file_is_of_no_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "make lock" in text.splitlines()[1]
    assert not re.findall(r".*(?:://|^\s*-[^-c]|--(?!hash=sha256:[0-9a-f]{64}\b)|(?<![\w.])/).*", text, re.MULTILINE)
    assert all(hashes for _, hashes in locked(name).values())


def test_the_image_s_part_is_the_same() -> None:
    everything = {
        name: (str(pinned.specifier), hashes) for name, (pinned, hashes) in locked("requirements-dev.txt").items()
    }
    part = {name: (str(pinned.specifier), hashes) for name, (pinned, hashes) in locked("requirements.txt").items()}
    assert part.items() <= everything.items()


def test_each_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    named = {canonicalize_name(name) for name in re.findall(r"[\w.-]+", reasons)}
    assert {canonicalize_name(each.name) for each in asked() + asked("dev")} - named == set()


def test_users_get_lower_bounds_only() -> None:
    for requirement in asked() + asked("dev"):
        assert {each.operator for each in requirement.specifier} == {">="}, requirement

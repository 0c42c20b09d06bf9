"""Explicit argument > environment > pyproject > default; whatever cannot be right is named with its place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rq_lite.checks import LONGEST
from rq_lite.errors import UsageError
from rq_lite.settings import FIELD_TYPES, KINDS, SETTINGS, VARIABLES, Settings, load_settings

ROOT = Path(__file__).parents[2]
LEAST = {name: setting.least for name, setting in SETTINGS.items() if setting.least is not None}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[tool.rq-lite]\nmaxsize = 3\ngreenlets = 30\nsource = "data/urls.txt"\n')
    return tmp_path


def load(folder: Path, explicit: dict[str, Any] | None = None, **environ: str) -> Settings:
    return load_settings(explicit, environ=environ, folder=folder)


def test_without_any_source_there_are_defaults(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert load(tmp_path) == Settings()


def test_the_nearest_pyproject_counts(project: Path) -> None:
    below = project / "a" / "b"
    below.mkdir(parents=True)
    assert load(below).maxsize == 3
    (project / "a" / "pyproject.toml").write_text("[tool.rq-lite]\nmaxsize = 4\n")
    assert load(below).maxsize == 4
    assert load(below).greenlets == Settings().greenlets


def test_the_environment_wins_over_the_project(project: Path) -> None:
    found = load(project, RQ_LITE_MAXSIZE="7", MAXSIZE="9")
    assert (found.maxsize, found.greenlets) == (7, 30)


def test_an_argument_wins_over_the_environment(project: Path) -> None:
    assert load(project, {"maxsize": 8}, RQ_LITE_MAXSIZE="7").maxsize == 8


def test_an_argument_that_is_none_was_not_given(project: Path) -> None:
    assert load(project, {"maxsize": None}, RQ_LITE_MAXSIZE="7").maxsize == 7


def test_an_empty_variable_was_not_given(project: Path) -> None:
    assert load(project, RQ_LITE_MAXSIZE="").maxsize == 3


def test_an_empty_secret_does_not_turn_signing_off(project: Path) -> None:
    with pytest.raises(UsageError, match=r"RQ_LITE_SECRET is set, but empty: unset it, or .* 16 characters"):
        load(project, RQ_LITE_SECRET="")
    key = "an explicit key" * 2
    assert load(project, {"secret": key}, RQ_LITE_SECRET="").secret == key


def test_an_empty_url_is_not_the_embedded_redis(project: Path) -> None:
    with pytest.raises(UsageError, match=r"RQ_LITE_URL is set, but empty: unset it, or name a Redis, such as redis://"):
        load(project, RQ_LITE_URL="")
    assert load(project, {"url": "redis://h"}, RQ_LITE_URL="").url == "redis://h"


def test_text_in_the_environment_becomes_what_the_setting_is(tmp_path: Path) -> None:
    found = load(tmp_path, RQ_LITE_GRACE="2.5", RQ_LITE_PROCS="4", RQ_LITE_URL="redis://h")
    assert (found.grace, found.procs, found.url) == (2.5, 4, "redis://h")


def test_a_source_in_the_project_is_meant_from_there(project: Path) -> None:
    below = project / "a"
    below.mkdir()
    assert load(below).source == str(project / "data" / "urls.txt")
    assert load(below, RQ_LITE_SOURCE="data/urls.txt").source == "data/urls.txt"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('maxsize = "3"', "maxsize must be a whole number, not '3'"),
        ("grace = true", "grace must be a number, not True"),
        ("batch = 2000", "batch must be at most 1000, not 2000"),
        ('url = ""', "url is empty: leave it out, or name a Redis, such as redis://"),
        ("maxsice = 3\nzzz = 1", "no setting is called maxsice, zzz"),
    ],
)
def test_what_is_wrong_in_the_project_names_setting_and_file(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(f"[tool.rq-lite]\n{text}\n")
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    assert what in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[tool.rq-lite", ""),
        (b"tool = 1\n[x]\n\xff", ""),
        (b"[tool]\nrq-lite = 3\n", "[tool.rq-lite] is no table"),
        (b"tool = 5\n", "[tool] is no table"),
        (b"[tool.rq_lite]\nprocs = 3\n", "[tool.rq_lite] is not read; say [tool.rq-lite]"),
    ],
)
def test_a_project_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{file}: {reason}")


def test_a_project_file_is_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes('[tool.rq-lite]\napp = "café"\n'.encode())
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    code = "from rq_lite.settings import load_settings; print(ascii(load_settings().app))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=locale, capture_output=True, check=True)
    assert shown.stdout == b"'caf\\xe9'\n"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("GREENLETS", "abc", "'abc': must be a whole number"),
        ("MAXSIZE", "1.5", "'1.5': must be a whole number"),
        ("MAXSIZE", "1e9999", "'1e9999': must be a whole number"),
        ("MAXSIZE", "0x10", "'0x10': must be a whole number"),
        ("GRACE", "long", "'long': must be a number"),
        ("WAIT", "ever", "'ever': must be a number, or null"),
        ("GREENLETS", "0", "'0': greenlets must be at least 1, not 0"),
        ("SECRET", "s3cret", "'***': secret: 1 of 1 keys"),
    ],
)
def test_what_is_wrong_in_the_environment_names_the_variable(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(environ={f"RQ_LITE_{name}": text}, folder=tmp_path)
    assert str(caught.value).startswith(f"RQ_LITE_{name}={reason}")


def test_every_kind_of_setting_has_a_name() -> None:
    assert {*FIELD_TYPES.values()} == {*KINDS}


@pytest.mark.parametrize(
    ("name", "meant"), [("GREENLET", "GREENLETS"), ("MAX_SIZE", "MAXSIZE"), ("PROC", "PROCS"), ("SECRETS", "SECRET")]
)
def test_a_variable_with_almost_the_name_of_a_setting_is_refused(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(environ={f"RQ_LITE_{name}": "4"}, folder=tmp_path)
    assert str(caught.value) == f"RQ_LITE_{name} is no setting; did you mean RQ_LITE_{meant}?"


def test_other_variables_of_the_prefix_are_left_alone(tmp_path: Path) -> None:
    files = [file for place in ("rq_lite", "workers", "producer", "examples") for file in (ROOT / place).rglob("*.py")]
    read = {name for file in files for name in re.findall(r"RQ_LITE_\w+", file.read_text())} - {*VARIABLES.values()}
    assert {
        "RQ_LITE_FAILPOINT_ONCE",
        "RQ_LITE_HISTORY",
        "RQ_LITE_ARCHIVE",
        "RQ_LITE_TICKETS",
        "RQ_LITE_ALLOW_PRIVATE",
    } <= read
    others = dict.fromkeys({"RQ_LITE_COLOUR", *read}, "x")
    assert load_settings(environ=others, folder=tmp_path) == Settings()


def test_what_is_wrong_in_an_argument_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^maxsize must be a whole number, not 'x'"):
        load(tmp_path, {"maxsize": "x"})
    with pytest.raises(UsageError, match="the arguments: no setting is called colour"):
        load(tmp_path, {"colour": 1})
    with pytest.raises(UsageError, match=r"^batch must be at most 1000, not 1001"):
        load(tmp_path, {"batch": 1001})
    with pytest.raises(UsageError, match=r"^greenlets must be a whole number, not 'x'$"):
        Settings(greenlets="x")  # type: ignore[arg-type]


def test_every_setting_but_text_has_a_least() -> None:
    assert LEAST.keys() == {name for name, kind in FIELD_TYPES.items() if kind != str | None}


@pytest.mark.parametrize("name", sorted(LEAST))
def test_every_number_has_a_least(name: str) -> None:
    least = LEAST[name]
    given: dict[str, Any] = {name: least}
    assert getattr(Settings(**given), name) == least
    given[name] -= 1
    with pytest.raises(UsageError, match=f"{name} must be at least {least:g}, not"):
        Settings(**given)


@pytest.mark.parametrize("name", sorted(name for name in LEAST if isinstance(getattr(Settings(), name), float)))
@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
def test_every_time_has_an_end(tmp_path: Path, name: str, value: str) -> None:
    longest: dict[str, Any] = {name: LONGEST}
    assert getattr(Settings(**longest), name) == LONGEST
    with pytest.raises(UsageError, match=rf"{name} must be at .*, not {re.escape(format(float(value), 'g'))}$"):
        load(tmp_path, {name: float(value)})
    with pytest.raises(UsageError, match=f"{name} must be at "):
        load_settings(environ={f"RQ_LITE_{name.upper()}": value}, folder=tmp_path)


def test_a_batch_has_a_most() -> None:
    assert Settings(batch=1000).batch == 1000
    with pytest.raises(UsageError, match="batch must be at most 1000, not 1001"):
        Settings(batch=1001)


def test_a_wait_may_be_without_end() -> None:
    assert Settings(wait=None).wait is None


def test_settings_stay_as_they_are() -> None:
    with pytest.raises(AttributeError):
        Settings().maxsize = 1  # type: ignore[misc]

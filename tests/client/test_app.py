"""The app is imported under the name by which producers import it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rq_lite.client.app import find_task, import_app
from rq_lite.client.defaults import defaults
from rq_lite.client.registry import near_miss, registry
from rq_lite.errors import AppFailed, UsageError
from rq_lite.settings import Settings

Lay = Callable[..., Path]


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lay]:
    """Makes a project of these files, and goes there."""
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (known, {**known}) for known in (sys.modules, registry.tasks, registry.queues)
    ]
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)

    def make(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    yield make
    for known, before in kept:
        for name in known.keys() - before.keys():
            del known[name]
        known.update(before)


TASKS = "from rq_lite import Queue\n@Queue('shop').task\ndef f(n): ...\n"
BUILT = "[build-system]\nrequires = []\n"
SRC = {"src/parcels/__init__.py": "", "src/parcels/tasks.py": TASKS}


def named(before: set[str]) -> set[str]:
    return {*registry.tasks} - before


@pytest.mark.parametrize("app", ["src.parcels.tasks", "src/parcels/tasks.py", "./src/parcels/tasks.py"])
@pytest.mark.parametrize("more", [{"pyproject.toml": BUILT}, {"setup.py": ""}, {"setup.cfg": ""}, {}], ids=str)
def test_a_src_layout_is_recognised(lay: Lay, app: str, more: dict[str, str]) -> None:
    project, before = lay(**SRC, **more), {*registry.tasks}
    if not more:  # as after pip install -e
        sys.path.append(str(project / "src"))
    import_app(app)
    assert named(before) == {"parcels.tasks:f"}
    assert find_task("src.parcels.tasks:f") is find_task("parcels.tasks:f") is registry.tasks["parcels.tasks:f"]
    assert "src.parcels" not in sys.modules


@pytest.mark.parametrize(
    "more", [{}, {"src/__init__.py": "", "setup.py": ""}, {"pyproject.toml": "[tool.rq-lite]\n"}], ids=str
)
def test_another_folder_called_src_is_a_package_like_any(lay: Lay, more: dict[str, str]) -> None:
    before = ({*registry.tasks}, lay(**SRC, **more))[0]
    import_app("src/parcels/tasks.py")
    assert named(before) == {"src.parcels.tasks:f"}


def test_a_module_and_a_package_s_own_file_may_be_named_by_their_paths(lay: Lay) -> None:
    before = ({*registry.tasks}, lay(**{"alone.py": TASKS, "parcels/__init__.py": TASKS}))[0]
    import_app("./alone.py")
    import_app("parcels/__init__.py")
    assert named(before) == {"alone:f", "parcels:f"}


def test_what_is_not_there_is_said_by_the_name_that_was_given(lay: Lay) -> None:
    lay(**SRC, **{"setup.py": ""})
    with pytest.raises(AppFailed, match=r"'src/parcels/task.py' cannot be imported: ModuleNotFoundError"):
        import_app("src/parcels/task.py")
    with pytest.raises(UsageError, match="is no module"):
        import_app("src..parcels")


SETS = "import os\nos.environ.update({})\n" + TASKS


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """This command's; what an app puts into the environment is taken out again."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    found = Settings(url="redis://127.0.0.1:1/0")
    before = defaults.use(found)
    yield found
    defaults.use(*before)


@pytest.mark.parametrize(
    ("variable", "value", "embedded", "said"),
    [
        ("RQ_LITE_HOME", "elsewhere", True, "which has chosen the embedded Redis: set the variable before it"),
        ("RQ_LITE_SECRET", 20 * "k", False, "which signs no job and checks none: set the variable before it"),
        ("RQ_LITE_MAXSIZE", "many", False, "must be a whole number"),
    ],
)
def test_an_app_that_sets_too_late_where_jobs_go_or_what_may_run_is_refused(
    lay: Lay, settings: Settings, variable: str, value: str, embedded: bool, said: str
) -> None:
    assert settings.secret is None
    lay(**{"late.py": SETS.format({variable: value})})
    with pytest.raises(UsageError, match=said) as caught:
        import_app("late", embedded=embedded)
    assert (variable in str(caught.value), "kkkk" in str(caught.value)) == (True, False)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RQ_LITE_MAXSIZE": "7"}, ["'late' sets RQ_LITE_MAXSIZE=7 when it is imported, too late for this command"]),
        ({"RQ_LITE_WAIT": "600", "RQ_LITE_HOME": "x", "RQ_LITE_ALLOW_PRIVATE": "1"}, []),
    ],
)
def test_an_app_that_sets_another_setting_too_late_is_logged(
    lay: Lay, settings: Settings, caplog: pytest.LogCaptureFixture, variables: dict[str, str], said: list[str]
) -> None:
    assert settings.wait == 600
    lay(**{"late.py": SETS.format(variables)})
    import_app("late")
    assert [line.partition(":")[0] for line in caplog.messages] == said


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("shop.tasks:f", ["src.shop.tasks:f", "other:f"], "src.shop.tasks:f"),
        ("pkg.tasks:f", ["tasks:f", "asks:f"], "tasks:f"),
        ("tasks:f", ["pkg.tasks:f", "a.mytasks:f"], "pkg.tasks:f"),
        ("tasks:A.f", ["other:A.f", "tasks:f"], "other:A.f"),
        ("tasks:f", ["tasks:g", "f"], None),
        ("f", ["tasks:f", "g"], None),
    ],
)
def test_a_name_that_is_nearly_known(name: str, known: list[str], near: str | None) -> None:
    assert near_miss(name, known) == near

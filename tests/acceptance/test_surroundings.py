"""What an app, or the system, does to a worker's processes: logging, names of files, folders, terminals, locales."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rq_lite.process.subprocesses import module_command
from tests.acceptance.conftest import Lab
from tests.conftest import ROOT, until

# What apps may have beside them, and what the standard library or rq_lite imports under the same name.
NAMES = (sys.stdlib_module_names | {"click", "gevent", "msgspec", "redis", "rich"}) - {"__main__", "builtins", "sys"}
TASKS = """
import logging.config
from rq_lite import Queue

logging.config.dictConfig({"version": 1})  # it disables each logger that exists already

work = Queue("work")

@work.task
def fails(number):
    raise ValueError(f"no {number}")

@work.task(cron="0 0 1 1 *", args=[1])
def is_due(number): pass

@work.task(run_in="process")
def computes(number):
    raise ValueError(f"not computed: {number}")
"""


def test_an_app_that_disables_loggers_beside_files_with_names_of_modules(lab: Lab) -> None:
    lab.environment["PYTHONPATH"] = str(ROOT)  # without this folder, which would be in front of the standard library
    lab.environment["PYTHONSAFEPATH"] = "1"  # as for the command `rq-lite`, which this test starts by `python -m`
    for name in NAMES - {"socketserver"}:  # which logging.config imports for the app
        (lab.folder / f"{name}.py").write_text('raise RuntimeError("imported in the place of another module")\n')
    (lab.folder / "tasks.py").write_text(TASKS)
    lab.commands.fresh = True  # an interpreter that has imported nothing yet
    lab.put("fails", 7, app="tasks")
    lab.put("computes", 8, app="tasks")
    worker = lab.work("--burst", app="tasks")
    assert worker.wait() == 0, worker.said
    assert "tasks:fails: ValueError: no 7; buried after attempt 1" in worker.said
    assert "tasks:computes: ValueError: not computed: 8; buried after attempt 1" in worker.said
    fed = lab.commands.run("produce", "--count", "2", "--task", "tasks:fails")
    assert (fed.returncode, lab.state().pending) == (0, 2), fed.stderr


def test_an_app_that_needs_its_own_file_of_such_a_name_is_told(lab: Lab) -> None:
    lab.environment["PYTHONPATH"] = str(ROOT)
    (lab.folder / "queue.py").write_text("def helper(): pass\n")
    (lab.folder / "tasks.py").write_text("from queue import helper\n")
    worker = lab.work(app="tasks")
    assert worker.wait() == 2
    assert "queue in this folder has the name of a module of the standard library: rename it" in worker.said


def test_modules_of_rq_lite_are_run_without_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text('raise RuntimeError("imported in the place of another module")\n')
    done = subprocess.run(
        module_command("rq_lite", "--version"), cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0


# -- the folder

VERSION = """
from rq_lite import Queue
work = Queue("work")
@work.task
def version(number):
    print("version {number}", number, flush=True)
"""


def release(folder: Path, number: int) -> None:
    (folder / str(number)).mkdir(parents=True)
    (folder / str(number) / "tasks.py").write_text(VERSION.replace("{number}", str(number)))
    link = folder / "next"
    link.symlink_to(folder / str(number))
    link.rename(folder / "current")


@pytest.mark.parametrize("named", ["PWD", "--chdir"])
def test_a_reload_follows_the_link_through_which_the_folder_was_named(lab: Lab, tmp_path: Path, named: str) -> None:
    releases = tmp_path / "releases"
    release(releases, 1)
    current = releases / "current"
    if named == "PWD":
        lab.environment = {**lab.environment, "PWD": str(current)}
        lab.folder = releases / "1"
        worker = lab.work(app="tasks")
    else:
        worker = lab.work("--chdir", str(current), app="tasks")
    lab.put("version", 1, app="tasks")
    worker.says("version 1 1")
    release(releases, 2)
    worker.signal(signal.SIGHUP)
    worker.says("takes the place of")

    def new_code_runs() -> bool:
        lab.put("version", 2, app="tasks")  # the old consumer may still take one or two
        return "version 2 2" in worker.said

    until(new_code_runs, "the new code runs")
    current.unlink()
    worker.signal(signal.SIGHUP)
    worker.says(f"no consumer is replaced, all work on: the folder {current}, where they start, is gone")
    lab.put("version", 3, app="tasks")
    worker.says("version 2 3")
    assert worker.stop() == 0


def test_a_command_in_a_folder_that_was_removed_says_so(lab: Lab) -> None:
    removed = lab.folder / "removed"
    removed.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "rq_lite", "status"],
        cwd=removed, preexec_fn=removed.rmdir, env=lab.environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "rq-lite: the current folder was removed: cd to another one, or to the same name again\n"


# -- the terminal


@pytest.mark.parametrize("ignored", [False, True], ids=["plain", "nohup"])
def test_a_closed_terminal_ends_a_worker_unless_it_was_started_with_nohup(lab: Lab, ignored: bool) -> None:
    """A SIGHUP while the terminal is there replaces the consumers."""
    log = lab.folder / "worker.log"
    log.touch()
    shell, terminal = pty.fork()
    if not shell:
        try:
            output = os.open(log, os.O_WRONLY | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(lab.folder)
            if ignored:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.execve(
                sys.executable,
                [sys.executable, "-m", "rq_lite", "work", "tests.acceptance.apps.jobs", "--procs", "1"],
                lab.environment,
            )
        finally:
            os._exit(99)
    try:
        until(lambda: "ready" in log.read_text(), "the worker is ready")
        os.kill(shell, signal.SIGHUP)
        until(lambda: "takes the place of" in log.read_text(), "the consumer is replaced")
        os.close(terminal)
        if ignored:
            until(lambda: log.read_text().count("SIGHUP: the consumers") == 2, "the second SIGHUP is a reload, too")
            os.kill(shell, signal.SIGTERM)
        ended, status = until(lambda: (found := os.waitpid(shell, os.WNOHANG))[0] and found, "the worker ends")
        assert ended == shell
        shell = 0
    finally:
        if shell:
            os.kill(shell, signal.SIGKILL)
            os.waitpid(shell, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert log.read_text().count("SIGHUP: the consumers") == 1 + ignored


# -- the locale


def test_a_locale_that_is_not_utf_8_changes_no_file_and_fails_no_output(lab: Lab) -> None:
    (lab.folder / "tasks.py").write_text(
        'from rq_lite import Queue\nwork = Queue("work")\n@work.task\ndef greet(name):\n'
        '    print("grüße ✓", name, flush=True)\n    raise ValueError("ünï ✗")\n',
        encoding="utf-8",
    )
    (lab.folder / "names.txt").write_text("ž✓\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    lab.environment.update(ascii_only)
    lab.commands.fresh = True  # an interpreter reads its locale when it starts
    fed = lab.commands.run("produce", "names.txt", "--task", "tasks:greet")
    assert (fed.returncode, lab.arguments()) == (0, ["ž✓"]), fed.stderr
    worker = lab.work("--burst", app="tasks")
    assert worker.wait() == 0, worker.said
    assert r"gr\xfc\xdfe \u2713 \u017e\u2713" in worker.said
    assert r"ValueError: \xfcn\xef \u2717; buried" in worker.said
    dead = lab.commands.run("dead", "list")
    assert (dead.returncode, dead.stdout.count("ValueError: ünï ✗")) == (0, 1), dead.stderr  # into a pipe: UTF-8


# -- the environment


def test_an_app_that_names_a_redis_too_late_is_told(lab: Lab) -> None:
    """As one that reads a `.env` when it is imported."""
    other = "redis://:password@127.0.0.1:1/3"
    (lab.folder / "tasks.py").write_text(
        f'import os\nos.environ["RQ_LITE_URL"] = "{other}"\n'
        'from rq_lite import Queue\nwork = Queue("work")\n@work.task\ndef do(n): pass\n'
    )
    named = lab.work("--burst", app="tasks")
    assert named.wait() == 0, named.said
    said = f"'tasks' sets RQ_LITE_URL={other.replace(':password', ':***')} when it is imported; this command uses"
    assert said in named.said
    lab.environment["RQ_LITE_HOME"] = str(lab.folder / "home")
    del lab.environment["RQ_LITE_URL"]
    try:
        for command in (["work", "tasks"], ["produce", "--count", "1", "--task", "tasks:do"]):
            done = lab.commands.run(*command)
            assert "too late for this command, which has chosen the embedded Redis" in done.stderr
            assert (done.returncode, "password" in done.stderr) == (2, False)
    finally:
        lab.commands.run("redis", "stop")

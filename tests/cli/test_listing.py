"""Lists on terminals of any width: a table whose names end in an ellipsis instead of going on in the next line."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from rq_lite.admin.dead import Buried
from rq_lite.admin.jobs import Found
from rq_lite.broker.scheduling import Planned
from rq_lite.cli import dead_view, jobs_view, listing, schedule
from rq_lite.cli.listing import View, put_out
from rq_lite.logs import escaped
from rq_lite.model.schedule import defined, recurring
from rq_lite.model.states import State

ID = "1a22e0a68c8-ffbd7f2533f4c150"
TASK = "shop.mails:send_the_newsletter_to_all_who_want_it"
ERROR = "ValueError: 邮件服务器无法连接，请稍后再试一次"
NOW = 1_800_000_000.0

BURIED = Buried(
    queue="商店", tag=1, id=ID, task=TASK, error=ERROR, traceback="", attempts=3, crashes=1, consumer="", seconds=1.0,
    buried_at=NOW - 42, entry=b"",
)  # fmt: skip
JOB = Found(
    queue="mails",
    state=State.DEAD,
    entry=b"",
    id=ID,
    task=TASK,
    attempts=3,
    crashes=1,
    tag=1,
    buried=BURIED,
    tags=("import", "商店"),
)
CRON = recurring("*/5 * * * *", None, None, None)
assert CRON is not None
SCHEDULED = Planned(TASK, b"", round(NOW * 1000), None), defined(CRON, "mails", TASK, [], {}, origin="app")
LISTS: list[tuple[View[Any], Any, dict[int, str]]] = [
    (dead_view.VIEW, BURIED, {80: "id queue task buried error", 40: "id error"}),
    (jobs_view.VIEW, JOB, {80: "id queue task state age about", 40: "id state"}),
    (schedule.VIEW, SCHEDULED, {80: "name when task next", 40: "name next"}),
]


def drawn(view: View[Any], thing: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(listing, "console_of", lambda: console)
    assert put_out([thing], view, NOW, as_json=False) == 1
    return file.getvalue().splitlines()


@pytest.mark.parametrize(("view", "thing", "headings"), LISTS, ids=["dead", "jobs", "schedule"])
def test_a_table_at_any_width(
    view: View[Any], thing: Any, headings: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (20, 40, 80, 120, 200):
        heading, rule, row = drawn(view, thing, width, monkeypatch)
        assert all(cell_len(line) <= width for line in (heading, rule, row))
        if width in headings:
            assert heading.split() == headings[width].split()
        if width == 200:
            assert heading.split() == [column.heading for column in view.columns]
            assert all(cell in row for cell in view.row(thing, NOW)[:2])


@pytest.mark.parametrize(("view", "thing", "_headings"), LISTS, ids=["dead", "jobs", "schedule"])
def test_a_pipe_gets_every_value_in_full(
    view: View[Any], thing: Any, _headings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert put_out([thing], view, NOW, as_json=False) == 1
    assert capsys.readouterr().out == "\t".join(view.row(thing, NOW)) + "\n"
    assert escaped(TASK) in view.row(thing, NOW)

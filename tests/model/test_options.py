"""An option of a task is declared once; what types and documents say of it is compared with that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
import pytest

from rq_lite import Queue, UsageError
from rq_lite.client.registry import registry
from rq_lite.client.task import BatchTaskOptions, PutOptions
from rq_lite.model.definition import DEFINITION, OF_TASK, Definition
from rq_lite.model.message import ENDS, Message
from rq_lite.model.option import Option, declared, documented, use_checked
from rq_lite.model.policy import POLICY, PUTS, Policy
from rq_lite.model.put_options import OF_PUT, PUT, Options
from tests.project.test_docs import DOCS

OF_EVERY_MESSAGE = {"v", "id", "task", "args", "kwargs", "then"}
OF_CLAIMS = {"unique", "expires"}  # client/unique.py makes them


def odd(place: str, there: Iterable[str], declared: Iterable[str]) -> Iterator[str]:
    """What differs, with its place."""
    yield from (f"{name}: declared, but not in {place}" for name in sorted({*declared} - {*there}))
    yield from (f"{name}: in {place}, but not declared" for name in sorted({*there} - {*declared}))


def test_every_option_is_in_all_its_places_and_no_other() -> None:
    carried = [name for name in PUTS if not POLICY[name].option.then and not POLICY[name].option.of_put_alone]
    callbacks = [POLICY[name].option.then for name in PUTS if POLICY[name].option.then]
    wrong = [
        *odd("Policy with an Option", POLICY, Policy.__struct_fields__),
        *odd("Definition with an Option", DEFINITION, Definition.__struct_fields__),
        *odd("Options with an Option", PUT, {*Options.__struct_fields__} - {"policy"}),
        *odd(
            "TaskOptions of client/task.py, and BatchTaskOptions",
            BatchTaskOptions.__required_keys__ | BatchTaskOptions.__optional_keys__,
            OF_TASK,
        ),
        *odd("PutOptions of client/task.py", PutOptions.__optional_keys__, OF_PUT),
        *odd("Message of model/message.py", {*Message.__struct_fields__} - OF_EVERY_MESSAGE - OF_CLAIMS, carried),
        *odd("ENDS of model/message.py", ENDS, callbacks),
    ]
    lines = [
        line for line in (DOCS / "tasks.md").read_text().splitlines() if line.startswith("| `") and "| yes |" in line
    ]
    rows = [row(name) for name in {**OF_TASK, **OF_PUT}]
    wrong += [f"docs/tasks.md lacks the line: {line}" for line in rows if line not in lines]
    wrong += [f"docs/tasks.md has a line of no option: {line}" for line in lines if line not in rows]
    assert not wrong, "\n".join(wrong)


def row(name: str) -> str:
    """The line of docs/tasks.md."""
    of_task, of_put = ("yes" if name in options else "" for options in (OF_TASK, OF_PUT))
    found = OF_TASK.get(name) or OF_PUT[name]
    return " ".join(f"| `{name}` | {of_task} | {of_put} | {found.default_in_words} | {found.option.meaning} |".split())


class Some(msgspec.Struct, frozen=True, kw_only=True):
    doubled: Annotated[int, Option("[some.md](some.md) of `it`", lambda _, value: 2 * value)] = 1


def test_an_option_is_what_its_check_makes_of_it() -> None:
    for given, meant in ((Some(), 1), (Some(doubled=4), 8)):
        use_checked(given, declared(Some))
        assert given.doubled == meant


def test_docstrings_say_what_options_mean() -> None:
    def function() -> None:
        """What it does."""

    documented(declared(Some))(function)
    assert function.__doc__ == "What it does.\n\n        doubled      docs/some.md of it (1)"
    assert all(f"\n        {name} " in str(Queue.task.__doc__) for name in OF_TASK)


@pytest.mark.parametrize("given", [{"colour": 1}, {"delay": 5}])
def test_what_is_no_option_of_a_task_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^@queue.task: no option is called {next(iter(given))}$"):
        Queue("options").task(**given)
    registry.queues.pop("options")


@pytest.mark.parametrize("given", [{"colour": 1}, {"backoff": 5}])
def test_what_is_no_option_of_a_put_is_refused(given: dict[str, Any]) -> None:
    task = Queue("options").task(name="options")(print)
    registry.queues.pop("options")
    registry.tasks.pop("options")
    with pytest.raises(UsageError, match=rf"^using\(\): no option is called {next(iter(given))}"):
        task.using(**given)

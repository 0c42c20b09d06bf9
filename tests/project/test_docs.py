"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from rq_lite.broker import scripts
from rq_lite.checks import in_words
from rq_lite.client.middleware import NAMES, JobEvent
from rq_lite.model.states import EDGES, State
from rq_lite.settings import FIELDS, SETTINGS

DOCS = Path(__file__).parents[2] / "docs"
FAULTS = DOCS / "internals" / "faults.md"
VERBS_OF_EXCHANGE = {"take", "ack"}


def rows(text: str) -> list[list[str]]:
    """The cells of every table row in a document."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("| -")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_lifecycle_table_is_the_code_s() -> None:
    table = [row for row in rows((DOCS / "lifecycle.md").read_text()) if row[0] != "verb"]
    drawn = {(verb, State(came) if came else None, State(went)) for verb, came, went, _ in table}
    assert drawn == set(EDGES)


def test_lifecycle_drawing_shows_every_verb_and_state() -> None:
    drawing = (DOCS / "lifecycle.md").read_text().partition("A job is in exactly one place")[0]
    missing = {word for verb, _, went in EDGES for word in (verb, went.value) if word not in drawing} - {"purge"}
    assert not missing


def test_every_transition_is_a_script() -> None:
    verbs = {verb for verb, _, _ in EDGES} - VERBS_OF_EXCHANGE
    assert verbs < set(scripts.names())
    assert "exchange" in scripts.names()


def test_words_of_the_transitions_are_in_the_glossary() -> None:
    glossary = (DOCS / "glossary.md").read_text()
    verbs = {verb.replace("_", " ") for verb, _, _ in EDGES} - {"purge"}
    assert {verb for verb in verbs if f"**{verb}**" not in glossary} == set()


def test_links_between_documents_lead_somewhere() -> None:
    root = DOCS.parent
    for document in (*DOCS.rglob("*.md"), *root.glob("*.md"), *root.glob("*/README.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_setting_is_documented_and_no_other() -> None:
    documented = [line for line in (DOCS / "settings.md").read_text().splitlines() if line.startswith("| `")]
    wanted = [
        f"| `{name}` | {setting.default or in_words(FIELDS[name].default)} | {setting.meaning} |"
        for name, setting in SETTINGS.items()
    ]
    wrong = [f"docs/settings.md lacks the line: {line}" for line in wanted if line not in documented]
    wrong += [f"docs/settings.md has a line of no setting: {line}" for line in documented if line not in wanted]
    assert not wrong, "\n".join(wrong)
    assert documented == wanted  # in this order


def test_every_hook_is_documented_and_no_other() -> None:
    table = [row for row in rows((DOCS / "hooks.md").read_text()) if row[0] != "hook"]
    assert [row[0].strip("`") for row in table] == list(NAMES)
    fields = {name for row in table for name in re.findall(r"`([a-z]+)`", row[3])}
    assert fields < {*JobEvent.__struct_fields__}


def test_every_test_that_the_faults_name_exists() -> None:
    tests = "".join(file.read_text() for file in (DOCS.parent / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", FAULTS.read_text())
    assert len(named) > 70
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_every_fault_has_a_test_or_a_reason() -> None:
    table = [row for row in rows(FAULTS.read_text()) if re.match(r"[A-DX]\d", row[0])]
    numbered = {name for row in table for name in re.findall(r"\b[A-DX]\d+\b", row[0])}
    counts = {"A": 16, "B": 20, "C": 23, "D": 17, "X": 10}
    assert numbered == {f"{kind}{n}" for kind, count in counts.items() for n in range(1, count + 1)}
    for row in table:
        assert re.search(r"`test_\w+`|tests/\w+/test_\w+\.py|out of reach: \w+", row[2]), row

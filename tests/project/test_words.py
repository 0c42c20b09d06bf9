"""The words that the glossary has retired occur nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.project.test_docs import DOCS, rows

ROOT = DOCS.parent
GLOSSARY, HEADING = DOCS / "glossary.md", "## Retired words"
READ = ("rq_lite", "workers", "producer", "docs", "README.md", "CONTRIBUTING.md")


def retired() -> list[str]:
    table = rows(GLOSSARY.read_text().partition(HEADING)[2])
    return [word for row in table for word in re.findall("`([^`]+)`", row[0])]


def found(file: Path, words: re.Pattern[str]) -> Iterator[str]:
    text = file.read_text()
    if file == GLOSSARY:
        text = text.partition(HEADING)[0]
    for match in words.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield f"{file.relative_to(ROOT)}:{line}: {match[0]!r} is retired, see docs/glossary.md"


def test_no_retired_word_is_used() -> None:
    """As whole words, also with a capital or over a line's end; other capitals are names in code (`x is None`)."""
    forms = {form.replace(" ", r"\s+") for word in retired() for form in (word, word[0].upper() + word[1:])}
    words = re.compile(rf"\b(?:{'|'.join(sorted(forms))})\b")
    assert words.match("Nobody")
    places = [place for name in READ for place in (ROOT / name, *(ROOT / name).rglob("*"))]
    files = [place for place in sorted(places) if place.suffix in {".py", ".lua", ".md", ".txt"}]
    wrong = [line for file in files for line in found(file, words)]
    assert not wrong, "\n".join(wrong)

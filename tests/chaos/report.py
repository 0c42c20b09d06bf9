"""`python -m tests.chaos.report build/chaos.xml`: write the figures of `make chaos` into docs/internals/faults.md."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.machine import describe

DOCUMENT = Path(__file__).parents[2] / "docs" / "internals" / "faults.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main(results: Path) -> None:
    suite = ElementTree.parse(results).getroot().find("testsuite")
    assert suite is not None
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{section(suite)}{END}{after}")


def section(suite: ElementTree.Element) -> str:
    """The conditions, how the tests ended, and a line for each figure."""
    machine = describe("")
    number = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    bad = number["failures"] + number["errors"]
    lines = [
        f"From one run of `make chaos`, written by `python -m tests.chaos.report`: {machine['date']}, "
        f"{machine['cores']} cores ({machine['processor']}), {machine['system']}, Python {machine['python']}; "
        f"{number['tests']} tests, {bad} failed, {number['skipped']} skipped, "
        f"{float(suite.get('time', 0)) / 60:.0f} minutes.",
        "",
        "| | measured |",
        "| --- | --- |",
    ]
    for case in suite.iter("testcase"):
        for found in case.iter("property"):
            if found.get("name") == "figures":
                file = case.get("classname", "").rpartition(".")[2].removeprefix("test_")
                name = re.sub(r"^t0?(\d+)_.*", r"T\1", file)
                figures = re.sub(r"^T\d+ ", "", found.get("value", "")).replace("|", "\\|")
                lines.append(f"| {name} | {figures} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""`python -m benchmarks.report`: writes README.md and picture.svg; all their numbers come from results.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks import picture, tables
from benchmarks.contenders import ALL, FOLDER

Row = dict[str, Any]
LABELS = {contender.name: contender.label for contender in ALL}

HEAD = """\
# Benchmarks

Written by `python -m benchmarks.report` from [results.json](results.json); do not edit.

![no-op jobs per second, side by side](picture.svg)
"""

MEASURED = """\
## How it is measured

- Every contender runs the same three jobs ([bodies.py](bodies.py)), counted in the worker processes in shared memory
  ([tally.py](tally.py)), on a Redis of its own that writes nothing to disk, on TCP loopback. Redis, producer and
  workers share the machine's cores.
- **no-op**: all jobs wait before the workers start; timed from the end of the first job to the end of the last. The
  argument has 100 bytes. **50 ms**: jobs that sleep, and the share of what the slots could do without any queue; the
  workers' uneven start counts here, but not in the figures further down. **put**: one by one, without workers.
  **put → body**: one job at a time on an idle queue.
- Each contender is set up as its own documentation recommends for many short I/O jobs; see below. If a library has no
  batched put, jobs are put one by one.
- Contenders take turns, round after round; each figure is the best of its rounds, since other programs can only
  make a round slower. `LPUSH/s` is the rate of bare LPUSH just before and after the same run (the lower one): if it
  differs much, the contenders had, in effect, different machines. Numbers of different runs must not be compared.
- The last column is read from the libraries' code and documentation, as set up here; it is not measured.
"""

LIMITS = """\
What limits these figures:

- **Jobs of 50 ms**: the slots of a consumer fall into step, so that many are empty during the same round trip, and
  gevent's own timers cost some time, too (the minimal loop has both limits). Taking jobs before slots are free would
  hide the round trip, but such a job can be stuck behind long ones; so none is taken ahead.
- **Server time at depth**: a take is O(batch) at any depth (`draining 1,000,000`, jobs/s, shows it); its time
  varies with how much of the memory is in the cache, and from run to run.
- **put → body**: Redis wakes the consumer, which then takes the job: two hops, where bare BRPOP needs one.
- **Items between two processes**: each put waits for Redis' answer. `LPUSH and BRPOP` in the table is the best
  that is possible that way, without any promise; a manager keeps its items in its own memory. `put_many` and a loop
  over the queue save the round trips.
"""

AGAIN = """\
## Run it again

    pip install -e '.[dev]'                       # and a redis-server on PATH
    python -m benchmarks.venvs                    # the other libraries, each in benchmarks/.venvs/NAME
    python -m benchmarks                          # about 12 minutes on 2 cores; writes results.json
    python -m benchmarks.report                   # writes README.md and picture.svg

`--quick` runs a tenth of the jobs, `--only ours,celery` some of the contenders, `--only-figures` the figures of rq_lite
alone, `--calm 30` waits up to 30 s for an idle machine before each measurement. Only a complete run replaces
results.json. Versions are pinned in [requirements-peers.txt](requirements-peers.txt).
"""


@click.command()
@click.argument(
    "results", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=FOLDER / "results.json"
)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, help="Where to write.")
def main(results: Path, folder: Path) -> None:
    """Write README.md and picture.svg."""
    found = json.loads(results.read_text())
    if not found["contenders"]:
        raise click.UsageError(f"{results} has no contenders: a report needs a complete run of `python -m benchmarks`")
    (folder / "README.md").write_text(report(found))
    (folder / "picture.svg").write_text(picture.draw(found))


def report(found: Row) -> str:
    by_rate = sorted(found["contenders"], key=noop_rate, reverse=True)
    parts = [HEAD, conditions(found), "## Side by side\n", *contenders(by_rate), left_out(found), MEASURED]
    parts += [*figures(found["figures"]), "## Versions and settings\n", settings(by_rate), AGAIN]
    return "\n".join(part for part in parts if part)


def conditions(found: Row) -> str:
    machine = found["machine"]
    warning = "**A smoke run with a tenth of the jobs: its numbers mean nothing.** " if found["quick"] else ""
    return (
        f"{warning}{machine['date']}, {machine['cores']} cores ({machine['processor']}), {machine['system']}, "
        f"Redis {machine['redis']}, Python {machine['python']}. 2 worker processes × 200 jobs at a time; 2 × 1 if a "
        "process runs one job at a time (marked ¹).\n"
    )


def contenders(found: list[Row]) -> Iterator[str]:
    ours = next((noop_rate(row) for row in found if row["name"] == "ours"), None)
    yield table(
        (
            "",
            "no-op jobs/s",
            "rq_lite is",
            "1 process",
            "50 ms jobs/s",
            "put/s",
            "batched put/s",
            "put → body, ms p50 (p99)",
            "Redis bytes per waiting job",
            "LPUSH/s",
            "a job whose worker is killed",
        ),
        (contender_row(row, ours) for row in found),
    )


def contender_row(row: Row, ours: float | None) -> list[str]:
    by_procs = {noop["procs"]: noop for noop in row["noop"]}
    mark = "" if row["concurrent"] else " ¹"
    name = f"**{row['label']}**" if row["name"] == "ours" else row["label"] + mark
    ratio = "" if ours is None or row["name"] == "ours" else f"{tables.short(ours / noop_rate(row))} ×"
    return [
        name,
        f"{noop_rate(row):,.0f}",
        ratio,
        tables.number(by_procs.get(1, {}).get("per_second")),
        f"{row['nap']['per_second']:,.0f} ({row['nap']['ideal']:.0%})",
        f"{row['put']['per_second']:,.0f}",
        tables.number(by_procs[2]["batched_puts_per_second"]),
        f"{row['ping']['p50_ms']:.2f} ({row['ping']['p99_ms']:.1f})",
        f"{by_procs[2]['redis_bytes_per_waiting_job']:,.0f}",
        f"{min(by_procs[2]['reference']):,}",
        row["killed"],
    ]


def noop_rate(row: Row) -> float:
    return picture.rate(row)


def left_out(found: Row) -> str:
    """The contenders that were not measured, and why, in one line each."""
    lines = [f"- {LABELS.get(name, name)}: {one_line(reason)}" for name, reason in found["left_out"].items()]
    return "\n".join(["Not measured:", "", *lines, ""]) if lines else ""


def figures(found: list[Row]) -> Iterator[str]:
    if not found:
        return
    judged = [figure for figure in found if figure["met"] is not None]
    missed = [figure["name"] for figure in judged if not figure["met"]]
    yield "## rq_lite alone\n"
    yield f"{len(judged) - len(missed)} of {len(judged)} targets are met. " + (
        f"Not met: {'; '.join(missed)}.\n" if missed else "\n"
    )
    yield table(("", "measured", "target", "met", "others' load"), map(figure_row, found))
    yield "\n".join(f"{number}. {figure['name']}: {one_line(figure['how'])}." for number, figure in enumerate(found, 1))
    yield (
        "\nOthers' load is the share of all cores that other programs used just before and just after "
        "the measurement.\n"
    )
    yield LIMITS


def figure_row(figure: Row) -> list[str]:
    met = {True: "yes", False: "**no**", None: ""}[figure["met"]]
    others = " / ".join(f"{share:.0%}" for share in figure["others"])
    target = "" if figure["target"] is None else tables.target(figure)
    return [figure["name"], tables.measured(figure), target, met, others]


def settings(found: list[Row]) -> str:
    lines = []
    for row in found:
        versions = ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        command = row["worker"].replace("{python}", "python").replace("{bin}/", "")
        lines.append(f"- **{row['label']}**: `{command}`; {row['settings']}. {versions}.")
        lines += [f"  Its workers logged: {one_line(complaint)}" for complaint in row["complaints"]]
    return "\n".join(lines) + "\n"


def table(headings: tuple[str, ...], rows: Iterable[list[str]]) -> str:
    lines = [headings, ("---", *["---:"] * (len(headings) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()[:400]


if __name__ == "__main__":
    main()

"""Prints which promises a history breaks: `python -m rq_lite.chaos.check FOLDER`.

Exit code 0: every promise held, one line of figures. 1: a line for each broken promise. 2: this is not a history.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path

import click
import msgspec

from rq_lite.chaos.invariants import Demands, judge, recoveries, told
from rq_lite.chaos.ledger import PUT, SEEN, UNSURE, Ledger
from rq_lite.chaos.once import Finding
from rq_lite.chaos.reading import History, moments, open_folder
from rq_lite.errors import UsageError, counted

SHOWN = 20  # violations that the program shows


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a history shows."""

    violations: tuple[str, ...]  # each begins with the name of its invariant, I1 to I16
    put: int  # jobs whose put was answered with ok
    lost: int  # jobs with a finding I1 LOST
    accepted_twice: int  # jobs with a breach of I5
    recovered: int  # jobs whose put was never answered, but which were in Redis
    runs: int
    distinct: int  # jobs that ran
    again: int  # jobs that ran more than once
    accepted: int  # acks that were certainly accepted
    stale: int  # results that were refused
    buried: int  # jobs in the dead sets at the end
    faults: int
    inflight: int  # jobs in flight at the faults, together
    gaps: tuple[float, ...]  # seconds from the end of a fault until jobs were taken (infinite: never), if any waited
    jobs_per_second: float  # from the start of the first run to the end of the last

    @property
    def recovery(self) -> float | None:
        """The longest gap; None: no job waited at the end of any fault."""
        return max(self.gaps, default=None)

    @property
    def ok(self) -> bool:
        return not self.violations

    def figures(self) -> str:
        """The figures in one line."""
        parts = [
            f"{self.put:,} put"
            + (f" and {self.recovered:,} of unknown outcome that were stored" if self.recovered else ""),
            f"{counted(self.runs, 'run')} of {counted(self.distinct, 'job')} ({self.again:,} ran again)",
            f"{self.accepted:,} accepted, {self.stale:,} stale",
            f"{counted(self.faults, 'fault')} with {self.inflight:,} in flight",
            *([] if self.recovery is None else [back_after(self.recovery)]),
            f"{self.jobs_per_second:,.0f} jobs/s",
        ]
        return ", ".join(parts)


def struck(findings: list[Finding], kind: str) -> int:
    """How many jobs have findings of this kind; a finding without a job counts as one."""
    return len({text if job is None else job for text, job in findings if text.startswith(kind)})


def back_after(recovery: float) -> str:
    return "not back after every fault" if recovery == math.inf else f"back after at most {recovery:.1f} s"


def check(history: Path | History, demands: Demands | None = None) -> Verdict:
    """Judge a folder of *.jsonl files, or the lines of such files by their names.

    Raises UsageError, naming file and line, if it is not a history.
    """
    ledger = Ledger()
    for name, lines in open_folder(history) if isinstance(history, Path) else history.items():
        ledger.read(name, moments(name, lines))
    return verdict(ledger, list(judge(ledger, demands or Demands())))


def verdict(ledger: Ledger, findings: list[Finding]) -> Verdict:
    runs, marks = ledger.jobs.runs, ledger.jobs.marks
    seconds = ledger.last_run - ledger.first_run
    return Verdict(
        violations=tuple(told(ledger, findings)),
        lost=struck(findings, "I1 LOST"),
        accepted_twice=struck(findings, "I5"),
        put=sum(1 for mark in marks if mark & PUT),
        recovered=sum(1 for mark in marks if mark & (PUT | UNSURE | SEEN) == UNSURE | SEEN),
        runs=sum(runs),
        distinct=sum(1 for count in runs if count),
        again=sum(1 for count in runs if count > 1),
        accepted=sum(lane.accepted for lane in ledger.lanes.values()),
        stale=ledger.stale,
        buried=sum(len(state.dead) for state in ledger.final.queues.values()) if ledger.final else 0,
        faults=ledger.faults,
        inflight=ledger.inflight,
        gaps=tuple(gap for _, gap in recoveries(ledger)),
        jobs_per_second=sum(runs) / seconds if 0 < seconds < math.inf else 0.0,
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--drained", is_flag=True, help="No job may be left to run (I2).")
@click.option("--fifo", is_flag=True, help="Jobs must begin in the order of their puts: one consumer, one slot (I10).")
@click.option(
    "--recover", type=float, metavar="SECONDS", help="Jobs must be taken within this time after each fault (I11)."
)
@click.option("--most-runs", type=int, metavar="N", help="No job may run more often (I12).")
def command(folder: Path, drained: bool, fifo: bool, recover: float | None, most_runs: int | None) -> None:
    """Print which promises the history in FOLDER breaks."""
    demands = Demands(drained=drained, fifo=fifo, recover=recover, most_runs=most_runs)
    try:
        found = check(folder, demands)
    except UsageError as error:
        click.echo(f"check: {error}", err=True)
        sys.exit(error.exit_code)
    for violation in found.violations[:SHOWN]:
        click.echo(violation)
    if rest := Counter(violation.split()[0] for violation in found.violations[SHOWN:]):
        kinds = ", ".join(f"{count:,} of {name}" for name, count in rest.items())
        click.echo(f"and {sum(rest.values()):,} more: {kinds}")
    click.echo(found.figures())
    sys.exit(0 if found.ok else 1)


if __name__ == "__main__":
    command()

"""Readings are stored a hundred at a time, and each is still a job that is done, tried again or given up by itself."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rq_lite import BatchFailed, JobFailed, Queue
from rq_lite.testing import worker

readings = Queue("readings", maxsize=1_000)


@dataclass
class Reading:
    file: str
    sensor: str
    celsius: float


@readings.task(batch=100, batch_wait=0.2, result_ttl=60)
def store(those: list[Reading]) -> None:
    """Called with up to a hundred readings; each was put as `store.put(reading)`."""
    bad = {n: ValueError("colder than possible") for n, one in enumerate(those) if one.celsius < -273.15}
    rows = [(one.sensor, one.celsius) for n, one in enumerate(those) if n not in bad]
    with sqlite3.connect(those[0].file) as database:
        database.executemany("insert into readings values (?, ?)", rows)
    print(f"> one call for {len(those)} jobs, stored: {len(rows)}")
    raise BatchFailed(bad)  # these jobs have failed, the others are done


def main() -> None:
    with TemporaryDirectory() as folder:
        file = str(Path(folder) / "readings.db")
        with sqlite3.connect(file) as database:
            database.execute("create table readings (sensor text, celsius real)")
        jobs = [store.put(Reading(file, f"sensor {n}", n - 400.0 if n == 100 else 20.5)) for n in range(250)]
        with worker("examples.batches", greenlets=200) as running:
            readings.join()
            print(*sorted(line for line in running.said.splitlines() if line.startswith(">")), sep="\n")
        try:
            jobs[100].result(timeout=10)
        except JobFailed as error:
            print(f"job 100: {error.type}: {error.message}; job 101: {jobs[101].result(timeout=10)}")
        print("rows:", database.execute("select count(*) from readings").fetchone()[0])


if __name__ == "__main__":
    main()

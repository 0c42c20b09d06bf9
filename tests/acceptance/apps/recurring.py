"""An app whose tasks have schedules."""

from rq_lite import Queue
from tests.acceptance.apps.evidence import note

queue = Queue("work", maxsize=10)


@queue.task(every=1, args=["tick"], name="tick")
def tick(word: str) -> None:
    note("ticks", word)


@queue.task(cron="0 0 1 1 *", tz="Europe/Berlin", missed="skip", name="yearly")
def yearly() -> None:
    note("years", "year")


@queue.task(name="greet")
def greet(name: str, times: int = 1) -> None:
    note("greeted", f"{name}×{times}")

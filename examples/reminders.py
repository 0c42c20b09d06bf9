"""Later: after a delay, or at a time in a time zone."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from rq_lite import Queue
from rq_lite.testing import worker

reminders = Queue("reminders", maxsize=10)


@reminders.task
def remind(text: str) -> None:
    print(f"reminder: {text}")


def main() -> None:
    with worker("examples.reminders") as running:
        now = datetime.now(ZoneInfo("Europe/Berlin"))
        remind.using(at=now - timedelta(days=1)).put("buy tea")  # in the past: runs now
        remind.using(delay=2).put("the tea is ready")
        remind.using(at=now + timedelta(seconds=1)).put("pour the water")
        reminders.join()
        print(*(line for line in running.said.splitlines() if line.startswith("reminder")), sep="\n")


if __name__ == "__main__":
    main()

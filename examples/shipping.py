"""Jobs that are tried again, given up and cut short; and what a put says no to."""

import time
from datetime import timedelta

from rq_lite import BadArgument, Bury, Ended, Queue, QueueFull, Retry, current_job
from rq_lite.testing import worker

shipping = Queue("shipping", maxsize=3)


@shipping.task
def tell(ended: Ended) -> None:
    kind, _, _text = (ended.error or "").partition(":")
    print(f"> order {ended.args[0]}: given up after attempt {ended.attempts}, {kind}")


@shipping.task(retries=2, on_failure=tell)
def ship(order: int) -> None:
    job = current_job()
    if order == 2 and job is not None and job.attempt == 1:
        raise Retry("the van is full", delay=timedelta(seconds=0.2))  # an attempt of the three
    if order == 3:
        raise Bury("it was paid back")  # no other attempt can help
    if order == 4:
        try:
            time.sleep(60)
        finally:  # no `except` sees that the time is up
            print("> order 4: tidied up")
    print(f"> order {order}: shipped, attempt {job.attempt if job else 0}")


def main() -> None:
    ship.put(1)
    ship.put_many([2, 3])
    try:
        ship.put_nowait(4)
    except QueueFull as full:
        print(f"full: {full.size} of {full.maxsize}")
    try:
        ship.put({4})  # type: ignore[arg-type]
    except BadArgument as error:
        print(error)
    with worker("examples.shipping") as running:
        ship.using(timeout=0.3, retries=0).put(4)  # waits for room
        shipping.join()
        print(*sorted(line for line in running.said.splitlines() if line.startswith(">")), sep="\n")


if __name__ == "__main__":
    main()

"""Cancel a job that runs, and one that waits; one that has ended cannot be cancelled any more."""

import time
from concurrent.futures import CancelledError

from rq_lite import Queue
from rq_lite.testing import worker

queue = Queue("cancel", maxsize=10)


@queue.task(result_ttl=60)
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return f"slept for {seconds:g} s"


def main() -> None:
    with worker("examples.cancel", greenlets=1):  # one job at a time
        running, waiting, short = sleep.put(600), sleep.put(600), sleep.put(0.1)
        while not running.running():
            time.sleep(0.05)
        print("the waiting one:", waiting.cancel())
        print("the running one:", running.cancel())
        try:
            running.result(timeout=30)
        except CancelledError:
            print("interrupted:", running.cancelled())
        print(short.result(timeout=30))  # its turn has come
        print("one that is done:", short.cancel())


if __name__ == "__main__":
    main()

"""Again and again: a task that runs every second; workers put its jobs."""

import time

from rq_lite import Queue
from rq_lite.testing import worker

heart = Queue("heart")


@heart.task(every=1, args=["lub-dub"])
def beat(sound: str) -> None:
    print(sound)


def main() -> None:
    with worker("examples.heartbeat") as running:
        while running.said.count("lub-dub") < 3:
            time.sleep(0.05)
        print("it beats")


if __name__ == "__main__":
    main()

"""A master hands out numbers, workers on any hosts factor them, the results come back: all of it signed.

On each host:        RQ_LITE_URL=… RQ_LITE_SECRET=… rq-lite work examples.master -q numbers
Beside the master:   RQ_LITE_URL=… RQ_LITE_SECRET=… rq-lite work examples.master -q factors
"""

import os
from contextlib import ExitStack

from rq_lite import Queue
from rq_lite.testing import worker

os.environ.setdefault("RQ_LITE_SECRET", "known to master and workers")

numbers = Queue("numbers", maxsize=100)  # a master that is faster than its workers waits
factors = Queue("factors", maxsize=100)


@numbers.task(retries=3)
def factor(number: int) -> None:
    found, rest, candidate = [], number, 2
    while rest > 1:
        while rest % candidate == 0:
            found.append(candidate)
            rest //= candidate
        candidate += 1
    collect.put(number, found)


@factors.task
def collect(number: int, found: list[int]) -> None:
    print(f"{number} = {' * '.join(map(str, found))}")


def main() -> None:
    with ExitStack() as running:
        for _host in range(2):
            running.enter_context(worker("examples.master", queues=["numbers"]))
        desk = running.enter_context(worker("examples.master", queues=["factors"]))
        factor.put_many(range(2000, 2006))
        numbers.join()  # then all results were put
        factors.join()
        print("\n".join(sorted(line for line in desk.said.splitlines() if line.startswith("200"))))


if __name__ == "__main__":
    main()

"""`concurrent.futures.Executor` on a queue: as with a pool of threads, but on as many machines as there are."""

import math

from rq_lite import Executor, Queue, as_completed
from rq_lite.testing import worker

numbers = Queue("numbers", maxsize=1_000)
numbers.task(math.factorial)  # another module's function: workers run only what their app registers


@numbers.task
def collatz(n: int) -> int:
    """How many steps from n to 1."""
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def main() -> None:
    with worker("examples.executor"), Executor(numbers) as executor:
        print(max(executor.map(collatz, range(1, 3001))))  # put by the chunk, at most 2,000 ahead
        jobs = [executor.submit(math.factorial, n) for n in range(10)]
        print(sum(job.result() for job in as_completed(jobs)))


if __name__ == "__main__":
    main()

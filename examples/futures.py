"""Results of jobs: waited for one by one, as they come, and in asyncio; errors come back as text."""

import asyncio

from rq_lite import JobFailed, Queue, as_completed, gather
from rq_lite.testing import worker

sums = Queue("sums", maxsize=100)


@sums.task(result_ttl=60)  # kept for a minute
def divide(a: int, b: int) -> float:
    return a / b


async def ask() -> object:
    return await divide.put(9, 2)


def main() -> None:
    with worker("examples.futures"):
        job = divide.put(6, 4)
        print(job.result(timeout=10), job.done())

        jobs = [divide.put(n, 2) for n in range(5)]
        print(gather(*jobs))
        print(sum(done.result() for done in as_completed(jobs, timeout=10)))

        try:
            divide.put(1, 0).result(timeout=10)
        except JobFailed as error:
            print(error.type, "-", error.message)
            print(error.traceback.splitlines()[-1])

        print(asyncio.run(ask()))


if __name__ == "__main__":
    main()

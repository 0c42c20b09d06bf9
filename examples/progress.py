"""A job says how far it is, and the producer that waits for its result sees it."""

import time

from rq_lite import Queue, current_job
from rq_lite.testing import worker

queue = Queue("progress", maxsize=10)


@queue.task(result_ttl=60)
def letters(words: list[str]) -> int:
    job = current_job()  # None where the function is just called
    count = 0
    for number, word in enumerate(words, 1):
        count += len(word)
        if job is not None:
            job.progress(number, total=len(words), note=word)
    time.sleep(2)  # long enough to be seen
    return count


def main() -> None:
    with worker("examples.progress"):
        job = letters.put(["one", "two", "three"])
        while not job.done():
            if job.progress is not None and job.progress.done == job.progress.total:
                print(f"{job.progress.done} of {job.progress.total}: {job.progress.note}")
                break
            time.sleep(0.05)
        print(job.result(timeout=30), "letters")


if __name__ == "__main__":
    main()

"""The failures of all tasks in one place, and how long their jobs take; the tasks themselves have no code for it."""

import rq_lite
from rq_lite.testing import worker

parcels = rq_lite.Queue("parcels", maxsize=10)


@rq_lite.middleware
class Diary:
    def after_put(self, job: rq_lite.JobEvent) -> None:
        print(f"put: {job.args[0]}")

    def after_run(self, job: rq_lite.JobEvent) -> None:
        how = "returned" if job.exception is None else f"raised {job.exception!r}"
        print(f"> {job.args[0]}, run {job.attempt}: {how}, {'slow' if job.seconds > 60 else 'quick'}")

    def on_retry(self, job: rq_lite.JobEvent) -> None:
        print(f"> {job.args[0]}, run {job.attempt}: again in {job.delay} s")

    def on_bury(self, job: rq_lite.JobEvent) -> None:
        print(f"> {job.args[0]}, run {job.attempt}: given up, {job.error}")


@parcels.task
def send(town: str) -> None:
    if town == "Atlantis":
        raise LookupError("it is under water")


@parcels.task(retries=1, run_in="process")
def weigh(town: str) -> None:
    job = rq_lite.current_job()
    if job is not None and job.attempt == 1:
        raise rq_lite.Retry(f"the scales in {town} are taken", delay=0.1)


def main() -> None:
    send.put_many(["Bern", "Atlantis"])
    weigh.put("Oslo")
    with worker("examples.hooks", greenlets=1) as running:
        parcels.join()
        print(*sorted(line for line in running.said.splitlines() if line.startswith(">")), sep="\n")


if __name__ == "__main__":
    main()

"""Reports for two customers, told apart by their tags: from outside, and in the job itself."""

from rq_lite import Queue, admin, current_job
from rq_lite.testing import worker

reports = Queue("reports", maxsize=10)


@reports.task(tags=["report"])
def draw(month: str) -> None:
    job = current_job()
    print(f"> {month}: {', '.join(job.tags) if job else 'just called'}")


def main() -> None:
    draw.put("May")
    for month, customer in (("June", 7), ("July", 8)):
        draw.using(tags=["report", f"customer-{customer}"]).put(month)
    waiting = admin.listed(reports.broker, "reports", admin.State.PENDING)
    print("of customer 7:", sum("customer-7" in job.tags for job in waiting))
    with worker("examples.tags", greenlets=1) as running:
        reports.join()
        print(*(line for line in running.said.splitlines() if line.startswith(">")), sep="\n")


if __name__ == "__main__":
    main()

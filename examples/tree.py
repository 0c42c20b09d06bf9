"""Follow-ups: a job says which jobs follow it, and they are put only if its run succeeds."""

from rq_lite import Queue, current_job
from rq_lite.testing import worker

TREE = {"/": ["/home", "/usr"], "/home": ["/home/ada"], "/usr": ["/usr/bin", "/usr/lib"]}

folders = Queue("folders", maxsize=10)


@folders.task(retries=1, backoff=0.1)
def look(folder: str, depth: int = 0) -> None:
    job = current_job()
    assert job is not None
    for inside in TREE.get(folder, []):
        job.then(look.s(inside, depth + 1))
    if folder == "/usr" and job.attempt == 1:
        raise OSError("the disk did not answer")  # nothing follows this run
    print(f"> {'  ' * depth}{folder}")


def main() -> None:
    look.put("/")
    with worker("examples.tree", greenlets=1) as running:
        folders.join()
        print(*sorted(line for line in running.said.splitlines() if line.startswith(">")), sep="\n")


if __name__ == "__main__":
    main()

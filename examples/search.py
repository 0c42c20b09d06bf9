"""The newest wins: ten quick edits of a page make one job, which has the last of them."""

from rq_lite import JobReplaced, Queue
from rq_lite.testing import worker

pages = Queue("pages", maxsize=100)


@pages.task(unique="{page}", on_conflict="replace", max_wait=5, result_ttl=60)
def index(page: str, text: str) -> str:
    return f"{page} has the text {text!r}"


def main() -> None:
    edits = [index.using(delay=0.5).put("home", f"edit {number}") for number in range(10)]
    with worker("examples.search"):
        print(edits[-1].result(timeout=30))
    try:
        edits[0].result(timeout=30)
    except JobReplaced as error:
        print(f"the first: {error.message}")


if __name__ == "__main__":
    main()
